//! Finds out whom the socket lets in, in order to judge who can read a secret. A client that may
//! ask for a token must not be able to read the secret behind it.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::unistd::{Uid, User};

use super::error::StartError;
use crate::caller::SystemDirectory;
use crate::cli::paths::default_socket;
use crate::core::policy::Directory;
use crate::core::profile::{Server, UserOrGroup};
use crate::core::readers::Clients;
use crate::readers::AccessScan;

/// The mode of the socket if `socket_mode` is not set.
const DEFAULT_MODE: u32 = 0o660;

/// The user that the package creates for the daemon.
const USER: &str = "tokend";

/// For this process as the daemon. A socket from the service manager brings its own group and mode;
/// `[server]` sets them for any other.
pub fn look(
    inherited: Option<&UnixListener>,
    server: Option<&Server>,
) -> Result<AccessScan, StartError> {
    let clients = match inherited {
        Some(listener) => {
            let address = listener.local_addr()?;
            match address
                .as_pathname()
                .and_then(|path| fs::metadata(path).ok())
            {
                Some(found) => Clients::of(found.mode(), found.gid(), true),
                // The socket's file has no name any more, so nobody knows whom it let in.
                None => Clients {
                    everybody: true,
                    ..Clients::default()
                },
            }
        }
        None => meant(server, rustix::process::getegid().as_raw())?,
    };
    Ok(AccessScan::new(daemon_uid(), clients))
}

/// The clients that `[server]` lets in. `own` is the daemon's group.
fn meant(server: Option<&Server>, own: u32) -> Result<Clients, StartError> {
    let named = server.and_then(|server| server.socket_group.as_ref());
    let gid = named.map(group).transpose()?;
    let mode = server.map_or(DEFAULT_MODE, |server| server.socket_mode);
    Ok(Clients::of(mode, gid.unwrap_or(own), gid.is_some()))
}

/// For `tokend check` and `doctor`, where another process is or will be the daemon. The socket and
/// its folder tell which user that is.
pub fn look_from_outside(server: Option<&Server>) -> AccessScan {
    let named = std::env::var_os("TOKEND_SOCKET").filter(|path| !path.is_empty());
    let socket = named
        .map(Into::into)
        .or_else(|| server.and_then(|server| server.socket.clone()))
        .or_else(|| default_socket().ok())
        .unwrap_or_default();
    let (uid, own) = daemon_of(&socket);
    let clients = match fs::symlink_metadata(&socket) {
        Ok(found) if found.file_type().is_socket() => {
            let named = server.is_some_and(|server| server.socket_group.is_some());
            Clients::of(found.mode(), found.gid(), named || found.gid() != own)
        }
        // Another check reports a group that does not exist.
        _ => meant(server, own).unwrap_or_default(),
    };
    AccessScan::new(uid, clients)
}

/// The daemon's user and primary group. They are those of this process, unless it runs as root.
/// Then they are those of the socket's folder, and without a folder those of the package.
fn daemon_of(socket: &Path) -> (u32, u32) {
    let mine = (daemon_uid(), rustix::process::getegid().as_raw());
    if mine.0 != 0 {
        return mine;
    }
    let folder = socket.parent().and_then(|folder| fs::metadata(folder).ok());
    let found = match folder {
        Some(folder) => User::from_uid(Uid::from_raw(folder.uid())).map(|user| {
            (
                folder.uid(),
                user.map_or(folder.gid(), |user| user.gid.as_raw()),
            )
        }),
        None => User::from_name(USER)
            .map(|user| user.map_or(mine, |user| (user.uid.as_raw(), user.gid.as_raw()))),
    };
    found.unwrap_or(mine)
}

pub fn daemon_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The number of `socket_group`.
pub fn group(principal: &UserOrGroup) -> Result<u32, StartError> {
    match principal {
        UserOrGroup::Id(id) => Ok(*id),
        UserOrGroup::Name(name) => match SystemDirectory.group(name) {
            Ok(found) => found.ok_or_else(|| StartError::Group(name.clone())),
            Err(unanswered) => Err(StartError::System(io::Error::other(format!(
                "[server] socket_group: the group {name:?} cannot be looked up now: {}",
                unanswered.why
            )))),
        },
    }
}
