//! The second thread: identity providers, files, and every lifecycle.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tracing::{debug, error, warn};

use super::assembly::{self, Assembly};
use super::keeper::{Keeper, KeptAs, Left};
use super::{Read, StartError, daemon_uid, heartbeat, load, say, sources, understood, worded};
use crate::audit::Audit;
use crate::broker::{Broker, Tools};
use crate::caller::Callers;
use crate::clock::Clock;
use crate::core::config::{AccessOnDisk, Finding};
use crate::core::credential::Fingerprinter;
use crate::core::profile::files::paths;
use crate::core::profile::{Config, ProfileName, Server};
use crate::files::{self, Files, Interest};
use crate::material::Surroundings;
use crate::provider;
use crate::readers::Look;
use crate::registry::Current;
use crate::registry::reload::Order;
use crate::server;

/// Files are read again this often, for file systems that send no events.
pub const POLL: Duration = Duration::from_secs(60);

// Without events a rotation is in force within 65 s: the rest is for reading, and for the trial of what was read.
const _: () = assert!(POLL.as_secs() + 5 <= 65);

/// The same where the system says that it gives no events at all.
const POLL_DEAF: Duration = Duration::from_secs(10);

/// After something could not be used, its files are read again this soon, then twice as late each time up to [`POLL`]: a
/// rotation may be under way.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What the thread is made with.
pub struct Setup {
    pub config: Config,
    /// What the files say of each profile's access.
    pub access: AccessOnDisk,
    /// What has been said about it.
    pub findings: Vec<Finding>,
    /// Names the files that it was read from.
    pub seen: Vec<u8>,
    pub config_path: PathBuf,
    /// Looks who else can read files of secrets.
    pub readers: Look,
    pub registry: Current,
    pub clock: Clock,
    /// Somebody wants everything read again.
    pub reloads: mpsc::Receiver<Order>,
    /// Why callers do not get to the socket.
    pub unreachable: watch::Receiver<Option<String>>,
    /// Tells who connects.
    pub callers: Callers,
    pub audit: Arc<Audit>,
    /// What an earlier run has left.
    pub left: Left,
    /// The way to ask the server, and how often the service manager wants to know that it answers.
    pub heartbeat: Option<(mpsc::Sender<DuplexStream>, Duration)>,
    pub stop: watch::Receiver<bool>,
}

/// The running thread.
pub struct Upstream {
    /// Comes when every profile has been taken in; none has to have a credential yet.
    pub ready: oneshot::Receiver<Broker>,
    /// Comes when the thread ends, which it must not do by itself.
    pub ended: oneshot::Receiver<()>,
}

