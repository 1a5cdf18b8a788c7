//! Makes the `:authority` of stock gRPC clients on a Unix socket legal on the way in.
//!
//! For `unix:/run/tokend/tokend.sock` Python's grpcio, and probably every client built on the same
//! C library, sends the `:authority` `run%2Ftokend%2Ftokend.sock`; grpc-java sends the path as it
//! is. Neither is an authority (RFC 3986 section 3.2, RFC 9113 section 8.3.1), so h2 resets the
//! stream with PROTOCOL_ERROR before any handler runs (hyperium/h2#487) and the caller sees
//! INTERNAL. Users do not set a channel option for one daemon, so the repair is ours.
//!
//! [`RepairAuthority`] sits on the accepted stream, under h2, and looks at what the client sends.
//! Its [`Scanner`] walks frames and, in header blocks, HPACK representations; in the literal value
//! of `:authority` it replaces illegal bytes in place. What holds:
//!
//! - The number of bytes never changes, so frame lengths and HPACK's tables on both sides stay in
//!   step.
//! - Nothing is held back and nothing is allocated: a byte is decided when it arrives, wherever the
//!   reads cut the stream.
//! - Anything that is not HTTP/2, or is malformed, switches the scanner off for good. Then h2 or
//!   hyper judges those bytes.
//! - The scanner knows frames before any other part sees them, so their cost is settled here too:
//!   [`super::allowance`].
//! - The application sees a mangled authority. A Unix socket has one authority, so it must never
//!   decide anything.
//!
//! Two more things are made harmless on the way. Both are about a connection that is being closed
//! in an orderly way, and a call that its client has begun before it has read which call was the
//! last. First, a WINDOW_UPDATE for that call would end the connection with all calls on it, see
//! [`scanner`]. Second, a client whose write fails because the connection is gone does not read on:
//! it takes those calls for lost that the last GOAWAY lets it send again elsewhere. So this end
//! stops writing and listens until the client has closed too.
//!
//! Not repaired, because no known client sends it: a literal whose name is an index into the
//! *dynamic* table, and those illegal bytes of a Huffman value that `value.rs` says it cannot turn
//! into legal ones.

pub mod scanner;

mod hpack;
mod value;

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use self::scanner::Scanner;
use super::allowance::Allowance;

/// A client that knows of the end has this long to close its own side.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// An accepted stream whose client may be a stock gRPC client.
///
/// Reading repairs `:authority` as the module says. Shutting down waits until the client has closed
/// its end too, two seconds at most, if the client speaks HTTP/2 and has answered that it knows of
/// the end. Writing goes straight to the stream. One value serves one connection, from its first
/// byte: on a stream that was already read from, it sees no preface and does nothing. Errors are
/// the stream's own.
#[derive(Debug)]
pub struct RepairAuthority<S> {
    stream: S,
    scanner: Scanner,
    /// Kept here because this layer already knows the frames.
    allowance: Allowance,
    since: Instant,
    /// Runs while the client's end is awaited.
    last_words: Option<Pin<Box<Sleep>>>,
}

impl<S> RepairAuthority<S> {
    /// Takes over a stream that nothing has been read from. Reading fails when the client has sent
    /// more than this many frames per second beyond what calls and answers account for.
    #[must_use]
    pub fn new(stream: S, control_frames_per_second: u32) -> Self {
        RepairAuthority {
            stream,
            scanner: Scanner::default(),
            allowance: Allowance::new(control_frames_per_second, Duration::ZERO),
            since: Instant::now(),
            last_words: None,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for RepairAuthority<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        // The caller's earlier bytes in the buffer were repaired when they were read, or came from
        // elsewhere.
        if let Some(fresh) = buf.filled_mut().get_mut(before..) {
            this.scanner.repair(fresh);
            let tally = this.scanner.take_tally();
            this.allowance
                .pay(tally, || this.since.elapsed())
                .map_err(io::Error::other)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for RepairAuthority<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, buf))?;
        this.allowance.sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
        if !this.scanner.knows_the_end() {
            return Poll::Ready(Ok(()));
        }
        let patience = this
            .last_words
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_WORDS)));
        let mut words = [0; 1024];
        while patience.as_mut().poll(cx).is_pending() {
            let mut unheard = ReadBuf::new(&mut words);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut unheard));
            if read.is_err() || unheard.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }

    // Without these two, h2 would copy each frame's head and payload together before writing.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
        this.allowance.sent(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
