use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::rt::Executor as _;
use tokio::io::{AsyncWriteExt as _, DuplexStream};
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::*;

const TURN: usize = BYTES as usize;
const LONG: usize = 10 * TURN + 1;

/// A connection that reads to the end, and keeps what it has read.
fn reading(
    stream: DuplexStream,
    rounds: &Rounds,
) -> FairConnection<impl Future<Output = Vec<u8>> + use<>> {
    let turn = Turn::default();
    let mut stream = MeteredStream::new(stream, turn.clone());
    let connection = async move {
        // The size of the buffer does not stretch the turn.
        let mut all = Vec::with_capacity(LONG);
        while stream.read_buf(&mut all).await.unwrap() > 0 {}
        all
    };
    FairConnection::new(connection, turn, Arc::default(), rounds.clone())
}

/// A second task that has something to do whenever it is polled; the counter says how often that
/// was.
fn somebody_else(rounds: &Rounds) -> (tokio::task::JoinHandle<()>, Arc<AtomicUsize>) {
    let (turn, rounds) = (Turn::default(), rounds.clone());
    let had = Arc::new(AtomicUsize::new(0));
    let count = had.clone();
    let other = tokio::spawn(async move {
        loop {
            rounds.is_alone(turn.place());
            count.fetch_add(1, Ordering::Relaxed);
            yield_now().await;
        }
    });
    (other, had)
}

/// Broken by `FairConnection` that goes on without a pause: the other task is not polled before the
/// end.
#[tokio::test]
async fn who_sends_without_end_is_read_in_turns_with_others() {
    let (mut client, server) = tokio::io::duplex(LONG);
    client.write_all(&[7; LONG]).await.unwrap();
    drop(client);
    let rounds = Rounds::default();
    let (other, others) = somebody_else(&rounds);
    let all = reading(server, &rounds).await;
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
    let mut connection = reading(server, &Rounds::default());
    let mut turns = 0;
    let all = poll_fn(|context| {
        turns += usize::from(!connection.bell.is_queued());
        Pin::new(&mut connection).poll(context)
    });
    assert_eq!(all.await, [7; LONG]);
    assert_eq!(turns, 4, "1 + 4 + 4 + the rest");
}

/// Broken by `may_go_on` that takes `Queued` like `Idle`: every wake-up would give the connection a
/// turn.
#[tokio::test]
async fn a_pause_is_not_over_because_somebody_wakes_the_connection() {
    let (mut client, server) = tokio::io::duplex(LONG);
    let turn = Turn::default();
    let mut stream = MeteredStream::new(server, turn.clone());
    let rounds = Rounds::default();
    let read = Arc::new(AtomicUsize::new(0));
    let count = read.clone();
    let mut connection = FairConnection::new(
        async move {
            let mut buffer = [0; LONG];
            while let Ok(some) = stream.read(&mut buffer).await {
                count.fetch_add(some, Ordering::Relaxed);
            }
        },
        turn,
        Arc::default(),
        rounds.clone(),
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
    rounds.is_alone(Turn::default().place());
    for _ in 0..3 {
        assert_eq!(look(), 2 * TURN);
    }
}

/// Broken by a turn that is not renewed when it was not used up: a client that sends little would
/// pay for what it sent long ago.
#[tokio::test]
async fn who_sends_little_at_a_time_never_waits() {
    let (mut client, server) = tokio::io::duplex(LONG);
    let mut connection = reading(server, &Rounds::default());
    for _ in 0..LONG / 100 {
        client.write_all(&[7; 100]).await.unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
        assert!(!connection.bell.is_queued());
    }
}

/// Broken by `begin_calls` without a bound, and by a stream that is read while calls wait.
#[tokio::test]
async fn calls_are_begun_so_many_in_a_turn_and_nothing_is_read_before_them() {
    const MANY: usize = 3 * CALLS;
    let (mut client, server) = tokio::io::duplex(LONG);
    client.write_all(&[7; 2]).await.unwrap();
    let turn = Turn::default();
    let mut stream = MeteredStream::new(server, turn.clone());
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
    let rounds = Rounds::default();
    let (other, others) = somebody_else(&rounds);
    assert_eq!(
        FairConnection::new(connection, turn, Arc::default(), rounds).await,
        MANY
    );
    assert_eq!(begun.load(Ordering::Relaxed), MANY);
    assert_eq!(others.load(Ordering::Relaxed), 2, "between three turns");
    other.abort();
}

/// Broken by `polled` that does not check whether the bell has rung, and by `wake_by_ref` that
/// notes nothing during a poll.
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
        FairConnection::new(
            connection,
            Turn::default(),
            Arc::default(),
            Rounds::default(),
        )
    };
    assert_eq!(rung_by(true).await, 5);
    assert_eq!(rung_by(false).await, 5);
}

/// Broken by a `SharedWaker` that wakes the task during a poll: the connection is polled twice for
/// one call.
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
    let mut connection = FairConnection::new(connection, turn, Arc::default(), Rounds::default());
    let task = Arc::new(SharedWaker::default());
    let waker = Waker::from(task.clone());
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
    assert_eq!(
        looks.load(Ordering::Relaxed),
        2,
        "before and after the call"
    );
    assert!(!task.state().rung);
}

