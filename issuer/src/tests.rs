//! What an ordinary client sees, without and with a script of faults.

mod authentication;
mod faults;
mod life;

use std::sync::Arc;

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;

use super::*;
use crate::certificates::{Authority, ClientOptions};
use crate::client::CertificateMatch;
use crate::faults::record::{RecordedRequest, RequestOutcome};
use crate::faults::{Fault, Target, Times};

/// An issuer on TLS with one client for each authentication method.
struct World {
    issuer: Issuer,
    authority: Authority,
    /// Certificate of the clients `mtls` and `bound`.
    identity: Pair,
    /// Certificate and key of the clients `pinned` (as certificate) and `jwt` (as key).
    pinned: Pair,
}

const SECRET: &str = "p+w%/ü:&= x";

async fn world() -> World {
    world_at(WallClock::system()).await
}

async fn world_at(clock: WallClock) -> World {
    let authority = Authority::new("test root", &clock).unwrap();
    let server = authority
        .server(&["localhost", "127.0.0.1", "::1"])
        .unwrap();
    let options = ClientOptions {
        san_uri: Some("spiffe://example.org/worker".into()),
        ..ClientOptions::default()
    };
    let identity = authority.client("worker", &options).unwrap();
    let pinned = certificates::self_signed("pinned", &ClientOptions::default(), &clock).unwrap();
    let certificate = |wanted| ClientCredential::Certificate(wanted);
    let mut bound = RegisteredClient::with_secret("bound", SECRET);
    bound.bound_tokens = true;
    let mut scoped = RegisteredClient::with_secret("scoped", SECRET);
    scoped.scopes = vec!["read".into(), "write".into()];
    let issuer = Issuer::start(Settings {
        tls: Some(IssuerTls {
            server,
            client_roots: vec![
                authority.certificate_pem().to_owned(),
                pinned.certificate_pem.clone(),
            ],
        }),
        clients: vec![
            RegisteredClient::with_secret("se cret", SECRET),
            scoped,
            bound,
            RegisteredClient::new(
                "jwt",
                ClientCredential::Assertion {
                    public_key: pinned.public_key_pem.clone(),
                },
            ),
            RegisteredClient {
                bound_tokens: true,
                ..RegisteredClient::new(
                    "mtls",
                    certificate(CertificateMatch::CommonName("worker".into())),
                )
            },
            RegisteredClient::new(
                "uri",
                certificate(CertificateMatch::SanUri(
                    "spiffe://example.org/worker".into(),
                )),
            ),
            RegisteredClient::new(
                "pinned",
                certificate(CertificateMatch::Thumbprint(pinned.thumbprint.clone())),
            ),
            RegisteredClient::new("public", ClientCredential::None),
        ],
        clock,
        ..Settings::default()
    })
    .await
    .unwrap();
    World {
        issuer,
        authority,
        identity,
        pinned,
    }
}

impl World {
    /// A client that trusts the issuer, with or without a certificate.
    fn browser(&self, identity: Option<&Pair>) -> reqwest::Client {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(self.authority.certificate_pem().as_bytes());
        roots.add(root.unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let chain = CertificateDer::pem_slice_iter(pair.certificate_pem.as_bytes());
                let key = PrivateKeyDer::from_pem_slice(pair.key_pem().as_bytes());
                builder
                    .with_client_auth_cert(chain.map(Result::unwrap).collect(), key.unwrap())
                    .unwrap()
            }
        };
        reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap()
    }

    /// A token request as the client `se cret`.
    async fn ask(&self) -> reqwest::Result<reqwest::Response> {
        let form = [("client_id", "se cret"), ("client_secret", SECRET)];
        self.post(None, None, &form).await
    }

    /// A client credentials request.
    async fn post(
        &self,
        identity: Option<&Pair>,
        authorization: Option<&str>,
        form: &[(&str, &str)],
    ) -> reqwest::Result<reqwest::Response> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "client_credentials")
            .extend_pairs(form)
            .finish();
        let mut request = self
            .browser(identity)
            .post(self.issuer.token_url())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body);
        if let Some(authorization) = authorization {
            request = request.header("authorization", authorization);
        }
        request.send().await
    }

    async fn get(&self, path: &str) -> reqwest::Response {
        let url = format!("{}{path}", self.issuer.url());
        self.browser(None).get(url).send().await.unwrap()
    }

    /// The claims of a token, verified as a resource server would.
    async fn claims(&self, answer: &Value) -> Value {
        let token = answer["access_token"].as_str().unwrap();
        let keys: JwkSet = serde_json::from_value(json(self.get("/jwks").await).await).unwrap();
        let header = jsonwebtoken::decode_header(token).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        let key = keys.find(header.kid.as_deref().unwrap()).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.validate_aud = false;
        validation.set_issuer(&[self.issuer.url()]);
        let key = DecodingKey::from_jwk(key).unwrap();
        jsonwebtoken::decode(token, &key, &validation)
            .unwrap()
            .claims
    }

    fn last(&self) -> RecordedRequest {
        self.issuer.requests().pop().unwrap()
    }
}

async fn json(response: reqwest::Response) -> Value {
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

/// Status and `error` of an answer.
async fn refused(response: reqwest::Result<reqwest::Response>) -> (u16, String) {
    let response = response.unwrap();
    let status = response.status().as_u16();
    let challenged = response.headers().contains_key("www-authenticate");
    assert_eq!(challenged, status == 401);
    assert_eq!(response.headers()["cache-control"], "no-store");
    let error = json(response).await["error"].as_str().unwrap().to_owned();
    (status, error)
}

fn basic(id: &str, secret: &str) -> String {
    use base64::Engine as _;
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(id), encode(secret));
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

/// Waits for a future that must complete. The limit of a minute is reached only if it does not.
async fn soon<T>(coming: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), coming)
        .await
        .expect("it did not come")
}

/// Waits until another task has done something.
async fn eventually(mut happened: impl FnMut() -> bool) {
    let waiting = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(waiting).await;
}
