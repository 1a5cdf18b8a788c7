//! Making the socket: its folder is looked at, a stale file is told from a live daemon, and the name appears only when
//! owner and mode are right and it is being listened on.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::geteuid;

/// Connections that the kernel keeps for us until they are accepted. The kernel caps it at net.core.somaxconn, which is
/// 4096 today; fewer would refuse callers when a host's workers all start at once.
const BACKLOG: i32 = 4096;

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
    identity: (u64, u64),
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
}

impl Drop for Bound {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
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
    make_and_check(&folder)?;
    // Held while names change, so that of two daemons that start together one sees the other's socket.
    let lock = fs::File::open(&folder).map_err(system("open", &folder))?;
    flock(&lock, FlockOperation::LockExclusive)
        .map_err(io::Error::from)
        .map_err(system("lock", &folder))?;
    remove_stale(&path)?;

    // Short, so that it fits where the name itself fits.
    let new = folder.join(".tk");
    let length = path.as_os_str().len();
    let address = SocketAddrUnix::new(&path)
        .and(SocketAddrUnix::new(&new))
        .map_err(|_| BindError::TooLong {
            path: path.clone(),
            length,
        })?;
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .map_err(io::Error::from)
    .map_err(system("make a socket for", &path))?;
    if fs::symlink_metadata(&new).is_ok_and(|found| found.file_type().is_socket()) {
        fs::remove_file(&new).map_err(system("remove the left-over", &new))?;
    }
    rustix::net::bind(&socket, &address)
        .map_err(io::Error::from)
        .map_err(system("bind", &path))?;
    let finish = || {
        if group.is_some() {
            std::os::unix::fs::chown(&new, None, group)
                .map_err(system("give to its group the socket", &path))?;
        }
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))
            .map_err(system("set the mode of", &path))?;
        rustix::net::listen(&socket, BACKLOG)
            .map_err(io::Error::from)
            .map_err(system("listen on", &path))?;
        let identity = identity(&new).map_err(system("look at", &path))?;
        fs::rename(&new, &path).map_err(system("put in place", &path))?;
        Ok(identity)
    };
    let identity = finish().inspect_err(|_| {
        let _ = fs::remove_file(&new);
    })?;
    Ok(Bound {
        listener: Some(UnixListener::from(socket)),
        path,
        identity,
    })
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let found = fs::symlink_metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Makes the folder if only it is missing, and refuses one in which others could replace the socket.
fn make_and_check(folder: &Path) -> Result<(), BindError> {
    match fs::DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(BindError::System {
                action: "make the folder",
                path: folder.to_owned(),
                source,
            });
        }
    }
    let found = fs::metadata(folder).map_err(|source| BindError::System {
        action: "look at the folder",
        path: folder.to_owned(),
        source,
    })?;
    let refuse = |why: String, cure: String| {
        Err(BindError::Folder {
            path: folder.to_owned(),
            why,
            cure,
        })
    };
    if !found.is_dir() {
        return refuse("is not a folder".into(), "set another `socket`".into());
    }
    let us = geteuid().as_raw();
    if found.uid() != us && found.uid() != 0 {
        return refuse(
            format!(
                "belongs to uid {}, who could put another socket in place of ours",
                found.uid()
            ),
            format!(
                "run `chown {us} {}`, or set `socket` to a path in a folder of root's or the daemon's own user",
                folder.display()
            ),
        );
    }
    let sticky = found.mode() & 0o1000 != 0;
    if found.mode() & 0o022 != 0 && !sticky {
        return refuse(
            format!(
                "can be written by others (mode {:04o}), who could put another socket in place of ours",
                found.mode() & 0o7777
            ),
            format!("run `chmod go-w {}`", folder.display()),
        );
    }
    Ok(())
}

/// Removes a socket that nobody listens on; refuses one that somebody does.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
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
    match UnixStream::connect(path) {
        Ok(stream) => Err(BindError::Taken {
            path: path.to_owned(),
            pid: rustix::net::sockopt::socket_peercred(&stream)
                .ok()
                .map(|peer| peer.pid.as_raw_nonzero().get()),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .map_err(|source| BindError::System {
                action: "remove the stale socket",
                path: path.to_owned(),
                source,
            }),
        // A full backlog or no permission: somebody has it.
        Err(_) => Err(BindError::Taken {
            path: path.to_owned(),
            pid: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        folder
    }

    #[test]
    fn the_mode_is_set_and_the_name_goes_with_the_owner() {
        let folder = folder();
        let path = folder.path().join("run/t.sock");
        let bound = bind(&path, 0o660, None).expect("bound");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o660);
        UnixStream::connect(&path).expect("listening");
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_one_is_told_who_has_it() {
        let folder = folder();
        let path = folder.path().join("t.sock");
        let _bound = bind(&path, 0o660, None).expect("bound");
        let refusal = bind(&path, 0o660, None).expect_err("taken").to_string();
        assert!(
            refusal.contains(&format!("pid {}", std::process::id())),
            "{refusal}"
        );
        UnixStream::connect(&path).expect("the first still listens");
    }

    #[test]
    fn a_stale_socket_is_replaced_and_other_files_are_not() {
        let folder = folder();
        let path = folder.path().join("t.sock");
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a crash leaves the name");
        drop(bind(&path, 0o660, None).expect("replaced"));
        fs::write(&path, "precious").expect("written");
        assert!(matches!(
            bind(&path, 0o660, None),
            Err(BindError::NotASocket(_))
        ));
        assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
    }

    #[test]
    fn a_name_that_somebody_else_took_is_not_removed() {
        let folder = folder();
        let path = folder.path().join("t.sock");
        let bound = bind(&path, 0o660, None).expect("bound");
        fs::remove_file(&path).expect("removed");
        let _other = UnixListener::bind(&path).expect("bound");
        drop(bound);
        assert!(path.exists());
    }

    #[test]
    fn a_folder_that_others_can_write_is_refused() {
        let folder = folder();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("mode");
        let refusal = bind(&folder.path().join("t.sock"), 0o660, None).expect_err("refused");
        assert!(refusal.to_string().contains("chmod go-w"), "{refusal}");
    }

    #[test]
    fn a_long_path_is_refused_with_the_limit() {
        let folder = folder();
        let path = folder.path().join("x".repeat(120));
        let refusal = bind(&path, 0o660, None).expect_err("refused").to_string();
        assert!(refusal.contains("107"), "{refusal}");
    }
}
