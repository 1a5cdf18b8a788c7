//! A share of the thread for each connection: how much of what it has sent is read, and how many of its calls are begun,
//! before the others get their turn.
//!
//! One thread serves every connection, and h2 goes on reading and judging frames for as long as there are any. A caller
//! that writes faster than they are judged would therefore keep the thread until the runtime's own patience of 128 reads
//! is at an end: a hundred thousand PINGs, with everybody else waiting. And hyper has each call begun by an executor, whose
//! tasks wait among everybody's: a connection that begins forty calls would have forty turns.
//!
//! Here the task that reads a connection also begins its calls. Most are answered at the first look, which costs no task;
//! one that has to wait for something becomes a task of its own.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::task::yield_now;
use tonic::transport::server::Connected;

/// What one connection may have read in one turn while others have turns too, in bytes. The worst of it is some hundred frames without payload or a
/// thousand fields of a header block, which take some tens of microseconds to judge; and a call of `GetToken` is about a
/// hundred bytes, so that a caller with many in flight loses nothing to speak of.
const BYTES: u64 = 1024;

/// Calls that one connection may have begun in one turn, likewise. The smallest are thirty bytes each, and take longer than
/// reading them.
const CALLS: usize = 8;

/// So many times as much has one that nobody else has had a turn since: what each turn costs by itself, two system calls and a
/// look for news, would take a tenth of its throughput.
const ALONE: usize = 4;

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Which of all connections has had the last turn: where the state of its turn lies, which is nobody else's place.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<AtomicUsize>);

/// What a connection, its stream and the executor of its calls know of its turn; all three are used by one task.
#[derive(Clone, Default)]
pub struct Turn(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// Bytes that may still be read in this turn.
    bytes: u64,
    /// Calls that nobody has begun. While there are any nothing is read, so that they do not become more.
    calls: VecDeque<Call>,
    /// Whether reading ended for want of a turn.
    cut_short: bool,
}

impl Turns {
    /// Notes that this is whose turn it is; whether it was before.
    fn is_alone(&self, turn: &Turn) -> bool {
        let place = Arc::as_ptr(&turn.0).addr();
        self.0.swap(place, Ordering::Relaxed) == place
    }
}

impl Turn {
    fn state(&self) -> MutexGuard<'_, State> {
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
/// A turn ends when there is nothing more to do or when as much has been done as one may have. In the latter case nothing more
/// is done until everybody else who is ready has had a turn, those included of whom the runtime does not know yet.
pub struct InTurn<C> {
    connection: Pin<Box<C>>,
    turn: Turn,
    turns: Turns,
    bell: Arc<Bell>,
    /// Rings it.
    waker: Waker,
    /// Made when the first turn is used up, which is never in most connections.
    pause: Option<Arc<Pause>>,
}

impl<C> InTurn<C> {
    /// `connection` reads from a [`Measured`] stream and has its calls begun by an executor, both of which share `turn`.
    pub fn new(connection: C, turn: Turn, turns: Turns) -> InTurn<C> {
        let bell = Arc::new(Bell::default());
        InTurn {
            // In memory of its own: a future that it is moved into has room for it twice, which an idle connection pays for.
            connection: Box::pin(connection),
            turn,
            turns,
            waker: Waker::from(bell.clone()),
            bell,
            pause: None,
        }
    }

