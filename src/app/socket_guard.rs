//! Sees to it that the socket's name leads to this daemon.
//!
//! Somebody may clean up a folder too well, or start something else under the same name: the daemon
//! goes on listening, and nobody gets there any more. That is noticed within seconds, said aloud
//! and in the status, and repaired where the name is free. What is somebody else's is left alone.

use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::socket::bind::{BindError, Bound, PathOwner, bind};

/// How often the name is looked at: one system call.
pub const LOOK: Duration = Duration::from_secs(3);

/// The name, and how it was made.
pub struct SocketGuard {
    bound: Bound,
    mode: u32,
    group: Option<u32>,
    /// Where connections are accepted.
    listeners: mpsc::Sender<UnixListener>,
    trouble: Option<String>,
}

impl SocketGuard {
    /// Takes over a socket that is listened on elsewhere.
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

    /// Why callers do not get here.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Looks, and makes the socket again where there is none; whether what there is to say has
    /// changed.
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
            // Nobody accepts any more when the daemon stops: then this one goes as well.
            let _ = self.listeners.try_send(listener);
        }
        self.bound = bound;
        Ok(())
    }
}
