//! Warm restart: the service manager keeps what is published and the last usable configuration, and
//! the next run takes both back.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use super::last_good::{self, Sealed};
use crate::clock::Clock;
use crate::core::credential::Variant;
use crate::core::handover::{Handover, Kept};
use crate::core::profile::ProfileName;
use crate::registry::{Current, ProfileHealth};
use crate::supervisor::store;

/// After a publication, the wait for others that come with it.
const SETTLE: Duration = Duration::from_millis(100);

/// Writing takes at most one part in this many of the time. With thousands of profiles something is
/// renewed all the time, and the previous credential is good for a while.
const SHARE: u32 = 20;

/// What an earlier run has left, and the number it was stored under.
pub struct PreviousRun {
    /// The key that the earlier run made fingerprints with.
    pub key: Zeroizing<[u8; 32]>,
    kept: HashMap<ProfileName, Vec<Kept>>,
    number: u64,
    stored: Option<u64>,
    /// The configuration that the earlier run could use last.
    pub configuration: Option<Zeroizing<String>>,
}

impl PreviousRun {
    /// Reads what the service manager has kept. What cannot be used is logged and dropped.
    pub fn by_an_earlier_run(stored: Vec<(String, OwnedFd)>) -> io::Result<PreviousRun> {
        let boot = this_boot();
        let mut newest = None;
        for (name, content) in store::read(stored) {
            let usable = content
                .map_err(|error| error.to_string())
                .and_then(|bytes| {
                    let handover = Handover::decode(&bytes).map_err(|why| why.to_string())?;
                    of_this_boot(&handover.boot, &boot)?;
                    Ok(handover)
                });
            match usable {
                Ok(handover) => newest = Some(handover),
                Err(why) => warn!(name, why, "what an earlier run has left cannot be used"),
            }
        }
        let Some(handover) = newest else {
            let mut key = Zeroizing::new([0; 32]);
            aws_lc_rs::rand::fill(&mut *key)
                .map_err(|_| io::Error::other("the system gives no random numbers"))?;
            return Ok(PreviousRun {
                key,
                kept: HashMap::new(),
                number: 0,
                stored: None,
                configuration: None,
            });
        };
        let mut kept: HashMap<ProfileName, Vec<Kept>> = HashMap::new();
        info!(
            credentials = handover.kept.len(),
            "an earlier run has left credentials"
        );
        for one in handover.kept {
            kept.entry(one.profile.clone()).or_default().push(one);
        }
        Ok(PreviousRun {
            key: handover.key,
            kept,
            number: handover.number,
            stored: Some(handover.number),
            configuration: handover.configuration,
        })
    }

    /// Takes out what was left of a profile.
    pub fn take(&mut self, profile: &ProfileName) -> Vec<Kept> {
        self.kept.remove(profile).unwrap_or_default()
    }

    /// Drops what no profile has taken: those profiles are gone.
    pub fn forget(&mut self) {
        self.kept = HashMap::new();
    }
}

/// Stores what is published whenever it has changed.
pub struct WarmRestart {
    pub registry: Current,
    pub clock: Clock,
    /// Notified when something is published.
    pub published: Arc<Notify>,
    pub left: HandoverName,
    /// The last usable configuration.
    pub configuration: watch::Receiver<Sealed>,
}

/// The names of the next handover and of the previous one.
pub struct HandoverName {
    key: Zeroizing<[u8; 32]>,
    number: u64,
    stored: Option<u64>,
}

impl From<&PreviousRun> for HandoverName {
    fn from(left: &PreviousRun) -> HandoverName {
        HandoverName {
            key: left.key.clone(),
            number: left.number,
            stored: left.stored,
        }
    }
}

impl WarmRestart {
    /// Stores after each change until `stop`, and then once more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        if !store::is_there() {
            info!(
                "there is no descriptor store (systemd with FileDescriptorStoreMax=): credentials do not survive a restart"
            );
            return;
        }
        loop {
            let stopping = tokio::select! {
                () = self.published.notified() => false,
                _ = stop.wait_for(|stop| *stop) => true,
            };
            if !stopping {
                tokio::time::sleep(SETTLE).await;
            }
            let begin = tokio::time::Instant::now();
            self.keep().await;
            if stopping {
                return;
            }
            let pause = begin.elapsed() * SHARE;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    async fn keep(&mut self) {
        let configuration = self.configuration.borrow().clone();
        let handover = Handover {
            key: self.left.key.clone(),
            boot: this_boot(),
            number: self.left.number + 1,
            kept: self.published(),
            configuration: configuration.and_then(|sealed| last_good::text(&sealed)),
        };
        let before = self.left.stored;
        let number = handover.number;
        let keeping =
            tokio::task::spawn_blocking(move || store::keep(&handover.encode(), number, before));
        match keeping.await {
            Ok(Ok(())) => {
                self.left.number = number;
                self.left.stored = Some(number);
                debug!(number, "credentials kept for the next run");
            }
            Ok(Err(error)) => {
                warn!(%error, "credentials cannot be kept for the next run; what was kept before is");
            }
            Err(error) => warn!(%error, "credentials cannot be kept for the next run"),
        }
    }

    /// Every credential that is still valid.
    fn published(&self) -> Vec<Kept> {
        let now = self.clock.now();
        let registry = self.registry.load();
        let mut all = Vec::new();
        for entry in registry.all() {
            let ProfileHealth::Managed(handle) = &entry.health else {
                continue;
            };
            let Some((identity, material)) = handle.keep() else {
                continue;
            };
            let variants = handle.variants().into_iter();
            for variant in std::iter::once(Variant::default()).chain(variants) {
                let Some(slot) = handle.slot(&variant) else {
                    continue;
                };
                let view = slot.view();
                if let Some(answer) = view.servable(now, Duration::ZERO) {
                    all.push(Kept {
                        profile: entry.name.clone(),
                        variant,
                        identity,
                        material,
                        credential: (*answer.credential).clone(),
                    });
                }
            }
        }
        all
    }
}

/// The id of the running boot, or an empty string if unknown. The shipped unit hides /proc/sys, and
/// passes the id itself.
fn this_boot() -> String {
    let kernels = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok();
    boot_id(kernels.or_else(|| std::env::var("TOKEND_BOOT_ID").ok()))
}

/// Drops the hyphens, which the kernel writes and systemd does not.
fn boot_id(text: Option<String>) -> String {
    text.unwrap_or_default().trim().replace('-', "")
}

fn of_this_boot(theirs: &str, ours: &str) -> Result<(), String> {
    match () {
        () if ours.is_empty() => Err(
            "it is not known which boot this is: /proc/sys is hidden, and the unit has no Environment=TOKEND_BOOT_ID=%b"
                .to_owned(),
        ),
        () if theirs != ours => Err("it is of another boot".to_owned()),
        () => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by a boot without an id that equals every other: times of another boot's clock would
    /// be believed.
    #[test]
    fn only_what_is_known_to_be_of_this_boot_is_taken_back() {
        let kernels = boot_id(Some("6c8f3a1e-0b5d-4e7a-9c42-1f0e8d7b6a59\n".into()));
        let systemds = boot_id(Some("6c8f3a1e0b5d4e7a9c421f0e8d7b6a59".into()));
        assert_eq!(of_this_boot(&kernels, &systemds), Ok(()));
        assert!(of_this_boot("0b5d", &kernels).is_err());
        let unknown = boot_id(None);
        let why = of_this_boot(&unknown, &unknown).expect_err("unknown");
        assert!(why.contains("TOKEND_BOOT_ID=%b"), "{why}");
    }
}