    /// The connection itself.
    pub fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future> Future for InTurn<C> {
    type Output = C::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let InTurn {
            connection,
            turn,
            turns,
            bell,
            waker,
            pause,
        } = self.get_mut();
        if pause
            .as_ref()
            .is_some_and(|pause| pause.lasts(context.waker()))
        {
            return Poll::Pending;
        }
        let times = if turns.is_alone(turn) { ALONE } else { 1 };
        turn.state().bytes = BYTES * times as u64;
        let mut calls = CALLS * times;
        bell.watched_by(context.waker());
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
        if state.cut_short || !state.calls.is_empty() {
            pause.get_or_insert_default().begin(context.waker());
        }
        drop(state);
        bell.unwatched();
        Poll::Pending
    }
}

/// What wakes the connection's task, but not while that looks anyway: each call that is begun in its turn rings when it is
/// answered, and would have the connection looked at once more for nothing.
#[derive(Debug, Default)]
struct Bell {
    task: Mutex<Option<Waker>>,
    watched: AtomicBool,
    rung: AtomicBool,
}

impl Bell {
    /// This task looks from now on.
    fn watched_by(&self, task: &Waker) {
        match &mut *self.task() {
            Some(known) => known.clone_from(task),
            none => *none = Some(task.clone()),
        }
        self.watched.store(true, Ordering::SeqCst);
    }

    /// What has been rung so far is about to be looked for.
    fn forget(&self) {
        self.rung.store(false, Ordering::SeqCst);
    }

    /// Nobody looks any more; what has been rung for since the last look wakes the task.
    fn unwatched(&self) {
        self.watched.store(false, Ordering::SeqCst);
        if self.rung.load(Ordering::SeqCst) {
            self.wake_task();
        }
    }

    fn wake_task(&self) {
        if let Some(task) = &*self.task() {
            task.wake_by_ref();
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.watched.load(Ordering::SeqCst) {
            self.wake_task();
        }
    }
}

/// Calls that nobody has begun end with their connection. They would not by themselves: each holds the executor it came from.
impl<C> Drop for InTurn<C> {
    fn drop(&mut self) {
        let calls = std::mem::take(&mut self.turn.state().calls);
        drop(calls);
    }
}

/// The time between two turns.
///
/// The connection's own calls wake it too, as they are answered. Without a pause that has to be over, a caller with many in
/// flight would have its next turn each time.
#[derive(Debug, Default)]
struct Pause {
    /// Who is to be woken when it is over; None: it is over.
    waiting: Mutex<Option<Waker>>,
}

impl Pause {
    /// Begins, for the task that waits.
    fn begin(self: &Arc<Self>, waiting: &Waker) {
        *self.waiting() = Some(waiting.clone());
        // Notes the waker where the runtime looks after it has asked the kernel for news. To be woken at once would be to come
        // before those who have not been heard yet.
        let waker = Waker::from(self.clone());
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
    }

