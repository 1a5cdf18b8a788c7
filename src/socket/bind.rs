//! Making the socket: its folder is looked at, a stale file is told from a live daemon, and the
//! name appears only when owner and mode are right and it is being listened on.
//!
//! No lock is taken: whoever may open the folder could hold it and keep the daemon from starting.
//! Instead, the socket is made under a name that cannot be foreseen and then given its own name by
//! `link`, which never replaces anything. A stale socket is exchanged for ours in one step, and
//! what came out of the exchange is looked at: had another daemon replaced the stale one in the
//! meantime, it gets its name back. Three daemons that replace one stale socket within the same
//! microseconds can leave two that believe to have it; a file system that cannot exchange names
//! (`EINVAL`), two.

pub mod folder;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, UCred};
use rustix::process::geteuid;

/// Connections that the kernel keeps for us until they are accepted. The kernel caps it at
/// net.core.somaxconn, which is 4096 today; fewer would refuse callers when a host's workers all
/// start at once.
const BACKLOG: i32 = 4096;

/// A socket address' longest path, in bytes.
const LONGEST: usize = 107;

/// How names of sockets in the making begin.
const PREFIX: &str = ".tk";

/// What follows it, in characters of [`ALPHABET`].
const RANDOM: usize = 5;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Another name, or another look at the one that is there, after somebody was faster.
const ATTEMPTS: usize = 16;

/// Nothing is in the making for so long: it is what a killed daemon left.
const LEFT_OVER: Duration = Duration::from_secs(60);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A daemon is there.
    #[error("{path} is served by another process{pid}; stop that one first, or set another `socket`", path = .path.display(), pid = said(*.pid))]
    Taken {
        /// The socket.
        path: PathBuf,
        /// Who has it, if the kernel says.
        pid: Option<i32>,
    },
    /// Something that is not a socket is there.
    #[error("{} exists and is not a socket; it is left alone: remove it, or set another `socket`", .0.display())]
    NotASocket(PathBuf),
    /// Others could put their own socket in place of ours.
    #[error("the folder {path} {why}; {cure}", path = .path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
        /// What to do.
        cure: String,
    },
    /// The name does not fit into a socket address.
    #[error("the socket's path {} has {length} bytes, and the kernel takes at most 107: set a shorter `socket`", .path.display())]
    TooLong {
        /// The socket.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// The system says no.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    System {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
}

fn said(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// A socket that is listened on. Dropping it removes the name, if it is still ours.
#[derive(Debug)]
pub struct Bound {
    listener: Option<UnixListener>,
    path: PathBuf,
    identity: FileId,
}

impl Bound {
    /// The listening socket, once.
    pub fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    /// Its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is there under its name now.
    #[must_use]
    pub fn whose(&self) -> PathOwner {
        match identity(&self.path) {
            Ok(found) if found == self.identity => PathOwner::Ours,
            Err(error) if error.kind() == io::ErrorKind::NotFound => PathOwner::Nobodys,
            // Whatever cannot be looked at is not ours to touch.
            Ok(_) | Err(_) => PathOwner::Others,
        }
    }
}

/// What is there under a socket's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOwner {
    /// Our socket.
    Ours,
    /// Nothing.
    Nobodys,
    /// Something else.
    Others,
}

impl Drop for Bound {
    fn drop(&mut self) {
        if is(&self.path, self.identity) {
            // Nobody is left to be told.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path` and listens, with `mode` and, where given, `group`.
///
/// # Errors
/// [`BindError`]; what was there before is left as it was, but for a stale socket.
pub fn bind(path: &Path, mode: u32, group: Option<u32>) -> Result<Bound, BindError> {
    let system = |action, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| BindError::System {
            action,
            path,
            source,
        }
    };
    let path = std::path::absolute(path).map_err(system("resolve", path))?;
    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
    folder::make_and_check(&folder)?;
    let length = path.as_os_str().len();
    let address = SocketAddrUnix::new(&path).map_err(|_| BindError::TooLong {
        path: path.clone(),
        length,
    })?;
    // Before anything is made.
    occupied(&path, &address)?;
    clear(&folder);
    let socket = socket().map_err(system("make a socket for", &path))?;
    let new = bind_new(&socket, &folder, &path).map_err(system("bind", &path))?;
    let finish = || {
        give(&new, group).map_err(system("give to its group the socket", &path))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))
            .map_err(system("set the mode of", &path))?;
        rustix::net::listen(&socket, BACKLOG)
            .map_err(io::Error::from)
            .map_err(system("listen on", &path))?;
        let ours = identity(&new).map_err(system("look at", &path))?;
        put_in_place(&new, &path, &address, ours)?;
        Ok(ours)
    };
    let outcome = finish();
    // Gone already, ours under a name that is not needed any more, or the stale one that was there.
    let _ = fs::remove_file(&new);
    Ok(Bound {
        identity: outcome?,
        listener: Some(UnixListener::from(socket)),
        path,
    })
}

