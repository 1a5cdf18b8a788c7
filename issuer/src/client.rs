//! Registered clients, and the proof that a request comes from one.

use std::collections::HashMap;
use std::time::Duration;

use aws_lc_rs::constant_time;
use jsonwebtoken::{AlgorithmFamily, DecodingKey};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::form::{Form, FormRefusal};
use crate::keys::{ClientKey, seconds, signature_only};
use crate::peer::PeerCertificate;

/// An assertion may be valid this far into the future, in seconds. The limit bounds the memory: the
/// issuer remembers used assertions until they expire.
const ASSERTION_MAX: u64 = 3600;

/// The clock of a client may differ from the issuer's by this much, in seconds.
const LEEWAY: u64 = 5;

/// The one value of `client_assertion_type` (RFC 7523 §2.2).
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

#[derive(Clone, Debug)]
pub struct RegisteredClient {
    /// `client_id`
    pub id: String,
    /// How the client authenticates.
    pub credential: ClientCredential,
    /// Scopes that the client may ask for; it gets all of them if it asks for none. Empty: the
    /// client gets whatever it asks for.
    pub scopes: Vec<String>,
    /// Whether the client's tokens are bound to the certificate of its connection (RFC 8705 §3),
    /// however it authenticates. Without a certificate it then gets no token.
    pub bound_tokens: bool,
}

/// How a client authenticates: in exactly one way; the issuer accepts no other.
#[derive(Clone, Debug)]
pub enum ClientCredential {
    /// `client_secret_basic`, `client_secret_post` and `client_secret_jwt` alike.
    Secret(SecretString),
    /// `private_key_jwt`: `PUBLIC KEY` or `CERTIFICATE` in PEM, or a JWK. If it is a certificate
    /// and the assertion's header has an `x5t#S256`, it must be that of the certificate.
    Assertion {
        /// The key.
        public_key: String,
    },
    /// `tls_client_auth`, or `self_signed_tls_client_auth` with a thumbprint.
    Certificate(CertificateMatch),
    /// `none`. A real provider gives such a client no token for this grant (RFC 6749 §4.4); this
    /// one does, for tests.
    None,
}

/// Which certificate is the client's (RFC 8705 §2.1.2). The TLS handshake has already checked that
/// its chain leads to a trusted root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateMatch {
    /// The subject's common name.
    CommonName(String),
    /// A URI among its alternative names.
    SanUri(String),
    /// x5t#S256.
    Thumbprint(String),
}

impl CertificateMatch {
    fn is(&self, certificate: &PeerCertificate) -> bool {
        match self {
            CertificateMatch::CommonName(name) => certificate.common_name.as_ref() == Some(name),
            CertificateMatch::SanUri(uri) => certificate.uris.contains(uri),
            CertificateMatch::Thumbprint(thumbprint) => certificate.thumbprint == *thumbprint,
        }
    }
}

impl RegisteredClient {
    /// A client with a secret, unbound tokens and any scope.
    #[must_use]
    pub fn with_secret(id: &str, secret: &str) -> RegisteredClient {
        RegisteredClient::new(id, ClientCredential::Secret(secret.into()))
    }

    /// A client with unbound tokens and any scope.
    #[must_use]
    pub fn new(id: &str, credential: ClientCredential) -> RegisteredClient {
        RegisteredClient {
            id: id.into(),
            credential,
            scopes: Vec::new(),
            bound_tokens: false,
        }
    }
}

/// The method that a request uses, named as in RFC 8414 §2. More than one is an error (RFC 6749
/// §2.3).
///
/// A certificate alone is no method: it can also be there for the sake of a bound token.
pub(crate) fn method(
    form: &Form,
    client: Option<&RegisteredClient>,
) -> Result<&'static str, FormRefusal> {
    let has_assertion =
        form.get("client_assertion").is_some() || form.get("client_assertion_type").is_some();
    match (
        form.basic.is_some(),
        form.get("client_secret").is_some(),
        has_assertion,
    ) {
        (true, false, false) => Ok("client_secret_basic"),
        (false, true, false) => Ok("client_secret_post"),
        (false, false, true) => {
            let header = form
                .get("client_assertion")
                .and_then(|assertion| jsonwebtoken::decode_header(assertion).ok());
            let symmetric = header
                .is_some_and(|header| AlgorithmFamily::Hmac.algorithms().contains(&header.alg));
            Ok(if symmetric {
                "client_secret_jwt"
            } else {
                "private_key_jwt"
            })
        }
        (false, false, false) => Ok(match client.map(|client| &client.credential) {
            Some(ClientCredential::Certificate(CertificateMatch::Thumbprint(_))) => {
                "self_signed_tls_client_auth"
            }
            Some(ClientCredential::Certificate(_)) => "tls_client_auth",
            _ => "none",
        }),
        _ => Err(FormRefusal::request(
            "more than one client authentication method",
        )),
    }
}

/// The facts that a proof is checked against.
pub(crate) struct Circumstances<'a> {
    pub certificate: Option<&'a PeerCertificate>,
    /// Values of `aud` that mean this issuer.
    pub audiences: &'a [String],
    /// The time since 1970.
    pub now: Duration,
    pub used: &'a mut UsedAssertions,
}

