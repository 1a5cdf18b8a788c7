//! Translates from domain to wire: a credential as protobuf and as JSON, times and durations.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use serde::{Serialize, Serializer};

use crate::broker::Answer;
use crate::core::credential::{Credential, Fingerprint, Scheme};
use crate::core::time::{END_OF_TIME, Stamp, WallTime, in_seconds};
use crate::proto;

/// Encodes a credential as `tokend.v1.Credential`, once, when it is published.
#[must_use]
pub fn encode(credential: &Credential, stale: bool, target: Option<&str>, now: Stamp) -> Bytes {
    proto::Credential {
        token: credential.token.expose().to_owned(),
        token_type: credential.scheme.as_str().to_owned(),
        authorization: Authorization(credential).to_string(),
        expires_at: credential.expires.map(|at| timestamp(now.wall_of(at))),
        refresh_at: credential.refresh_at.map(|at| timestamp(now.wall_of(at))),
        scopes: credential.scopes.clone(),
        stale,
        fingerprint: credential.fingerprint.to_string(),
        generation: credential.generation,
        target: target.unwrap_or_default().to_owned(),
        confirmation: credential.confirmation.clone().unwrap_or_default(),
    }
    .encode_to_vec()
    .into()
}

/// The answer as flat JSON. What is absent in protobuf is absent here; empty text is kept.
pub fn json(answer: &Answer, target: Option<&str>, now: Stamp) -> Vec<u8> {
    let credential = &answer.credential;
    let token = credential.token.expose();
    let moment = |at| AsDisplayed(now.wall_of(at));
    let rest = ResponseFields {
        token_type: credential.scheme.as_str(),
        expires_at: credential.expires.map(moment),
        refresh_at: credential.refresh_at.map(moment),
        scopes: &credential.scopes,
        stale: answer.stale,
        fingerprint: AsDisplayed(credential.fingerprint),
        generation: credential.generation,
        target: target.unwrap_or_default(),
        confirmation: credential.confirmation.as_deref().unwrap_or_default(),
        expires_in: credential.ttl(now).map(seconds),
    };
    // Allocated once: growing would leave copies of the token behind.
    let mut body = Vec::with_capacity(2 * token.len() + REST);
    body.extend_from_slice(b"{\"token\":");
    // Without an early exit, so that the compiler can check many bytes at a time.
    if token
        .bytes()
        .fold(true, |plain, byte| plain & is_plain(byte))
    {
        body.push(b'"');
        body.extend_from_slice(token.as_bytes());
        body.extend_from_slice(b"\",\"authorization\":\"");
        write!(body, "{}", Authorization(credential)).expect(IN_MEMORY);
        body.push(b'"');
    } else {
        serde_json::to_writer(&mut body, token).expect(IN_MEMORY);
        body.extend_from_slice(b",\"authorization\":");
        serde_json::to_writer(&mut body, &AsDisplayed(Authorization(credential))).expect(IN_MEMORY);
    }
    // The rest begins with a brace, which the comma replaces.
    let comma = body.len();
    serde_json::to_writer(&mut body, &rest).expect(IN_MEMORY);
    body[comma] = b',';
    body
}

const IN_MEMORY: &str = "text and numbers can always be written to memory";

/// Room for everything but the tokens, in bytes. It suffices for scopes and a target of usual
/// length.
const REST: usize = 768;

/// Whether a byte stands for itself in JSON (RFC 8259 §7). Checking costs a tenth of escaping, and
/// a token has nothing to escape.
fn is_plain(byte: u8) -> bool {
    byte >= b' ' && byte != b'"' && byte != b'\\'
}

/// All fields of an answer except the token.
#[derive(Serialize)]
struct ResponseFields<'a> {
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<AsDisplayed<WallTime>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_at: Option<AsDisplayed<WallTime>>,
    scopes: &'a [String],
    stale: bool,
    fingerprint: AsDisplayed<Fingerprint>,
    generation: u64,
    target: &'a str,
    confirmation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<f64>,
}

/// Serializes a value as its displayed text, without a copy in between.
struct AsDisplayed<T>(T);

impl<T: fmt::Display> Serialize for AsDisplayed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Seconds with milliseconds, rounded down so that a credential never seems to live longer than it
/// does.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

/// The complete value of an `Authorization` header.
struct Authorization<'a>(&'a Credential);

impl fmt::Display for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.scheme {
            Scheme::None => Ok(()),
            scheme => {
                f.write_str(scheme.as_str())?;
                f.write_str(" ")?;
                f.write_str(self.0.token.expose())
            }
        }
    }
}

