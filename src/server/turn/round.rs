//! Rounds: in each, every principal that is ready has one share of the thread.
//!
//! A connection whose principal has used its share waits in the principal's queue. A round ends
//! when the runtime has asked the kernel for news and has polled every task that it knew to be
//! ready. Then the first connection of each queue goes on. So a principal with five hundred
//! connections waits behind its own, and everybody else waits at most for one share of each
//! principal.

use std::collections::VecDeque;
use std::iter;
use std::mem;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::task::yield_now;

use super::SharedWaker;

/// A principal may do this much in one round, in calls. Everybody else waits for that long. With a
/// smaller share, looking after the queues would happen more often than answering calls. A
/// principal that is alone gets no more: its throughput does not grow with the share, and a
/// newcomer would wait for what is left of it.
const CALLS: usize = 16;

/// This many bytes count as one call. The smallest call is as long.
const BYTES_OF_A_CALL: u64 = 64;

/// The rounds of one thread.
#[derive(Clone, Debug, Default)]
pub struct Rounds(Arc<RoundState>);

#[derive(Debug, Default)]
struct RoundState {
    number: AtomicU64,
    /// The connection that had the last turn.
    last: AtomicUsize,
    /// Whether the end of this round has been requested.
    ending: AtomicBool,
    /// Principals with waiting connections.
    waiting: Mutex<Vec<Arc<Share>>>,
}

#[derive(Debug, Default)]
pub struct Share(Mutex<ShareState>);

#[derive(Debug, Default)]
struct ShareState {
    /// The round in which the share was last used.
    round: u64,
    /// How much of the share was used in that round, in calls.
    calls: usize,
    /// The principal's connections that wait for a turn.
    queue: VecDeque<Arc<SharedWaker>>,
}

impl Rounds {
    /// Whether a connection may have a turn now: its principal has some of its share left, and none
    /// of the principal's connections waits.
    pub fn admits(&self, share: &Share, place: usize) -> bool {
        let now = self.0.number.load(Ordering::Relaxed);
        // No other connection was ready since this one's last turn, so none waits for its next.
        let is_alone = self.0.last.load(Ordering::Relaxed) == place;
        let mut state = share.state();
        if mem::replace(&mut state.round, now) != now || is_alone {
            state.calls = 0;
        }
        state.calls < CALLS && state.queue.is_empty()
    }

    /// Notes that a connection has a turn. Returns whether it also had the last one.
    pub fn is_alone(&self, place: usize) -> bool {
        self.0.last.swap(place, Ordering::Relaxed) == place
    }

    /// Puts a connection into its principal's queue.
    pub fn queue(&self, share: &Arc<Share>, bell: Arc<SharedWaker>) {
        let mut state = share.state();
        state.queue.push_back(bell);
        if state.queue.len() == 1 {
            self.0.waiting().push(share.clone());
        }
        drop(state);
        self.end_round();
    }

    /// Makes sure that there is another round while a connection waits.
    pub fn keep_going(&self) {
        if !self.0.waiting().is_empty() {
            self.end_round();
        }
    }

    /// Ends this round where the runtime wakes yielding tasks, after it has asked the kernel for
    /// news. Ended at once, the round would leave out those of whom the kernel has not told yet.
    fn end_round(&self) {
        if !self.0.ending.swap(true, Ordering::Relaxed) {
            let waker = Waker::from(self.0.clone());
            let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
        }
    }
}

/// Begins the next round.
impl Wake for RoundState {
    fn wake(self: Arc<Self>) {
        self.ending.store(false, Ordering::Relaxed);
        let now = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let mut go_on = Vec::new();
        self.waiting().retain(|share| {
            let mut state = share.state();
            state.round = now;
            state.calls = 0;
            // Connections that have ended are still in the queue, but their bell is no longer
            // queued.
            go_on.extend(iter::from_fn(|| state.queue.pop_front()).find(|bell| bell.is_queued()));
            !state.queue.is_empty()
        });
        // Each connection that goes on asks for the round after this one.
        go_on.iter().for_each(|bell| bell.call());
    }
}

impl RoundState {
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Share>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Charges what was done in a turn to the share.
    pub fn used(&self, calls: usize, bytes: u64) {
        let as_calls = usize::try_from(bytes / BYTES_OF_A_CALL).unwrap_or(usize::MAX);
        let mut state = self.state();
        state.calls = state.calls.saturating_add(calls.max(as_calls));
    }

    fn state(&self) -> MutexGuard<'_, ShareState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