/// Asks only for what is not so already: the sandbox of the shipped unit refuses every `chown`, one
/// that changes nothing too.
fn give(socket: &Path, group: Option<u32>) -> io::Result<()> {
    match group {
        Some(group) if fs::metadata(socket)?.gid() != group => {
            std::os::unix::fs::chown(socket, None, Some(group))
        }
        _ => Ok(()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let made = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None);
    made.map_err(io::Error::from)
}

/// Binds to a name in the folder that nobody can have foreseen and taken.
fn bind_new(socket: &OwnedFd, folder: &Path, path: &Path) -> io::Result<PathBuf> {
    // Shorter where only short names fit; the socket's own name, which fits, has at least one byte.
    let room = LONGEST.saturating_sub(folder.join("x").as_os_str().len() - 1);
    for _ in 0..ATTEMPTS {
        let name = random_name()?;
        let new = folder.join(&name[name.len().saturating_sub(room)..]);
        // Where there is room for one letter only, it may be the very name that it is to have in
        // the end.
        if new == path {
            continue;
        }
        let address = SocketAddrUnix::new(&new)?;
        match rustix::net::bind(socket, &address) {
            Ok(()) => return Ok(new),
            Err(Errno::ADDRINUSE) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Errno::ADDRINUSE.into())
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; RANDOM];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let random = bytes
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
    Ok(PREFIX.chars().chain(random).collect())
}

/// Removes what daemons left that were killed while they made a socket: our user's, old, and nobody
/// listens.
fn clear(folder: &Path) {
    // A folder that may be used but not be read keeps what is in it.
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let random = path
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix(PREFIX));
        let named = random.is_some_and(|random| {
            random.len() == RANDOM && random.bytes().all(|byte| ALPHABET.contains(&byte))
        });
        if !named {
            continue;
        }
        let old = fs::symlink_metadata(&path).is_ok_and(|found| {
            found.file_type().is_socket()
                && found.uid() == geteuid().as_raw()
                && found
                    .modified()
                    .is_ok_and(|made| made.elapsed().is_ok_and(|age| age > LEFT_OVER))
        });
        let stale = old
            && SocketAddrUnix::new(&path)
                .is_ok_and(|address| matches!(ask(&address), Ok(ProbeAnswer::Refused)));
        if stale {
            // It is in nobody's way if it stays.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Gives the socket `new` its name, unless somebody else serves under it.
fn put_in_place(
    new: &Path,
    path: &Path,
    address: &SocketAddrUnix,
    ours: FileId,
) -> Result<(), BindError> {
    let system = |action| {
        move |source: io::Error| BindError::System {
            action,
            path: path.to_owned(),
            source,
        }
    };
    for _ in 0..ATTEMPTS {
        match fs::hard_link(new, path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(system("put in place")(error)),
        }
        // Another daemon that gave back what it had exchanged may have put ours here.
        if is(path, ours) {
            return Ok(());
        }
        let Some(stale) = occupied(path, address)? else {
            continue;
        };
        if replace(new, path, stale).map_err(system("replace the stale socket"))? {
            return Ok(());
        }
    }
    Err(BindError::Taken {
        path: path.to_owned(),
        pid: None,
    })
}

/// Puts `new` in the place of the stale socket; false, and nothing changed, if that is not there
/// any more.
fn replace(new: &Path, path: &Path, stale: FileId) -> io::Result<bool> {
    let exchange = || renameat_with(CWD, new, CWD, path, RenameFlags::EXCHANGE);
    match exchange() {
        Ok(()) => {}
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::INVAL | Errno::NOSYS) => {
            return if is(path, stale) {
                fs::rename(new, path).map(|()| true)
            } else {
                Ok(false)
            };
        }
        Err(error) => return Err(error.into()),
    }
    if is(new, stale) {
        return Ok(true);
    }
    exchange()?;
    Ok(false)
}

/// Device and inode.
type FileId = (u64, u64);

fn is(path: &Path, expected: FileId) -> bool {
    identity(path).is_ok_and(|found| found == expected)
}

fn identity(path: &Path) -> io::Result<FileId> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// What is at the socket's path: nothing, or a socket that nobody listens on; anything else is an
/// error.
fn occupied(path: &Path, address: &SocketAddrUnix) -> Result<Option<FileId>, BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(BindError::System {
                action: "look at",
                path: path.to_owned(),
                source,
            });
        }
    };
    if !found.file_type().is_socket() {
        return Err(BindError::NotASocket(path.to_owned()));
    }
    match ask(address) {
        Ok(ProbeAnswer::Refused) => Ok(Some((found.dev(), found.ino()))),
        Ok(ProbeAnswer::Gone) => Ok(None),
        Ok(ProbeAnswer::Served(listener)) => Err(BindError::Taken {
            path: path.to_owned(),
            pid: listener.map(|listener| listener.pid.as_raw_nonzero().get()),
        }),
        Err(source) => Err(BindError::System {
            action: "make a socket for",
            path: path.to_owned(),
            source,
        }),
    }
}

/// Who listens at `path`, if somebody does and the kernel says who. Never waits.
#[must_use]
pub fn listener(path: &Path) -> Option<UCred> {
    match ask(&SocketAddrUnix::new(path).ok()?) {
        Ok(ProbeAnswer::Served(listener)) => listener,
        Ok(ProbeAnswer::Refused | ProbeAnswer::Gone) | Err(_) => None,
    }
}

/// What a connection to a socket gives.
enum ProbeAnswer {
    /// Somebody has it; the process, if the kernel says.
    Served(Option<UCred>),
    /// Nobody listens.
    Refused,
    /// The name is not there any more.
    Gone,
}

/// Never waits: whoever listens may have a full backlog and accept nothing.
fn ask(address: &SocketAddrUnix) -> io::Result<ProbeAnswer> {
    let socket = socket()?;
    Ok(match rustix::net::connect(&socket, address) {
        Ok(()) => ProbeAnswer::Served(rustix::net::sockopt::socket_peercred(&socket).ok()),
        Err(Errno::CONNREFUSED) => ProbeAnswer::Refused,
        Err(Errno::NOENT) => ProbeAnswer::Gone,
        // A full backlog or no permission: somebody has it.
        Err(_) => ProbeAnswer::Served(None),
    })
}

#[cfg(test)]
mod tests;
