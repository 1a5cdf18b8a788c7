//! Gives each connection a share of the thread: how much of it is read, and how many of its calls
//! are begun, before the others have their turn.
//!
//! One thread serves every connection, and h2 reads and judges frames for as long as there are any:
//! a hundred thousand PINGs of one caller would keep everybody else waiting. Also, hyper has an
//! executor begin each call. If these tasks were the runtime's, a connection with forty calls would
//! have forty turns. So the task that reads a connection also begins its calls. Most calls are
//! answered at the first poll, which costs no task; a call that has to wait becomes a task of its
//! own.
//!
//! Turns belong to principals first. In each round every ready principal has its share, whether it
//! has one connection or five hundred. See [`round`].

mod round;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};

pub use self::round::{Rounds, Share};

/// At most this many bytes of one connection are read in one turn. At worst these are some hundred
/// frames without payload or a thousand fields of a header block, which take some tens of
/// microseconds to judge. A call of `GetToken` is about a hundred bytes, so many calls in flight
/// lose nothing.
const BYTES: u64 = 1024;

/// At most this many calls of one connection are begun in one turn. The smallest are thirty bytes
/// each, and beginning them takes longer than reading them.
const CALLS: usize = 8;

/// A connection may do this many times as much when no other connection has had a turn since its
/// last. Each turn costs two system calls and a poll of the driver, which would otherwise take a
/// tenth of its throughput.
const ALONE: usize = 4;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a connection, its stream and the executor of its calls know of the connection's turn. One
/// task uses all three.
#[derive(Clone, Default)]
pub struct Turn(Arc<Mutex<TurnState>>);

#[derive(Default)]
struct TurnState {
    /// Bytes that may still be read in this turn.
    bytes: u64,
    /// Calls that have not been begun. The stream is not read while there are any, so that they do
    /// not become more.
    calls: VecDeque<Call>,
    /// Whether reading stopped because the turn was used up.
    cut_short: bool,
}

impl Turn {
    /// Identifies the connection.
    fn place(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins at most `most` of the calls that have come. Returns how many it has begun.
    fn begin_calls(&self, most: usize, context: &mut Context<'_>) -> usize {
        let mut begun = 0;
        while begun < most {
            let Some(call) = self.state().calls.pop_front() else {
                break;
            };
            begin(call, context);
            begun += 1;
        }
        begun
    }
}

/// Polls a call once; a call that is not finished then becomes a task.
fn begin(mut call: Call, context: &mut Context<'_>) {
    // A panic ends only its own call, as in a task, and not all calls of the connection.
    let outcome = catch_unwind(AssertUnwindSafe(|| call.as_mut().poll(context)));
    if let Ok(Poll::Pending) = outcome {
        tokio::spawn(call);
    }
}

impl<F> hyper::rt::Executor<F> for Turn
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, call: F) {
        self.state().calls.push_back(Box::pin(call));
    }
}

/// A connection that is served turn by turn. A turn ends when there is nothing more to do, or when
/// the connection has done as much as it may. In the second case the connection waits until every
/// other ready connection has had a turn, including those that the runtime does not know of yet.
pub struct FairConnection<C> {
    connection: Pin<Box<C>>,
    turn: Turn,
    rounds: Rounds,
    share: Arc<Share>,
    bell: Arc<SharedWaker>,
    /// The waker that rings the bell.
    waker: Waker,
}

impl<C> FairConnection<C> {
    /// `connection` reads from a [`MeteredStream`], and an executor begins its calls. Both share
    /// `turn` with it. `share` is the share of the connection's principal.
    pub fn new(connection: C, turn: Turn, share: Arc<Share>, rounds: Rounds) -> FairConnection<C> {
        let bell = Arc::new(SharedWaker::default());
        FairConnection {
            // On the heap: a future has room twice for what is moved into it, and an idle
            // connection would pay for that.
            connection: Box::pin(connection),
            turn,
            rounds,
            share,
            waker: Waker::from(bell.clone()),
            bell,
        }
    }

    /// Waits for a turn behind the principal's other connections.
    fn queue(&self) {
        self.bell.state().phase = Phase::Queued;
        self.rounds.queue(&self.share, self.bell.clone());
    }

    /// Whether the connection may go on now. If not, its task is woken when it may.
    fn may_go_on(&self, task: &Waker) -> bool {
        match self.bell.polled_by(task) {
            Phase::Queued => false,
            Phase::Called => {
                // Connections that have waited longer go first, in the next round.
                self.rounds.keep_going();
                true
            }
            Phase::Idle | Phase::Polling => {
                let may = self.rounds.admits(&self.share, self.turn.place());
                if !may {
                    self.queue();
                }
                may
            }
        }
    }

