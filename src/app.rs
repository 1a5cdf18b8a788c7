//! The one room that knows everyone: wiring, start, reload, shutdown.
//!
//! Two threads, each with a runtime of its own: this one serves the socket; the other, `upstream`, talks to identity
//! providers and reads files, so that an RSA signature or a TLS handshake never delays an answer.

pub(crate) mod assembly;
mod dev;
mod door;
mod doorplate;
mod heartbeat;
mod keeper;
pub(crate) mod load;
pub(crate) mod privacy;
pub(crate) mod upstream;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tracing::{error, info, warn};

use self::door::Door;
use self::keeper::Left;
use crate::audit::Audit;
use crate::caller::Callers;
use crate::cli::paths::default_config;
use crate::cli::{Command, LogFormat, ServeArgs, exit};
use crate::clock::Clock;
use crate::core::config::{self, AccessOnDisk, Finding, Severity, Sources};
use crate::core::policy::{Access, Directory};
use crate::core::profile::{Config, Principal};
use crate::readers::Look;
use crate::registry::Registry;
use crate::registry::reload::Order;
use crate::server::{self, Accounts, Answered, Desk};
use crate::socket::bind::BindError;
use crate::supervisor;
use crate::telemetry::{self, Format};

/// Callers of `Reload` that may queue up while the files are being read.
const RELOADS: usize = 64;

/// What has been counted of grants is written when the daemon ends, within this time. A disk that hangs is not waited for.
const LAST_RECORDS: Duration = Duration::from_secs(2);

/// Runs the commands that serve: `serve` and `dev`.
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let code = match command {
        Command::Serve(args) => serve(args),
        Command::Dev(args) => dev::run(&args),
        Command::Check(_)
        | Command::Doctor(_)
        | Command::Token(_)
        | Command::Wait(_)
        | Command::Watch(_)
        | Command::Status(_)
        | Command::Explain(_)
        | Command::Reload(_)
        | Command::Completions(_)
        | Command::Man => exit::USAGE,
    };
    ExitCode::from(code)
}

/// Where the configuration is and which socket wins over its `socket`.
struct Plan {
    config: PathBuf,
    socket: Option<PathBuf>,
}

/// Why the daemon does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("the configuration cannot be used")]
    Config(Box<config::Outcome>),
    #[error("{0}")]
    ConfigFile(String),
    #[error("[server] socket_group: this host does not know the group {0:?}")]
    Group(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    #[error("the thread that talks to identity providers has ended; see the log")]
    Upstream,
}

impl StartError {
    fn exit_code(&self) -> u8 {
        match self {
            StartError::Config(_)
            | StartError::ConfigFile(_)
            | StartError::Group(_)
            | StartError::Bind(
                BindError::Folder { .. } | BindError::NotASocket(_) | BindError::TooLong { .. },
            ) => exit::CONFIG,
            StartError::Bind(_) | StartError::System(_) | StartError::Upstream => exit::FINDINGS,
        }
    }
}

fn serve(args: ServeArgs) -> u8 {
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
        Ears::new(Heard::Reload)
            .map_err(StartError::System)
            .and_then(|ears| daemon(&Plan { config, socket }, ears, |_| {})),
    )
}