/// Starts the thread.
pub fn start(setup: Setup) -> Result<Upstream, StartError> {
    let (tell_ready, ready) = oneshot::channel();
    let (tell_end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("upstream".into())
        .spawn(move || {
            // Dropped when the thread ends, by a panic too.
            let _tell_end = tell_end;
            runtime.block_on(run(setup, tell_ready));
            runtime.shutdown_background();
        })?;
    Ok(Upstream { ready, ended })
}

async fn run(mut setup: Setup, tell_ready: oneshot::Sender<Broker>) {
    let published = Arc::new(Notify::new());
    let keeper = Keeper {
        registry: setup.registry.clone(),
        clock: setup.clock.clone(),
        published: published.clone(),
        left: KeptAs::from(&setup.left),
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
    let mut files = Files::new();
    let mut assembly = Assembly::new(
        broker.clone(),
        setup.registry.clone(),
        setup.clock.clone(),
        provider::Shared::new(setup.clock.clone()),
        daemon_uid(),
        setup.left,
        files.stirrer(),
    );
    assembly.no_units = setup.callers.no_units().map(str::to_owned);
    let surroundings = std::mem::take(&mut assembly.surroundings);
    assembly.surroundings = surroundings.with_readers(setup.readers.clone());
    let started_with = setup.config.server.clone();
    let mut config = setup.config;
    // What the files say of access holds, whether or not the rest of what they say can be used.
    let mut access = setup.access;
    let mut interest = interest_in(&setup.config_path, &config, &assembly.surroundings);
    files.follow(&interest);
    let about = about_the_daemon(&started_with, &config, &setup.unreachable, &files);
    let mut complete = take_over(&mut assembly, &config, &access, about).await.0;
    assembly.left.forget();
    let mut keeper = tokio::spawn(keeper.run(setup.stop.clone()));
    if tell_ready.send(broker).is_err() {
        return;
    }
    let mut pause = READ_AGAIN;
    // What was said last of the configuration, so that it is not said at every look.
    let mut said: Vec<String> = setup.findings.iter().map(worded).collect();
    let mut waiting: Vec<Waiting> = Vec::new();
    // Names the files as they were when they were understood last.
    let mut seen = setup.seen;
    // Why what they say is not in force.
    let mut refused = Vec::new();
    loop {
        let poll = if files.hears() { POLL } else { POLL_DEAF };
        let by_time = tokio::select! {
            asked = setup.reloads.recv() => match asked {
                Some(order) => {
                    // Whoever asks at the same time gets the same look.
                    let also = std::iter::from_fn(|| setup.reloads.try_recv().ok());
                    waiting.extend(std::iter::once(order).chain(also).map(|order| Waiting {
                        order,
                        after: assembly.looks(),
                        removed: Vec::new(),
                    }));
                    false
                }
                None => return,
            },
            () = files.changed() => false,
            () = tokio::time::sleep(if complete { poll } else { pause.min(poll) }) => true,
            _ = setup.stop.wait_for(|stop| *stop) => {
                // What was published last is kept too.
                let _ = (&mut keeper).await;
                return;
            }
            ended = &mut actor => {
                error!(panicked = ended.is_err(), "the broker has ended");
                return;
            }
        };
        pause = if by_time {
            (pause * 2).min(POLL)
        } else {
            READ_AGAIN
        };
        // Watched before it is read, so that nothing changes unseen in between.
        files.follow(&interest);
        let (path, before) = (setup.config_path.clone(), seen.clone());
        let (callers, readers) = (setup.callers.clone(), setup.readers.anew());
        let look = move || {
            callers.read_subordinate_uids();
            look(&path, &before, &readers)
        };
        match tokio::task::spawn_blocking(look).await {
            Ok(None) => {}
            Ok(Some((now, Ok(read)))) => {
                seen = now;
                let lines: Vec<String> = read.findings.iter().map(worded).collect();
                if lines != said {
                    say(&read.findings);
                    said = lines;
                }
                if read.config.audit != config.audit {
                    setup.audit.configure(&read.config.audit).await;
                }
                (config, access) = (read.config, read.access);
                let now = interest_in(&setup.config_path, &config, &assembly.surroundings);
                if now != interest {
                    interest = now;
                    files.follow(&interest);
                }
                refused = Vec::new();
            }
            Ok(Some((now, Err(error)))) => {
                seen = now;
                if let StartError::Config(outcome) = &error {
                    access = outcome.access.clone();
                }
                refused = refuse(&error, &mut said);
            }
            // Not what the panic said: there may be something of the files in it.
            Err(_) => {
                let why = "reading the configuration ended in a defect of tokend; please report it";
                error!("{why}");
                seen = Vec::new();
                refused = vec![why.to_owned()];
            }
        }
        // Of a configuration that is kept, too: its certificates and secrets go on being rotated.
        let about = about_the_daemon(&started_with, &config, &setup.unreachable, &files);
        let (all, removed) = take_over(&mut assembly, &config, &access, about).await;
        complete = all && refused.is_empty();
        assembly.refuse(refused.clone());
        waiting.retain_mut(|waiting| waiting.tell(&assembly, &removed));
    }
}

/// What names the files now and what they say, unless they are those of `before`: what was understood of them holds then.
fn look(path: &Path, before: &[u8], readers: &Look) -> Option<(Vec<u8>, Result<Read, StartError>)> {
    match sources(path, readers) {
        // It may be readable again, as it was, at the next look.
        Err(error) => Some((Vec::new(), Err(error))),
        Ok(sources) => {
            let now = load::digest(&sources);
            (now != before).then(|| (now, understood(&sources)))
        }
    }
}

/// Somebody who waits for the result of a reload.
struct Waiting {
    order: Order,
    /// Looks at the files before it.
    after: u64,
    removed: Vec<ProfileName>,
}

impl Waiting {
    /// Tells how it stands; whether there is more to come.
    fn tell(&mut self, assembly: &Assembly, removed: &[ProfileName]) -> bool {
        self.removed.extend_from_slice(removed);
        let report = Arc::new(assembly.report(self.after, &self.removed));
        let more = !report.settled;
        self.order.0.send(Some(report)).is_ok() && more
    }
}

/// Where names of users and groups become numbers. A number that is free goes to the next user that is made, who must not be
/// taken for the one before; a database elsewhere (LDAP) is asked again every [`POLL`].
const USERS: [&str; 4] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/subuid",
    "/etc/nsswitch.conf",
];

/// The files and folders that matter.
pub fn interest_in(path: &Path, config: &Config, surroundings: &Surroundings) -> Interest {
    let mut files = paths(config);
    files.insert(path.to_owned());
    files.extend(USERS.map(PathBuf::from));
    let mut folders = BTreeSet::new();
    if let Some(folder) = path.parent() {
        folders.insert(folder.join("profiles.d"));
    }
    folders.extend(surroundings.credentials_directory.clone());
    Interest { files, folders }
}

/// Says, once, why the configuration in force stays.
fn refuse(error: &StartError, said: &mut Vec<String>) -> Vec<String> {
    let lines: Vec<String> = match error {
        StartError::Config(outcome) => outcome.findings.iter().map(worded).collect(),
        error => vec![error.to_string()],
    };
    if lines != *said {
        for line in &lines {
            error!("{line}");
        }
        warn!("the configuration cannot be used; the one in force is kept");
        *said = lines.clone();
    }
    lines
}

/// Takes a configuration over; whether everything is served as it says, and which profiles are gone.
async fn take_over(
    assembly: &mut Assembly,
    config: &Config,
    access: &AccessOnDisk,
    warnings: Vec<String>,
) -> (bool, Vec<ProfileName>) {
    let config = config.clone();
    let (surroundings, clock) = (assembly.surroundings.clone(), assembly.clock.clone());
    let read = tokio::task::spawn_blocking(move || {
        let gathered = assembly::gather(&config, &surroundings, &clock);
        (config, gathered)
    })
    .await;
    match read {
        Ok((config, gathered)) => {
            let looked = assembly.apply(&config, access, gathered, warnings).await;
            debug!(?looked, "profiles");
            // Reading a configuration takes several times the memory that what is kept of it does.
            drop(config);
            let _ = tokio::task::spawn_blocking(crate::sys::return_free_memory).await;
            (looked.complete, looked.removed)
        }
        // Nor what this one said.
        Err(_) => {
            error!("reading the profiles' files ended in a defect of tokend; please report it");
            (false, Vec::new())
        }
    }
}

/// What an operator should know of the daemon itself.
fn about_the_daemon(
    started_with: &Server,
    config: &Config,
    unreachable: &watch::Receiver<Option<String>>,
    files: &Files,
) -> Vec<String> {
    let mut warnings = not_before_a_restart(started_with, &config.server);
    warnings.extend(unreachable.borrow().clone());
    warnings.extend((!files.hears()).then(|| files::DEAF.to_owned()));
    warnings
}

/// What was changed and is looked at only once.
fn not_before_a_restart(started_with: &Server, now: &Server) -> Vec<String> {
    [
        ("socket", started_with.socket != now.socket),
        (
            "socket_group",
            started_with.socket_group != now.socket_group,
        ),
        ("socket_mode", started_with.socket_mode != now.socket_mode),
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

/// Of this host, so that equal configurations on many hosts renew at different moments.
fn host_seed() -> u64 {
    let mut hasher = DefaultHasher::new();
    std::fs::read("/etc/machine-id").ok().hash(&mut hasher);
    rustix::system::uname()
        .nodename()
        .to_bytes()
        .hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by leaving it to [`POLL`]: for a minute whoever got a deleted user's number was served as that user.
    #[test]
    fn the_database_of_users_is_watched() {
        let sources = crate::core::config::Sources {
            main: crate::core::config::SourceFile {
                path: "/x/tokend.toml".into(),
                text: String::new(),
                private: true,
                readers: String::new(),
            },
            fragments: Vec::new(),
        };
        let outcome = crate::core::config::load(&sources);
        let config = outcome.config.expect("usable");
        let surroundings = assembly::surroundings();
        let interest = interest_in(Path::new("/x/tokend.toml"), &config, &surroundings);
        for file in ["/etc/passwd", "/etc/group", "/etc/subuid"] {
            assert!(interest.files.contains(Path::new(file)), "{file}");
        }
    }
}
