//! Parses the daemon's answers from JSON.
//!
//! Problems are reported by position only. The JSON library's own messages quote values, and a
//! value may be a credential.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::http::{HttpResponse, ResponseBody};
use super::text::unprintable;
use crate::core::secret::Secret;

/// A credential as the daemon serves it, checked to fit into a header line.
#[derive(Debug)]
pub struct CredentialAnswer {
    /// The bare token. Empty only for method `none`.
    pub token: Secret,
    /// `Bearer`, `Basic`, or empty for method `none`.
    pub token_type: String,
    /// The whole value of the Authorization header. Empty only for method `none`.
    pub authorization: Secret,
    /// The time of expiry. None if the credential does not expire.
    pub expires_at: Option<SystemTime>,
    /// The whole answer as one line of JSON.
    pub json: Secret,
}

impl CredentialAnswer {
    /// Whether the profile is one that sends no Authorization header.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.token.is_empty()
    }
}

/// A refusal of the daemon.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerRefusal {
    /// A gRPC status code, such as `NOT_FOUND`.
    pub code: String,
    /// The reason of ErrorInfo. May be empty.
    pub reason: String,
    /// The message for people.
    pub message: String,
    /// The time after which asking again may help.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for ServerRefusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.reason.is_empty() {
            &self.code
        } else {
            &self.reason
        };
        if self.message.is_empty() {
            f.write_str(name)
        } else {
            write!(f, "{} ({name})", self.message)
        }
    }
}

/// A message from the daemon.
#[derive(Debug)]
pub struct Received<T> {
    /// The part that the command line needs.
    pub message: T,
    /// The whole answer as one line of JSON.
    pub json: String,
}

#[derive(Deserialize)]
struct CredentialWire {
    #[serde(default = "no_secret", deserialize_with = "secret")]
    token: Secret,
    #[serde(default)]
    token_type: String,
    #[serde(default = "no_secret", deserialize_with = "secret")]
    authorization: Secret,
    #[serde(default)]
    expires_at: Option<String>,
}

fn no_secret() -> Secret {
    Secret::new(String::new())
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

#[derive(Deserialize)]
struct RefusalWire {
    code: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after: Option<f64>,
}

/// Parses a usable credential, or says what is wrong with it.
pub(super) fn credential(body: ResponseBody) -> Result<CredentialAnswer, String> {
    let wire: CredentialWire = object(&body)?;
    let empty = wire.token.is_empty();
    if wire.authorization.is_empty() != empty || wire.token_type.is_empty() != empty {
        return Err("a credential without all of token, token_type and authorization".into());
    }
    if !printable(wire.token.expose()) || !printable(wire.authorization.expose()) {
        return Err("a credential that does not fit into a header line".into());
    }
    let expires_at = match wire.expires_at.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match humantime::parse_rfc3339(text) {
            Ok(time) => Some(time),
            Err(_) => return Err("expires_at is not a time".into()),
        },
    };
    Ok(CredentialAnswer {
        token: wire.token,
        token_type: wire.token_type,
        authorization: wire.authorization,
        expires_at,
        json: Secret::new(one_line(&body)?),
    })
}

/// Parses a message, or says what is wrong with it.
pub(super) fn received<T: DeserializeOwned>(body: &ResponseBody) -> Result<Received<T>, String> {
    Ok(Received {
        message: object(body)?,
        json: one_line(body)?,
    })
}

/// Parses a refusal. None if the answer is not from tokend.
pub(super) fn refusal(response: &HttpResponse) -> Option<ServerRefusal> {
    let wire: RefusalWire = object(&response.body).ok()?;
    let said = wire
        .retry_after
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(ServerRefusal {
        code: wire.code,
        reason: wire.reason,
        message: wire.message,
        retry_after: said.or(response.retry_after),
    })
}

/// Parses an object. The derived code would also accept an array with the values in order.
fn object<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object".into());
    }
    serde_json::from_slice(body).map_err(|error| {
        format!(
            "it is not the JSON that is expected (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

/// Whether a field value may contain this text (RFC 9110 §5.5), without the obsolete bytes above
/// 0x7E.
fn printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Turns valid JSON into one line that a terminal can show. Control characters inside of a text are
/// escaped, and those between texts become spaces.
fn one_line(body: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(body)
        .map_err(|_| "it is not UTF-8")?
        .trim_ascii();
    // The whole room is allocated at once, since growing would leave copies of a credential behind.
    // An escape of six bytes replaces a character of at least one byte, and only characters outside
    // printable ASCII are replaced.
    let more = text
        .bytes()
        .filter(|byte| !(b' '..=b'~').contains(byte))
        .count()
        * 6;
    let mut line = Zeroizing::new(String::with_capacity(text.len() + more));
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => line.push(' '),
            // All of these are in the basic plane, so four digits are enough.
            c if unprintable(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    Ok(std::mem::take(&mut *line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<CredentialAnswer, String> {
        credential(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_success_without_a_usable_credential_is_none() {
        // This is trap 1, and trap 38: a token that would split a header.
        for text in [
            r#"{"token":"","token_type":"Bearer","authorization":"Bearer "}"#,
            r#"{"token":"t","token_type":"Bearer"}"#,
            r#"{"token":"t","authorization":"Bearer t"}"#,
            r#"{"token":"t\r\nX: y","token_type":"Bearer","authorization":"Bearer t"}"#,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t\nX: y"}"#,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t","expires_at":"tomorrow"}"#,
            r#"["t","Bearer","Bearer t"]"#,
            r#"{"token":null}"#,
            r#""t""#,
            "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("{}").unwrap().is_none());
        assert!(
            !parse(r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t"}"#)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn problems_do_not_quote_values() {
        for text in [
            r#"{"token":"hunter2","token_type":"Bearer","authorization":"Bearer hunter2","expires_at":7}"#,
            r#"{"token":["hunter2"]}"#,
            r#"{"token_type":"hunter2"}"#,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t","expires_at":"hunter2"}"#,
        ] {
            let problem = parse(text).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn json_becomes_one_harmless_line() {
        assert_eq!(
            one_line("{\n\t\"a\": \"x\u{9b}2J\u{7f}\u{202e}\u{e9}\\n\"\r\n}\n".as_bytes()).unwrap(),
            "{  \"a\": \"x\\u009b2J\\u007f\\u202e\u{e9}\\n\"  }"
        );
        assert!(one_line(b"\"\xff\"").is_err());
    }

    #[test]
    fn refusals_prefer_the_body_over_the_header() {
        let response = |body: &str| HttpResponse {
            status: 503,
            retry_after: Some(Duration::from_secs(3)),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        let waits = |body| refusal(&response(body)).unwrap().retry_after;
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":2.5}"#),
            Some(Duration::from_millis(2500))
        );
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":null}"#),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":-1}"#),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":1e300}"#),
            Some(Duration::from_secs(3))
        );
        assert_eq!(refusal(&response("<html>")), None);
        assert_eq!(refusal(&response("{}")), None);
    }
}
