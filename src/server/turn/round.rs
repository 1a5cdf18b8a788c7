//! Rounds: in each, every principal that is ready has one share of the thread.
//!
//! A connection whose principal has had its share waits in the principal's queue. A round ends
//! where the runtime has asked the kernel for news and has looked at everybody of whom it knew;
//! then the first connections of each queue go on. So whoever comes with five hundred connections
//! waits behind its own, and everybody else at most for one share of each principal.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::task::yield_now;

use super::SharedWaker;

/// What a principal may have done in one round while others are there, in calls. More would be
/// waited for by everybody else, less would have the queues looked after more often than calls are
/// answered.
const CALLS: usize = 16;

/// So many times as much has a principal when nobody else had a turn in the round before, and so
/// many connections of its queue go on when a round begins. While others are there it is one.
const ALONE: usize = 8;

/// So many bytes are counted as one call: those of the smallest.
const BYTES_OF_A_CALL: u64 = 64;

/// The rounds of one thread.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Arc<RoundState>);

#[derive(Debug, Default)]
struct RoundState {
    number: AtomicU64,
    /// Which connection has had the last turn.
    last: AtomicUsize,
    /// Whose share was used first in this round, and whether another's was too.
    first: AtomicUsize,
    shared: AtomicBool,
    /// The same of the round before.
    was_shared: AtomicBool,
    /// Whether the end of this round has been asked for.
    ending: AtomicBool,
    /// Principals in whose queues somebody waits.
    waiting: Mutex<Vec<Arc<Share>>>,
}

/// One principal's share of the rounds.
#[derive(Debug, Default)]
pub struct Share {
    /// The round in which it was used last.
    round: AtomicU64,
    /// What was used of it in that round.
    used: AtomicUsize,
    /// How many wait in the queue, for those who only want to know whether anybody does.
    waits: AtomicUsize,
    queue: Mutex<VecDeque<Arc<SharedWaker>>>,
}

impl Rounds {
    /// Whether a connection may have a turn now: its principal has some of its share left, and
    /// nobody of its own waits.
    pub fn admits(&self, share: &Arc<Share>, place: usize) -> bool {
        let state = &self.0;
        let now = state.number.load(Ordering::Relaxed);
        let own = Arc::as_ptr(share).addr();
        if share.round.swap(now, Ordering::Relaxed) != now {
            share.used.store(0, Ordering::Relaxed);
        }
        match state.first.load(Ordering::Relaxed) {
            0 => state.first.store(own, Ordering::Relaxed),
            first if first != own => state.shared.store(true, Ordering::Relaxed),
            _ => {}
        }
        if state.last.load(Ordering::Relaxed) == place {
            // Whoever else was ready has had a turn since its last one, and there was nobody.
            share.used.store(0, Ordering::Relaxed);
        }
        let crowded =
            state.was_shared.load(Ordering::Relaxed) || state.shared.load(Ordering::Relaxed);
        let most = if crowded { CALLS } else { CALLS * ALONE };
        share.used.load(Ordering::Relaxed) < most && share.waits.load(Ordering::Relaxed) == 0
    }

    /// Notes which connection has a turn; whether it had the last one too.
    pub fn is_alone(&self, place: usize) -> bool {
        self.0.last.swap(place, Ordering::Relaxed) == place
    }

    /// Has a connection wait for its turn.
    pub fn queue(&self, share: &Arc<Share>, bell: Arc<SharedWaker>) {
        let mut queue = share.queue();
        queue.push_back(bell);
        if queue.len() == 1 {
            self.0.waiting().push(share.clone());
        }
        share.waits.store(queue.len(), Ordering::Relaxed);
        drop(queue);
        self.end_round();
    }

    /// Sees to it that there is another round while somebody waits.
    pub fn keep_going(&self) {
        if !self.0.waiting().is_empty() {
            self.end_round();
        }
    }

    /// Has this round end where the runtime looks after it has asked the kernel for news: to end it
    /// at once would be to come before those who have not been heard yet.
    fn end_round(&self) {
        if !self.0.ending.swap(true, Ordering::Relaxed) {
            let waker = Waker::from(self.0.clone());
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        }
    }
}

/// The next round begins.
impl Wake for RoundState {
    fn wake(self: Arc<Self>) {
        self.ending.store(false, Ordering::Relaxed);
        self.number.fetch_add(1, Ordering::Relaxed);
        self.first.store(0, Ordering::Relaxed);
        let shared = self.shared.swap(false, Ordering::Relaxed);
        self.was_shared.store(shared, Ordering::Relaxed);
        let mut waiting = self.waiting();
        // Each connection that goes on asks for the round after this.
        let mut go_on = Vec::new();
        let now = self.number.load(Ordering::Relaxed);
        let most = if shared || waiting.len() > 1 {
            1
        } else {
            ALONE
        };
        waiting.retain(|share| {
            share.round.store(now, Ordering::Relaxed);
            share.used.store(0, Ordering::Relaxed);
            let mut queue = share.queue();
            let mut from_here = 0;
            while from_here < most
                && let Some(bell) = queue.pop_front()
            {
                // Those that have ended left their place to others.
                if bell.is_paused() {
                    go_on.push(bell);
                    from_here += 1;
                }
            }
            share.waits.store(queue.len(), Ordering::Relaxed);
            !queue.is_empty()
        });
        drop(waiting);
        for bell in go_on {
            bell.go_on();
        }
    }
}

impl RoundState {
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Share>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Counts what was done in a turn.
    pub fn used(&self, calls: usize, bytes: u64) {
        let as_calls = usize::try_from(bytes / BYTES_OF_A_CALL).unwrap_or(usize::MAX);
        self.used.fetch_add(calls.max(as_calls), Ordering::Relaxed);
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<Arc<SharedWaker>>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
