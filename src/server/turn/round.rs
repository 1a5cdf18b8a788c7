//! Rounds: in each, every principal that is ready has one share of the thread.
//!
//! A connection whose principal has had its share waits in the principal's queue. A round ends
//! where the runtime has asked the kernel for news and has polled every task that it knew to be
//! ready; then the first connection of each queue goes on. So a principal with five hundred
//! connections waits behind its own, and everybody else at most for one share of each principal.

use std::collections::VecDeque;
use std::iter;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::task::yield_now;

use super::SharedWaker;

/// What a principal may have done in one round, in calls. Everybody else waits for that long; with
/// less, the queues would be looked after more often than calls are answered. A principal that is
/// alone has no more: its throughput does not grow with the share, and whoever comes would wait for
/// what is left of it.
const CALLS: usize = 16;

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
    /// Whether the end of this round has been asked for.
    ending: AtomicBool,
    /// Principals in whose queues somebody waits.
    waiting: Mutex<Vec<Arc<Share>>>,
}

/// One principal's share of the rounds.
#[derive(Debug, Default)]
pub struct Share(Mutex<ShareState>);

#[derive(Debug, Default)]
struct ShareState {
    /// The round in which the share was used last.
    round: u64,
    /// What was used of it in that round, in calls.
    calls: usize,
    /// The principal's connections that wait for a turn.
    queue: VecDeque<Arc<SharedWaker>>,
}

impl Rounds {
    /// Whether a connection may have a turn now: its principal has some of its share left, and none
    /// of the principal's connections waits.
    pub fn admits(&self, share: &Share, place: usize) -> bool {
        let now = self.0.number.load(Ordering::Relaxed);
        // Nobody else was ready since this connection's last turn, so nobody waits for its next.
        let is_alone = self.0.last.load(Ordering::Relaxed) == place;
        let mut state = share.state();
        if mem::replace(&mut state.round, now) != now || is_alone {
            state.calls = 0;
        }
        state.calls < CALLS && state.queue.is_empty()
    }

    /// Notes which connection has a turn; whether it had the last one too.
    pub fn is_alone(&self, place: usize) -> bool {
        self.0.last.swap(place, Ordering::Relaxed) == place
    }

    /// Has a connection wait for its turn.
    pub fn queue(&self, share: &Arc<Share>, bell: Arc<SharedWaker>) {
        let mut state = share.state();
        state.queue.push_back(bell);
        if state.queue.len() == 1 {
            self.0.waiting().push(share.clone());
        }
        drop(state);
        self.end_round();
    }

    /// Sees to it that there is another round while somebody waits.
    pub fn keep_going(&self) {
        if !self.0.waiting().is_empty() {
            self.end_round();
        }
    }

    /// Has this round end where the runtime wakes those that yield, after it has asked the kernel
    /// for news: ended at once, it would leave out those of whom the kernel has not told yet.
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
        let now = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let mut go_on = Vec::new();
        self.waiting().retain(|share| {
            let mut state = share.state();
            state.round = now;
            state.calls = 0;
            // Connections that have ended are still queued, but no longer queued in their bell.
            go_on.extend(iter::from_fn(|| state.queue.pop_front()).find(|bell| bell.is_queued()));
            !state.queue.is_empty()
        });
        // Each connection that goes on asks for the round after this.
        go_on.iter().for_each(|bell| bell.call());
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
        let mut state = self.state();
        state.calls = state.calls.saturating_add(calls.max(as_calls));
    }

    fn state(&self) -> MutexGuard<'_, ShareState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
