//! Signs client assertions (RFC 7523 §2.2).

use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
    KeyPair as _, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::PrivateKeyDer;
use zeroize::Zeroizing;

use crate::core::failure::Failure;
use crate::core::oauth::assertion::{Claims, KeyKind, algorithm};
use crate::core::profile::client_auth::{Assertion, Audience, Kid};
use crate::core::secret::Secret;
use crate::core::time::WallTime;
use crate::material::AssertionKey;
use crate::provider::Random;

/// The key and the header of a client's assertions.
pub(super) struct Signer {
    key: SignerKey,
    header: Header,
    algorithm: &'static str,
    /// The audience of the assertions.
    pub(super) audience: Option<Audience>,
    lifetime: Duration,
}

/// The key, in the form that its signer wants.
enum SignerKey {
    /// A key for jsonwebtoken.
    Common(EncodingKey),
    /// A key for ES512, which jsonwebtoken does not support.
    P521(Box<EcdsaKeyPair>),
}

impl Signer {
    /// The signer for private_key_jwt.
    pub(super) fn with_key(
        assertion: &Assertion,
        material: &AssertionKey,
    ) -> Result<Signer, Failure> {
        let (kind, key, jwk) = encoding_key(&material.key).ok_or_else(|| {
            Failure::permanent(
                "assertion.key cannot be used to sign: use RSA from 2048 bits, P-256, P-384, P-521 or Ed25519",
            )
        })?;
        let mut signer = Signer::new(assertion, kind, key)?;
        if assertion.kid == Some(Kid::Thumbprint) {
            signer.header.kid = Some(thumbprint(&jwk));
        }
        if assertion.x5t {
            let Some(certificate) = &material.certificate else {
                return Err(Failure::permanent(
                    "assertion.x5t = true needs assertion.certificate to take the thumbprints of",
                ));
            };
            let print = |algorithm| URL_SAFE_NO_PAD.encode(digest::digest(algorithm, certificate));
            // RFC 7515 §4.1.7 requires SHA-1 for x5t. It names a certificate and protects nothing.
            signer.header.x5t = Some(print(&digest::SHA1_FOR_LEGACY_USE_ONLY));
            signer.header.x5t_s256 = Some(print(&digest::SHA256));
        }
        Ok(signer)
    }

    /// The signer for client_secret_jwt.
    pub(super) fn with_secret(assertion: &Assertion, secret: &Secret) -> Result<Signer, Failure> {
        let key = SignerKey::Common(EncodingKey::from_secret(secret.expose().as_bytes()));
        Signer::new(assertion, KeyKind::Hmac, key)
    }

    fn new(assertion: &Assertion, kind: KeyKind, key: SignerKey) -> Result<Signer, Failure> {
        let algorithm =
            algorithm(assertion.algorithm.as_deref(), kind).map_err(Failure::permanent)?;
        // For an algorithm that jsonwebtoken cannot name, another one stands in its place.
        let mut header = Header::new(algorithm.parse().unwrap_or(Algorithm::ES384));
        if let Some(Kid::Named(name)) = &assertion.kid {
            header.kid = Some(name.clone());
        }
        Ok(Signer {
            key,
            header,
            algorithm,
            audience: assertion.audience.clone(),
            lifetime: assertion.lifetime,
        })
    }

    /// Signs a fresh assertion.
    pub(super) fn sign(
        &self,
        client_id: &str,
        audience: &str,
        now: WallTime,
        random: Random,
    ) -> Result<Secret, Failure> {
        let mut jti = [0; 16];
        random(&mut jti).map_err(|_| {
            Failure::transient("the random source failed: look at the system's log")
        })?;
        let claims = Claims::new(
            client_id,
            audience,
            self.lifetime,
            now,
            URL_SAFE_NO_PAD.encode(jti),
        );
        let signed = match &self.key {
            SignerKey::Common(key) => jsonwebtoken::encode(&self.header, &claims, key).ok(),
            SignerKey::P521(key) => es512(&self.header, &claims, key),
        };
        signed.map(Secret::new).ok_or_else(|| {
            Failure::permanent(format!(
                "the assertion could not be signed with {}: check assertion.key and assertion.algorithm",
                self.algorithm
            ))
        })
    }
}

