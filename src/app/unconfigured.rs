//! A daemon without a usable configuration, neither in the files nor from an earlier run. It
//! answers every caller at the service manager's socket with the reason. Otherwise callers would
//! wait there and have the daemon started again and again. It ends when the files can be used, and
//! the daemon starts with them.

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tracing::info;

use super::assembly::surroundings;
use super::configuration::{Plan, read, refuse};

use super::error::StartError;
use super::heartbeat;
use super::interest::interest_in;
use super::privacy::daemon_uid;
use super::signals::{SignalAction, SignalStreams, Signals};
use crate::audit::Audit;
use crate::broker::{Broker, Tools};
use crate::caller::{Callers, SystemDirectory};
use crate::clock::Clock;
use crate::core::config::{self, Severity, SourceFile, Sources};
use crate::core::credential::Fingerprinter;
use crate::core::policy::Access;
use crate::core::profile::Config;
use crate::files::{Files, Interest};
use crate::registry::reload::{Order, ReloadReport};
use crate::registry::{Current, Registry};
use crate::server::{self, Accounts, Answered, ApiService};
use crate::supervisor;

/// The first wait before the files are read again. The wait doubles each time up to [`LONGEST`],
/// with or without file events.
const READ_AGAIN: Duration = Duration::from_secs(1);

const LONGEST: Duration = Duration::from_secs(10);

/// At most this many `Reload` calls queue up while the files are being read.
const RELOADS: usize = 64;

/// The consequence that the log names.
const SO: &str = "there is none before it, so every caller is told so until the files are repaired";

/// Answers every caller with the reason until the files can be used. Returns false if told to stop.
pub fn wait(
    plan: &Plan,
    error: &StartError,
    inherited: &UnixListener,
    streams: &mut SignalStreams,
) -> Result<bool, StartError> {
    let config = nothing(&plan.config);
    let listener = inherited.try_clone()?;
    // No other listener takes its place.
    let (_new_listener, listeners) = mpsc::channel(1);
    let clock = Clock::system();
    let audit = Audit::start(clock.clone(), &config.audit)?;
    let (reload, reloads) = mpsc::channel(RELOADS);
    let (stop, stopped) = watch::channel(false);
    let (ask_ourselves, own_questions) = mpsc::channel(1);
    // The broker never asks anybody, since there is no profile.
    let (broker, _) = Broker::new(Tools {
        clock: clock.clone(),
        fingerprints: Fingerprinter::new(&[0; 32]),
        published: Arc::new(Notify::new()),
        encode: Arc::new(server::encode),
        host_seed: 0,
    });
    let admins = Access::resolve(&[], daemon_uid(), &SystemDirectory).0;
    let mut waiting = Unconfigured {
        interest: interest_in(&plan.config, &config, &surroundings()),
        plan,
        inherited,
        registry: Arc::new(ArcSwap::from_pointee(Registry::new(0, admins, Vec::new()))),
        said: Vec::new(),
        refused: Vec::new(),
    };
    waiting.refuse(error);
    let (limits, unit_identity) = (config.server.limits, config.server.unit_identity);
    let service = Arc::new(ApiService {
        registry: waiting.registry.clone(),
        changes: Arc::default(),
        broker,
        started: clock.now(),
        clock,
        callers: Callers::new(unit_identity),
        accounts: Accounts::new(&limits),
        surveys: Arc::new(Semaphore::new(1)),
        limits,
        audit,
        answered: Answered::default(),
        reload,
        stopping: stopped.clone(),
    });
    let SignalStreams { runtime, signals } = streams;
    let usable = runtime.block_on(async {
        let listener = tokio::net::UnixListener::from_std(listener)?;
        if let Some(limit) = supervisor::watchdog() {
            tokio::spawn(heartbeat::run(ask_ourselves, limit));
        }
        let serving = server::run(listener, listeners, own_questions, service, stopped);
        supervisor::ready(&waiting.status());
        let waiting = async {
            let usable = waiting.run(signals, reloads).await;
            // The server still answers the requests in flight.
            stop.send_replace(true);
            usable
        };
        let ((), usable) = tokio::join!(serving, waiting);
        Ok::<bool, StartError>(usable)
    })?;
    if usable {
        info!("the configuration can be used now");
    }
    Ok(usable)
}