/// A wall-clock time as protobuf. A time after the year 9999, where the format ends, is cut to
/// that.
pub fn timestamp(at: WallTime) -> prost_types::Timestamp {
    let at = at.0.min(END_OF_TIME);
    prost_types::Timestamp {
        seconds: at.as_secs().cast_signed(),
        nanos: at.subsec_nanos().cast_signed(),
    }
}

/// A length of time as protobuf. Too long a time saturates.
pub fn duration(length: Duration) -> prost_types::Duration {
    let length = length.min(END_OF_TIME);
    prost_types::Duration {
        seconds: length.as_secs().cast_signed(),
        nanos: length.subsec_nanos().cast_signed(),
    }
}

/// A length of time for people, in whole seconds.
pub fn text(length: &prost_types::Duration) -> String {
    in_seconds(Duration::from_secs(
        u64::try_from(length.seconds).unwrap_or(0),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::credential::Fingerprinter;
    use crate::core::secret::Secret;
    use crate::core::time::BootTime;

    #[test]
    fn an_answer_is_the_published_bytes_and_the_time_left() {
        let now = Stamp {
            boot: BootTime(Duration::from_secs(50)),
            wall: WallTime(Duration::from_secs(1_700_000_000)),
        };
        let token = Secret::new("abc".into());
        let credential = Credential {
            fingerprint: Fingerprinter::new(&[0; 32]).of(Scheme::Bearer, &token),
            token,
            scheme: Scheme::Bearer,
            scopes: vec!["a".into(), "b".into()],
            confirmation: None,
            generation: 3,
            obtained: now,
            expires: Some(BootTime(Duration::from_secs(150))),
            refresh_at: Some(BootTime(Duration::from_secs(125))),
            clock_skew: None,
        };
        let encoded = encode(&credential, true, Some("https://api"), now);
        let response = proto::GetTokenResponse {
            credential: encoded,
            expires_in: Some(duration(Duration::from_millis(99_500))),
        };
        let bytes = response.encode_to_vec();
        assert_eq!(bytes.len(), response.encoded_len());
        let read = proto::GetTokenResponse::decode(bytes.as_slice()).expect("decodes");
        assert_eq!(read, response);
        let inside = proto::Credential::decode(read.credential).expect("decodes");
        assert_eq!(inside.authorization, "Bearer abc");
        assert_eq!(inside.expires_at.expect("expires").seconds, 1_700_000_100);
        assert!(inside.stale);
        assert_eq!(
            now.wall_of(BootTime(Duration::from_secs(150))).to_string(),
            "2023-11-14T22:15:00.000Z"
        );
        assert_eq!(
            WallTime(Duration::MAX).to_string(),
            "9999-12-31T23:59:59.000Z"
        );
    }

    #[test]
    fn json_is_json_whatever_the_token() {
        let now = Stamp {
            boot: BootTime(Duration::from_secs(50)),
            wall: WallTime(Duration::from_secs(1_700_000_000)),
        };
        for (scheme, token) in [
            (Scheme::Bearer, "abc._~+/="),
            (Scheme::Bearer, "a\"b\\c\nd\u{1}é"),
            (Scheme::Basic, "ZGVtbzpkZW1v"),
            (Scheme::None, ""),
        ] {
            let secret = Secret::new(token.into());
            let credential = Credential {
                fingerprint: Fingerprinter::new(&[0; 32]).of(scheme, &secret),
                token: secret,
                scheme,
                scopes: vec!["a".into()],
                confirmation: None,
                generation: 3,
                obtained: now,
                expires: (scheme == Scheme::Bearer).then_some(BootTime(Duration::from_secs(150))),
                refresh_at: None,
                clock_skew: None,
            };
            let fingerprint = credential.fingerprint.to_string();
            let answer = Answer {
                credential: credential.into(),
                stale: true,
                encoded: Bytes::new(),
            };
            let text = json(&answer, Some("https://api"), now);
            let read: serde_json::Value = serde_json::from_slice(&text).expect("is JSON");
            let authorization = match scheme {
                Scheme::None => String::new(),
                scheme => format!("{} {token}", scheme.as_str()),
            };
            let mut expected = serde_json::json!({
                "token": token, "token_type": scheme.as_str(), "authorization": authorization, "scopes": ["a"],
                "stale": true, "fingerprint": fingerprint, "generation": 3, "target": "https://api", "confirmation": "",
            });
            if scheme == Scheme::Bearer {
                expected["expires_at"] = "2023-11-14T22:15:00.000Z".into();
                expected["expires_in"] = 100.0.into();
            }
            assert_eq!(read, expected);
        }
    }
}
