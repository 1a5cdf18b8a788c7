//! An answer as data, which faults can alter, and its way to the wire.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, HeaderValue, PRAGMA,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use tokio_stream::StreamExt as _;

use crate::core::time::WallTime;
use crate::dev::faults::json_text;

/// What hyper sends.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What will be sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Content,
    pub pace: Pace,
}

/// The body.
#[derive(Debug)]
pub(super) enum Content {
    /// A JSON object: names and raw JSON, in order.
    Fields(Vec<(String, String)>),
    /// Anything.
    Bytes(Bytes),
    /// A token answer whose token never ends.
    Endless,
}

/// How the body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// At once.
    Whole,
    /// Half of it, then the connection closes.
    Half,
    /// A byte per interval.
    Trickle(Duration),
}

impl Answer {
    /// A body with its type. Answers are never cached: tokens must not be (RFC 6749 §5.1), and tests change the rest.
    pub fn new(status: StatusCode, content_type: Option<&'static str>, content: Content) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Answer {
            status,
            headers,
            content,
            pace: Pace::Whole,
        }
    }

    /// A JSON object with status 200.
    pub fn json(fields: Vec<(&str, serde_json::Value)>) -> Answer {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .collect();
        Answer::new(
            StatusCode::OK,
            Some("application/json"),
            Content::Fields(fields),
        )
    }

    /// RFC 6749 §5.2. A 401 carries the challenge that RFC 9110 §15.5.2 demands.
    pub fn oauth_error(status: StatusCode, code: &str, description: &str) -> Answer {
        let mut answer = Answer::json(vec![
            ("error", code.into()),
            ("error_description", description.into()),
        ]);
        answer.status = status;
        if status == StatusCode::UNAUTHORIZED {
            answer.headers.insert(
                WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"tokend dev\", charset=\"UTF-8\""),
            );
        }
        answer
    }

    /// Plain text for a person who reads along.
    pub fn text(status: StatusCode, text: &'static str) -> Answer {
        Answer::new(
            status,
            Some("text/plain; charset=utf-8"),
            Content::Bytes(Bytes::from_static(text.as_bytes())),
        )
    }

    /// Raw JSON of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        match &self.content {
            Content::Fields(fields) => fields
                .iter()
                .find(|(field, _)| field == name)
                .map(|(_, json)| json.as_str()),
            _ => None,
        }
    }

    /// Sets, adds or removes a field; nothing if this is not a JSON object.
    pub fn set_field(&mut self, name: &str, json: Option<String>) {
        let Content::Fields(fields) = &mut self.content else {
            return;
        };
        match (fields.iter().position(|(field, _)| field == name), json) {
            (Some(at), Some(json)) => fields[at].1 = json,
            (Some(at), None) => drop(fields.remove(at)),
            (None, Some(json)) => fields.push((name.to_owned(), json)),
            (None, None) => {}
        }
    }

    /// Sets a header. What cannot be one makes the answer a 500 that says so, so that a misspelt script is noticed.
    pub fn set_header(&mut self, name: &str, value: &str) {
        match (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            (Ok(name), Ok(value)) => drop(self.headers.insert(name, value)),
            _ => {
                self.status = StatusCode::INTERNAL_SERVER_ERROR;
                self.content =
                    Content::Bytes(Bytes::from_static(b"the script has an impossible header"));
            }
        }
    }

    /// The answer for hyper, dated `now` unless it has a date.
    pub fn into_response(self, now: WallTime) -> Response<Body> {
        let Answer {
            status,
            mut headers,
            content,
            pace,
        } = self;
        if !headers.contains_key(DATE) {
            headers.insert(DATE, http_date_value(now));
        }
        let body = match content {
            Content::Fields(fields) => paced(object(&fields).into(), pace, &mut headers),
            Content::Bytes(bytes) => paced(bytes, pace, &mut headers),
            Content::Endless => endless(),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        response
    }
}

fn object(fields: &[(String, String)]) -> String {
    let members: Vec<String> = fields
        .iter()
        .map(|(name, json)| format!("{}:{json}", json_text(name)))
        .collect();
    format!("{{{}}}", members.join(","))
}

fn paced(bytes: Bytes, pace: Pace, headers: &mut HeaderMap) -> Body {
    if pace != Pace::Whole {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    }
    match pace {
        Pace::Whole => Full::new(bytes)
            .map_err(|never| match never {})
            .boxed_unsync(),
        Pace::Half => Half {
            half: Some(bytes.slice(..bytes.len() / 2)),
            rested: false,
        }
        .boxed_unsync(),
        Pace::Trickle(interval) => {
            let each = (0..bytes.len()).map(move |at| Ok(Frame::data(bytes.slice(at..=at))));
            StreamBody::new(tokio_stream::iter(each).throttle(interval)).boxed_unsync()
        }
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
struct Half {
    half: Option<Bytes>,
    /// Whether it has been pending once. hyper flushes when a body is pending; without this, nothing would be seen at all.
    rested: bool,
}

impl hyper::body::Body for Half {
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

/// IMF-fixdate (RFC 9110 §5.6.7), for instance `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(at: WallTime) -> String {
    /// The last second of the year 9999: the format goes no further.
    const LAST: u64 = 253_402_300_799;
    let seconds = at.0.as_secs().min(LAST);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn http_date_value(at: WallTime) -> HeaderValue {
    HeaderValue::from_str(&http_date(at)).expect("a date is plain ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_in_rfc_9110() {
        let date = |seconds| http_date(WallTime(Duration::from_secs(seconds)));
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(1_709_251_199), "Thu, 29 Feb 2024 23:59:59 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    #[test]
    fn fields_are_set_added_and_removed_in_place() {
        let mut answer = Answer::json(vec![("a", 1.into()), ("b", "x".into())]);
        answer.set_field("a", Some("1e99".into()));
        answer.set_field("b", None);
        answer.set_field("c", Some("nonsense".into()));
        let Content::Fields(fields) = &answer.content else {
            panic!("not an object")
        };
        assert_eq!(object(fields), r#"{"a":1e99,"c":nonsense}"#);
    }
}
