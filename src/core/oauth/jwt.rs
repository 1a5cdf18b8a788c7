//! Reads a token that happens to be a JWT (RFC 7519). Nothing is verified: that is the API's
//! business. The facts from a token can only shorten a life or refuse a token, never lengthen or
//! accept one.

use base64::Engine;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, engine};
use serde_json::{Map, Value};

/// Padding is not allowed in a JWT, but some issuers add it.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The claims of a token that the daemon uses. Times are whole seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtClaims {
    /// `exp`, rounded down.
    pub expires: Option<u64>,
    /// `iat`, rounded down.
    pub issued: Option<u64>,
    /// `cnf.x5t#S256` (RFC 8705 §3.1).
    pub confirmation: Option<String>,
    /// Whether there is a `cnf` of any kind (RFC 7800, DPoP).
    pub bound: bool,
}

/// The facts of a token with three base64url parts and JSON in the second; None for opaque tokens.
#[must_use]
pub fn read(token: &str) -> Option<JwtClaims> {
    let claims = claims(token)?;
    let bound = claims.get("cnf").is_some_and(|cnf| !cnf.is_null());
    // A thumbprint is 43 characters of base64url; no other text is one.
    let confirmation = claims
        .get("cnf")
        .and_then(|cnf| cnf.get("x5t#S256"))
        .and_then(Value::as_str)
        .filter(|print| {
            (1..=64).contains(&print.len())
                && print
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
        })
        .map(String::from);
    Some(JwtClaims {
        expires: claims.get("exp").and_then(seconds),
        issued: claims.get("iat").and_then(seconds),
        confirmation,
        bound,
    })
}

/// The claims of a token with three base64url parts and JSON in the second; None for opaque ones.
#[must_use]
pub fn claims(token: &str) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let (header, payload, signature) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() || header.is_empty() || payload.is_empty() {
        return None;
    }
    LENIENT.decode(header).ok()?;
    LENIENT.decode(signature).ok()?;
    let payload = LENIENT.decode(payload).ok()?;
    match serde_json::from_slice(&payload) {
        Ok(Value::Object(claims)) => Some(claims),
        _ => None,
    }
}

/// The bytes of one part of a JWT.
#[must_use]
pub fn decoded(part: &str) -> Option<Vec<u8>> {
    LENIENT.decode(part).ok()
}

/// The texts of a claim that is a text or a list of texts.
#[must_use]
pub fn texts(claim: Option<&Value>) -> Vec<String> {
    match claim {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            let texts = all.iter().filter_map(Value::as_str);
            texts.map(String::from).collect()
        }
        _ => Vec::new(),
    }
}

/// A NumericDate (RFC 7519 §2), which may have a fraction. A date before 1970 becomes 1970: both
/// are long past.
#[must_use]
pub fn seconds(value: &Value) -> Option<u64> {
    if let Some(whole) = value.as_u64() {
        return Some(whole);
    }
    // `as` saturates and turns negative numbers into zero.
    value
        .as_f64()
        .filter(|float| float.is_finite())
        .map(|float| float as u64)
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn token(payload: &str) -> String {
        format!(
            "{}.{}.c2ln",
            URL_SAFE_NO_PAD.encode("{}"),
            URL_SAFE_NO_PAD.encode(payload)
        )
    }

    #[test]
    fn facts_are_read_and_opaque_tokens_are_fine() {
        assert_eq!(
            read(&token(
                r#"{"exp":10,"iat":5.9,"cnf":{"x5t#S256":"abc-_="}}"#
            )),
            Some(JwtClaims {
                expires: Some(10),
                issued: Some(5),
                confirmation: Some("abc-_=".into()),
                bound: true,
            })
        );
        assert_eq!(
            read(&token(r#"{"exp":-7,"iat":"5","cnf":null}"#)),
            Some(JwtClaims {
                expires: Some(0),
                ..JwtClaims::default()
            })
        );
        assert_eq!(
            read(&token(r#"{"cnf":{"x5t#S256":"a\r\nb"}}"#)),
            Some(JwtClaims {
                bound: true,
                ..JwtClaims::default()
            })
        );
        assert_eq!(
            read(&token(r#"{"exp":1e300}"#)).and_then(|facts| facts.expires),
            Some(u64::MAX)
        );
        for opaque in [
            "",
            ".",
            "..",
            "...",
            "a.b.c",
            "2YotnFZFEjr1zCsicMWpAA",
            "e30.e30.c2ln.x",
            "e30.W10.c2ln",
            "e30.bm90IGpzb24.c2ln",
            "ö.ö.ö",
        ] {
            assert_eq!(read(opaque), None, "{opaque}");
        }
        assert_eq!(read("e30.e30.c2ln"), Some(JwtClaims::default()));
    }
}
