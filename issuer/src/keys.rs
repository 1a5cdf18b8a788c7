//! Signing keys of the issuer, and keys that clients register.

use std::io;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::certificates;

/// This many keys still verify. Tokens of older keys fail, as with a real provider after a few
/// rotations.
const KEPT: usize = 4;

/// The issuer's keys; the last one signs.
pub(crate) struct SigningKeys(Vec<SigningKey>);

struct SigningKey {
    id: String,
    sign: EncodingKey,
    verify: DecodingKey,
    public: Value,
}

impl SigningKeys {
    pub fn new() -> io::Result<SigningKeys> {
        Ok(SigningKeys(vec![SigningKey::generate()?]))
    }

    /// From now on a new key signs; the last keys still verify.
    pub fn rotate(&mut self) -> io::Result<()> {
        self.0.push(SigningKey::generate()?);
        if self.0.len() > KEPT {
            self.0.remove(0);
        }
        Ok(())
    }

    /// The public keys (RFC 7517 §5).
    pub fn public(&self) -> Vec<Value> {
        self.0.iter().map(|key| key.public.clone()).collect()
    }

    /// An access token with these claims (RFC 9068 §2.1).
    pub fn sign(&self, claims: &Value) -> Result<String, jsonwebtoken::errors::Error> {
        let key = self.0.last().expect("there is always one");
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".into());
        header.kid = Some(key.id.clone());
        jsonwebtoken::encode(&header, claims, &key.sign)
    }

    /// The claims of an access token that one of these keys signed. The caller has to check the
    /// times.
    pub fn verify(&self, token: &str) -> Option<Value> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let id = header.kid.as_deref()?;
        let key = self.0.iter().find(|key| key.id == id)?;
        if header.typ.as_deref() != Some("at+jwt") {
            return None;
        }
        let validation = signature_only(Algorithm::ES256);
        let token = jsonwebtoken::decode(token, &key.verify, &validation).ok()?;
        Some(token.claims)
    }
}

impl SigningKey {
    fn generate() -> io::Result<SigningKey> {
        let refused = |_| io::Error::other("no signing key could be made");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(refused)?;
        let private = pair.to_pkcs8v1().map_err(refused)?;
        // An uncompressed point: 0x04, then 32 bytes of x, then 32 bytes of y.
        let point = pair.public_key().as_ref();
        let (x, y) = match point {
            [4, rest @ ..] if rest.len() == 64 => {
                let (x, y) = rest.split_at(32);
                (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
            }
            _ => return Err(io::Error::other("a P-256 key is not a point")),
        };
        // RFC 7638 §3: the required members in alphabetical order, no white space.
        let thumbprint = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let id = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, thumbprint.as_bytes()));
        let public = json!({"kty": "EC", "use": "sig", "alg": "ES256", "kid": id, "crv": "P-256", "x": x, "y": y});
        Ok(SigningKey {
            id,
            sign: EncodingKey::from_ec_der(private.as_ref()),
            verify: DecodingKey::from_ec_der(point),
            public,
        })
    }
}

/// Checks the signature and nothing else: times are checked against the issuer's own clock.
pub(crate) fn signature_only(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}

/// A key that a client registered.
pub(crate) struct ClientKey {
    pub key: DecodingKey,
    /// x5t#S256, if the client registered a certificate.
    pub thumbprint: Option<String>,
}

impl ClientKey {
    /// Reads `PUBLIC KEY` or `CERTIFICATE` in PEM, or a JWK (RFC 7517 §4). Returns None if the text
    /// is none of these, or if the key is of a kind that cannot verify.
    pub fn parse(text: &str) -> Option<ClientKey> {
        if text.trim_start().starts_with('{') {
            let jwk: Jwk = serde_json::from_str(text).ok()?;
            let key = DecodingKey::from_jwk(&jwk).ok()?;
            return Some(ClientKey {
                key,
                thumbprint: None,
            });
        }
        let pem = Pem::iter_from_buffer(text.as_bytes()).next()?.ok()?;
        match pem.label.as_str() {
            "PUBLIC KEY" => {
                let (_, info) = SubjectPublicKeyInfo::from_der(&pem.contents).ok()?;
                Some(ClientKey {
                    key: decoding_key(&info)?,
                    thumbprint: None,
                })
            }
            "CERTIFICATE" => {
                let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
                Some(ClientKey {
                    key: decoding_key(certificate.public_key())?,
                    thumbprint: Some(certificates::thumbprint(&pem.contents)),
                })
            }
            _ => None,
        }
    }
}

/// A NumericDate (RFC 7519 §2), fractions cut off.
pub(crate) fn seconds(value: &Value) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(|at| *at >= 0.0).map(|at| at as u64))
}

fn decoding_key(info: &SubjectPublicKeyInfo<'_>) -> Option<DecodingKey> {
    let key = info.subject_public_key.data.as_ref();
    match info.algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.1" => Some(DecodingKey::from_rsa_der(key)),
        "1.2.840.10045.2.1" => Some(DecodingKey::from_ec_der(key)),
        "1.3.101.112" => Some(DecodingKey::from_ed_der(key)),
        _ => None,
    }
}
