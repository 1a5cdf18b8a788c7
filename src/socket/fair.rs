//! A share of the thread for each connection: how much of what it has sent is read before the others get their turn.
//!
//! One thread serves every connection, and h2 goes on reading and judging frames for as long as there are any. A caller
//! that writes faster than they are judged would therefore keep the thread until the runtime's own patience of 128 reads
//! is at an end: a hundred thousand PINGs, with everybody else waiting.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf, Take};
use tokio::task::yield_now;
use tonic::transport::server::Connected;

/// What one connection may have read in one turn, in bytes. The worst of it is some hundred frames without payload or a
/// thousand fields of a header block, which take some tens of microseconds to judge; and a call of `GetToken` is about a
/// hundred bytes, so that a caller with many in flight has ten of them taken at a time and loses nothing to speak of.
const TURN: u64 = 1024;

/// A stream that is read turn by turn.
///
/// A turn ends when there is nothing more to read or when `TURN` bytes have been. In the latter case nothing is read until
/// everybody else who is ready has had a turn, those included of whom the runtime does not know yet.
pub struct Fair<S> {
    /// Its limit is what is left of the turn.
    stream: Take<S>,
    /// Made when the first turn is used up, which is never in most connections.
    pause: Option<Arc<Pause>>,
}

/// The time between two turns.
///
/// The connection's own calls wake it too, as they are answered. Without a pause that has to be over, a caller with many in
/// flight would have its next turn each time.
#[derive(Debug, Default)]
struct Pause {
    /// Who is to be woken when it is over; None: it is over.
    reader: Mutex<Option<Waker>>,
}

impl Pause {
    /// Begins, for whoever reads.
    fn begin(self: &Arc<Self>, reader: &Waker) {
        *self.reader() = Some(reader.clone());
        // Notes the waker where the runtime looks after it has asked the kernel for news. To be woken at once would be to come
        // before those who have not been heard yet.
        let waker = Waker::from(self.clone());
        let _ = pin!(yield_now()).poll(&mut Context::from_waker(&waker));
    }

    /// Whether it is not over yet; if so, whoever reads will be woken.
    fn lasts(&self, reader: &Waker) -> bool {
        match &mut *self.reader() {
            Some(waiting) => {
                waiting.clone_from(reader);
                true
            }
            None => false,
        }
    }

    fn reader(&self) -> std::sync::MutexGuard<'_, Option<Waker>> {
        self.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Pause {
    fn wake(self: Arc<Self>) {
        let reader = self.reader().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }
}

impl<S: AsyncRead> Fair<S> {
    /// At the beginning of a turn.
    #[must_use]
    pub fn new(stream: S) -> Fair<S> {
        Fair {
            stream: stream.take(TURN),
            pause: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Fair<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Fair { stream, pause } = self.get_mut();
        if stream.limit() == 0 {
            stream.set_limit(TURN);
            pause.get_or_insert_default().begin(cx.waker());
        }
        if pause.as_ref().is_some_and(|pause| pause.lasts(cx.waker())) {
            return Poll::Pending;
        }
        let read = Pin::new(&mut *stream).poll_read(cx, buf);
        if read.is_pending() {
            stream.set_limit(TURN);
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Fair<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(self.get_mut().stream.get_mut()).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.get_ref().is_write_vectored()
    }
}

impl<S: AsyncRead + Connected> Connected for Fair<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.get_ref().connect_info()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const LONG: usize = 10 * TURN as usize + 1;

    /// Broken by `poll_read` that goes on without a pause: the other is not heard before the end.
    #[tokio::test]
    async fn who_sends_without_end_is_read_in_turns_with_others() {
        let (mut client, server) = tokio::io::duplex(LONG);
        client.write_all(&[7; LONG]).await.unwrap();
        drop(client);
        let turns = Arc::new(AtomicUsize::new(0));
        let others = turns.clone();
        let other = tokio::spawn(async move {
            loop {
                others.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        });
        // However large the buffer: it does not stretch the turn.
        let mut all = Vec::with_capacity(LONG);
        let mut fair = Fair::new(server);
        while fair.read_buf(&mut all).await.unwrap() > 0 {}
        assert_eq!(all, [7; LONG], "nothing is lost between turns");
        let turns = turns.load(Ordering::Relaxed);
        assert!((9..=12).contains(&turns), "{turns} turns of the other");
        other.abort();
    }

    /// Broken by `Pause::lasts` that is always false: whoever wakes the reader gives it a turn.
    #[tokio::test]
    async fn a_pause_is_not_over_because_somebody_wakes_the_reader() {
        let (mut client, server) = tokio::io::duplex(LONG);
        client.write_all(&[7; LONG]).await.unwrap();
        let mut fair = Fair::new(server);
        let mut read = || {
            let mut buffer = [0; LONG];
            let mut buf = ReadBuf::new(&mut buffer);
            let mut cx = Context::from_waker(Waker::noop());
            let outcome = Pin::new(&mut fair).poll_read(&mut cx, &mut buf);
            (outcome.is_ready(), buf.filled().len())
        };
        let turn = usize::try_from(TURN).unwrap();
        assert_eq!(read(), (true, turn));
        for _ in 0..3 {
            assert_eq!(read(), (false, 0));
        }
        yield_now().await;
        assert_eq!(read(), (true, turn));
        assert_eq!(read(), (false, 0));
    }

    /// Broken by a limit that is not renewed where there is nothing to read: who sends little pays for what was long ago.
    #[tokio::test]
    async fn who_sends_little_at_a_time_never_waits() {
        let (mut client, server) = tokio::io::duplex(LONG);
        let mut fair = Fair::new(server);
        let part = [7; 100];
        for _ in 0..LONG / part.len() {
            let mut buffer = [0; 200];
            let mut buf = ReadBuf::new(&mut buffer);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(
                Pin::new(&mut fair)
                    .poll_read(&mut cx, &mut buf)
                    .is_pending()
            );
            client.write_all(&part).await.unwrap();
            assert!(Pin::new(&mut fair).poll_read(&mut cx, &mut buf).is_ready());
            assert_eq!(buf.filled(), part);
        }
    }
}
