//! The view of a credential: published as a whole, read without a lock, and judged by the reader's
//! own look at the clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::watch;

use crate::core::credential::Credential;
use crate::core::lifecycle::{LifecycleState, Refusal, Trouble};
use crate::core::time::{BootTime, Stamp};

/// Encodes a credential for the wire, with its staleness and the profile's target.
pub type EncodeFn = Arc<dyn Fn(&Credential, bool, Option<&str>, Stamp) -> Bytes + Send + Sync>;

/// A credential that is ready to be handed out.
#[derive(Debug)]
pub struct Answer {
    pub credential: Arc<Credential>,
    /// The last attempt to renew the credential failed.
    pub stale: bool,
    /// The credential, encoded for the wire.
    pub encoded: Bytes,
}

/// What is known of one credential at one moment.
#[derive(Debug)]
pub struct View {
    /// The best credential so far. The reader has to check whether it still lives.
    pub answer: Option<Arc<Answer>>,
    /// The state when this view was published. Use [`View::state`].
    state: LifecycleState,
    /// The failures since the last success.
    pub trouble: Option<Trouble>,
    /// Why a caller without a credential would get none. None while one may come.
    pub refusal: Option<Refusal>,
    /// When the next attempt is planned.
    pub next_attempt: Option<BootTime>,
    /// The profile is gone; nothing comes after this.
    pub closed: bool,
}

impl View {
    pub(super) fn new(
        answer: Option<Arc<Answer>>,
        state: LifecycleState,
        trouble: Option<Trouble>,
        refusal: Option<Refusal>,
        next_attempt: Option<BootTime>,
    ) -> View {
        View {
            answer,
            state,
            trouble,
            refusal,
            next_attempt,
            closed: false,
        }
    }

    /// The credential, if it may be handed out for `min_ttl` without further checks.
    #[must_use]
    pub fn servable(&self, now: Stamp, min_ttl: Duration) -> Option<&Arc<Answer>> {
        self.answer
            .as_ref()
            .filter(|answer| answer.credential.servable(now, min_ttl))
    }

    /// The state now: a credential that has died since it was published does not count.
    #[must_use]
    pub fn state(&self, now: Stamp) -> LifecycleState {
        let dead = self
            .answer
            .as_ref()
            .is_none_or(|answer| !answer.credential.lives(now, Duration::ZERO));
        match self.state {
            LifecycleState::Fresh if dead => LifecycleState::Fetching,
            LifecycleState::Stale if dead => LifecycleState::Backoff,
            state => state,
        }
    }
}

/// One published credential.
#[derive(Debug)]
pub struct Slot {
    current: ArcSwap<View>,
    changed: watch::Sender<Arc<View>>,
    /// The time of the last answer from memory, in milliseconds of the boot clock. The actor looks
    /// at it when a renewal is due.
    asked: AtomicU64,
}

impl Slot {
    pub(super) fn new(eager: bool) -> Slot {
        let state = if eager {
            LifecycleState::Fetching
        } else {
            LifecycleState::Asleep
        };
        let view = Arc::new(View::new(None, state, None, None, None));
        Slot {
            current: ArcSwap::new(view.clone()),
            changed: watch::Sender::new(view),
            asked: AtomicU64::new(0),
        }
    }

    pub(super) fn publish(&self, view: View) {
        let view = Arc::new(view);
        self.current.store(view.clone());
        self.changed.send_replace(view);
    }

    /// Publishes the last view.
    pub(super) fn close(&self) {
        let mut view = View::new(None, LifecycleState::Asleep, None, None, None);
        view.closed = true;
        self.publish(view);
    }

    /// The current view, for a short look.
    #[must_use]
    pub fn view(&self) -> arc_swap::Guard<Arc<View>> {
        self.current.load()
    }

    /// The current view and every later one; the last has [`View::closed`].
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.changed.subscribe()
    }

    /// Wakes all watchers although no view has changed.
    pub(super) fn wake_watchers(&self) {
        self.changed.send_modify(|_| {});
    }

    /// Notes that a caller was answered from memory.
    pub fn note_asked(&self, now: Stamp) {
        let millis = u64::try_from(now.boot.0.as_millis()).unwrap_or(u64::MAX);
        self.asked.store(millis, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> Option<BootTime> {
        match self.asked.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(BootTime(Duration::from_millis(millis))),
        }
    }
}
