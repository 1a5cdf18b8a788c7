//! Claims and algorithm of a client assertion (RFC 7523 §3). Signing happens in `crate::provider`.

use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde::Serialize;

use crate::core::time::WallTime;

/// How far our clock may run ahead of the issuer's before it says "not valid yet": `iat` and `nbf` are dated back by
/// this, and by no more than a tenth of the lifetime. Larger values eat into what the issuer accepts as age.
const DATED_BACK: Duration = Duration::from_secs(5);

/// The claims of RFC 7523 §3. Times are whole seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// The client.
    pub iss: String,
    /// The client again.
    pub sub: String,
    /// Who shall accept it: issuer or token endpoint.
    pub aud: String,
    /// `iat` and the configured lifetime.
    pub exp: u64,
    /// Issued at.
    pub iat: u64,
    /// Not before; the same.
    pub nbf: u64,
    /// Never used twice.
    pub jti: String,
}

impl Claims {
    /// Claims for one request. `jti` is random; `exp - iat` is exactly `lifetime`, because some issuers limit it.
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

/// What kind of key there is to sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// The client secret.
    Hmac,
    /// RSA, 2048 bits or more.
    Rsa,
    /// P-256.
    P256,
    /// P-384.
    P384,
    /// P-521.
    P521,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// For people.
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

    /// What it can sign with; the first one is taken when nothing is configured.
    fn algorithms(self) -> &'static [Algorithm] {
        match self {
            KeyKind::Hmac => &[Algorithm::HS256, Algorithm::HS384, Algorithm::HS512],
            KeyKind::Rsa => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            KeyKind::P256 => &[Algorithm::ES256],
            KeyKind::P384 => &[Algorithm::ES384],
            KeyKind::P521 => &[],
            KeyKind::Ed25519 => &[Algorithm::EdDSA],
        }
    }
}

/// The algorithm for a key: the configured one if the key can do it, else what fits the key. Asked again for every new
/// key, so that a rotation from RSA to EC works as long as no algorithm is configured.
///
/// # Errors
/// Says in one line what does not fit and what to do.
pub fn algorithm(configured: Option<&str>, key: KeyKind) -> Result<Algorithm, String> {
    let Some(default) = key.algorithms().first() else {
        return Err(format!(
            "{} would need ES512, which this version cannot sign with: use a P-256, P-384, RSA or Ed25519 key",
            key.as_str()
        ));
    };
    let Some(name) = configured else {
        return Ok(*default);
    };
    key.algorithms()
        .iter()
        .find(|known| format!("{known:?}") == name)
        .copied()
        .ok_or_else(|| {
            let can: Vec<_> = key.algorithms().iter().map(|a| format!("{a:?}")).collect();
            format!(
                "assertion.algorithm = {name:?} does not go with {}: leave it out or use {}",
                key.as_str(),
                can.join(", ")
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
            (KeyKind::Rsa, Algorithm::RS256),
            (KeyKind::P256, Algorithm::ES256),
            (KeyKind::P384, Algorithm::ES384),
            (KeyKind::Ed25519, Algorithm::EdDSA),
            (KeyKind::Hmac, Algorithm::HS256),
        ] {
            assert_eq!(algorithm(None, key), Ok(expected));
        }
        assert_eq!(algorithm(Some("PS384"), KeyKind::Rsa), Ok(Algorithm::PS384));
        let wrong = algorithm(Some("RS256"), KeyKind::P256).unwrap_err();
        assert!(
            wrong.contains("P-256") && wrong.contains("ES256"),
            "{wrong}"
        );
        assert!(algorithm(Some("none"), KeyKind::Rsa).is_err());
        let unsupported = algorithm(Some("ES512"), KeyKind::P521).unwrap_err();
        assert!(unsupported.contains("ES512"), "{unsupported}");
    }
}
