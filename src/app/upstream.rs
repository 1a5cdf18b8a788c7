//! The second thread: identity providers, files, and every lifecycle.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::{debug, error};

use super::assembly::{self, Assembly};
use super::configuration::{Read, look, refuse, say, worded};
use super::error::StartError;
use super::heartbeat;
use super::interest::interest_in;
use super::last_good::LastGoodStore;
use super::privacy::daemon_uid;
use super::warm_restart::{HandoverName, PreviousRun, WarmRestart};
use crate::audit::Audit;
use crate::broker::{Broker, Tools};
use crate::caller::Callers;
use crate::clock::Clock;
use crate::core::config::AccessOnDisk;
use crate::core::credential::Fingerprinter;
use crate::core::profile::{Config, ProfileName, Server};
use crate::files::{self, Files, Interest};
use crate::provider;
use crate::readers::AccessScan;
use crate::registry::Current;
use crate::registry::reload::{FileChanges, Order};
use crate::server;

/// The longest time between two looks at the files, for file systems that send no events.
pub const POLL: Duration = Duration::from_secs(60);

// Without events a rotation is in force within 65 s. The 5 s are for reading, and for the trial of
// what was read.
const _: () = assert!(POLL.as_secs() + 5 <= 65);

/// The same if the system says that it gives no events at all.
const POLL_DEAF: Duration = Duration::from_secs(10);

/// After something could not be used, the first wait before its files are read again. The wait
/// doubles each time up to [`POLL`]. A rotation may be under way.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// At most this many steps of trials queue up while the files are being read.
const TRIALS: usize = 64;

pub struct Setup {
    /// The first configuration. Its findings have been logged.
    pub read: Read,
    /// The reasons why `read` is the configuration before and not what the files say. They have
    /// been logged.
    pub refused: Vec<String>,
    pub config_path: PathBuf,
    /// The daemon bound the socket itself; it is not the service manager's.
    pub own_socket: bool,
    /// Finds out who else can read files of secrets.
    pub readers: AccessScan,
    pub registry: Current,
    pub changes: Arc<FileChanges>,
    pub clock: Clock,
    /// Receives orders to read everything again.
    pub reloads: mpsc::Receiver<Order>,
    /// The reason why callers do not get to the socket, if there is one.
    pub unreachable: watch::Receiver<Option<String>>,
    /// Identifies connecting processes.
    pub callers: Callers,
    pub audit: Arc<Audit>,
    pub left: PreviousRun,
    /// The channel for asking the server, and how often the service manager wants a sign of life.
    pub heartbeat: Option<(mpsc::Sender<DuplexStream>, Duration)>,
    pub stop: watch::Receiver<bool>,
}

pub struct UpstreamThread {
    /// Resolves when every profile has been taken in. None needs to have a credential yet.
    pub ready: oneshot::Receiver<Broker>,
    /// Resolves when the thread ends, which it must not do by itself.
    pub ended: oneshot::Receiver<()>,
}

