//! How a body is sent: at once, or as no honest server would.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio_stream::StreamExt as _;

use crate::answer::{Body, whole};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// At once.
    Whole,
    /// Half of it, then the connection closes.
    Half,
    /// A byte per interval.
    Trickle(Duration),
    /// A token answer whose token never ends, instead of the body.
    Endless,
}

impl Pace {
    pub fn applied(self, mut response: Response<Bytes>) -> Response<Body> {
        if matches!(self, Pace::Half | Pace::Trickle(_)) {
            let length = HeaderValue::from(response.body().len());
            response.headers_mut().insert(CONTENT_LENGTH, length);
        }
        response.map(|bytes| match self {
            Pace::Whole => whole(bytes),
            Pace::Half => HalfBody {
                half: Some(bytes.slice(..bytes.len() / 2)),
                rested: false,
            }
            .boxed_unsync(),
            Pace::Trickle(interval) => {
                let each = (0..bytes.len()).map(move |at| Ok(Frame::data(bytes.slice(at..=at))));
                StreamBody::new(tokio_stream::iter(each).throttle(interval)).boxed_unsync()
            }
            Pace::Endless => endless(),
        })
    }
}

fn endless() -> Body {
    let start = Bytes::from_static(b"{\"token_type\":\"Bearer\",\"access_token\":\"");
    let more = Bytes::from(vec![b'A'; 16 * 1024]);
    let chunks = std::iter::once(start).chain(std::iter::repeat(more));
    StreamBody::new(tokio_stream::iter(
        chunks.map(|chunk| Ok(Frame::data(chunk))),
    ))
    .boxed_unsync()
}

/// Part of a body, then an error, at which hyper drops the connection.
struct HalfBody {
    half: Option<Bytes>,
    /// Whether the body has been pending once. hyper flushes when a body is pending; without this,
    /// the client would see nothing at all.
    rested: bool,
}

impl hyper::body::Body for HalfBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(half) = self.half.take() {
            return Poll::Ready(Some(Ok(Frame::data(half))));
        }
        if !self.rested {
            self.rested = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())))
    }
}
