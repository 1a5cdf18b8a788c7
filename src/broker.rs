//! Owns every lifecycle, runs their attempts under a budget, and publishes what callers may have.
//!
//! One task, the actor, owns all that changes. The rest of the program holds a [`Broker`] to send
//! it commands, and [`ProfileHandle`]s to read what it published: without a lock and without asking
//! the actor.

mod actor;
mod budget;
mod managed;
mod outage;
#[cfg(test)]
mod tests;
mod view;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc, oneshot};

pub use self::view::{Answer, EncodeFn, Slot, View};
use crate::clock::Clock;
use crate::core::credential::{Credential, Fingerprint, Fingerprinter, Variant};
use crate::core::failure::FailureKind;
use crate::core::lifecycle::{Refusal, Trouble};
use crate::core::profile::{ProfileName, Refresh};
use crate::core::time::BootTime;
use crate::provider::Provider;

/// Variants (other scopes, other audience) of one profile that live at the same time. More are
/// refused: each costs token requests for as long as it is in use.
pub const VARIANTS_PER_PROFILE: usize = 64;

/// The same of those that one principal has asked for first, so that nobody has them all.
pub const VARIANTS_PER_PRINCIPAL: usize = 16;

/// Commands that may queue up before their senders wait.
const QUEUE: usize = 1024;

/// What the broker needs to know of a profile.
#[derive(Clone)]
pub struct Spec {
    /// For logs and for the phase.
    pub name: ProfileName,
    /// Base URL of the API, handed to callers.
    pub target: Option<String>,
    /// When to renew.
    pub rules: Refresh,
    /// Makes the attempts.
    pub provider: Arc<dyn Provider>,
    /// The identity provider that it asks; None for methods that ask nobody.
    pub upstream: Option<IssuerBudget>,
    /// The identity provider has asked for this profile to wait until then (`Retry-After`), and
    /// why: a changed file is no reason not to.
    pub told_to_wait: Option<(BootTime, Trouble)>,
    /// It is to replace a version that works: the identity provider may not know it yet.
    pub replaces: bool,
    /// What is kept over a restart of the daemon: whose its credentials are, and what they are
    /// proven with.
    pub keep: Option<([u8; 32], [u8; 32])>,
    /// Credentials that an earlier run has left, and whether they are to be renewed at once.
    pub left: Vec<(Variant, Credential, bool)>,
}

/// An identity provider and what it may be asked at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerBudget {
    /// Profiles with the same name share one budget, with the strictest of their limits.
    pub name: String,
    /// Attempts at the same time, over all of them.
    pub max_in_flight: u32,
    /// Attempts per second, over all of them.
    pub max_per_second: u32,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The lifecycle says no.
    Refused(Refusal),
    /// The profile is gone.
    Gone,
    /// The broker is gone: the daemon ends.
    Stopped,
    /// Too many variants of this profile.
    TooManyVariants,
    /// Too many callers wait for this credential.
    Crowded,
}

/// On whose account something is asked for. By default it is nobody's: the daemon asks for itself.
#[derive(Clone, Default)]
pub struct Asker {
    /// The user.
    pub uid: Option<u32>,
    /// Called when what is asked forces a renewal that was not due.
    pub pays: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// A newer credential is there.
    pub replaced: bool,
    /// Otherwise: when to ask again.
    pub retry_after: Duration,
}

/// Number of a profile in the broker; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileId(u64);

/// Where the credentials of one profile are published.
#[derive(Debug)]
pub struct ProfileHandle {
    id: ProfileId,
    own: Arc<Slot>,
    variants: ArcSwap<HashMap<Variant, Arc<Slot>>>,
    attempts: Attempts,
    keep: Option<([u8; 32], [u8; 32])>,
    /// Gone with the profile, though somebody may still hold the handle.
    provider: Provides,
}

/// What gets the credentials of a handle.
struct Provides(Weak<dyn Provider>);

impl std::fmt::Debug for Provides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[provider]")
    }
}

