//! What the service manager is told and has handed over, and what the process gives up before it
//! holds a secret.

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

/// No core dump, no other process of the same user that reads our memory or descriptors; and as
/// many descriptors as the service manager allows, since each connection is one. A sandbox may
/// forbid any of it: then it has done so itself. Done twice it does nothing new, but what failed is
/// said only once there is a log.
pub fn harden() {
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        warn!(%error, "cannot forbid core dumps and tracing of this process");
    }
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

/// What the service manager has handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    /// The socket that it listens on for us (`tokend.socket`).
    pub listener: Option<UnixListener>,
    /// Descriptors that an earlier run of this service had it keep, by name.
    pub stored: Vec<(String, OwnedFd)>,
}

/// Takes over what the service manager has handed over. Once, at the start.
///
/// # Errors
/// When it was announced in a way that makes no sense, or more than one socket is there.
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

/// Whether it is a Unix socket that is listened on.
fn listens(descriptor: &OwnedFd) -> bool {
    sockopt::socket_domain(descriptor) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(descriptor) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(descriptor) == Ok(true)
}

/// Who waits at a socket of the service manager has the daemon started anew whenever it has ended:
/// one that cannot start takes this long, so that a broken one is not started several times a
/// second.
pub const FAILED_START: Duration = Duration::from_secs(10);

/// Whether a service manager waits for messages of this process.
#[must_use]
pub fn is_there() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// The socket answers.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// What there is to say, in one line.
pub fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

/// The configuration is being read again; [`ready`] ends it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => warn!(%error, "cannot tell the service manager of the reload"),
    }
}

/// What is in flight finishes, then the process ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
}

/// How long the service manager waits for a sign of life, if it does.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// A sign of life.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
