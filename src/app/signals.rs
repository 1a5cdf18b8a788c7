//! The signals that the daemon obeys, heard from the start of the process on.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Collects signals from its creation on, before anybody asks for them.
pub struct SignalStreams {
    pub runtime: tokio::runtime::Runtime,
    pub signals: Signals,
}

impl SignalStreams {
    pub fn new(hang_up_means: SignalAction) -> io::Result<SignalStreams> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _inside = runtime.enter();
            Signals::new(hang_up_means)?
        };
        Ok(SignalStreams { runtime, signals })
    }
}

/// The signals that the daemon obeys.
pub struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    hang_up_means: SignalAction,
}

impl Signals {
    fn new(hang_up_means: SignalAction) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            hang_up_means,
        })
    }

    pub async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.terminate.recv() => SignalAction::Stop,
            _ = self.interrupt.recv() => SignalAction::Stop,
            _ = self.hang_up.recv() => self.hang_up_means,
        }
    }
}

#[derive(Clone, Copy)]
pub enum SignalAction {
    Stop,
    Reload,
}