/// Says why the daemon ended and turns it into an exit code.
fn finish(outcome: Result<(), StartError>) -> u8 {
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

/// A configuration that can be used, and what there is to say about it.
struct Read {
    config: Config,
    /// What the files say of each profile's access.
    access: AccessOnDisk,
    findings: Vec<Finding>,
    /// Names the files that say so.
    seen: Vec<u8>,
}

fn sources(path: &Path, readers: &Look) -> Result<Sources, StartError> {
    load::sources(path, daemon_uid(), readers)
        .map_err(|error| StartError::ConfigFile(error.to_string()))
}

/// What the files say.
fn understood(sources: &Sources) -> Result<Read, StartError> {
    let mut outcome = config::load(sources);
    match outcome.config.take() {
        Some(config) => Ok(Read {
            config,
            access: outcome.access,
            findings: outcome.findings,
            seen: load::digest(sources),
        }),
        None => Err(StartError::Config(Box::new(outcome))),
    }
}

/// Reads the files, and says who else could. Whom the socket lets in stands in the very files whose readers are looked at, unless the
/// service manager holds it.
fn read(
    path: &Path,
    inherited: Option<&std::os::unix::net::UnixListener>,
) -> Result<(Read, Look), StartError> {
    let readers = privacy::look(inherited, None)?;
    let read = understood(&sources(path, &readers)?)?;
    let meant = privacy::look(inherited, Some(&read.config.server))?;
    if meant.is_like(&readers) {
        return Ok((read, readers));
    }
    Ok((understood(&sources(path, &meant)?)?, meant))
}

/// Logs what no profile says for itself: files that cannot be used, and keys outside of profiles.
fn say(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.profile.is_none()) {
        match finding.severity {
            Severity::Error => error!("{}", worded(finding)),
            Severity::Warning => warn!("{}", worded(finding)),
        }
    }
}

/// A finding as one line of the log.
fn worded(finding: &Finding) -> String {
    let mut line = finding.one_line();
    if !finding.help.is_empty() {
        line.push_str("; ");
        line.push_str(&finding.help);
    }
    line
}

/// Runs the daemon until SIGTERM or SIGINT; one that came before it ran counts. `ready` is called when the socket answers.
fn daemon(plan: &Plan, ears: Ears, ready: impl FnOnce(&Path)) -> Result<(), StartError> {
    supervisor::harden();
    let inherited = supervisor::inherit()?;
    let (read, readers) = read(&plan.config, inherited.listener.as_ref())?;
    let Read {
        config,
        access,
        findings,
        seen,
    } = read;
    say(&findings);
    let (new_listener, listeners) = mpsc::channel(1);
    let Door {
        listener,
        path,
        plate: mut doorplate,
    } = door::open(plan, &config.server, inherited.listener, new_listener)?;

    let clock = Clock::system();
    let callers = Callers::new();
    let audit = Audit::start(clock.clone(), &config.audit)?;
    let nobody = Access::resolve(&[], daemon_uid(), &crate::caller::SystemDirectory).0;
    let registry = Arc::new(ArcSwap::from_pointee(Registry::new(0, nobody, Vec::new())));
    let (reload, reloads) = mpsc::channel(RELOADS);
    let (stop, stopped) = watch::channel(false);
    let (unreachable, reachable) = watch::channel(None);
    // Later than `stop`: who waits for a credential when the daemon is told to end still gets it.
    let (rest, resting) = watch::channel(false);
    let (ask_ourselves, own_questions) = mpsc::channel(1);
    let limits = config.server.limits.clone();
    let metrics_listen = config.server.metrics_listen;
    let upstream = upstream::start(upstream::Setup {
        config,
        access,
        findings,
        seen,
        config_path: plan.config.clone(),
        readers,
        registry: registry.clone(),
        clock: clock.clone(),
        reloads,
        unreachable: reachable,
        callers: callers.clone(),
        audit: audit.clone(),
        left: Left::by_an_earlier_run(inherited.stored)?,
        heartbeat: supervisor::watchdog().map(|limit| (ask_ourselves, limit)),
        stop: resting,
    })?;

    let Ears {
        runtime,
        mut signals,
    } = ears;
    let mut ended = upstream.ended;
    let outcome = runtime.block_on(async {
        let listener = UnixListener::from_std(listener)?;
        let broker = upstream.ready.await.map_err(|_| StartError::Upstream)?;
        let published = registry.clone();
        let desk = Arc::new(Desk {
            registry,
            broker,
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
        if let Some(address) = metrics_listen {
            // Nobody is to be without credentials because somebody cannot be measured.
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    info!(%address, "metrics are served there too");
                    tokio::spawn(server::scrape::run(listener, desk.clone(), stopped.clone()));
                }
                Err(error) => error!(
                    %address, %error,
                    "[server] metrics_listen: cannot listen there, so metrics are served on the Unix socket only"
                ),
            }
        }
        let serving = server::run(listener, listeners, own_questions, desk, stopped);
        let counting = audit.clone();
        tokio::spawn(async move { counting.flush_for_ever().await });
        tokio::pin!(serving);
        info!(socket = %path.display(), pid = std::process::id(), "ready");
        let mut status = server::in_one_line(&published.load(), &audit, clock.now());
        supervisor::ready(&status);
        ready(&path);
        let (tell_reloaded, mut reloaded) = mpsc::channel(1);
        let mut look = tokio::time::interval(doorplate::LOOK);
        loop {
            tokio::select! {
                () = &mut serving => return Ok(()),
                heard = signals.next() => match heard {
                    Heard::Stop if *stop.borrow() => {
                        warn!("told to stop again: stopping at once");
                        return Ok(());
                    }
                    Heard::Stop => {
                        info!("stopping");
                        supervisor::stopping();
                        stop.send_replace(true);
                    }
                    // Those that are queued will see this change too. What becomes of it is in the log and in the status.
                    Heard::Reload => {
                        audit.reopen();
                        supervisor::reloading();
                        let (order, mut reports) = Order::new();
                        drop(reload.try_send(order));
                        let done = tell_reloaded.clone();
                        tokio::spawn(async move {
                            let settled = reports.wait_for(|report| {
                                report.as_ref().is_some_and(|report| report.settled)
                            });
                            // Given up, or nobody to tell it any more: it is over all the same.
                            let _ = tokio::time::timeout(server::RELOAD_WAIT, settled).await;
                            let _ = done.send(()).await;
                        });
                    }
                },
                // The files are read again for its sake, since what there is to say stands in what is in force.
                _ = look.tick(), if !*stop.borrow() => {
                    if let Some(plate) = &mut doorplate && plate.look() {
                        unreachable.send_replace(plate.trouble().map(str::to_owned));
                        drop(reload.try_send(Order::new().0));
                    }
                    let now = server::in_one_line(&published.load(), &audit, clock.now());
                    if now != status {
                        supervisor::status(&now);
                        status = now;
                    }
                }
                Some(()) = reloaded.recv(), if !*stop.borrow() => supervisor::ready(&status),
                _ = &mut ended => return Err(StartError::Upstream),
            }
        }
    });
    rest.send_replace(true);
    runtime.block_on(async {
        audit.finish(LAST_RECORDS).await;
        // It has its successor's credentials kept.
        let _ = tokio::time::timeout(LAST_RECORDS, &mut ended).await;
    });
    runtime.shutdown_background();
    drop(doorplate);
    info!("stopped");
    outcome
}

