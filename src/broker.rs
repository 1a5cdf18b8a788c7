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

/// One profile has at most this many variants (other scopes, other audience) at the same time. More
/// are refused: each variant costs token requests for as long as it is in use.
pub const VARIANTS_PER_PROFILE: usize = 64;

/// One principal may be the first to ask for at most this many of a profile's variants, so that it
/// cannot take them all.
pub const VARIANTS_PER_PRINCIPAL: usize = 16;

/// This many commands may queue up before their senders wait.
const QUEUE: usize = 1024;

/// What the broker needs to know about a profile.
#[derive(Clone)]
pub struct Spec {
    /// Appears in logs and decides the phase of renewals.
    pub name: ProfileName,
    /// The base URL of the API, which callers are told.
    pub target: Option<String>,
    /// When to renew.
    pub rules: Refresh,
    /// Makes the attempts.
    pub provider: Arc<dyn Provider>,
    /// The identity provider that the profile asks. None for methods that ask nobody.
    pub upstream: Option<IssuerBudget>,
    /// The identity provider has asked this profile to wait until then (`Retry-After`), and why. A
    /// changed file does not end the wait.
    pub told_to_wait: Option<(BootTime, Trouble)>,
    /// The profile is to replace a version that works. The identity provider may not know the new
    /// one yet.
    pub replaces: bool,
    /// For what is kept over a restart of the daemon: whose the credentials are, and what they are
    /// proven with.
    pub keep: Option<([u8; 32], [u8; 32])>,
    /// Credentials that an earlier run has left, and whether they are to be renewed at once.
    pub left: Vec<(Variant, Credential, bool)>,
}

/// An identity provider, with the limits on requests to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerBudget {
    /// Profiles with the same name share one budget, with the strictest of their limits.
    pub name: String,
    /// The most attempts at the same time, over all profiles of the provider.
    pub max_in_flight: u32,
    /// The most attempts per second, over all profiles of the provider.
    pub max_per_second: u32,
}

/// Why a caller gets no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// The lifecycle refuses.
    Refused(Refusal),
    /// The profile has been removed.
    Gone,
    /// The broker has stopped because the daemon ends.
    Stopped,
    /// Too many variants of this profile.
    TooManyVariants,
    /// Too many callers wait for this credential.
    Crowded,
}

/// Who asks, and who pays for it. By default it is nobody: the daemon asks for itself.
#[derive(Clone, Default)]
pub struct Asker {
    pub uid: Option<u32>,
    /// Called when what is asked forces a renewal that was not due.
    pub pays: Option<Arc<dyn Fn() + Send + Sync>>,
}

/// The result of a report that an API refused a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reported {
    /// A newer credential is there already.
    pub replaced: bool,
    /// If not: when to ask again.
    pub retry_after: Duration,
}

/// The number of a profile in the broker. It is never used again for another profile.
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
    /// Ends with the profile, even while a caller still holds the handle.
    provider: Provides,
}

/// The provider that gets the credentials of a handle.
struct Provides(Weak<dyn Provider>);

impl std::fmt::Debug for Provides {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[provider]")
    }
}

/// The attempts of a handle and its variants that have ended since the handle was made.
#[derive(Debug, Default)]
pub struct Attempts {
    /// Attempts that brought a credential.
    pub succeeded: AtomicU64,
    /// Attempts with a failure that may pass.
    pub unavailable: AtomicU64,
    /// Attempts that the identity provider rejected.
    pub rejected: AtomicU64,
    /// The duration of all attempts together, in milliseconds.
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

/// A handle is equal to itself only, whatever it publishes.
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

    /// Whose the credentials are and what they are proven with, for what is kept over a restart.
    /// None: they are not kept.
    #[must_use]
    pub fn keep(&self) -> Option<([u8; 32], [u8; 32])> {
        self.keep
    }

    /// The attempts of this profile so far.
    #[must_use]
    pub fn attempts(&self) -> &Attempts {
        &self.attempts
    }