    /// The connection itself.
    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future> Future for FairConnection<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = self.get_mut();
        if !this.may_go_on(context.waker()) {
            return Poll::Pending;
        }
        let FairConnection {
            connection,
            turn,
            rounds,
            share,
            bell,
            waker,
            ..
        } = this;
        let times = if rounds.is_alone(turn.place()) {
            ALONE
        } else {
            1
        };
        let bytes = BYTES * times as u64;
        turn.state().bytes = bytes;
        let mut calls = CALLS * times;
        let mut inner = Context::from_waker(waker);
        loop {
            // The connection is about to see everything that has rung so far.
            bell.state().rung = false;
            turn.state().cut_short = false;
            if let Poll::Ready(outcome) = connection.as_mut().poll(&mut inner) {
                return Poll::Ready(outcome);
            }
            // The answers of these calls go out together, with the next poll of the connection.
            let begun = turn.begin_calls(calls, &mut inner);
            if begun == 0 {
                break;
            }
            calls -= begun;
        }
        let state = turn.state();
        let more = state.cut_short || !state.calls.is_empty();
        share.used(CALLS * times - calls, bytes - state.bytes);
        drop(state);
        if more {
            this.queue();
        }
        this.bell.polled();
        Poll::Pending
    }
}

/// Wakes the connection's task, but neither during a poll nor between two turns. Each call that is
/// begun in a turn rings when it is answered, which would poll the connection once more for
/// nothing. And a caller with many calls in flight would have its next turn with each answer.
#[derive(Debug, Default)]
pub struct SharedWaker(Mutex<WakerState>);

#[derive(Debug, Default)]
struct WakerState {
    task: Option<Waker>,
    phase: Phase,
    /// The bell has rung since the connection was last polled.
    rung: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Phase {
    /// A ring wakes the task.
    #[default]
    Idle,
    /// The task polls the connection, and checks afterwards whether the bell has rung.
    Polling,
    /// The connection waits in its principal's queue.
    Queued,
    /// The round has given the connection a turn, which has not begun yet.
    Called,
}

impl SharedWaker {
    /// Starts polling by this task, unless the connection waits for its turn. Returns the phase
    /// before.
    fn polled_by(&self, task: &Waker) -> Phase {
        let mut state = self.state();
        match &mut state.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        let before = state.phase;
        if before != Phase::Queued {
            state.phase = Phase::Polling;
        }
        before
    }

    /// Ends polling. The task is woken if the bell has rung since the last poll began.
    fn polled(&self) {
        let mut state = self.state();
        if state.phase == Phase::Polling {
            state.phase = Phase::Idle;
            if state.rung {
                state.wake_task();
            }
        }
    }

    /// Gives the connection its turn.
    fn call(&self) {
        let mut state = self.state();
        state.phase = Phase::Called;
        state.wake_task();
    }

    fn is_queued(&self) -> bool {
        self.state().phase == Phase::Queued
    }

    fn state(&self) -> MutexGuard<'_, WakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WakerState {
    fn wake_task(&self) {
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }
}

impl Wake for SharedWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state();
        state.rung = true;
        if state.phase == Phase::Idle {
            state.wake_task();
        }
    }
}

/// Ends the calls that have not been begun together with their connection. They would not end by
/// themselves: each holds the executor that it came from.
impl<C> Drop for FairConnection<C> {
    fn drop(&mut self) {
        // The connection leaves the queue, or gives up a turn that it was given: the next round
        // must not wait for it.
        let before = std::mem::take(&mut self.bell.state().phase);
        if matches!(before, Phase::Queued | Phase::Called) {
            self.rounds.keep_going();
        }
        let calls = std::mem::take(&mut self.turn.state().calls);
        drop(calls);
    }
}

/// A stream that is read only as far as the turn allows. [`FairConnection`] wakes the task for the
/// rest.
pub struct MeteredStream<S> {
    stream: Take<S>,
    turn: Turn,
}

impl<S: AsyncRead> MeteredStream<S> {
    /// Wraps `stream`. Nothing is read before [`FairConnection`] has begun a turn.
    pub fn new(stream: S, turn: Turn) -> MeteredStream<S> {
        MeteredStream {
            stream: stream.take(0),
            turn,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MeteredStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let MeteredStream { stream, turn } = self.get_mut();
        let mut state = turn.state();
        if state.bytes == 0 || !state.calls.is_empty() {
            state.cut_short = true;
            return Poll::Pending;
        }
        stream.set_limit(state.bytes);
        let read = Pin::new(&mut *stream).poll_read(context, buf);
        state.bytes = stream.limit();
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for MeteredStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write(context, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write_vectored(context, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }
}
