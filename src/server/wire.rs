//! Domain to wire: a credential as protobuf and as JSON, times and durations.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use serde_json::{Map, Value, json};

use crate::broker::Answer;
use crate::core::credential::{Credential, Scheme};
use crate::core::time::{Stamp, WallTime};
use crate::proto;

/// Encodes a credential as `tokend.v1.Credential`: done once, when it is published.
#[must_use]
pub fn encode(credential: &Credential, stale: bool, target: Option<&str>, now: Stamp) -> Bytes {
    proto::Credential {
        token: credential.token.expose().to_owned(),
        token_type: credential.scheme.as_str().to_owned(),
        authorization: authorization(credential),
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

/// The answer as JSON, flat; what is absent in protobuf is absent here, empty text is kept.
pub fn json(answer: &Answer, target: Option<&str>, now: Stamp) -> Value {
    let credential = &answer.credential;
    let mut body = Map::new();
    body.insert("token".into(), json!(credential.token.expose()));
    body.insert("token_type".into(), json!(credential.scheme.as_str()));
    body.insert("authorization".into(), json!(authorization(credential)));
    if let Some(at) = credential.expires {
        body.insert("expires_at".into(), json!(rfc3339(now.wall_of(at))));
    }
    if let Some(at) = credential.refresh_at {
        body.insert("refresh_at".into(), json!(rfc3339(now.wall_of(at))));
    }
    body.insert("scopes".into(), json!(credential.scopes));
    body.insert("stale".into(), json!(answer.stale));
    body.insert(
        "fingerprint".into(),
        json!(credential.fingerprint.to_string()),
    );
    body.insert("generation".into(), json!(credential.generation));
    body.insert("target".into(), json!(target.unwrap_or_default()));
    body.insert(
        "confirmation".into(),
        json!(credential.confirmation.as_deref().unwrap_or_default()),
    );
    if let Some(left) = credential.ttl(now) {
        body.insert("expires_in".into(), json!(seconds(left)));
    }
    Value::Object(body)
}

/// Seconds with milliseconds, rounded down: a credential never seems to live longer than it does.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

fn authorization(credential: &Credential) -> String {
    match credential.scheme {
        Scheme::None => String::new(),
        scheme => format!("{} {}", scheme.as_str(), credential.token.expose()),
    }
}

/// A wall-clock time as protobuf has it; the far future is cut at the year 9999, which is where the format ends.
pub fn timestamp(at: WallTime) -> prost_types::Timestamp {
    let at = at.0.min(END_OF_TIME);
    prost_types::Timestamp {
        seconds: at.as_secs().cast_signed(),
        nanos: at.subsec_nanos().cast_signed(),
    }
}

/// A length of time as protobuf has it; saturates.
pub fn duration(length: Duration) -> prost_types::Duration {
    let length = length.min(END_OF_TIME);
    prost_types::Duration {
        seconds: length.as_secs().cast_signed(),
        nanos: length.subsec_nanos().cast_signed(),
    }
}

/// A wall-clock time as RFC 3339 with milliseconds.
pub fn rfc3339(at: WallTime) -> String {
    let at = Duration::from_millis(u64::try_from(at.0.min(END_OF_TIME).as_millis()).unwrap_or(0));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + at).to_string()
}

/// 9999-12-31T23:59:59Z, the last second of google.protobuf.Timestamp and of RFC 3339.
const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

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
            rfc3339(now.wall_of(BootTime(Duration::from_secs(150)))),
            "2023-11-14T22:15:00.000Z"
        );
        assert_eq!(rfc3339(WallTime(Duration::MAX)), "9999-12-31T23:59:59.000Z");
    }
}
