//! The embedded issuer as an identity provider of the tests, and the configuration for it.

use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use tokend_issuer::certificates::Authority;
use tokend_issuer::client::{CertificateMatch, ClientCredential, RegisteredClient};
use tokend_issuer::{Issuer, IssuerTls, Settings};

use super::{Place, block, runtime};

/// An issuer on plain HTTP.
pub fn issuer(clients: Vec<RegisteredClient>) -> Issuer {
    with(Settings {
        clients,
        ..Settings::default()
    })
}

pub fn with(settings: Settings) -> Issuer {
    block(Issuer::start(settings)).expect("issuer")
}

/// An issuer on TLS. It binds the tokens of `it` to the client's certificate, which `authority` has
/// issued.
pub fn binding(authority: &Authority, token_lifetime: Duration) -> Issuer {
    with(Settings {
        tls: Some(IssuerTls {
            server: authority.server(&["localhost"]).expect("certificate"),
            client_roots: vec![authority.certificate_pem().to_owned()],
        }),
        token_lifetime,
        clients: vec![RegisteredClient {
            bound_tokens: true,
            ..RegisteredClient::new(
                "it",
                ClientCredential::Certificate(CertificateMatch::CommonName("it".into())),
            )
        }],
        ..Settings::default()
    })
}

/// Stops the issuer; its port refuses connections.
pub fn down(issuer: &Issuer) {
    block(issuer.stop()).expect("stopped");
}

/// Starts the issuer again on the same port.
pub fn up(issuer: &Issuer) {
    let _runtime = runtime().enter();
    issuer.restart().expect("restarted");
}

/// `[idp.it]` with discovery, one second for an answer, and no budget that would slow a test.
pub fn idp(issuer: &Issuer) -> String {
    format!(
        "[idp.it]\nissuer = \"{}\"\nmax_in_flight = 200\nmax_per_second = 1000\nhttp = {{ timeout = \"1s\" }}\n",
        issuer.url()
    )
}

/// A profile that is fetched on first use, with `more` appended. Its secret is in `NAME.secret`.
pub fn profile(name: &str, client: &str, more: &str) -> String {
    format!(
        "\n[profiles.{name}]\nmethod = \"oauth2\"\nidp = \"it\"\nclient_id = \"{client}\"\n\
         client_secret = {{ file = \"{name}.secret\" }}\n{more}\n"
    )
}

/// Makes a profile fetch its credential on first use.
pub const LAZY: &str = "refresh = { eager = false }";

/// A secret that no other text looks like.
pub const SECRET: &str = "Gr3en+Eggs/&=ham %41 \u{e4}";

/// An issuer with the client `it`, a place with the secret of the profile `it`, and the
/// configuration.
pub fn one(more: &str) -> (Issuer, Place, String) {
    let issuer = issuer(vec![RegisteredClient::with_secret("it", SECRET)]);
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let config = idp(&issuer) + &profile("it", "it", more);
    (issuer, place, config)
}

/// The claims of a token, verified as an API would, with the issuer's published keys; `ca` is PEM.
pub fn claims(issuer: &Issuer, ca: Option<&str>, token: &str) -> Value {
    let mut roots = RootCertStore::empty();
    if let Some(ca) = ca {
        let root = CertificateDer::from_pem_slice(ca.as_bytes()).expect("pem");
        roots.add(root).expect("root");
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(config)
        .no_proxy()
        .build()
        .expect("client");
    let url = format!("{}/jwks", issuer.url());
    let keys = block(async { client.get(url).send().await.expect("keys").text().await });
    let keys: JwkSet = serde_json::from_str(&keys.expect("text")).expect("keys");
    let header = jsonwebtoken::decode_header(token).expect("a JWT");
    let key = keys
        .find(header.kid.as_deref().expect("kid"))
        .expect("published");
    let mut validation = Validation::new(Algorithm::ES256);
    validation.validate_aud = false;
    validation.set_issuer(&[issuer.url()]);
    let key = DecodingKey::from_jwk(key).expect("key");
    jsonwebtoken::decode(token, &key, &validation)
        .expect("verified")
        .claims
}
