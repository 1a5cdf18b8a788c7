//! Finds the configuration that the daemon starts with. It is the one in the files. If that cannot
//! be used, it is the last usable one, if the service manager has kept it. If there is none and
//! callers wait at a socket of the service manager, the daemon tells them the reason until the
//! files can be used.

use std::os::unix::net::UnixListener;

use tokio::sync::mpsc;

use super::configuration::{Plan, Read, read, refuse, say, understood};

use super::error::StartError;
use super::listener::{self, SocketListener};
use super::signals::SignalStreams;
use super::{last_good, privacy, unconfigured};
use crate::cli::exit;
use crate::readers::AccessScan;

/// The configuration and the socket that the daemon starts with.
pub struct Start {
    pub read: Read,
    pub readers: AccessScan,
    pub listener: SocketListener,
    /// Receives a new socket that takes the place of this one.
    pub listeners: mpsc::Receiver<tokio::net::UnixListener>,
    /// The reasons why this is not what the files say. Empty if it is.
    pub refused: Vec<String>,
}

/// Finds the configuration to start with. `kept` is the one that an earlier run has left. None: the
/// daemon was told to stop before there was anything to start with.
pub fn start(
    plan: &Plan,
    inherited: Option<&UnixListener>,
    kept: Option<&str>,
    streams: &mut SignalStreams,
) -> Result<Option<Start>, StartError> {
    loop {
        let error = match from_files(plan, inherited) {
            Err(error) if error.exit_code() == exit::CONFIG => error,
            outcome => return outcome.map(Some),
        };
        if let Some(start) = kept.and_then(|kept| from_last_good(plan, inherited, kept, &error)) {
            return Ok(Some(start));
        }
        // Without an inherited socket no caller is waiting, and the daemon's exit tells the error.
        let Some(listener) = inherited else {
            return Err(error);
        };
        if !unconfigured::wait(plan, &error, listener, streams)? {
            return Ok(None);
        }
    }
}

/// Starts from the files.
fn from_files(plan: &Plan, inherited: Option<&UnixListener>) -> Result<Start, StartError> {
    let (read, readers) = read(&plan.config, inherited)?;
    say(&read.findings);
    opened(plan, inherited, read, readers)
}

/// Starts from the last usable configuration. What the files say about access now holds all the
/// same.
fn from_last_good(
    plan: &Plan,
    inherited: Option<&UnixListener>,
    kept: &str,
    error: &StartError,
) -> Option<Start> {
    let last = last_good::of(&plan.config, kept)?;
    let mut read = understood(last.sources).ok()?;
    read.access = match error {
        StartError::Config(outcome) => outcome.access.over(&last.access),
        _ => last.access,
    };
    // Nothing of the current files was understood.
    (read.seen, read.findings) = (Vec::new(), Vec::new());
    let readers = privacy::look(inherited, Some(&read.config.server)).ok()?;
    let mut start = opened(plan, inherited, read, readers).ok()?;
    let so = "what it defined before tokend was restarted is served";
    start.refused = refuse(error, &mut Vec::new(), so);
    Some(start)
}

fn opened(
    plan: &Plan,
    inherited: Option<&UnixListener>,
    read: Read,
    readers: AccessScan,
) -> Result<Start, StartError> {
    let (new_listener, listeners) = mpsc::channel(1);
    let adopted = inherited.map(UnixListener::try_clone).transpose()?;
    let socket = plan.socket.clone();
    let listener = listener::open(socket, &read.config.server, adopted, new_listener)?;
    Ok(Start {
        read,
        readers,
        listener,
        listeners,
        refused: Vec::new(),
    })
}
