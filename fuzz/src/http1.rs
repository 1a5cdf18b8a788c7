//! What the daemon answers to HTTP/1.1, and the rules that each of its own answers must keep, in
//! whichever version of HTTP.

use std::fmt;

use serde_json::Value;

use crate::secrets::{assert_none, assert_not_forbidden};

/// Headers, or what HTTP/2 calls a field section.
pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The headers, with names in small letters.
    pub headers: Fields,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// Whether the answer came to its end.
    pub complete: bool,
}

/// Statuses with which hyper answers bytes that are no request; then it closes the connection.
const HYPERS_OWN: [u16; 3] = [400, 414, 431];

/// The most headers of an answer.
const MOST_HEADERS: usize = 16;

/// Reads the answers on a connection. Fails on bytes that are no HTTP; only the last answer may be
/// cut off.
pub fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let read = head
            .parse(bytes)
            .unwrap_or_else(|why| panic!("{why}: {}", bytes.escape_ascii()));
        let httparse::Status::Complete(length) = read else {
            break;
        };
        bytes = &bytes[length..];
        let mut answer = Answer {
            status: head.code.expect("the head is complete"),
            headers: head
                .headers
                .iter()
                .map(|header| {
                    (
                        header.name.to_ascii_lowercase().into_bytes(),
                        header.value.to_vec(),
                    )
                })
                .collect(),
            body: Vec::new(),
            complete: true,
        };
        let length = answer.body_length();
        // The answer to HEAD has the length of a body that does not come. Instead the next answer
        // follows. None of our bodies begins like an answer.
        if !(bytes.starts_with(b"HTTP/1.") || bytes.is_empty() && length > 0) {
            let body = &bytes[..length.min(bytes.len())];
            answer.complete = body.len() == length;
            answer.body = body.to_vec();
            bytes = &bytes[body.len()..];
        }
        answers.push(answer);
    }
    answers
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.status)?;
        for (name, value) in &self.headers {
            writeln!(f, "{}: {}", name.escape_ascii(), value.escape_ascii())?;
        }
        write!(f, "{}", self.body.escape_ascii())
    }
}

impl Answer {
    fn body_length(&self) -> usize {
        // The daemon has all that it sends in memory, so it knows the length.
        assert!(field(&self.headers, "transfer-encoding").is_none());
        field(&self.headers, "content-length").map_or(0, |value| {
            std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok())
                .expect("a length is a number")
        })
    }

    /// Fails unless the answer keeps our rules: no cache may store it, it is JSON or metrics, and
    /// it contains a token only where the token is the credential that was asked for.
    pub fn check(&self) {
        if self.status == 100 {
            return;
        }
        for (name, value) in &self.headers {
            assert_none(name, "the name of a header");
            assert_none(value, "a header");
        }
        assert_not_forbidden(&self.body, "a body");
        let is_credential = self.status == 200 && self.body.starts_with(b"{\"token\":");
        if !is_credential {
            assert_none(&self.body, "a body that is no credential");
        }
        if field(&self.headers, "cache-control") != Some(b"no-store") {
            assert!(
                HYPERS_OWN.contains(&self.status)
                    && self.body.is_empty()
                    && field(&self.headers, "content-type").is_none(),
                "it may be stored: {self}"
            );
            return;
        }
        if field(&self.headers, "content-type") == Some(b"application/json")
            && self.complete
            && !self.body.is_empty()
        {
            let body: Value = serde_json::from_slice(&self.body).expect("it says that it is JSON");
            // An answer that says "not ready" also says which profile is not.
            if self.status >= 400 && body.get("ready").is_none() {
                for key in ["code", "reason", "message"] {
                    assert!(body[key].is_string(), "no {key}: {body}");
                }
            }
        }
    }
}

pub fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    fields
        .iter()
        .find(|(other, _)| other == name.as_bytes())
        .map(|(_, value)| value.as_slice())
}
