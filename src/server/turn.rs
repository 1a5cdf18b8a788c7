//! A share of the thread for each connection: how much of what it has sent is read, and how many of
//! its calls are begun, before the others get their turn.
//!
//! One thread serves every connection, and h2 goes on reading and judging frames for as long as
//! there are any. A caller that writes faster than they are judged would therefore keep the thread
//! until the runtime's own patience of 128 reads is at an end: a hundred thousand PINGs, with
//! everybody else waiting. And hyper has each call begun by an executor, whose tasks wait among
//! everybody's: a connection that begins forty calls would have forty turns.
//!
//! Here the task that reads a connection also begins its calls. Most are answered at the first
//! look, which costs no task; one that has to wait for something becomes a task of its own.
//!
//! Turns belong to principals first: in each round every principal that is ready has its share,
//! whether it has one connection or five hundred, and its connections have their turns one after
//! another. See [`round`].

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

/// What one connection may have read in one turn while others have turns too, in bytes. The worst
/// of it is some hundred frames without payload or a thousand fields of a header block, which take
/// some tens of microseconds to judge; and a call of `GetToken` is about a hundred bytes, so that a
/// caller with many in flight loses nothing to speak of.
const BYTES: u64 = 1024;

/// Calls that one connection may have begun in one turn, likewise. The smallest are thirty bytes
/// each, and take longer than reading them.
const CALLS: usize = 8;

/// So many times as much has one that nobody else has had a turn since: what each turn costs by
/// itself, two system calls and a look for news, would take a tenth of its throughput.
const ALONE: usize = 4;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a connection, its stream and the executor of its calls know of its turn; all three are used
/// by one task.
#[derive(Clone, Default)]
pub struct Turn(Arc<Mutex<TurnState>>);

#[derive(Default)]
struct TurnState {
    /// Bytes that may still be read in this turn.
    bytes: u64,
    /// Calls that nobody has begun. While there are any nothing is read, so that they do not become
    /// more.
    calls: VecDeque<Call>,
    /// Whether reading ended for want of a turn.
    cut_short: bool,
}

impl Turn {
    /// Where its state lies, which is nobody else's place.
    fn place(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins so many of the calls that have come; how many there were.
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

/// Looks once whether a call is over already.
fn begin(mut call: Call, context: &mut Context<'_>) {
    // A panic is the end of its own call, as in a task, and not of all calls of the connection.
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

/// A connection that is served turn by turn.
///
/// A turn ends when there is nothing more to do or when as much has been done as one may have. In
/// the latter case nothing more is done until everybody else who is ready has had a turn, those
/// included of whom the runtime does not know yet.
pub struct FairConnection<C> {
    connection: Pin<Box<C>>,
    turn: Turn,
    rounds: Rounds,
    share: Arc<Share>,
    bell: Arc<SharedWaker>,
    /// Rings it.
    waker: Waker,
    /// Whether it waits in its principal's queue, or has been given a turn from there that it has
    /// not begun.
    queued: bool,
}

impl<C> FairConnection<C> {
    /// `connection` reads from a [`MeteredStream`] and has its calls begun by an executor, both of
    /// which share `turn`. `share` is its principal's.
    pub fn new(connection: C, turn: Turn, share: Arc<Share>, rounds: Rounds) -> FairConnection<C> {
        let bell = Arc::new(SharedWaker::default());
        FairConnection {
            // In memory of its own: a future that it is moved into has room for it twice, which an
            // idle connection pays for.
            connection: Box::pin(connection),
            turn,
            rounds,
            share,
            waker: Waker::from(bell.clone()),
            bell,
            queued: false,
        }
    }

    /// Waits for a turn behind the principal's other connections.
    fn queue(&mut self) {
        self.bell.pause();
        self.queued = true;
        self.rounds.queue(&self.share, self.bell.clone());
    }

    /// Whether it may go on now; otherwise its task is woken when it may.
    fn may_go_on(&mut self, task: &Waker) -> bool {
        let may = self.bell.watched_by(task);
        if self.queued {
            self.queued = !may;
            if may {
                // Those who wait longer have the next round.
                self.rounds.keep_going();
            }
            return may;
        }
        let may = self.rounds.admits(&self.share, self.turn.place());
        if !may {
            self.queue();
        }
        may
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
            bell.forget();
            turn.state().cut_short = false;
            if let Poll::Ready(outcome) = connection.as_mut().poll(&mut inner) {
                return Poll::Ready(outcome);
            }
            // Their answers go out together, with the next look at the connection.
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
        this.bell.unwatched();
        Poll::Pending
    }
}

/// Wakes the connection's task, but not while that looks anyway: each call that is begun in its
/// turn rings when it is answered, and would have the connection looked at once more for nothing.
///
/// It is silent between two turns, too. Without a pause that has to be over, a caller with many
/// calls in flight would have its next turn with each answer.
#[derive(Debug, Default)]
pub struct SharedWaker(Mutex<WakerState>);

#[derive(Debug, Default)]
struct WakerState {
    task: Option<Waker>,
    /// The task looks at the connection.
    watched: bool,
    /// Somebody has rung since the last look began.
    rung: bool,
    /// The connection waits for its turn.
    paused: bool,
}

impl SharedWaker {
    /// This task looks from now on; whether it may, or has to wait for its turn.
    fn watched_by(&self, task: &Waker) -> bool {
        let mut state = self.state();
        match &mut state.task {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        state.watched = true;
        !state.paused
    }

    /// What has been rung so far is about to be looked for.
    fn forget(&self) {
        self.state().rung = false;
    }

    /// The task looks no more; what has been rung for since the last look wakes it.
    fn unwatched(&self) {
        let mut state = self.state();
        state.watched = false;
        if state.rung {
            state.wake_task();
        }
    }

    /// The connection waits for its turn.
    fn pause(&self) {
        self.state().paused = true;
    }

    /// The connection has its turn.
    fn go_on(&self) {
        let mut state = self.state();
        state.paused = false;
        state.watched = false;
        state.wake_task();
    }

    fn is_paused(&self) -> bool {
        self.state().paused
    }

    fn state(&self) -> MutexGuard<'_, WakerState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WakerState {
    fn wake_task(&self) {
        if let Some(task) = &self.task
            && !self.watched
            && !self.paused
        {
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
        state.wake_task();
    }
}

/// Calls that nobody has begun end with their connection. They would not by themselves: each holds
/// the executor it came from.
impl<C> Drop for FairConnection<C> {
    fn drop(&mut self) {
        if self.queued {
            // It leaves the queue, and may have been given a turn that it does not take: the next
            // round would wait for it.
            self.bell.state().paused = false;
            self.rounds.keep_going();
        }
        let calls = std::mem::take(&mut self.turn.state().calls);
        drop(calls);
    }
}

/// A stream that is read as far as the turn goes. It wakes nobody for what it has not read then:
/// [`FairConnection`] does.
pub struct MeteredStream<S> {
    stream: Take<S>,
    turn: Turn,
}

impl<S: AsyncRead> MeteredStream<S> {
    /// Whose turn it is, is for [`FairConnection`] to say.
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