    /// Whether it is not over yet; if so, the task will be woken.
    fn lasts(&self, task: &Waker) -> bool {
        match &mut *self.waiting() {
            Some(waiting) => {
                waiting.clone_from(task);
                true
            }
            None => false,
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Option<Waker>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Pause {
    fn wake(self: Arc<Self>) {
        let waiting = self.waiting().take();
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// A stream that is read as far as the turn goes. It wakes nobody for what it has not read then: [`InTurn`] does.
pub struct Measured<S> {
    stream: Take<S>,
    turn: Turn,
}

impl<S: AsyncRead> Measured<S> {
    /// Whose turn it is, is for [`InTurn`] to say.
    pub fn new(stream: S, turn: Turn) -> Measured<S> {
        Measured {
            stream: stream.take(0),
            turn,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Measured<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Measured { stream, turn } = self.get_mut();
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

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Measured<S> {
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

impl<S: AsyncRead + Connected> Connected for Measured<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use hyper::rt::Executor as _;
    use tokio::io::{AsyncWriteExt as _, DuplexStream};
    use tokio::sync::oneshot;

    use super::*;

    const TURN: usize = BYTES as usize;
    const LONG: usize = 10 * TURN + 1;

    /// A connection that reads to the end, and keeps what it has read.
    fn reading(
        stream: DuplexStream,
        turns: &Turns,
    ) -> InTurn<impl Future<Output = Vec<u8>> + use<>> {
        let turn = Turn::default();
        let mut stream = Measured::new(stream, turn.clone());
        let connection = async move {
            // However large the buffer: it does not stretch the turn.
            let mut all = Vec::with_capacity(LONG);
            while stream.read_buf(&mut all).await.unwrap() > 0 {}
            all
        };
        InTurn::new(connection, turn, turns.clone())
    }

    /// Somebody else who has something to do whenever asked; how often that was.
    fn somebody_else(turns: &Turns) -> (tokio::task::JoinHandle<()>, Arc<AtomicUsize>) {
        let (turn, turns) = (Turn::default(), turns.clone());
        let had = Arc::new(AtomicUsize::new(0));
        let count = had.clone();
        let other = tokio::spawn(async move {
            loop {
                turns.is_alone(&turn);
                count.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        (other, had)
    }

    /// Broken by `InTurn` that goes on without a pause: the other is not heard before the end.
    #[tokio::test]
    async fn who_sends_without_end_is_read_in_turns_with_others() {
        let (mut client, server) = tokio::io::duplex(LONG);
        client.write_all(&[7; LONG]).await.unwrap();
        drop(client);
        let turns = Turns::default();
        let (other, others) = somebody_else(&turns);
        let all = reading(server, &turns).await;
        assert_eq!(all, [7; LONG], "nothing is lost between turns");
        let others = others.load(Ordering::Relaxed);
        assert!((9..=12).contains(&others), "{others} turns of the other");
        other.abort();
    }

    /// Broken by `is_alone` that is always false.
    #[tokio::test]
    async fn who_is_alone_has_longer_turns() {
        let (mut client, server) = tokio::io::duplex(LONG);
        client.write_all(&[7; LONG]).await.unwrap();
        drop(client);
        let mut connection = reading(server, &Turns::default());
        let mut turns = 0;
        let all = poll_fn(|context| {
            turns += usize::from(
                !connection
                    .pause
                    .as_ref()
                    .is_some_and(|p| p.lasts(context.waker())),
            );
            Pin::new(&mut connection).poll(context)
        });
        assert_eq!(all.await, [7; LONG]);
        assert_eq!(turns, 4, "1 + 4 + 4 + the rest");
    }

    /// Broken by `Pause::lasts` that is always false: whoever wakes the connection gives it a turn.
    #[tokio::test]
    async fn a_pause_is_not_over_because_somebody_wakes_the_connection() {
        let (mut client, server) = tokio::io::duplex(LONG);
        let turn = Turn::default();
        let mut stream = Measured::new(server, turn.clone());
        let turns = Turns::default();
        let read = Arc::new(AtomicUsize::new(0));
        let count = read.clone();
        let mut connection = InTurn::new(
            async move {
                let mut buffer = [0; LONG];
                while let Ok(some) = stream.read(&mut buffer).await {
                    count.fetch_add(some, Ordering::Relaxed);
                }
            },
            turn,
            turns.clone(),
        );
        client.write_all(&[7; LONG]).await.unwrap();
        let mut look = || {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
            read.load(Ordering::Relaxed)
        };
        for _ in 0..3 {
            assert_eq!(look(), TURN);
        }
        yield_now().await;
        turns.is_alone(&Turn::default());
        for _ in 0..3 {
            assert_eq!(look(), 2 * TURN);
        }
    }

    /// Broken by a turn that is not renewed where it was not used up: who sends little pays for what was long ago.
    #[tokio::test]
    async fn who_sends_little_at_a_time_never_waits() {
        let (mut client, server) = tokio::io::duplex(LONG);
        let mut connection = reading(server, &Turns::default());
        for _ in 0..LONG / 100 {
            client.write_all(&[7; 100]).await.unwrap();
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
            assert!(connection.pause.is_none());
        }
    }

    /// Broken by `begin_calls` without a bound, and by a stream that is read while calls wait.
    #[tokio::test]
    async fn calls_are_begun_so_many_in_a_turn_and_nothing_is_read_before_them() {
        const MANY: usize = 3 * CALLS;
        let (mut client, server) = tokio::io::duplex(LONG);
        client.write_all(&[7; 2]).await.unwrap();
        let turn = Turn::default();
        let mut stream = Measured::new(server, turn.clone());
        let executor = turn.clone();
        let begun = Arc::new(AtomicUsize::new(0));
        let (count, seen) = (begun.clone(), begun.clone());
        let connection = async move {
            stream.read_u8().await.unwrap();
            for _ in 0..MANY {
                let count = count.clone();
                executor.execute(async move {
                    count.fetch_add(1, Ordering::Relaxed);
                });
            }
            stream.read_u8().await.unwrap();
            seen.load(Ordering::Relaxed)
        };
        let turns = Turns::default();
        let (other, others) = somebody_else(&turns);
        assert_eq!(InTurn::new(connection, turn, turns).await, MANY);
        assert_eq!(begun.load(Ordering::Relaxed), MANY);
        assert_eq!(others.load(Ordering::Relaxed), 2, "between three turns");
        other.abort();
    }

    /// Broken by `unwatched` that does not look whether somebody has rung, and by `wake_by_ref` that wakes nobody while watched and
    /// notes nothing.
    #[tokio::test]
    async fn who_rings_during_the_last_look_is_heard() {
        let rung_by = |itself: bool| {
            let mut looks = 0;
            let connection = poll_fn(move |context: &mut Context<'_>| {
                looks += 1;
                if itself && looks < 5 {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                if looks < 5 {
                    let waker = context.waker().clone();
                    std::thread::spawn(move || waker.wake());
                    return Poll::Pending;
                }
                Poll::Ready(looks)
            });
            InTurn::new(connection, Turn::default(), Turns::default())
        };
        assert_eq!(rung_by(true).await, 5);
        assert_eq!(rung_by(false).await, 5);
    }

    /// Broken by a `Bell` that wakes the task of a connection that is being looked at: it is looked at twice for one call.
    #[tokio::test]
    async fn a_call_that_is_answered_at_once_wakes_nobody() {
        let turn = Turn::default();
        let executor = turn.clone();
        let looks = Arc::new(AtomicUsize::new(0));
        let count = looks.clone();
        let connection = poll_fn(move |context: &mut Context<'_>| {
            if count.fetch_add(1, Ordering::Relaxed) == 0 {
                let waker = context.waker().clone();
                executor.execute(async move { waker.wake() });
            }
            Poll::<()>::Pending
        });
        let mut connection = InTurn::new(connection, turn, Turns::default());
        let task = Arc::new(Bell::default());
        let waker = Waker::from(task.clone());
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
        assert_eq!(
            looks.load(Ordering::Relaxed),
            2,
            "before and after the call"
        );
        assert!(!task.rung.load(Ordering::Relaxed));
    }

    /// Broken by `InTurn` without `drop`.
    #[tokio::test]
    async fn calls_that_nobody_has_begun_end_with_their_connection() {
        let turn = Turn::default();
        let executor = turn.clone();
        let (held, released) = oneshot::channel::<()>();
        let connection = InTurn::new(std::future::ready(()), turn, Turns::default());
        executor.clone().execute(async move {
            drop((executor, held));
        });
        connection.await;
        assert!(released.await.is_err(), "it was dropped");
    }

    /// Broken by dropping calls that are not over at the first look, and by not catching a panic.
    #[tokio::test]
    async fn a_call_may_wait_and_may_panic_and_is_nobody_elses_business() {
        let turn = Turn::default();
        let (go, gone) = oneshot::channel();
        let (done, over) = oneshot::channel();
        turn.execute(async { panic!("this one is meant to") });
        turn.execute(async move {
            gone.await.unwrap();
            done.send(()).unwrap();
        });
        let never = poll_fn(|_| Poll::<()>::Pending);
        let mut connection = InTurn::new(never, turn, Turns::default());
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
        assert!(connection.pause.is_none(), "both have been begun");
        go.send(()).unwrap();
        over.await.unwrap();
    }
}
