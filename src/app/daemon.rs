//! Starts the daemon, runs it until it is told to stop, and ends it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::configuration::Plan;
use super::error::StartError;
use super::privacy::daemon_uid;
use super::signals::{SignalAction, SignalStreams, Signals};
use super::socket_guard::{self, SocketGuard};
use super::start::{Start, start};
use super::upstream;
use super::warm_restart::PreviousRun;
use crate::audit::Audit;
use crate::caller::{Callers, SystemDirectory};
use crate::cli::paths::default_config;
use crate::cli::{LogFormat, ServeArgs, exit};
use crate::clock::Clock;
use crate::core::policy::Access;
use crate::registry::reload::{FileChanges, Order};
use crate::registry::{Current, Registry};
use crate::server::{self, Accounts, Answered, ApiService};
use crate::supervisor;
use crate::telemetry::{self, Format};

/// At most this many `Reload` calls queue up while the files are being read.
const RELOADS: usize = 64;

/// At its end the daemon has this long to write the grants it has counted. It does not wait longer
/// for a disk that hangs.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// `tokend serve`.
pub fn serve(args: ServeArgs) -> u8 {
    let format = match args.log_format.unwrap_or(LogFormat::Text) {
        LogFormat::Text => Format::Text,
        LogFormat::Json => Format::Json,
        LogFormat::Journald => Format::Journald,
    };
    if let Err(why) = telemetry::start(format) {
        eprintln!("tokend: {why}");
        return exit::USAGE;
    }
    let config = match args.config.map_or_else(default_config, Ok) {
        Ok(config) => config,
        Err(why) => {
            error!("{why}");
            return exit::CONFIG;
        }
    };
    let socket = std::env::var_os("TOKEND_SOCKET")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    finish(
        SignalStreams::new(SignalAction::Reload)
            .map_err(StartError::System)
            .and_then(|streams| daemon(&Plan { config, socket }, streams, |_| {})),
    )
}

/// Logs why the daemon ended, and returns the exit code for it.
pub fn finish(outcome: Result<(), StartError>) -> u8 {
    match outcome {
        Ok(()) => exit::DONE,
        Err(error) => {
            if let StartError::Config(outcome) = &error {
                for finding in &outcome.findings {
                    eprintln!("{finding}\n");
                }
            }
            error!("{error}");
            error.exit_code()
        }
    }
}

/// Runs the daemon until SIGTERM or SIGINT, even if the signal came before this call. `ready` is
/// called once the socket answers.
pub fn daemon(
    plan: &Plan,
    mut streams: SignalStreams,
    ready: impl FnOnce(&Path),
) -> Result<(), StartError> {
    supervisor::harden();
    let inherited = supervisor::inherit()?;
    let left = PreviousRun::by_an_earlier_run(inherited.stored)?;
    let kept = left.configuration.as_ref().map(|text| text.as_str());
    let Some(start) = start(plan, inherited.listener.as_ref(), kept, &mut streams)? else {
        return Ok(());
    };
    let own_socket = inherited.listener.is_none();
    drop(inherited.listener);
    run(plan, start, left, own_socket, streams, ready)
}

/// Runs the daemon from what it starts with. `own_socket`: the daemon bound the socket itself, it
/// is not the service manager's.
fn run(
    plan: &Plan,
    start: Start,
    left: PreviousRun,
    own_socket: bool,
    streams: SignalStreams,
    ready: impl FnOnce(&Path),
) -> Result<(), StartError> {
    let Start {
        read,
        readers,
        listener: mut socket,
        listeners,
        refused,
    } = start;
    let server = &read.config.server;

    let (clock, callers) = (Clock::system(), Callers::new(server.unit_identity));
    let audit = Audit::start(clock.clone(), &read.config.audit)?;
    let registry = Arc::new(ArcSwap::from_pointee(nobody()));
    let changes: Arc<FileChanges> = Arc::default();
    let (reload, reloads) = mpsc::channel(RELOADS);
    let (stop, stopped) = watch::channel(false);
    let (unreachable, reachable) = watch::channel(None);
    // This ends later than `stop`: a caller that waits for a credential when the daemon is told to
    // end still gets it.
    let (rest, resting) = watch::channel(false);
    let (ask_ourselves, own_questions) = mpsc::channel(1);
    let (limits, metrics_listen) = (server.limits.clone(), server.metrics_listen);
    let upstream = upstream::start(upstream::Setup {
        read,
        refused,
        config_path: plan.config.clone(),
        own_socket,
        readers,
        registry: registry.clone(),
        changes: changes.clone(),
        clock: clock.clone(),
        reloads,
        unreachable: reachable,
        callers: callers.clone(),
        audit: audit.clone(),
        left,
        heartbeat: supervisor::watchdog().map(|limit| (ask_ourselves, limit)),
        stop: resting,
    })?;

    let SignalStreams { runtime, signals } = streams;
    let mut ended = upstream.ended;
    let outcome = runtime.block_on(async {
        let listener = UnixListener::from_std(socket.listener)?;
        let service = Arc::new(ApiService {
            registry: registry.clone(),
            changes,
            broker: upstream.ready.await.map_err(|_| StartError::Upstream)?,
            started: clock.now(),
            clock: clock.clone(),
            callers,
            accounts: Accounts::new(&limits),
            surveys: Arc::new(Semaphore::new(1)),
            limits,
            audit: audit.clone(),
            answered: Answered::default(),
            reload: reload.clone(),
            stopping: stopped.clone(),
        });
        serve_metrics(metrics_listen, &service, &stopped).await;
        let serving = server::run(listener, listeners, own_questions, service, stopped);
        let counting = audit.clone();
        tokio::spawn(async move { counting.flush_for_ever().await });
        info!(socket = %socket.path.display(), pid = std::process::id(), "ready");
        let status = server::in_one_line(&registry.load(), &audit, clock.now());
        supervisor::ready(&status);
        ready(&socket.path);
        let main_loop = MainLoop {
            registry,
            clock,
            audit: audit.clone(),
            reload,
            stop,
            unreachable,
            status,
        };
        let guard = &mut socket.guard;
        main_loop.run(serving, signals, guard, &mut ended).await
    });
    rest.send_replace(true);
    runtime.block_on(last_words(&audit, &mut ended));
    runtime.shutdown_background();
    drop(socket.guard);
    info!("stopped");
    outcome
}