pub(crate) fn daemon_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn group(principal: &Principal) -> Result<u32, StartError> {
    match principal {
        Principal::Id(id) => Ok(*id),
        Principal::Name(name) => match crate::caller::SystemDirectory.group(name) {
            Ok(found) => found.ok_or_else(|| StartError::Group(name.clone())),
            Err(unanswered) => Err(StartError::System(io::Error::other(format!(
                "[server] socket_group: the group {name:?} cannot be looked up now: {}",
                unanswered.why
            )))),
        },
    }
}

/// What hears signals from its making on, whenever somebody comes to ask what was heard.
struct Ears {
    runtime: tokio::runtime::Runtime,
    signals: Signals,
}

impl Ears {
    fn new(hang_up_means: Heard) -> io::Result<Ears> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let signals = {
            let _inside = runtime.enter();
            Signals::new(hang_up_means)?
        };
        Ok(Ears { runtime, signals })
    }
}

/// The signals that mean something here.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    hang_up_means: Heard,
}

impl Signals {
    fn new(hang_up_means: Heard) -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            hang_up_means,
        })
    }

    async fn next(&mut self) -> Heard {
        tokio::select! {
            _ = self.terminate.recv() => Heard::Stop,
            _ = self.interrupt.recv() => Heard::Stop,
            _ = self.hang_up.recv() => self.hang_up_means,
        }
    }
}

#[derive(Clone, Copy)]
enum Heard {
    Stop,
    Reload,
}
