//! The claims and the algorithm of a client assertion (RFC 7523 §3). `crate::provider` signs.

use std::time::Duration;

use serde::Serialize;

use crate::core::time::WallTime;

/// The daemon's clock may run ahead of the issuer's by this much before the issuer says "not valid
/// yet". `iat` and `nbf` are dated back by this, but by no more than a tenth of the lifetime. A
/// larger value would use up the age that the issuer accepts.
const DATED_BACK: Duration = Duration::from_secs(5);

/// The claims of RFC 7523 §3. Times are whole seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The client.
    pub iss: String,
    /// The client again.
    pub sub: String,
    /// The audience: the issuer or its token endpoint.
    pub aud: String,
    /// The end: `iat` plus the configured lifetime.
    pub exp: u64,
    /// Issued at.
    pub iat: u64,
    /// Not valid before this; the same as `iat`.
    pub nbf: u64,
    /// The id of the assertion, never used twice.
    pub jti: String,
}

impl Claims {
    /// The claims for one request. `jti` is random. `exp - iat` is exactly `lifetime`, because some
    /// issuers limit it.
    #[must_use]
    pub fn new(
        client_id: &str,
        audience: &str,
        lifetime: Duration,
        now: WallTime,
        jti: String,
    ) -> Claims {
        let back = DATED_BACK.min(lifetime / 10);
        let issued = now.0.saturating_sub(back).as_secs();
        Claims {
            iss: client_id.into(),
            sub: client_id.into(),
            aud: audience.into(),
            exp: issued.saturating_add(lifetime.as_secs().max(1)),
            iat: issued,
            nbf: issued,
            jti,
        }
    }
}

/// The kind of a signing key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The client secret.
    Hmac,
    /// RSA, 2048 bits or more.
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyKind {
    /// The name for people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            KeyKind::Hmac => "the client secret (HMAC)",
            KeyKind::Rsa => "an RSA key",
            KeyKind::P256 => "a P-256 key",
            KeyKind::P384 => "a P-384 key",
            KeyKind::P521 => "a P-521 key",
            KeyKind::Ed25519 => "an Ed25519 key",
        }
    }

    /// The algorithms for this kind of key (RFC 7518 §3.1, RFC 8037 §3.1). Without configuration
    /// the first one is taken.
    fn algorithms(self) -> &'static [&'static str] {
        match self {
            KeyKind::Hmac => &["HS256", "HS384", "HS512"],
            KeyKind::Rsa => &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
            KeyKind::P256 => &["ES256"],
            KeyKind::P384 => &["ES384"],
            KeyKind::P521 => &["ES512"],
            KeyKind::Ed25519 => &["EdDSA"],
        }
    }
}

/// The algorithm for a key: the configured one if the key can do it, else the first that fits the
/// key. It is chosen again for every new key, so that a rotation from RSA to EC works as long as no
/// algorithm is configured.
///
/// # Errors
/// One line that says what does not fit and what to do.
pub fn algorithm(configured: Option<&str>, key: KeyKind) -> Result<&'static str, String> {
    let known = key.algorithms();
    let Some(name) = configured else {
        return Ok(known[0]);
    };
    known
        .iter()
        .find(|known| **known == name)
        .copied()
        .ok_or_else(|| {
            format!(
                "assertion.algorithm = {name:?} does not go with {}: leave it out or use {}",
                key.as_str(),
                known.join(", ")
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_live_exactly_as_long_as_configured_and_are_dated_back() {
        let now = WallTime(Duration::from_millis(1_000_000_900));
        let claims = Claims::new("c", "a", Duration::from_secs(60), now, "j".into());
        assert_eq!(
            (claims.iat, claims.nbf, claims.exp),
            (999_995, 999_995, 1_000_055)
        );
        let json = serde_json::to_value(&claims).unwrap();
        assert_eq!(json["iss"], "c");
        assert_eq!(json["sub"], "c");
        assert_eq!(json["aud"], "a");
        assert_eq!(json["jti"], "j");
        let short = Claims::new("c", "a", Duration::from_secs(10), now, "j".into());
        assert_eq!((short.iat, short.exp), (999_999, 1_000_009));
        let early = Claims::new(
            "c",
            "a",
            Duration::MAX,
            WallTime(Duration::ZERO),
            "j".into(),
        );
        assert_eq!(early.exp, u64::MAX);
    }

    #[test]
    fn trap_4_the_algorithm_follows_the_key() {
        for (key, expected) in [
            (KeyKind::Rsa, "RS256"),
            (KeyKind::P256, "ES256"),
            (KeyKind::P384, "ES384"),
            (KeyKind::P521, "ES512"),
            (KeyKind::Ed25519, "EdDSA"),
            (KeyKind::Hmac, "HS256"),
        ] {
            assert_eq!(algorithm(None, key), Ok(expected));
        }
        assert_eq!(algorithm(Some("PS384"), KeyKind::Rsa), Ok("PS384"));
        let wrong = algorithm(Some("RS256"), KeyKind::P256).unwrap_err();
        assert!(
            wrong.contains("P-256") && wrong.contains("ES256"),
            "{wrong}"
        );
        assert!(algorithm(Some("none"), KeyKind::Rsa).is_err());
        assert!(algorithm(Some("ES512"), KeyKind::P256).is_err());
    }
}
