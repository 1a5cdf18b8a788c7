//! Makes the socket. Its folder is checked, a stale file is told from a live daemon, and the name
//! appears only when owner and mode are right and the socket is listening.
//!
//! No lock is taken: everybody who may open the folder could hold the lock and keep the daemon from
//! starting. Instead, the socket is made under a name that cannot be foreseen and then gets its own
//! name by `link`, which never replaces anything. A stale socket is exchanged for ours in one step,
//! and then we check what came out of the exchange. If another daemon had replaced the stale one in
//! the meantime, it gets its name back. If three daemons replace one stale socket within the same
//! microseconds, two can be left that believe to have it. On a file system that cannot exchange
//! names (`EINVAL`), two daemons suffice for that.

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

/// The number of connections that the kernel keeps for us until they are accepted. The kernel caps
/// it at net.core.somaxconn, which is 4096 today. A smaller number would refuse callers when all
/// workers of a host start at once.
const BACKLOG: i32 = 4096;

/// The longest path of a socket address, in bytes.
const LONGEST: usize = 107;

/// The prefix of temporary socket names.
const PREFIX: &str = ".tk";

/// The number of random characters of [`ALPHABET`] after the prefix.
const RANDOM: usize = 5;

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// How often another name is tried, or the existing one is checked again, after another process was
/// faster.
const ATTEMPTS: usize = 16;

/// A temporary socket older than this was left by a killed daemon.
const LEFT_OVER: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another daemon serves the socket.
    #[error("{path} is served by another process{pid}; stop that one first, or set another `socket`", path = .path.display(), pid = said(*.pid))]
    Taken {
        path: PathBuf,
        /// The process that serves it, if the kernel says.
        pid: Option<i32>,
    },
    /// Something that is not a socket has the name.
    #[error("{} exists and is not a socket; it is left alone: remove it, or set another `socket`", .0.display())]
    NotASocket(PathBuf),
    /// Others could replace our socket with their own.
    #[error("the folder {path} {why}; {cure}", path = .path.display())]
    Folder {
        path: PathBuf,
        why: String,
        cure: String,
    },
    /// The name does not fit into a socket address.
    #[error("the socket's path {} has {length} bytes, and the kernel takes at most 107: set a shorter `socket`", .path.display())]
    TooLong {
        path: PathBuf,
        /// The length of `path`, in bytes.
        length: usize,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}", path = .path.display())]
    System {
        /// What the daemon tried to do.
        action: &'static str,
        /// The path that it tried to do it with.
        path: PathBuf,
        source: io::Error,
    },
}

fn said(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

/// A listening socket. Dropping it removes the name, if it is still ours.
#[derive(Debug)]
pub struct Bound {
    listener: Option<UnixListener>,
    path: PathBuf,
    identity: FileId,
}

impl Bound {
    /// The listening socket. Only the first call returns it.
    pub fn take_listener(&mut self) -> Option<UnixListener> {
        self.listener.take()
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the socket's name refers to now.
    #[must_use]
    pub fn whose(&self) -> PathOwner {
        match identity(&self.path) {
            Ok(found) if found == self.identity => PathOwner::Ours,
            Err(error) if error.kind() == io::ErrorKind::NotFound => PathOwner::Nobodys,
            // A file that cannot be examined is not ours to touch.
            Ok(_) | Err(_) => PathOwner::Others,
        }
    }
}

/// What a socket's name refers to.
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
            // Nobody is left to be told of an error.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds `path` and listens, with `mode` and, where given, `group`.
///
/// # Errors
/// [`BindError`]. What was there before is left as it was, except for a stale socket.
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
    // Checked before anything is made.
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
    // This is gone already, or ours under a name that is not needed any more, or the old stale
    // socket.
    let _ = fs::remove_file(&new);
    Ok(Bound {
        identity: outcome?,
        listener: Some(UnixListener::from(socket)),
        path,
    })
}

/// Changes the group only if it differs. The sandbox of the shipped unit refuses every `chown`,
/// even one that changes nothing.
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
    // The name is shorter if only short names fit. The socket's own name fits and has at least one
    // byte.
    let room = LONGEST.saturating_sub(folder.join("x").as_os_str().len() - 1);
    for _ in 0..ATTEMPTS {
        let name = random_name()?;
        let new = folder.join(&name[name.len().saturating_sub(room)..]);
        // If there is room for one letter only, the name may be the final one.
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

/// Removes what daemons left that were killed while they made a socket: old sockets of our user
/// that nobody listens on.
fn clear(folder: &Path) {
    // A folder that may be used but not read keeps what is in it.
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
            // A file that stays is in nobody's way.
            let _ = fs::remove_file(&path);
        }
    }
}

/// Gives the socket `new` its name, unless another process serves under it.
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
        // Another daemon may have put our socket here when it gave back what it had exchanged.
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

/// Replaces the stale socket with `new`. Returns false, and changes nothing, if the stale socket is
/// not there any more.
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

/// Checks the socket's path. Returns None if nothing is there, and the identity of a socket that
/// nobody listens on. Anything else is an error.
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

/// The process that listens at `path`, if there is one and the kernel says which. Never waits.
#[must_use]
pub fn listener(path: &Path) -> Option<UCred> {
    match ask(&SocketAddrUnix::new(path).ok()?) {
        Ok(ProbeAnswer::Served(listener)) => listener,
        Ok(ProbeAnswer::Refused | ProbeAnswer::Gone) | Err(_) => None,
    }
}

/// The result of connecting to a socket.
enum ProbeAnswer {
    /// A process serves it; the kernel may say which.
    Served(Option<UCred>),
    /// Nobody listens.
    Refused,
    /// The name is not there any more.
    Gone,
}

/// Connects without waiting. A listening process may have a full backlog and accept nothing.
fn ask(address: &SocketAddrUnix) -> io::Result<ProbeAnswer> {
    let socket = socket()?;
    Ok(match rustix::net::connect(&socket, address) {
        Ok(()) => ProbeAnswer::Served(rustix::net::sockopt::socket_peercred(&socket).ok()),
        Err(Errno::CONNREFUSED) => ProbeAnswer::Refused,
        Err(Errno::NOENT) => ProbeAnswer::Gone,
        // The backlog is full or permission is missing, so a process has the socket.
        Err(_) => ProbeAnswer::Served(None),
    })
}

#[cfg(test)]
mod tests;