/// Makes a compact JWS (RFC 7515 §3.1) with ES512 (RFC 7518 §3.4).
fn es512(header: &Header, claims: &Claims, key: &EcdsaKeyPair) -> Option<String> {
    let mut header = serde_json::to_value(header).ok()?;
    header["alg"] = "ES512".into();
    let part = |value: Vec<u8>| URL_SAFE_NO_PAD.encode(value);
    let header = part(serde_json::to_vec(&header).ok()?);
    let mut jws = header + "." + &part(serde_json::to_vec(claims).ok()?);
    let signature = key.sign(&SystemRandom::new(), jws.as_bytes()).ok()?;
    jws.push('.');
    URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut jws);
    Some(jws)
}

/// SHA-256 over a public key's members (RFC 7638 §3), which come in alphabetical order.
fn thumbprint(jwk: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jwk.as_bytes()))
}

/// The members for the thumbprint of a point on a curve, given in its uncompressed form.
fn point(curve: &str, public: &[u8]) -> String {
    let (x, y) = public[1..].split_at(public.len() / 2);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
}

/// The members for the thumbprint of an RSA key.
fn rsa_members(key: &RsaKeyPair) -> String {
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let n = number(key.public_key().modulus().big_endian_without_leading_zero());
    let e = number(
        key.public_key()
            .exponent()
            .big_endian_without_leading_zero(),
    );
    format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#)
}

/// The key as its signer wants it, and the members for its thumbprint. jsonwebtoken wants RSA as
/// PKCS#1 and curves as PKCS#8.
fn encoding_key(der: &PrivateKeyDer<'_>) -> Option<(KeyKind, SignerKey, String)> {
    let bytes = der.secret_der();
    let rsa = match der {
        PrivateKeyDer::Pkcs1(_) => RsaKeyPair::from_der(bytes).ok(),
        PrivateKeyDer::Pkcs8(_) => RsaKeyPair::from_pkcs8(bytes).ok(),
        _ => None,
    };
    if let Some(rsa) = rsa {
        let label = match der {
            PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
            _ => "PRIVATE KEY",
        };
        // jsonwebtoken unwraps PKCS#8 only from PEM.
        let body = Zeroizing::new(STANDARD.encode(bytes));
        let mut pem = Zeroizing::new(String::with_capacity(body.len() + 80));
        for piece in [
            "-----BEGIN ",
            label,
            "-----\n",
            &body,
            "\n-----END ",
            label,
            "-----\n",
        ] {
            pem.push_str(piece);
        }
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).ok()?;
        return Some((KeyKind::Rsa, SignerKey::Common(key), rsa_members(&rsa)));
    }
    let curves: [(&'static EcdsaSigningAlgorithm, KeyKind, &str); 3] = [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, KeyKind::P256, "P-256"),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, KeyKind::P384, "P-384"),
        (&ECDSA_P521_SHA512_FIXED_SIGNING, KeyKind::P521, "P-521"),
    ];
    for (curve, kind, name) in curves {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(curve, bytes) {
            let jwk = point(name, pair.public_key().as_ref());
            if kind == KeyKind::P521 {
                return Some((kind, SignerKey::P521(Box::new(pair)), jwk));
            }
            let pkcs8 = pair.to_pkcs8v1().ok()?;
            let key = EncodingKey::from_ec_der(pkcs8.as_ref());
            return Some((kind, SignerKey::Common(key), jwk));
        }
    }
    let pair = Ed25519KeyPair::from_pkcs8(bytes).ok()?;
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    Some((
        KeyKind::Ed25519,
        SignerKey::Common(EncodingKey::from_ed_der(bytes)),
        format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#),
    ))
}
