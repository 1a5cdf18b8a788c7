//! The second thread: identity providers, files, and every lifecycle.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::assembly::{self, Assembly};
use super::{StartError, configuration, daemon_uid};
use crate::broker::{Broker, Tools};
use crate::clock::Clock;
use crate::core::credential::Fingerprinter;
use crate::core::profile::Config;
use crate::provider;
use crate::registry::Current;
use crate::server;

/// Files are read again this often, whatever the reasons to think that nothing has changed.
const POLL: Duration = Duration::from_secs(60);

/// What the thread is made with.
pub struct Setup {
    pub config: Config,
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
    let surroundings = assembly::surroundings();
    let mut assembly = Assembly::new(
        broker.clone(),
        setup.registry.clone(),
        setup.clock.clone(),
        provider::Shared::new(setup.clock.clone()),
        surroundings,
        daemon_uid(),
    );
    take_over(&mut assembly, setup.config.clone()).await;
    if tell_ready.send(broker).is_err() {
        return;
    }
    loop {
        let asked = tokio::select! {
            asked = setup.reloads.recv() => match asked {
                Some(()) => true,
                None => return,
            },
            () = tokio::time::sleep(POLL) => false,
            _ = setup.stop.wait_for(|stop| *stop) => return,
            ended = &mut actor => {
                error!(?ended, "the broker has ended");
                return;
            }
        };
        reload(&mut assembly, &setup.config_path, asked).await;
    }
}

async fn reload(assembly: &mut Assembly, path: &std::path::Path, asked: bool) {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || configuration(&path)).await;
    match read {
        Ok(Ok(config)) => take_over(assembly, config).await,
        Ok(Err(StartError::Config(findings))) => {
            for finding in findings {
                error!(place = %format!("{}:{}:{}", finding.file.display(), finding.line, finding.column), "{}", finding.message);
            }
            warn!(
                asked,
                "the configuration cannot be used; the one in force is kept"
            );
        }
        Ok(Err(error)) => warn!(asked, "{error}; the configuration in force is kept"),
        Err(error) => error!(%error, "reading the configuration failed in tokend itself"),
    }
}

async fn take_over(assembly: &mut Assembly, config: Config) {
    let (surroundings, clock) = (assembly.surroundings.clone(), assembly.clock.clone());
    let read = tokio::task::spawn_blocking(move || {
        let gathered = assembly::gather(&config, &surroundings, &clock);
        (config, gathered)
    })
    .await;
    match read {
        Ok((config, gathered)) => {
            let report = assembly.apply(&config, gathered).await;
            info!(?report, "profiles");
        }
        Err(error) => error!(%error, "reading the profiles' files failed in tokend itself"),
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
