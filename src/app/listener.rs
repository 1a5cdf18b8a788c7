//! The socket: adopted from the service manager, or bound here and then watched over.

use std::io;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use tokio::sync::mpsc;

use super::error::StartError;
use super::privacy::group;
use super::socket_guard::SocketGuard;
use crate::cli::paths::default_socket;
use crate::core::profile::Server;
use crate::socket::bind::bind;

/// The socket that callers connect to.
pub struct SocketListener {
    pub listener: UnixListener,
    pub path: PathBuf,
    /// Watches over the name. None if the service manager does that for its own socket.
    pub guard: Option<SocketGuard>,
}

/// Opens the socket. A socket from the service manager comes before everything else: callers queue
/// there while the daemon restarts.
pub fn open(
    socket: Option<PathBuf>,
    server: &Server,
    adopted: Option<UnixListener>,
    listeners: mpsc::Sender<tokio::net::UnixListener>,
) -> Result<SocketListener, StartError> {
    if let Some(listener) = adopted {
        let address = listener.local_addr()?;
        let path = address.as_pathname().map(PathBuf::from);
        let path = path.ok_or_else(|| {
            io::Error::other(
                "the socket of the service manager has no path: ListenStream= names one",
            )
        })?;
        return Ok(SocketListener {
            listener,
            path,
            guard: None,
        });
    }
    let path = match socket.or_else(|| server.socket.clone()) {
        Some(path) => path,
        None => default_socket().map_err(|error| {
            StartError::ConfigFile(format!("{error}, and the configuration names no socket"))
        })?,
    };
    let group = server.socket_group.as_ref().map(group).transpose()?;
    let mut bound = bind(&path, server.socket_mode, group)?;
    let listener = bound
        .take_listener()
        .expect("it was bound a moment ago and nobody took it");
    Ok(SocketListener {
        listener,
        path,
        guard: Some(SocketGuard::new(
            bound,
            server.socket_mode,
            group,
            listeners,
        )),
    })
}
