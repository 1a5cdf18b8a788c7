//! `client_auth`: how the client proves its identity to the identity provider.

use std::path::PathBuf;
use std::time::Duration;

use super::{Keystore, SecretRef};

/// `client_auth`, with its keys.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientAuth {
    /// RFC 6749 §2.3.1, in the header; id and secret are form-urlencoded first.
    SecretBasic(SecretRef),
    /// The same, with id and secret as they are (RFC 7617): `basic_encoding = "plain"`.
    SecretBasicPlain(SecretRef),
    /// RFC 6749 §2.3.1, in the body.
    SecretPost(SecretRef),
    /// RFC 7523 §2.2, with the secret as HMAC key.
    SecretJwt(SecretRef, Assertion),
    /// RFC 7523 §2.2.
    PrivateKeyJwt(Assertion),
    /// RFC 8705 §2.1; the certificate is `Idp::identity`.
    Tls,
    /// RFC 8705 §2.2; the certificate is `Idp::identity`.
    SelfSignedTls,
    /// A public client: it sends `client_id` alone.
    None,
}

impl ClientAuth {
    /// The word in the configuration and in the metadata of RFC 8414 §2.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            ClientAuth::SecretBasic(_) | ClientAuth::SecretBasicPlain(_) => "client_secret_basic",
            ClientAuth::SecretPost(_) => "client_secret_post",
            ClientAuth::SecretJwt(..) => "client_secret_jwt",
            ClientAuth::PrivateKeyJwt(_) => "private_key_jwt",
            ClientAuth::Tls => "tls_client_auth",
            ClientAuth::SelfSignedTls => "self_signed_tls_client_auth",
            ClientAuth::None => "none",
        }
    }
}

/// `[profiles.NAME.assertion]`
#[derive(Clone, Debug, PartialEq)]
pub struct Assertion {
    /// The source of the assertion. None for client_secret_jwt, which signs with the secret.
    pub source: Option<AssertionSource>,
    /// `algorithm`, for instance `RS256`. None: the first that fits the key.
    pub algorithm: Option<String>,
    /// `kid` or `kid_thumbprint`
    pub kid: Option<Kid>,
    /// `x5t`: the header has the certificate's SHA-1 and SHA-256 thumbprints.
    pub x5t: bool,
    /// `audience`. None: the issuer if it is known, else the token endpoint.
    pub audience: Option<Audience>,
    pub lifetime: Duration,
}

/// The key identifier in the assertion's header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kid {
    /// `kid`
    Named(String),
    /// `kid_thumbprint`: the thumbprint of the public key (RFC 7638).
    Thumbprint,
}

/// The audience of an assertion. RFC 7523 §3 leaves it open, and identity providers differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// The issuer, in its own spelling.
    Issuer,
    /// The token endpoint, as the issuer writes it or as it is configured.
    TokenEndpoint,
    /// The configured text.
    Named(String),
}

/// A key, or a ready assertion.
#[derive(Clone, Debug, PartialEq)]
pub enum AssertionSource {
    /// `key` (PEM), with the certificate for `x5t`.
    Pem {
        /// The private key.
        key: PathBuf,
        key_password: Option<SecretRef>,
        certificate: Option<PathBuf>,
    },
    /// `keystore`
    Store(Keystore),
    /// An assertion that another program renews (workload identity federation).
    File {
        /// `file`
        path: PathBuf,
        /// `type`: the `client_assertion_type` of the request.
        kind: String,
    },
}