/// The registry before the first configuration is in force: it permits nobody anything.
fn nobody() -> Registry {
    let access = Access::resolve(&[], daemon_uid(), &SystemDirectory).0;
    Registry::new(0, access, Vec::new())
}

/// Finishes what still has to be written after the last answer.
async fn last_words(audit: &Audit, upstream: &mut oneshot::Receiver<()>) {
    audit.finish(LAST_RECORDS).await;
    // That thread hands the credentials over to the next run.
    let _ = tokio::time::timeout(LAST_RECORDS, upstream).await;
}

/// Serves metrics over TCP as well, if an address is configured. An address that cannot be listened on is only logged: callers
/// must get credentials even if the daemon cannot be measured.
async fn serve_metrics(
    address: Option<SocketAddr>,
    service: &Arc<ApiService>,
    stopped: &watch::Receiver<bool>,
) {
    let Some(address) = address else {
        return;
    };
    match TcpListener::bind(address).await {
        Ok(listener) => {
            info!(%address, "metrics are served there too");
            tokio::spawn(server::scrape::run(
                listener,
                service.clone(),
                stopped.clone(),
            ));
        }
        Err(error) => error!(
            %address, %error,
            "[server] metrics_listen: cannot listen there, so metrics are served on the Unix socket only"
        ),
    }
}

/// The other work of the serving thread: it obeys signals, watches the socket's name, and reports
/// the state to the service manager.
struct MainLoop {
    registry: Current,
    clock: Clock,
    audit: Arc<Audit>,
    reload: mpsc::Sender<Order>,
    stop: watch::Sender<bool>,
    unreachable: watch::Sender<Option<String>>,
    /// The status that the service manager was told last.
    status: String,
}

impl MainLoop {
    /// Runs until `serving` is over. `serving` begins to end when the daemon is told to stop.
    async fn run(
        mut self,
        serving: impl Future<Output = ()>,
        mut signals: Signals,
        socket_guard: &mut Option<SocketGuard>,
        ended: &mut oneshot::Receiver<()>,
    ) -> Result<(), StartError> {
        tokio::pin!(serving);
        let (tell_reloaded, mut reloaded) = mpsc::channel(1);
        let mut look = tokio::time::interval(socket_guard::LOOK);
        loop {
            let stopping = *self.stop.borrow();
            tokio::select! {
                () = &mut serving => return Ok(()),
                heard = signals.next() => match heard {
                    SignalAction::Stop if stopping => {
                        warn!("told to stop again: stopping at once");
                        return Ok(());
                    }
                    SignalAction::Stop => {
                        info!("stopping");
                        supervisor::stopping();
                        self.stop.send_replace(true);
                    }
                    SignalAction::Reload => self.order_reload(tell_reloaded.clone()),
                },
                _ = look.tick(), if !stopping => self.look(socket_guard.as_mut()),
                Some(()) = reloaded.recv(), if !stopping => supervisor::ready(&self.status),
                _ = &mut *ended => return Err(StartError::Upstream),
            }
        }
    }

    /// Has the files read again. The log and the status tell the result. `done` receives a message
    /// when the reload is over.
    fn order_reload(&self, done: mpsc::Sender<()>) {
        self.audit.reopen();
        supervisor::reloading();
        let (order, mut reports) = Order::new();
        // If the queue is full, the reloads in it will see this change too.
        drop(self.reload.try_send(order));
        tokio::spawn(async move {
            let settled =
                reports.wait_for(|report| report.as_ref().is_some_and(|report| report.settled));
            // The reload counts as over even if it takes too long or the thread is gone.
            let _ = tokio::time::timeout(server::RELOAD_WAIT, settled).await;
            let _ = done.send(()).await;
        });
    }

    /// Checks that the socket's name still leads here, and tells the service manager what is new.
    fn look(&mut self, socket_guard: Option<&mut SocketGuard>) {
        if let Some(guard) = socket_guard
            && guard.look()
        {
            let trouble = guard.trouble().map(str::to_owned);
            self.unreachable.send_replace(trouble);
            // A new look at the files puts the message about the socket into the registry.
            drop(self.reload.try_send(Order::new().0));
        }
        let now = server::in_one_line(&self.registry.load(), &self.audit, self.clock.now());
        if now != self.status {
            supervisor::status(&now);
            self.status = now;
        }
    }
}
