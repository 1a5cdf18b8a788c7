//! TLS to the identity provider, with and without a client certificate.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use super::server::{Act, Server, good_token, json};
use super::*;
use crate::core::profile::IdentitySource;

/// A CA with its certificate in a file, and a folder for more files.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    pub(super) fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let name = format!("CA {:?}", std::time::Instant::now());
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), issuer.pem()).unwrap();
        Authority { issuer, folder }
    }

    pub(super) fn trust(&self) -> TrustSource {
        TrustSource::Pem(self.path("ca.pem"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Issues a certificate for a name.
    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.into()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A certificate with a common name only.
    fn issue_without_names(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let common = rcgen::DnType::CommonName;
        params.distinguished_name.push(common, "localhost");
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// Writes a client certificate and its key into two files.
    fn identity(&self) -> Option<IdentitySource> {
        let (certificate, key) = self.issue("orders");
        std::fs::write(self.path("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(self.path("key.pem"), key.serialize_pem()).unwrap();
        Some(IdentitySource::Pem {
            certificate: self.path("cert.pem"),
            key: self.path("key.pem"),
            key_password: None,
        })
    }

    /// A server for a name, which requires client certificates of `clients`.
    pub(super) fn acceptor(&self, name: &str, clients: Option<&Authority>) -> TlsAcceptor {
        self.acceptor_with(self.issue(name), clients)
    }

    fn acceptor_with(
        &self,
        (certificate, key): (rcgen::Certificate, KeyPair),
        clients: Option<&Authority>,
    ) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(CertificateDer::from(authority.issuer.der().to_vec()))
                    .unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from(certificate.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
    }
}

fn at(server: &Server, client_auth: ClientAuth, trust: TrustSource) -> OAuth2 {
    let mut oauth = oauth(
        at_token(&format!("https://{}/token", server.address)),
        client_auth,
    );
    oauth.idp.trust = trust;
    oauth
}

#[tokio::test]
async fn a_ca_of_ones_own() {
    let authority = Authority::new();
    let server = Server::tls(authority.acceptor("127.0.0.1", None), |_| good_token()).await;
    let settings = at(
        &server,
        ClientAuth::SecretBasic(secret()),
        authority.trust(),
    );
    fetch(settings.clone()).await.unwrap();
    // A client certificate that the server does not ask for does no harm.
    let mut with_certificate = settings;
    with_certificate.idp.identity = authority.identity();
    fetch(with_certificate).await.unwrap();
}

/// Python's servers answer so. Broken by taking every end of a connection for a loss, and by taking
/// half an answer for a whole one.
#[tokio::test]
async fn an_answer_that_ends_without_farewell_is_whole_if_its_json_is() {
    let authority = Authority::new();
    let token = r#"{"access_token":"the-token","token_type":"Bearer","expires_in":300}"#;
    let length = format!("content-length: {}\r\n", token.len() + 1);
    for (status, header, body, expected) in [
        (200, "", token, "the-token"),
        (400, "", r#"{"error":"invalid_scope"}"#, "invalid_scope"),
        (200, "", &token[..token.len() - 1], "closed in the middle"),
        (200, &length, token, "closed in the middle"),
    ] {
        let answer =
            format!("HTTP/1.0 {status} X\r\ncontent-type: application/json\r\n{header}\r\n{body}");
        let server = Server::tls(authority.acceptor("127.0.0.1", None), move |_| {
            Act::SendAndDrop(answer.clone().into_bytes())
        });
        let server = server.await;
        let settings = at(
            &server,
            ClientAuth::SecretBasic(secret()),
            authority.trust(),
        );
        let said = match fetch(settings).await {
            Ok(issued) => issued.token.expose().to_owned(),
            Err(failure) => failure.message,
        };
        assert!(said.contains(expected), "{status} {header}{body}: {said}");
    }
}

#[tokio::test]
async fn certificates_that_cannot_be_trusted_are_told_apart() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = Server::tls(authority.acceptor("127.0.0.1", None), |_| good_token()).await;
    let message = transient(fetch(at(&server, ClientAuth::None, stranger.trust())).await);
    assert!(
        message.contains("its issuer is unknown; set tls.ca"),
        "{message}"
    );
    let server = Server::tls(authority.acceptor("MarkerName.example", None), |_| {
        good_token()
    })
    .await;
    let message = transient(fetch(at(&server, ClientAuth::None, authority.trust())).await);
    assert!(message.contains("another host name"), "{message}");
    assert!(!message.to_lowercase().contains("markername"), "{message}");
    let mut expired = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    expired.not_after = rcgen::date_time_ymd(2001, 1, 1);
    expired.not_before = rcgen::date_time_ymd(2000, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = expired.signed_by(&key, &authority.issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der().to_vec())],
            PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    let server = Server::tls(TlsAcceptor::from(Arc::new(config)), |_| good_token()).await;
    let message = transient(fetch(at(&server, ClientAuth::None, authority.trust())).await);
    assert!(message.contains("it has expired"), "{message}");
}

#[tokio::test]
async fn a_certificate_without_names_is_not_one_for_another_host() {
    let authority = Authority::new();
    let acceptor = authority.acceptor_with(authority.issue_without_names(), None);
    let server = Server::tls(acceptor, |_| good_token()).await;
    let settings = at(
        &server,
        ClientAuth::SecretBasic(secret()),
        authority.trust(),
    );
    let message = transient(fetch(settings).await);
    assert!(message.contains("it has no subjectAltName"), "{message}");
    assert!(!message.contains("another host name"), "{message}");
}

#[tokio::test]
async fn tls_client_auth_presents_the_certificate() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("127.0.0.1", Some(&authority));
    let server = Server::tls(acceptor, |_| good_token()).await;
    let mut settings = at(&server, ClientAuth::Tls, authority.trust());
    settings.idp.identity = authority.identity();
    fetch(settings).await.unwrap();
    assert_eq!(server.seen()[0].parameters("client_id"), ["orders"]);
}

#[tokio::test]
async fn a_refused_client_certificate_is_permanent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let acceptor = authority.acceptor("127.0.0.1", Some(&authority));
    let server = Server::tls(acceptor, |_| good_token()).await;
    let mut settings = at(&server, ClientAuth::Tls, authority.trust());
    settings.idp.identity = stranger.identity();
    let message = permanent(fetch(settings).await);
    assert!(
        message.contains("refused our client certificate"),
        "{message}"
    );
    let message = permanent(fetch(at(&server, ClientAuth::None, authority.trust())).await);
    assert!(
        message.contains("set tls.certificate and tls.key"),
        "{message}"
    );
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn with_a_certificate_the_mtls_alias_is_used() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("127.0.0.1", None);
    let server = Server::tls(acceptor, |seen| {
        let base = format!("https://{}", seen.header("host").unwrap());
        match seen.line() {
            "GET /.well-known/openid-configuration" => json(&json!({
                "issuer": base,
                "token_endpoint": format!("{base}/usual"),
                "mtls_endpoint_aliases": { "token_endpoint": format!("{base}/mtls") },
            })),
            _ => good_token(),
        }
    })
    .await;
    let settings = |client_auth, identity| {
        let mut oauth = oauth(
            at_issuer(&format!("https://{}", server.address)),
            client_auth,
        );
        oauth.idp.trust = authority.trust();
        oauth.idp.identity = identity;
        oauth
    };
    fetch(settings(ClientAuth::SecretBasic(secret()), None))
        .await
        .unwrap();
    fetch(settings(
        ClientAuth::SecretBasic(secret()),
        authority.identity(),
    ))
    .await
    .unwrap();
    fetch(settings(ClientAuth::SelfSignedTls, authority.identity()))
        .await
        .unwrap();
    let posts: Vec<_> = server
        .lines()
        .into_iter()
        .filter(|line| line.starts_with("POST"))
        .collect();
    assert_eq!(posts, ["POST /usual", "POST /mtls", "POST /mtls"]);
}

#[tokio::test]
async fn trap_37_new_material_means_a_new_connection_and_the_same_material_the_same_client() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("127.0.0.1", Some(&authority));
    let server = Server::tls(acceptor, |_| good_token()).await;
    let shared = shared();
    let count = || shared.upstreams.count();
    let mut settings = at(&server, ClientAuth::Tls, authority.trust());
    settings.idp.identity = authority.identity();
    let one = provider_with(settings.clone(), &shared).unwrap();
    let same = provider_with(settings.clone(), &shared).unwrap();
    assert_eq!(count(), 1);
    settings.idp.identity = authority.identity();
    let renewed = provider_with(settings, &shared).unwrap();
    assert_eq!(count(), 2);
    for provider in [&one, &same, &renewed] {
        provider.fetch(&Variant::default()).await.unwrap();
    }
    drop((one, same));
    assert_eq!(count(), 1);
}

#[test]
fn nothing_is_resumed_with_a_certificate_and_http_1_1_is_all_that_is_offered() {
    let authority = Authority::new();
    let mut settings = oauth(at_token("https://127.0.0.1:1/"), ClientAuth::Tls);
    settings.idp.identity = authority.identity();
    let profile = profile(settings);
    let now = Clock::system().now().wall;
    let material = material::read(&profile, &Surroundings::default(), now).unwrap();
    let tls = crate::tls::Tls::new();
    let with = tls
        .client_config(&material.trust, material.identity.as_ref(), None)
        .unwrap();
    let without = tls.client_config(&material.trust, None, None).unwrap();
    assert!(
        format!("{:?}", with.resumption).contains("Disabled"),
        "{:?}",
        with.resumption
    );
    assert!(!format!("{:?}", without.resumption).contains("Disabled"));
    assert!(with.client_auth_cert_resolver.has_certs());
    assert!(!without.client_auth_cert_resolver.has_certs());
    assert_eq!(with.alpn_protocols, [b"http/1.1"]);
}

#[tokio::test]
async fn a_self_signed_server_must_not_be_a_ca_at_once() {
    let folder = tempfile::tempdir().unwrap();
    for (is_ca, expected) in [
        (
            IsCa::Ca(BasicConstraints::Unconstrained),
            Some("basicConstraints=critical,CA:FALSE"),
        ),
        (IsCa::ExplicitNoCa, None),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.is_ca = is_ca;
        let certificate = params.self_signed(&key).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![CertificateDer::from(certificate.der().to_vec())],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let server = Server::tls(TlsAcceptor::from(Arc::new(config)), |_| good_token()).await;
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, certificate.pem()).unwrap();
        let outcome = fetch(at(&server, ClientAuth::None, TrustSource::Pem(ca))).await;
        match expected {
            Some(expected) => {
                let message = transient(outcome);
                assert!(message.contains(expected), "{message}");
            }
            None => drop(outcome.unwrap()),
        }
    }
}