/// Checks the proof of `client`, the client that the request claims to be from.
pub(crate) fn authenticate(
    client: &RegisteredClient,
    form: &Form,
    around: &mut Circumstances<'_>,
) -> Result<(), FormRefusal> {
    let method = method(form, Some(client))?;
    if form.get("client_id").is_some_and(|id| id != client.id) {
        return Err(FormRefusal::request("two different client ids"));
    }
    match (&client.credential, method) {
        (ClientCredential::Secret(secret), "client_secret_basic") => match &form.basic {
            Some(Ok((_, presented))) => compare(presented, secret),
            Some(Err(refusal)) => Err(refusal.clone()),
            None => Err(FormRefusal::client("no secret")),
        },
        (ClientCredential::Secret(secret), "client_secret_post") => {
            compare(form.get("client_secret").unwrap_or_default(), secret)
        }
        (ClientCredential::Secret(secret), "client_secret_jwt") => {
            let key = DecodingKey::from_secret(secret.expose_secret().as_bytes());
            check_assertion(client, form, &key, None, around)
        }
        (ClientCredential::Assertion { public_key }, "private_key_jwt") => {
            let registered = ClientKey::parse(public_key)
                .ok_or_else(|| FormRefusal::client("the registered key cannot be used"))?;
            let thumbprint = registered.thumbprint.as_deref();
            check_assertion(client, form, &registered.key, thumbprint, around)
        }
        (
            ClientCredential::Certificate(wanted),
            "tls_client_auth" | "self_signed_tls_client_auth",
        ) => match around.certificate {
            None => Err(FormRefusal::client(
                "no client certificate on this connection",
            )),
            Some(certificate) if wanted.is(certificate) => Ok(()),
            Some(_) => Err(FormRefusal::client("not this client's certificate")),
        },
        (ClientCredential::None, "none") => Ok(()),
        _ => Err(FormRefusal::client(
            "not the method that this client registered",
        )),
    }
}

fn compare(presented: &str, secret: &SecretString) -> Result<(), FormRefusal> {
    constant_time::verify_slices_are_equal(presented.as_bytes(), secret.expose_secret().as_bytes())
        .map_err(|_| FormRefusal::client("wrong secret"))
}

/// Checks an assertion by RFC 7523 §3, and its `jti` by OpenID Connect Core 1.0 §9.
fn check_assertion(
    client: &RegisteredClient,
    form: &Form,
    key: &DecodingKey,
    thumbprint: Option<&str>,
    around: &mut Circumstances<'_>,
) -> Result<(), FormRefusal> {
    if form.get("client_assertion_type") != Some(JWT_BEARER) {
        return Err(FormRefusal::client(
            "client_assertion_type is not jwt-bearer",
        ));
    }
    let assertion = form
        .get("client_assertion")
        .ok_or_else(|| FormRefusal::client("no client_assertion"))?;
    let header = jsonwebtoken::decode_header(assertion)
        .map_err(|_| FormRefusal::client("the assertion is not a JWT"))?;
    let claims: Value = jsonwebtoken::decode(assertion, key, &signature_only(header.alg))
        .map_err(|_| FormRefusal::client("the assertion's signature is wrong"))?
        .claims;
    if let (Some(registered), Some(presented)) = (thumbprint, &header.x5t_s256)
        && registered != presented
    {
        return Err(FormRefusal::client("x5t#S256 is of another certificate"));
    }
    if claims["iss"] != client.id.as_str() || claims["sub"] != client.id.as_str() {
        return Err(FormRefusal::client("iss and sub must be the client id"));
    }
    let is_ours = |value: &Value| {
        value
            .as_str()
            .is_some_and(|value| around.audiences.iter().any(|ours| ours == value))
    };
    let audience_fits = match &claims["aud"] {
        Value::Array(values) => values.iter().any(is_ours),
        value => is_ours(value),
    };
    if !audience_fits {
        return Err(FormRefusal::client("aud is somebody else"));
    }
    let now = around.now.as_secs();
    let expires = seconds(&claims["exp"]).ok_or_else(|| FormRefusal::client("no exp"))?;
    if expires <= now {
        return Err(FormRefusal::client("the assertion is expired"));
    }
    if expires > now + ASSERTION_MAX {
        return Err(FormRefusal::client("exp is more than an hour ahead"));
    }
    let in_future = |claim: &str| seconds(&claims[claim]).is_some_and(|at| at > now + LEEWAY);
    if in_future("nbf") || in_future("iat") {
        return Err(FormRefusal::client("the assertion is from the future"));
    }
    match claims["jti"].as_str() {
        None | Some("") => Err(FormRefusal::client("no jti")),
        Some(id) if around.used.first_use(&client.id, id, expires, now) => Ok(()),
        Some(_) => Err(FormRefusal::client("the assertion was used before")),
    }
}

/// Assertions that were used and have not expired.
#[derive(Debug, Default)]
pub(crate) struct UsedAssertions {
    expiry: HashMap<(String, String), u64>,
    /// The set looks for expired assertions when it holds this many, so that it looks at each of
    /// them a few times only.
    sweep_at: usize,
}

impl UsedAssertions {
    /// Returns whether `client` uses this `id` for the first time, and marks it as used.
    fn first_use(&mut self, client: &str, id: &str, expires: u64, now: u64) -> bool {
        if self.expiry.len() >= self.sweep_at {
            self.expiry.retain(|_, expiry| *expiry > now);
            self.sweep_at = (self.expiry.len() * 2).max(1000);
        }
        self.expiry
            .insert((client.to_owned(), id.to_owned()), expires)
            .is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_assertions_are_forgotten_once_expired() {
        let mut used = UsedAssertions::default();
        assert!(used.first_use("a", "1", 10, 0));
        assert!(!used.first_use("a", "1", 10, 0));
        assert!(used.first_use("b", "1", 10, 0));
        for id in 0..10_000_u64 {
            assert!(used.first_use("c", &id.to_string(), id + 1, id));
        }
        assert!(used.expiry.len() <= 1000);
    }
}