/// An empty configuration with all defaults.
fn nothing(path: &Path) -> Config {
    let sources = Sources {
        main: SourceFile {
            path: path.to_owned(),
            text: String::new(),
            private: true,
            readers: String::new(),
        },
        fragments: Vec::new(),
    };
    let outcome = config::load(&sources);
    outcome.config.expect("nothing is wrong with nothing")
}

/// The work beside answering.
struct Unconfigured<'a> {
    plan: &'a Plan,
    inherited: &'a UnixListener,
    interest: Interest,
    registry: Current,
    said: Vec<String>,
    refused: Vec<String>,
}

impl Unconfigured<'_> {
    /// Runs until the files can be used. Returns false if told to stop.
    async fn run(&mut self, signals: &mut Signals, mut reloads: mpsc::Receiver<Order>) -> bool {
        let mut files = Files::new();
        files.follow(&self.interest);
        let mut pause = READ_AGAIN;
        loop {
            let mut orders = Vec::new();
            let mut signalled = false;
            tokio::select! {
                heard = signals.next() => match heard {
                    SignalAction::Stop => {
                        supervisor::stopping();
                        return false;
                    }
                    SignalAction::Reload => signalled = true,
                },
                Some(order) = reloads.recv() => orders.push(order),
                () = files.changed() => pause = READ_AGAIN,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST),
            }
            if signalled {
                supervisor::reloading();
            }
            // The watch comes before the reading, so that no change in between is missed.
            files.follow(&self.interest);
            let usable = self.look().await;
            orders.extend(std::iter::from_fn(|| reloads.try_recv().ok()));
            for order in orders {
                let _ = order.0.send(Some(Arc::new(self.report())));
            }
            if signalled {
                supervisor::ready(&self.status());
            }
            if usable {
                return true;
            }
        }
    }

    /// Whether the files can be used now.
    async fn look(&mut self) -> bool {
        let path = self.plan.config.clone();
        let inherited = self.inherited.try_clone();
        let read = tokio::task::spawn_blocking(move || read(&path, Some(&inherited?)).map(|_| ()));
        match read.await {
            Ok(Ok(())) => {
                self.refused = Vec::new();
                true
            }
            Ok(Err(error)) => {
                if self.refuse(&error) {
                    supervisor::status(&self.status());
                }
                false
            }
            // A failed task has told why already, if there was anything to tell.
            Err(_) => false,
        }
    }

    /// Records why the files cannot be used. Returns whether that is new.
    fn refuse(&mut self, error: &StartError) -> bool {
        let before = std::mem::take(&mut self.refused);
        self.refused = refuse(error, &mut self.said, SO);
        let registry = self
            .registry
            .load()
            .closed(self.refused.clone(), for_all(error));
        self.registry.store(Arc::new(registry));
        self.refused != before
    }

    fn report(&self) -> ReloadReport {
        ReloadReport {
            generation: 0,
            refused: self.refused.clone(),
            profiles: Vec::new(),
            settled: true,
        }
    }

    fn status(&self) -> String {
        let registry = self.registry.load();
        let why = registry.closed.as_deref().unwrap_or_default();
        format!("no configuration that can be used, every caller is refused: {why}")
    }
}

/// The reason for callers: the problems of `tokend.toml` itself, and nothing about any profile.
fn for_all(error: &StartError) -> String {
    let StartError::Config(outcome) = error else {
        return error.to_string();
    };
    let mut its_own = outcome.findings.iter().filter(|finding| {
        finding.severity == Severity::Error
            && finding.profile.is_none()
            && !finding.path.starts_with("idp.")
    });
    let first = its_own.next();
    first.map_or_else(|| error.to_string(), config::Finding::one_line)
}
