//! The body of a request, with an end to the patience for it: a caller that sends half of one holds its place no longer
//! than one that sends nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

/// A body whose every next part has to come within a time.
pub struct Impatient {
    body: Incoming,
    patience: Duration,
    /// Runs while a part is awaited; most bodies are there at the first look and need none.
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// Nothing came for too long.
    #[error("the rest of the request did not come in time")]
    TooSlow,
    /// The connection failed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl Impatient {
    /// Waits for each part of `body` for so long.
    pub fn new(body: Incoming, patience: Duration) -> Impatient {
        Impatient {
            body,
            patience,
            timer: None,
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
            return Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)));
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