    /// Until when the identity provider has asked this profile to wait, and why.
    #[must_use]
    pub fn told_to_wait(&self) -> Option<(BootTime, Trouble)> {
        let view = self.own().view();
        let trouble = view
            .trouble
            .clone()
            .filter(|trouble| trouble.failure.retry_after.is_some())?;
        Some((view.next_attempt?, trouble))
    }

    /// The provider that gets the credentials. None once the profile is gone.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn Provider>> {
        self.provider.0.upgrade()
    }

    /// The generation of the newest credential; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> u64 {
        let view = self.own().view();
        view.answer
            .as_ref()
            .map_or(0, |answer| answer.credential.generation)
    }

    /// All variants that callers use now, without the profile's own credential.
    #[must_use]
    pub fn variants(&self) -> Vec<Variant> {
        self.variants.load().keys().cloned().collect()
    }

    /// Wakes every watcher, which then checks again whether it is still permitted.
    pub fn wake_watchers(&self) {
        self.own.wake_watchers();
        self.variants
            .load()
            .values()
            .for_each(|slot| slot.wake_watchers());
    }

    /// Whether the profile, or one of its variants, has published this credential last.
    #[must_use]
    pub fn publishes(&self, fingerprint: Fingerprint) -> bool {
        let is_it = |slot: &Slot| {
            let view = slot.view();
            let answer = view.answer.as_ref();
            answer.is_some_and(|answer| answer.credential.fingerprint == fingerprint)
        };
        is_it(&self.own) || self.variants.load().values().any(|slot| is_it(slot))
    }

    /// The slot of a variant, if the variant is in use.
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

/// The tools that the actor needs.
pub struct Tools {
    /// Reads the clocks.
    pub clock: Clock,
    /// Names credentials.
    pub fingerprints: Fingerprinter,
    /// Encodes a credential once, when it is published.
    pub encode: EncodeFn,
    /// Notified when a credential is published that is kept over a restart.
    pub published: Arc<Notify>,
    /// The seed of this host. Together with a profile's name it gives the phase of renewals, so
    /// that a fleet does not ask all at once.
    pub host_seed: u64,
}

impl Broker {
    /// Makes the handle, and the actor, which the caller has to run. The actor ends when the last
    /// handle is gone.
    pub fn new(tools: Tools) -> (Broker, impl Future<Output = ()> + Send + 'static) {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let broker = Broker {
            commands,
            ids: Arc::new(AtomicU64::new(1)),
        };
        (broker, actor::Actor::new(tools).run(inbox))
    }

    /// Adds a profile. An eager profile is fetched at once.
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

    /// Lets a handle take the place of another, whose newest credential had this generation. The
    /// actor has done so when this returns.
    pub async fn take_over_from(&self, handle: &ProfileHandle, generation: u64) {
        let (done, told) = oneshot::channel();
        self.send(BrokerCommand::TakeOver(handle.id, generation, done))
            .await;
        // A broker that has stopped has nothing to number.
        let _ = told.await;
    }

    /// Says that a refused or failed attempt may succeed now. The actor tries at once, and often
    /// for a while.
    pub async fn again(&self, handle: &ProfileHandle) {
        self.send(BrokerCommand::Again(handle.id)).await;
    }

    /// Removes a profile. Its callers and watchers get NOT_FOUND.
    pub async fn remove(&self, handle: &ProfileHandle) {
        self.send(BrokerCommand::Remove(handle.id)).await;
    }

    /// Returns a credential that lives for at least `min_ttl`: the published one if it lives long
    /// enough, else the result of an attempt.
    ///
    /// # Errors
    /// [`NoAnswer`]. A caller that stops waiting does not cancel the attempt.
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

    /// Returns the place where the credential of a variant is published. The first question for a
    /// variant makes it.
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

    /// Notes that an API refused a credential.
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
        // A stopped broker drops the reply channel with the command, so the caller sees Stopped.
        let _ = self.commands.send(command).await;
    }
}