/// Attempts of a handle and its variants that have ended, since the handle was made.
#[derive(Debug, Default)]
pub struct Attempts {
    /// With a credential.
    pub succeeded: AtomicU64,
    /// With a failure that may pass.
    pub unavailable: AtomicU64,
    /// With the identity provider saying no.
    pub rejected: AtomicU64,
    /// What they took together, in milliseconds.
    pub took: AtomicU64,
}

impl Attempts {
    fn ended(&self, failed: Option<FailureKind>, took: Duration) {
        let count = match failed {
            None => &self.succeeded,
            Some(FailureKind::Transient) => &self.unavailable,
            Some(FailureKind::Permanent) => &self.rejected,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.took.fetch_add(millis, Ordering::Relaxed);
    }
}

/// A handle is the same as itself, whatever is published there.
impl PartialEq for ProfileHandle {
    fn eq(&self, other: &ProfileHandle) -> bool {
        self.id == other.id
    }
}

impl ProfileHandle {
    /// The profile's own credential.
    #[must_use]
    pub fn own(&self) -> &Slot {
        &self.own
    }

    /// Whose its credentials are and what they are proven with, as that is kept over a restart;
    /// None: they are not.
    #[must_use]
    pub fn keep(&self) -> Option<([u8; 32], [u8; 32])> {
        self.keep
    }

    /// What has been tried for it.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Until when the identity provider has asked it to wait, and why.
    #[must_use]
    pub fn told_to_wait(&self) -> Option<(BootTime, Trouble)> {
        let view = self.own().view();
        let trouble = view
            .trouble
            .clone()
            .filter(|trouble| trouble.failure.retry_after.is_some())?;
        Some((view.next_attempt?, trouble))
    }

    /// What gets its credentials; None once the profile is gone.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn Provider>> {
        self.provider.0.upgrade()
    }

    /// Generation of its newest credential; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let view = self.own().view();
        view.answer
            .as_ref()
            .map_or(0, |answer| answer.credential.generation)
    }

    /// Everything beside the profile's own credential that callers use now.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        self.variants.load().keys().cloned().collect()
    }

    /// Has everybody who watches look again whether that is still permitted.
    pub fn wake_watchers(&self) {
        self.own.wake_watchers();
        self.variants
            .load()
            .values()
            .for_each(|slot| slot.wake_watchers());
    }

    /// Whether this credential is what it has published last, of its own or of a variant.
    #[must_use]
    pub fn publishes(&self, fingerprint: Fingerprint) -> bool {
        let is_it = |slot: &Slot| {
            let view = slot.view();
            let answer = view.answer.as_ref();
            answer.is_some_and(|answer| answer.credential.fingerprint == fingerprint)
        };
        is_it(&self.own) || self.variants.load().values().any(|slot| is_it(slot))
    }

    /// The slot of a variant, if it is alive.
    #[must_use]
    pub fn slot(&self, variant: &Variant) -> Option<Arc<Slot>> {
        if variant.is_default() {
            Some(self.own.clone())
        } else {
            self.variants.load().get(variant).cloned()
        }
    }
}

/// Sends commands to the actor. Clones speak to the same one.
#[derive(Clone)]
pub struct Broker {
    commands: mpsc::Sender<BrokerCommand>,
    ids: Arc<AtomicU64>,
}

enum BrokerCommand {
    AddProfile(Arc<ProfileHandle>, Box<Spec>),
    TakeOver(ProfileId, u64, oneshot::Sender<()>),
    Again(ProfileId),
    Remove(ProfileId),
    Ask {
        handle: ProfileId,
        variant: Variant,
        min_ttl: Duration,
        by: Asker,
        reply: oneshot::Sender<Result<Arc<Answer>, NoAnswer>>,
    },
    Slot {
        handle: ProfileId,
        variant: Variant,
        by: Asker,
        reply: oneshot::Sender<Result<Arc<Slot>, NoAnswer>>,
    },
    Report {
        handle: ProfileId,
        fingerprint: Fingerprint,
        by: Asker,
        reply: oneshot::Sender<Result<Reported, NoAnswer>>,
    },
}

