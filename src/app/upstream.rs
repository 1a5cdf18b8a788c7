//! The second thread: identity providers, files, and every lifecycle.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, error, warn};

use super::assembly::{self, Applied, Assembly};
use super::{Read, StartError, configuration, daemon_uid, say, worded};
use crate::broker::{Broker, Tools};
use crate::clock::Clock;
use crate::core::config::Finding;
use crate::core::credential::Fingerprinter;
use crate::core::profile::Config;
use crate::core::profile::files::paths;
use crate::files::{Files, Interest};
use crate::provider;
use crate::registry::Current;
use crate::server;

/// Files are read again this often, for file systems that send no events.
const POLL: Duration = Duration::from_secs(60);

/// After something could not be used, its files are read again this soon, then twice as late each time up to [`POLL`]: a
/// rotation may be under way.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What the thread is made with.
pub struct Setup {
    pub config: Config,
    /// What has been said about it.
    pub findings: Vec<Finding>,
    pub config_path: PathBuf,
    pub registry: Current,
    pub clock: Clock,
    /// Somebody wants the configuration read again.
    pub reloads: mpsc::Receiver<()>,
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
    let mut key = [0; 32];
    aws_lc_rs::rand::fill(&mut key)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    std::thread::Builder::new()
        .name("upstream".into())
        .spawn(move || {
            // Dropped when the thread ends, by a panic too.
            let _tell_end = tell_end;
            runtime.block_on(run(setup, key, tell_ready));
            runtime.shutdown_background();
        })?;
    Ok(Upstream { ready, ended })
}

async fn run(mut setup: Setup, key: [u8; 32], tell_ready: oneshot::Sender<Broker>) {
    let (broker, actor) = Broker::new(Tools {
        clock: setup.clock.clone(),
        fingerprints: Fingerprinter::new(&key),
        encode: Arc::new(server::encode),
        host_seed: host_seed(),
    });
    let mut actor = tokio::spawn(actor);
    let mut files = Files::new();
    let surroundings = assembly::surroundings();
    let mut assembly = Assembly::new(
        broker.clone(),
        setup.registry.clone(),
        setup.clock.clone(),
        provider::Shared::new(setup.clock.clone()),
        surroundings,
        daemon_uid(),
        files.stirrer(),
    );
    let mut interest = interest_in(&setup.config_path, &setup.config, &assembly);
    files.follow(&interest);
    let mut sound = take_over(&mut assembly, setup.config).await;
    if tell_ready.send(broker).is_err() {
        return;
    }
    let mut pause = READ_AGAIN;
    loop {
        let by_time = tokio::select! {
            asked = setup.reloads.recv() => match asked {
                Some(()) => false,
                None => return,
            },
            () = files.changed() => false,
            () = tokio::time::sleep(if sound { POLL } else { pause }) => true,
            _ = setup.stop.wait_for(|stop| *stop) => return,
            ended = &mut actor => {
                error!(?ended, "the broker has ended");
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
        let path = setup.config_path.clone();
        sound = match tokio::task::spawn_blocking(move || configuration(&path)).await {
            Ok(Ok(Read { config, findings })) => {
                if findings != setup.findings {
                    say(&findings);
                    setup.findings = findings;
                }
                let now = interest_in(&setup.config_path, &config, &assembly);
                if now != interest {
                    interest = now;
                    files.follow(&interest);
                }
                take_over(&mut assembly, config).await
            }
            Ok(Err(error)) => {
                refuse(error, &mut setup.findings);
                false
            }
            Err(error) => {
                error!(%error, "reading the configuration failed in tokend itself");
                false
            }
        };
    }
}

/// The files and folders that matter.
fn interest_in(path: &Path, config: &Config, assembly: &Assembly) -> Interest {
    let mut files = paths(config);
    files.insert(path.to_owned());
    let mut folders = BTreeSet::new();
    if let Some(folder) = path.parent() {
        folders.insert(folder.join("profiles.d"));
    }
    folders.extend(assembly.surroundings.credentials_directory.clone());
    Interest { files, folders }
}

/// Says, once, why the configuration in force stays.
fn refuse(error: StartError, said: &mut Vec<Finding>) {
    match error {
        StartError::Config(findings) if findings == *said => return,
        StartError::Config(findings) => {
            for finding in &findings {
                error!("{}", worded(finding));
            }
            *said = findings;
        }
        error => error!("{error}"),
    }
    warn!("the configuration cannot be used; the one in force is kept");
}

/// Takes a configuration over; whether every profile of it can be used.
async fn take_over(assembly: &mut Assembly, config: Config) -> bool {
    let (surroundings, clock) = (assembly.surroundings.clone(), assembly.clock.clone());
    let read = tokio::task::spawn_blocking(move || {
        let gathered = assembly::gather(&config, &surroundings, &clock);
        (config, gathered)
    })
    .await;
    match read {
        Ok((config, gathered)) => {
            let report = assembly.apply(&config, gathered).await;
            debug!(?report, "profiles");
            !report.values().any(|applied| {
                matches!(applied, Applied::Kept | Applied::Staged | Applied::Invalid)
            })
        }
        Err(error) => {
            error!(%error, "reading the profiles' files failed in tokend itself");
            false
        }
    }
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