/// Broken by `FairConnection` without `drop`.
#[tokio::test]
async fn calls_that_nobody_has_begun_end_with_their_connection() {
    let turn = Turn::default();
    let executor = turn.clone();
    let (held, released) = oneshot::channel::<()>();
    let connection = FairConnection::new(
        std::future::ready(()),
        turn,
        Arc::default(),
        Rounds::default(),
    );
    executor.clone().execute(async move {
        drop((executor, held));
    });
    connection.await;
    assert!(released.await.is_err(), "it was dropped");
}

/// Broken by dropping calls that are not finished at the first poll, and by not catching a panic.
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
    let mut connection = FairConnection::new(never, turn, Arc::default(), Rounds::default());
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut connection).poll(&mut context).is_pending());
    assert!(!connection.bell.is_queued(), "both have been begun");
    go.send(()).unwrap();
    over.await.unwrap();
}

/// A connection that has `bytes` to read each time it is polled; the counter says how often it had
/// a turn.
fn busy(
    share: &Arc<Share>,
    rounds: &Rounds,
    turns: &Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<()> {
    let turn = Turn::default();
    let mut stream = MeteredStream::new(tokio::io::repeat(7), turn.clone());
    let turns = turns.clone();
    let connection = async move {
        let mut buffer = [0; TURN];
        loop {
            stream.read_exact(&mut buffer).await.expect("endless");
            turns.fetch_add(1, Ordering::Relaxed);
        }
    };
    tokio::spawn(FairConnection::new(
        connection,
        turn,
        share.clone(),
        rounds.clone(),
    ))
}

/// Broken by turns that belong to connections and not to principals: the one connection has a
/// hundredth.
#[tokio::test]
async fn who_has_a_hundred_connections_has_no_more_turns_than_who_has_one() {
    let rounds = Rounds::default();
    let (many, one) = (Arc::<Share>::default(), Arc::<Share>::default());
    let (of_many, of_one) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut tasks: Vec<_> = (0..100).map(|_| busy(&many, &rounds, &of_many)).collect();
    tasks.push(busy(&one, &rounds, &of_one));
    for _ in 0..2000 {
        yield_now().await;
    }
    let (of_many, of_one) = (
        of_many.load(Ordering::Relaxed),
        of_one.load(Ordering::Relaxed),
    );
    assert!(of_one > 100, "{of_one}");
    assert!(of_many < of_one * 2, "{of_many} and {of_one}");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Broken by a queue that is served from its end.
#[tokio::test]
async fn connections_of_one_principal_have_their_turns_one_after_another() {
    let rounds = Rounds::default();
    let share = Arc::<Share>::default();
    let counts: Vec<_> = (0..50).map(|_| Arc::<AtomicUsize>::default()).collect();
    let tasks: Vec<_> = counts
        .iter()
        .map(|count| busy(&share, &rounds, count))
        .collect();
    for _ in 0..2000 {
        yield_now().await;
    }
    let counts: Vec<usize> = counts
        .iter()
        .map(|count| count.load(Ordering::Relaxed))
        .collect();
    let (least, most) = (
        counts.iter().min().expect("some"),
        counts.iter().max().expect("some"),
    );
    assert!(*least > 10 && most - least <= 8, "{counts:?}");
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
}

/// Broken by rounds that end only with a turn: a connection behind others that have ended waits for
/// ever.
#[tokio::test]
async fn connections_that_end_in_the_queue_hold_nobody_up() {
    let rounds = Rounds::default();
    let share = Arc::<Share>::default();
    let (gone, stays) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let tasks: Vec<_> = (0..50).map(|_| busy(&share, &rounds, &gone)).collect();
    let last = busy(&share, &rounds, &stays);
    for _ in 0..20 {
        yield_now().await;
    }
    tasks.iter().for_each(tokio::task::JoinHandle::abort);
    for _ in 0..200 {
        yield_now().await;
    }
    assert!(stays.load(Ordering::Relaxed) > 20, "{stays:?}");
    last.abort();
}

/// Broken by `admits` that ignores what has been used or who already waits, and by `may_go_on` that
/// does not keep the rounds going: nobody else would end them.
#[tokio::test]
async fn many_connections_that_ask_little_share_too_and_wait_one_after_another() {
    let rounds = Rounds::default();
    let share = Arc::<Share>::default();
    let read = Arc::<AtomicUsize>::default();
    let (mut clients, mut connections) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        let (mut client, server) = tokio::io::duplex(LONG);
        client.write_all(&[7; 64]).await.unwrap();
        clients.push(client);
        let turn = Turn::default();
        let mut stream = MeteredStream::new(server, turn.clone());
        let count = read.clone();
        let connection = async move {
            let mut buffer = [0; TURN];
            while let Ok(some) = stream.read(&mut buffer).await {
                count.fetch_add(some / 64, Ordering::Relaxed);
            }
        };
        connections.push(FairConnection::new(
            connection,
            turn,
            share.clone(),
            rounds.clone(),
        ));
    }
    let mut look = |at: &[usize]| {
        for at in at {
            let mut context = Context::from_waker(Waker::noop());
            let connection = Pin::new(&mut connections[*at]);
            assert!(connection.poll(&mut context).is_pending());
        }
        read.load(Ordering::Relaxed)
    };
    let all: Vec<usize> = (0..40).collect();
    assert_eq!(look(&all), 16, "the principal's share");
    yield_now().await;
    clients[0].write_all(&[7; 64]).await.unwrap();
    assert_eq!(look(&[0]), 16, "others wait already");
    for round in 1..=24 {
        assert_eq!(look(&all[15 + round..]), 16 + round);
        yield_now().await;
    }
    assert_eq!(look(&[0]), 41);
}
