//! An answer as data, which faults can alter, and its way to the wire.

use std::io;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, DATE, HeaderName, HeaderValue, PRAGMA, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};

use crate::form::FormRefusal;

/// What hyper sends.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

#[derive(Debug)]
pub(crate) struct IssuerAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub content: Content,
}

#[derive(Debug)]
pub(crate) enum Content {
    /// A JSON object: names and raw JSON, in order.
    Fields(Vec<(String, String)>),
    Bytes(Bytes),
}

impl IssuerAnswer {
    /// An answer with a body and its type. No answer may be cached: tokens must not be (RFC 6749
    /// §5.1), and tests change the other documents.
    pub fn new(
        status: StatusCode,
        content_type: Option<&'static str>,
        content: Content,
    ) -> IssuerAnswer {
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
        if let Some(content_type) = content_type {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        IssuerAnswer {
            status,
            headers,
            content,
        }
    }

    /// A JSON object with status 200.
    pub fn json(fields: Vec<(&str, serde_json::Value)>) -> IssuerAnswer {
        let fields = fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_string()))
            .collect();
        IssuerAnswer::new(
            StatusCode::OK,
            Some("application/json"),
            Content::Fields(fields),
        )
    }

    /// An error by RFC 6749 §5.2. A 401 carries the challenge that RFC 9110 §15.5.2 demands.
    pub fn oauth_error(status: StatusCode, code: &str, description: &str) -> IssuerAnswer {
        let mut answer = IssuerAnswer::json(vec![
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

    /// Status 405, with the method that the endpoint allows.
    pub fn method_not_allowed(allowed: &'static str) -> IssuerAnswer {
        let mut answer = IssuerAnswer::text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
        answer
            .headers
            .insert(ALLOW, HeaderValue::from_static(allowed));
        answer
    }

    /// A challenge of RFC 6750 §3.
    pub fn bearer_challenge(error: Option<&'static str>) -> IssuerAnswer {
        let mut answer = IssuerAnswer::json(vec![("error", error.unwrap_or("no token").into())]);
        answer.status = StatusCode::UNAUTHORIZED;
        let challenge = match error {
            None => "Bearer realm=\"tokend dev\"".to_owned(),
            Some(error) => format!("Bearer realm=\"tokend dev\", error=\"{error}\""),
        };
        answer.set_header(WWW_AUTHENTICATE.as_str(), &challenge);
        answer
    }

    /// The answer to a token request that is refused.
    pub fn refused(refusal: &FormRefusal) -> IssuerAnswer {
        if refusal.status == StatusCode::METHOD_NOT_ALLOWED {
            return IssuerAnswer::method_not_allowed("POST");
        }
        IssuerAnswer::oauth_error(refusal.status, refusal.code, refusal.description)
    }

    /// Plain text for a person.
    pub fn text(status: StatusCode, text: &'static str) -> IssuerAnswer {
        IssuerAnswer::new(
            status,
            Some("text/plain; charset=utf-8"),
            Content::Bytes(Bytes::from_static(text.as_bytes())),
        )
    }

    /// Sets a header. An invalid name or value turns the answer into a 500 that says so: the author
    /// of a misspelt script then notices it.
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

    /// The answer for hyper, dated `now` (since 1970) unless it has a date.
    #[cfg(not(feature = "faults"))]
    pub fn into_response(self, now: Duration) -> Response<Body> {
        self.into_bytes(now).map(whole)
    }

    /// The answer with its body in bytes, dated `now` (since 1970) unless it has a date.
    pub fn into_bytes(self, now: Duration) -> Response<Bytes> {
        let mut response = Response::new(match self.content {
            Content::Fields(fields) => object(&fields).into(),
            Content::Bytes(bytes) => bytes,
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        let date = || HeaderValue::from_str(&http_date(now)).expect("a date is plain ASCII");
        response.headers_mut().entry(DATE).or_insert_with(date);
        response
    }
}

/// A body that is sent at once.
pub(crate) fn whole(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A text as JSON.
pub(crate) fn json_text(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn object(fields: &[(String, String)]) -> String {
    let members: Vec<String> = fields
        .iter()
        .map(|(name, json)| format!("{}:{json}", json_text(name)))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// IMF-fixdate (RFC 9110 §5.6.7) of a time since 1970, for instance `Sun, 06 Nov 1994 08:49:37
/// GMT`.
pub(crate) fn http_date(at: Duration) -> String {
    /// The last second of the year 9999, where the format ends.
    const LAST: u64 = 253_402_300_799;
    let seconds = at.as_secs().min(LAST);
    httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_as_in_rfc_9110() {
        let date = |seconds| http_date(Duration::from_secs(seconds));
        assert_eq!(date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(date(1_709_251_199), "Thu, 29 Feb 2024 23:59:59 GMT");
        assert_eq!(date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
