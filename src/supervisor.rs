//! Talks to the service manager, takes over what it has handed over, and hardens the process before
//! it holds a secret.

pub mod store;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketType};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use sd_notify::NotifyState;
use tracing::{debug, warn};

/// Forbids core dumps, and forbids other processes of the same user to read our memory or
/// descriptors; programs that this process starts inherit none. Also raises the number of descriptors to what the service manager allows, since
/// each connection is one. A sandbox may forbid any of this; then it has already done the same. A
/// second call changes nothing, but it reports failures if the first call came before the log.
pub fn harden() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "cannot forbid core dumps and tracing of this process");
    }
    crate::sys::keep_descriptors_from_children();
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        debug!(%error, "cannot set the core size limit; the process is not dumpable anyway");
    }
    let files = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: files.maximum,
        maximum: files.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        debug!(%error, "cannot raise the limit of open files");
    }
}

#[derive(Debug, Default)]
pub struct Inherited {
    /// The socket on which the service manager listens for us (`tokend.socket`).
    pub listener: Option<UnixListener>,
    /// Descriptors that an earlier run of this service left with the service manager, by name.
    pub stored: Vec<(String, OwnedFd)>,
}

/// Takes over what the service manager has handed over. May be called once, at the start.
///
/// # Errors
/// The announcement makes no sense, or there is more than one socket.
pub fn inherit() -> io::Result<Inherited> {
    let mut inherited = Inherited::default();
    for (descriptor, name) in sd_notify::listen_fds_with_names()? {
        let descriptor = crate::sys::inherited(descriptor);
        if !listens(&descriptor) {
            inherited.stored.push((name, descriptor));
        } else if inherited.listener.is_none() {
            let listener = UnixListener::from(descriptor);
            listener.set_nonblocking(true)?;
            inherited.listener = Some(listener);
        } else {
            return Err(io::Error::other(format!(
                "the service manager has handed over more than one socket, {name:?} among them: tokend.socket may name one"
            )));
        }
    }
    Ok(inherited)
}

/// Whether the descriptor is a listening Unix socket.
fn listens(descriptor: &OwnedFd) -> bool {
    sockopt::socket_domain(descriptor) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(descriptor) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(descriptor) == Ok(true)
}

/// A daemon that cannot start takes this long to end. A caller that waits at a socket of the
/// service manager causes a new start whenever the daemon has ended; without the pause, a broken
/// daemon would be started several times a second.
pub const FAILED_START: Duration = Duration::from_secs(10);

/// Whether a service manager expects messages from this process.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// Reports that the socket answers.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Reports a status in one line.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// Reports that the configuration is being read again; [`ready`] ends that.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot tell the service manager of the reload"),
    }
}

/// Reports that the process ends after what is in flight.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// How long the service manager waits for a sign of life. None: it has no watchdog.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// Sends a sign of life.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager there is nothing to tell, and no error.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