pub fn start(setup: Setup) -> Result<UpstreamThread, StartError> {
    let (tell_ready, ready) = oneshot::channel();
    let (tell_end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("upstream".into())
        .spawn(move || {
            // The drop at the end of the thread tells its end, after a panic too.
            let _tell_end = tell_end;
            runtime.block_on(run(setup, tell_ready));
            runtime.shutdown_background();
        })?;
    Ok(UpstreamThread { ready, ended })
}

async fn run(mut setup: Setup, tell_ready: oneshot::Sender<Broker>) {
    let published = Arc::new(Notify::new());
    let (last_good, configuration) = LastGoodStore::new(published.clone());
    let warm_restart = WarmRestart {
        registry: setup.registry.clone(),
        clock: setup.clock.clone(),
        published: published.clone(),
        left: HandoverName::from(&setup.left),
        configuration,
    };
    let (broker, actor) = Broker::new(Tools {
        clock: setup.clock.clone(),
        fingerprints: Fingerprinter::new(&setup.left.key),
        published,
        encode: Arc::new(server::encode),
        host_seed: host_seed(),
    });
    let mut actor = tokio::spawn(actor);
    if let Some((connections, limit)) = setup.heartbeat.take() {
        tokio::spawn(heartbeat::run(connections, limit));
    }
    let mut stop = setup.stop.clone();
    let mut files = Files::counting(setup.changes.signs.clone());
    let mut reloader = Reloader::start(setup, broker.clone(), last_good, &mut files).await;
    let mut warm_restart = tokio::spawn(warm_restart.run(stop.clone()));
    if tell_ready.send(broker).is_err() {
        return;
    }
    let mut pause = READ_AGAIN;
    loop {
        let cause = tokio::select! {
            cause = reloader.wait(&files, pause) => cause,
            _ = stop.wait_for(|stop| *stop) => {
                // The warm restart keeps what was published last before this thread ends.
                let _ = (&mut warm_restart).await;
                return;
            }
            ended = &mut actor => {
                error!(panicked = ended.is_err(), "the broker has ended");
                return;
            }
        };
        pause = match cause {
            Cause::Time => (pause * 2).min(POLL),
            Cause::Event => READ_AGAIN,
            Cause::ServerGone => {
                // The server closes its channel before `stop` comes, and the warm restart waits for
                // `stop`.
                let _ = (&mut warm_restart).await;
                return;
            }
        };
        reloader.look(&mut files).await;
    }
}

/// The reason for a look at the files.
enum Cause {
    /// A caller ordered it, or the files have changed.
    Event,
    /// The interval since the last look has passed.
    Time,
    /// No look at all: the server is gone, so nobody can be served.
    ServerGone,
}

/// Reads the files again and puts in force what they say.
struct Reloader {
    config_path: PathBuf,
    own_socket: bool,
    readers: AccessScan,
    callers: Callers,
    audit: Arc<Audit>,
    reloads: mpsc::Receiver<Order>,
    unreachable: watch::Receiver<Option<String>>,
    /// Receives the names of profiles whose trials have made progress.
    trials: mpsc::Receiver<ProfileName>,
    assembly: Assembly,
    /// The settings that are read only at the start.
    started_with: Server,
    /// The last configuration that could be used.
    config: Config,
    /// What the files say about access. It holds whether or not the rest of the files can be used.
    access: AccessOnDisk,
    interest: Interest,
    /// True if everything is served as the files say.
    complete: bool,
    /// The lines that were logged last about the configuration. They are not logged again at every
    /// look.
    said: Vec<String>,
    /// The signs of changes, which callers are told of until they are in force.
    changes: Arc<FileChanges>,
    /// The digest of the files that were parsed last.
    seen: Vec<u8>,
    /// Keeps the last usable configuration for the next run.
    last_good: LastGoodStore,
    /// The reasons why the content of the files is not in force.
    refused: Vec<String>,
    waiting: Vec<Waiting>,
}

impl Reloader {
    /// Takes the first configuration over.
    async fn start(
        setup: Setup,
        broker: Broker,
        mut last_good: LastGoodStore,
        files: &mut Files,
    ) -> Reloader {
        last_good.accepted(setup.read.sources, &setup.read.access);
        let (told, trials) = mpsc::channel(TRIALS);
        let mut assembly = Assembly::new(
            broker,
            setup.registry,
            setup.clock.clone(),
            provider::Shared::new(setup.clock),
            daemon_uid(),
            setup.left,
            told,
        );
        assembly.no_units = setup.callers.no_units().map(str::to_owned);
        let surroundings = std::mem::take(&mut assembly.surroundings);
        assembly.surroundings = surroundings.with_readers(setup.readers.clone());
        let mut reloader = Reloader {
            interest: interest_in(
                &setup.config_path,
                &setup.read.config,
                &assembly.surroundings,
            ),
            config_path: setup.config_path,
            own_socket: setup.own_socket,
            readers: setup.readers,
            callers: setup.callers,
            audit: setup.audit,
            reloads: setup.reloads,
            unreachable: setup.unreachable,
            trials,
            assembly,
            started_with: setup.read.config.server.clone(),
            config: setup.read.config,
            access: setup.read.access,
            complete: false,
            said: match setup.refused.is_empty() {
                true => setup.read.findings.iter().map(worded).collect(),
                false => setup.refused.clone(),
            },
            changes: setup.changes,
            seen: setup.read.seen,
            last_good,
            refused: setup.refused,
            waiting: Vec::new(),
        };
        files.follow(&reloader.interest);
        reloader.take_over(files).await;
        reloader.assembly.refuse(reloader.refused.clone());
        reloader.assembly.left.forget();
        reloader
    }

    /// Waits until the files are to be looked at, and promotes profiles meanwhile. `pause` is how
    /// long to wait at most while something is not in force.
    async fn wait(&mut self, files: &Files, pause: Duration) -> Cause {
        let poll = if files.hears() { POLL } else { POLL_DEAF };
        let since = Instant::now();
        // This future lives across promotions. A new one would forget a change that is still
        // settling.
        let changed = files.changed();
        tokio::pin!(changed);
        let mut names = Vec::new();
        loop {
            let pause = if self.complete { poll } else { pause.min(poll) };
            tokio::select! {
                asked = self.reloads.recv() => {
                    let Some(order) = asked else {
                        return Cause::ServerGone;
                    };
                    // Orders that came at the same time share this look.
                    let also = std::iter::from_fn(|| self.reloads.try_recv().ok());
                    let after = self.assembly.looks();
                    let orders = std::iter::once(order).chain(also);
                    self.waiting.extend(orders.map(|order| Waiting::new(order, after)));
                    return Cause::Event;
                }
                () = &mut changed => return Cause::Event,
                () = tokio::time::sleep_until(since + pause) => return Cause::Time,
                _ = self.trials.recv_many(&mut names, TRIALS) => {
                    self.promote(&names.drain(..).collect()).await;
                }
            }
        }
    }

    async fn promote(&mut self, names: &BTreeSet<ProfileName>) {
        self.assembly.promote(names).await;
        self.complete = self.assembly.is_complete() && self.refused.is_empty();
        self.tell(&[]);
    }

    /// Reads what has changed, and takes it over.
    async fn look(&mut self, files: &mut Files) {
        // The watch comes before the reading, so that no change in between is missed.
        files.follow(&self.interest);
        let signs = self.changes.seen();
        let (path, before) = (self.config_path.clone(), self.seen.clone());
        let (callers, readers) = (self.callers.clone(), self.readers.anew());
        let own_socket = self.own_socket;
        let look = move || {
            callers.read_subordinate_uids();
            look(&path, &before, &readers, own_socket)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(None) => {}
            Ok(Some((now, Ok(read)))) => {
                self.seen = now;
                self.accept(read, files).await;
            }
            Ok(Some((now, Err(error)))) => {
                self.seen = now;
                if let StartError::Config(outcome) = &error {
                    self.access = outcome.access.clone();
                    self.last_good.refused(&self.access);
                }
                self.refused = refuse(&error, &mut self.said, "the one in force is kept");
            }
            // The message of the panic is left out, since it may contain text from the files.
            Err(_) => {
                let why = "reading the configuration ended in a defect of tokend; please report it";
                error!("{why}");
                self.seen = Vec::new();
                self.refused = vec![why.to_owned()];
            }
        }
        // This is done for a kept configuration too: its certificates and secrets go on being
        // rotated.
        let removed = self.take_over(files).await;
        self.assembly.refuse(self.refused.clone());
        self.changes.taken_over(signs);
        self.tell(&removed);
    }

    /// Records what can be used of the files.
    async fn accept(&mut self, read: Read, files: &mut Files) {
        let lines: Vec<String> = read.findings.iter().map(worded).collect();
        if lines != self.said {
            say(&read.findings);
            self.said = lines;
        }
        if read.config.audit != self.config.audit {
            self.audit.configure(&read.config.audit).await;
        }
        self.last_good.accepted(read.sources, &read.access);
        (self.config, self.access) = (read.config, read.access);
        let now = interest_in(&self.config_path, &self.config, &self.assembly.surroundings);
        if now != self.interest {
            self.interest = now;
            files.follow(&self.interest);
        }
        self.refused = Vec::new();
    }

    /// Takes the configuration over, and returns the profiles that are gone.
    async fn take_over(&mut self, files: &Files) -> Vec<ProfileName> {
        let about = self.about_the_daemon(files);
        let config = self.config.clone();
        let assembly = &mut self.assembly;
        let (surroundings, clock) = (assembly.surroundings.clone(), assembly.clock.clone());
        let read = tokio::task::spawn_blocking(move || {
            let gathered = assembly::gather(&config, &surroundings, &clock);
            (config, gathered)
        })
        .await;
        let Ok((config, gathered)) = read else {
            // The message of this panic is left out as well.
            error!("reading the profiles' files ended in a defect of tokend; please report it");
            self.complete = false;
            return Vec::new();
        };
        let removed = assembly.apply(&config, &self.access, gathered, about).await;
        self.complete = assembly.is_complete() && self.refused.is_empty();
        debug!(complete = self.complete, ?removed, "profiles");
        // Reading a configuration takes several times the memory of what is kept of it.
        drop(config);
        let _ = tokio::task::spawn_blocking(crate::sys::return_free_memory).await;
        removed
    }

    /// The warnings to an operator about the daemon itself.
    fn about_the_daemon(&self, files: &Files) -> Vec<String> {
        let mut warnings = not_before_a_restart(&self.started_with, &self.config.server);
        warnings.extend(self.unreachable.borrow().clone());
        warnings.extend((!files.hears()).then(|| files::DEAF.to_owned()));
        warnings
    }

    /// Reports the state to callers that wait for the result of a reload.
    fn tell(&mut self, removed: &[ProfileName]) {
        let assembly = &self.assembly;
        self.waiting
            .retain_mut(|waiting| waiting.tell(assembly, removed));
    }
}

/// A caller that waits for the result of a reload.
struct Waiting {
    order: Order,
    /// The number of looks at the files before the order.
    after: u64,
    removed: Vec<ProfileName>,
}

impl Waiting {
    fn new(order: Order, after: u64) -> Waiting {
        Waiting {
            order,
            after,
            removed: Vec::new(),
        }
    }

    /// Reports the state. Returns whether more reports will follow.
    fn tell(&mut self, assembly: &Assembly, removed: &[ProfileName]) -> bool {
        self.removed.extend_from_slice(removed);
        let report = Arc::new(assembly.report(self.after, &self.removed));
        let more = !report.settled;
        self.order.0.send(Some(report)).is_ok() && more
    }
}

/// The warnings about changed settings that are read only at the start.
fn not_before_a_restart(started_with: &Server, now: &Server) -> Vec<String> {
    [
        ("socket", started_with.socket != now.socket),
        (
            "socket_group",
            started_with.socket_group != now.socket_group,
        ),
        ("socket_mode", started_with.socket_mode != now.socket_mode),
        (
            "unit_identity",
            started_with.unit_identity != now.unit_identity,
        ),
        ("limits", started_with.limits != now.limits),
        (
            "metrics_listen",
            started_with.metrics_listen != now.metrics_listen,
        ),
    ]
    .into_iter()
    .filter(|(_, differs)| *differs)
    .map(|(key, _)| {
        format!("[server] {key} has changed, which takes effect when tokend is restarted")
    })
    .collect()
}

/// A seed from this host's identity, so that equal configurations on many hosts renew at different
/// moments.
fn host_seed() -> u64 {
    let mut hasher = DefaultHasher::new();
    std::fs::read("/etc/machine-id").ok().hash(&mut hasher);
    rustix::system::uname()
        .nodename()
        .to_bytes()
        .hash(&mut hasher);
    hasher.finish()
}