/// What the actor is made with.
pub struct Tools {
    /// Tells the time.
    pub clock: Clock,
    /// Names credentials.
    pub fingerprints: Fingerprinter,
    /// Encodes a credential once, when it is published.
    pub encode: EncodeFn,
    /// Told when something is published that is kept.
    pub published: Arc<Notify>,
    /// Of this host; with a profile's name it gives the phase, so that a fleet spreads itself.
    pub host_seed: u64,
}

impl Broker {
    /// The handle, and the actor to be run: `run` ends when the last handle is gone.
    pub fn new(tools: Tools) -> (Broker, impl Future<Output = ()> + Send + 'static) {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let broker = Broker {
            commands,
            ids: Arc::new(AtomicU64::new(1)),
        };
        (broker, actor::Actor::new(tools).run(inbox))
    }

    /// Takes a profile in. An eager one is fetched at once.
    pub async fn add_profile(&self, spec: Spec) -> Arc<ProfileHandle> {
        let handle = Arc::new(ProfileHandle {
            id: ProfileId(self.ids.fetch_add(1, Ordering::Relaxed)),
            own: Arc::new(Slot::new(spec.rules.eager)),
            variants: ArcSwap::default(),
            attempts: Attempts::default(),
            keep: spec.keep,
            provider: Provides(Arc::downgrade(&spec.provider)),
        });
        self.send(BrokerCommand::AddProfile(handle.clone(), Box::new(spec)))
            .await;
        handle
    }

    /// A handle takes the place of another, whose newest credential had this generation. Done when
    /// this returns.
    pub async fn take_over_from(&self, handle: &ProfileHandle, generation: u64) {
        let (done, told) = oneshot::channel();
        self.send(BrokerCommand::TakeOver(handle.id, generation, done))
            .await;
        // A broker that is gone has nothing to number.
        let _ = told.await;
    }

    /// What was refused or failed may do now: it is tried at once, and often for a while.
    pub async fn again(&self, handle: &ProfileHandle) {
        self.send(BrokerCommand::Again(handle.id)).await;
    }

    /// Takes a profile out; its callers and watchers get NOT_FOUND.
    pub async fn remove(&self, handle: &ProfileHandle) {
        self.send(BrokerCommand::Remove(handle.id)).await;
    }

    /// A credential that lives for at least `min_ttl`: the published one if that will do, else the
    /// result of an attempt.
    ///
    /// # Errors
    /// [`NoAnswer`]. A caller that stops waiting cancels nothing.
    pub async fn ask(
        &self,
        handle: &ProfileHandle,
        variant: Variant,
        min_ttl: Duration,
        by: Asker,
    ) -> Result<Arc<Answer>, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.send(BrokerCommand::Ask {
            handle: handle.id,
            variant,
            min_ttl,
            by,
            reply,
        })
        .await;
        answer.await.unwrap_or(Err(NoAnswer::Stopped))
    }

    /// Where the credential of a variant is published, which begins to live by being asked for.
    ///
    /// # Errors
    /// [`NoAnswer::Gone`], [`NoAnswer::Stopped`], [`NoAnswer::TooManyVariants`]
    pub async fn slot(
        &self,
        handle: &ProfileHandle,
        variant: Variant,
        by: Asker,
    ) -> Result<Arc<Slot>, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.send(BrokerCommand::Slot {
            handle: handle.id,
            variant,
            by,
            reply,
        })
        .await;
        answer.await.unwrap_or(Err(NoAnswer::Stopped))
    }

    /// Takes note that an API refused a credential.
    ///
    /// # Errors
    /// [`NoAnswer::Gone`], [`NoAnswer::Stopped`]
    pub async fn report(
        &self,
        handle: &ProfileHandle,
        fingerprint: Fingerprint,
        by: Asker,
    ) -> Result<Reported, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.send(BrokerCommand::Report {
            handle: handle.id,
            fingerprint,
            by,
            reply,
        })
        .await;
        answer.await.unwrap_or(Err(NoAnswer::Stopped))
    }

    async fn send(&self, command: BrokerCommand) {
        // A broker that is gone drops the reply channel with the command: the caller sees Stopped.
        let _ = self.commands.send(command).await;
    }
}
