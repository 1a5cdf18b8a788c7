//! The body of a request, with an end to the patience for it: a caller that sends half of one holds its place no longer
//! than one that sends nothing, and no more memory than its user has for that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::error::Denial;
use super::places::HalfSent;

/// What a call that waits for the rest of its message holds besides that message, in bytes: its headers, its stream, its task.
const CALL: usize = 4096;

/// A body whose every next part has to come within a time.
pub struct Impatient {
    body: Incoming,
    patience: Duration,
    /// Runs while a part is awaited; most bodies are there at the first look and need none.
    timer: Option<Pin<Box<Sleep>>>,
    half_sent: Arc<HalfSent>,
    /// Came so far, in bytes.
    came: usize,
    /// What is accounted for: nothing while the body has never been waited for.
    held: usize,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Nothing came for too long.
    #[error("the rest of the request did not come in time")]
    TooSlow,
    /// Requests of this user that are not yet whole hold as much as they may.
    #[error("{0}")]
    TooMany(#[source] Box<tonic::Status>),
    /// The connection failed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

fn too_many() -> BodyError {
    BodyError::TooMany(Box::new(Denial::half_sent().into()))
}

impl Impatient {
    /// Waits for each part of `body` for so long, and where there is room for what has come.
    pub fn new(body: Incoming, patience: Duration, half_sent: Arc<HalfSent>) -> Impatient {
        Impatient {
            body,
            patience,
            timer: None,
            half_sent,
            came: 0,
            held: 0,
        }
    }
}

impl Body for Impatient {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let next = std::pin::pin!(self.body.frame());
        if let Poll::Ready(frame) = next.poll(context) {
            self.timer = None;
            if let Some(Ok(frame)) = &frame {
                self.came += frame.data_ref().map_or(0, Bytes::len);
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
        }
        let more = CALL + self.came - self.held;
        if more > 0 {
            if !self.half_sent.take(more) {
                return Poll::Ready(Some(Err(too_many())));
            }
            self.held += more;
        }
        let patience = self.patience;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BodyError::TooSlow))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        self.half_sent.give_back(self.held);
    }
}
