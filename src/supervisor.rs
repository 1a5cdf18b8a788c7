//! What the service manager is told, and what the process gives up before it holds a secret.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use sd_notify::NotifyState;
use tracing::{debug, warn};

/// No core dump, no other process of the same user that reads our memory or descriptors; and as many descriptors as the
/// service manager allows, since each connection is one. A sandbox may forbid any of it: then it has done so itself. Done
/// twice it does nothing new, but what failed is said only once there is a log.
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

/// The socket answers.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// What is in flight finishes, then the process ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "cannot tell the service manager");
    }
}
