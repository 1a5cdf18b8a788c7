//! Makes sure that the socket's name leads to this daemon.
//!
//! Somebody may clean up the folder too well, or start another daemon under the same name. The
//! daemon then still listens, but no caller reaches it. The guard notices this within seconds,
//! reports it in the log and in the status, and repairs it where the name is free. It leaves other
//! people's sockets alone.

use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::socket::bind::{BindError, Bound, PathOwner, bind};

/// The interval between two looks at the name. A look costs one system call.
pub const LOOK: Duration = Duration::from_secs(3);

/// The socket's name, and how the socket was made.
pub struct SocketGuard {
    bound: Bound,
    mode: u32,
    group: Option<u32>,
    /// Takes the new listener to the server.
    listeners: mpsc::Sender<UnixListener>,
    trouble: Option<String>,
}

impl SocketGuard {
    /// Watches over a socket that is already listened on elsewhere.
    pub fn new(
        bound: Bound,
        mode: u32,
        group: Option<u32>,
        listeners: mpsc::Sender<UnixListener>,
    ) -> SocketGuard {
        SocketGuard {
            bound,
            mode,
            group,
            listeners,
            trouble: None,
        }
    }

    /// The reason why callers do not get here, if there is one.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Looks at the name, and binds the socket again if the name is free. Returns whether the
    /// message about it has changed.
    pub fn look(&mut self) -> bool {
        let path = self.bound.path().display().to_string();
        let trouble = match self.bound.whose() {
            PathOwner::Ours => None,
            PathOwner::Nobodys => match self.make_again() {
                Ok(()) => {
                    warn!(
                        socket = path,
                        "somebody had removed the socket; it has been made again"
                    );
                    None
                }
                Err(why) => Some(format!(
                    "somebody has removed the socket {path}, so that nobody can connect, and it cannot be made again: {why}"
                )),
            },
            PathOwner::Others => Some(format!(
                "at {path} there is something that is not this daemon's socket: callers get there instead; remove it, \
                 and the socket is made again"
            )),
        };
        if trouble == self.trouble {
            return false;
        }
        match &trouble {
            Some(trouble) => error!("{trouble}"),
            None => info!(socket = path, "callers can connect again"),
        }
        self.trouble = trouble;
        true
    }

    fn make_again(&mut self) -> Result<(), BindError> {
        let mut bound = bind(self.bound.path(), self.mode, self.group)?;
        let system = |source| BindError::System {
            action: "listen on",
            path: self.bound.path().to_owned(),
            source,
        };
        if let Some(listener) = bound.take_listener() {
            let listener = UnixListener::from_std(listener).map_err(system)?;
            // While the daemon stops, nobody takes the listener, and it is dropped too.
            let _ = self.listeners.try_send(listener);
        }
        self.bound = bound;
        Ok(())
    }
}
