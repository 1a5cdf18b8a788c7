//! The body of a request, read with limited patience. A caller that sends half a body holds its
//! place no longer than one that sends nothing, and holds no more memory than its user has for
//! that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::Sleep;

use super::accounts::Charge;
use super::session::Session;
use crate::core::account::Resource;

/// What a call that waits for the rest of its message holds besides that message, in bytes: its
/// headers, its stream and its task.
const CALL: usize = 4096;

/// A body whose parts each have to arrive within a time.
pub struct TimedBody {
    body: Incoming,
    patience: Duration,
    /// Runs while a part is awaited. Most bodies are complete at the first look and need no timer.
    timer: Option<Pin<Box<Sleep>>>,
    /// The session whose account pays for the body.
    session: Arc<Session>,
    /// Bytes that have arrived so far.
    came: usize,
    /// Bytes that are charged for the body; 0 while nothing ever had to wait for it.
    held: usize,
    charge: Option<Charge>,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No part came for too long.
    #[error("the rest of the request did not come in time")]
    TooSlow,
    /// This principal's incomplete calls already hold as much as they may.
    #[error("{0}")]
    TooMany(#[source] Box<tonic::Status>),
    /// The connection failed.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

impl TimedBody {
    /// Reads `body`. Each part has `patience` to arrive, and what has arrived is charged to
    /// `session`.
    pub fn new(body: Incoming, patience: Duration, session: Arc<Session>) -> TimedBody {
        TimedBody {
            body,
            patience,
            timer: None,
            session,
            came: 0,
            held: 0,
            charge: None,
        }
    }
}

impl Body for TimedBody {
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
            let this = &mut *self;
            let charged = match &mut this.charge {
                Some(charge) => charge.more(more as u64),
                none => this
                    .session
                    .account
                    .charge(Resource::Bytes, more as u64)
                    .map(|charge| *none = Some(charge)),
            };
            if let Err(full) = charged {
                return Poll::Ready(Some(Err(BodyError::TooMany(Box::new(full.into())))));
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

/// An answer that is charged to an account until its last byte is sent or its reader has gone.
pub struct Charged<B> {
    body: B,
    _charge: Arc<Charge>,
}

impl<B> Charged<B> {
    pub fn new(body: B, charge: Arc<Charge>) -> Charged<B> {
        Charged {
            body,
            _charge: charge,
        }
    }
}

impl<B: Body + Unpin> Body for Charged<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
