//! The canary: the daemon asks for a credential with new material or another definition before that
//! replaces what is served.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Assembly;
use crate::broker::{Asker, Broker, ProfileHandle, View};
use crate::clock::Clock;
use crate::core::credential::Variant;
use crate::core::lifecycle::LifecycleState;
use crate::core::lifecycle::rotation::Rotation;
use crate::core::profile::ProfileName;
use crate::core::time::Stamp;

/// The progress of a staged version's trial. Each step is sent to [`Assembly::promote`].
pub struct Trial(Arc<Steps>);

#[derive(Default)]
struct Steps {
    /// The first attempt has ended, well or badly.
    tried: AtomicBool,
    /// The version has delivered, and every variant that was in use has at least been asked for.
    over: AtomicBool,
}

impl Trial {
    /// Starts the trial of `handle`, the profile's next version, with the variants that callers of
    /// `live` use.
    pub fn start(
        assembly: &Assembly,
        profile: ProfileName,
        handle: Arc<ProfileHandle>,
        live: Arc<ProfileHandle>,
    ) -> Trial {
        let steps = Arc::new(Steps::default());
        let (broker, clock) = (assembly.broker.clone(), assembly.clock.clone());
        let step = TrialStep {
            profile,
            told: assembly.trials.clone(),
        };
        tokio::spawn(accompany(
            broker.clone(),
            step.clone(),
            clock.clone(),
            handle.clone(),
            live.clone(),
        ));
        let taken = steps.clone();
        tokio::spawn(async move {
            let mut views = handle.own().watch();
            // A lazy profile is tried too. The views tell the result.
            let _ = broker
                .ask(
                    &handle,
                    Variant::default(),
                    Duration::ZERO,
                    Asker::default(),
                )
                .await;
            taken.tried.store(true, Ordering::Release);
            step.tell().await;
            let _ = views
                .wait_for(|view| {
                    view.closed || view.servable(clock.now(), Duration::ZERO).is_some()
                })
                .await;
            // Callers with other scopes or another audience should not have to wait for their
            // credential either.
            for variant in live.variants() {
                let _ = broker
                    .ask(&handle, variant, Duration::ZERO, Asker::default())
                    .await;
            }
            taken.over.store(true, Ordering::Release);
            step.tell().await;
        });
        Trial(steps)
    }

    pub fn was_tried(&self) -> bool {
        self.0.tried.load(Ordering::Acquire)
    }

    pub fn is_over(&self) -> bool {
        self.0.over.load(Ordering::Acquire)
    }
}

/// Whether the live version has nothing left to lose: it has no credential, and the last attempt at
/// one failed. A version that is asked for its first credential, as one that was asleep is, may
/// still deliver.
pub fn has_ended(live: &View, now: Stamp) -> bool {
    live.servable(now, Duration::ZERO).is_none()
        && live.trouble.is_some()
        && live.state(now) != LifecycleState::Asleep
}

/// Announces progress in the trial of a profile.
#[derive(Clone)]
struct TrialStep {
    profile: ProfileName,
    told: mpsc::Sender<ProfileName>,
}

impl TrialStep {
    async fn tell(&self) {
        // Nobody receives this while the daemon ends.
        let _ = self.told.send(self.profile.clone()).await;
    }
}

/// Follows both versions for as long as there are two. If the identity provider refuses the live
/// version, the new one is tried at once. When the live version ends, the new one takes over as
/// soon as possible.
async fn accompany(
    broker: Broker,
    step: TrialStep,
    clock: Clock,
    next: Arc<ProfileHandle>,
    live: Arc<ProfileHandle>,
) {
    let (mut of_live, mut of_next) = (live.own().watch(), next.own().watch());
    let mut rotation = Rotation::default();
    let mut ended = false;
    loop {
        let (one, other) = (live.own().view(), next.own().view());
        if one.closed || other.closed {
            return;
        }
        let now = clock.now();
        let signs = (one.trouble.as_ref(), other.trouble.as_ref());
        let again = rotation.sign(now.boot, signs.0, signs.1);
        let nothing_left = has_ended(&one, now);
        drop((one, other));
        if again {
            broker.again(&next).await;
        }
        if nothing_left && !ended {
            step.tell().await;
        }
        ended = nothing_left;
        let changed = tokio::select! {
            changed = of_live.changed() => changed,
            changed = of_next.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}
