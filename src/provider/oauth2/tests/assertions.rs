//! private_key_jwt and client_secret_jwt, verified with the public key as an issuer would.

use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use serde_json::Value;

use super::server::{Server, good_token, json};
use super::*;
use crate::core::oauth::federated::JWT_BEARER;
use crate::core::profile::client_auth::{Assertion, AssertionSource, Audience, Kid};

fn assertion(source: Option<AssertionSource>) -> Assertion {
    Assertion {
        source,
        algorithm: None,
        kid: Some(Kid::Named("key-1".into())),
        x5t: false,
        audience: None,
        lifetime: Duration::from_secs(60),
    }
}

fn pem(folder: &Path, text: &str) -> Option<AssertionSource> {
    let key = folder.join("key.pem");
    std::fs::write(&key, text).unwrap();
    Some(AssertionSource::Pem {
        key,
        key_password: None,
        certificate: None,
    })
}

fn part(assertion: &str, index: usize) -> Value {
    let part = assertion.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The assertion that was sent, and the URL that it was sent to.
async fn sent(client_auth: ClientAuth) -> (String, String) {
    let server = Server::plain(|_| good_token()).await;
    let url = server.url("/token");
    fetch(oauth(at_token(&url), client_auth)).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(
        seen.parameters("client_assertion_type"),
        ["urn:ietf:params:oauth:client-assertion-type:jwt-bearer"]
    );
    assert_eq!(seen.parameters("client_id"), ["orders"]);
    assert_eq!(seen.header("authorization"), None);
    (seen.parameters("client_assertion").remove(0), url)
}

fn verify(assertion: &str, algorithm: &'static dyn VerificationAlgorithm, public: &[u8]) {
    let (message, signature) = assertion.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    UnparsedPublicKey::new(algorithm, public)
        .verify(message.as_bytes(), &signature)
        .expect("the signature of the key");
}

#[tokio::test]
async fn trap_4_every_kind_of_key_signs_with_its_own_algorithm() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(
        &'static rcgen::SignatureAlgorithm,
        &str,
        &'static dyn VerificationAlgorithm,
    ); 5] = [
        (
            &rcgen::PKCS_RSA_SHA256,
            "RS256",
            &RSA_PKCS1_2048_8192_SHA256,
        ),
        (
            &rcgen::PKCS_ECDSA_P256_SHA256,
            "ES256",
            &ECDSA_P256_SHA256_FIXED,
        ),
        (
            &rcgen::PKCS_ECDSA_P384_SHA384,
            "ES384",
            &ECDSA_P384_SHA384_FIXED,
        ),
        (
            &rcgen::PKCS_ECDSA_P521_SHA512,
            "ES512",
            &ECDSA_P521_SHA512_FIXED,
        ),
        (&rcgen::PKCS_ED25519, "EdDSA", &ED25519),
    ];
    for (kind, name, algorithm) in cases {
        let key = KeyPair::generate_for(kind).unwrap();
        let source = pem(folder.path(), &key.serialize_pem());
        let (jwt, url) = sent(ClientAuth::PrivateKeyJwt(assertion(source))).await;
        verify(&jwt, algorithm, key.public_key_raw());
        let header = part(&jwt, 0);
        assert_eq!(header["alg"], name);
        assert_eq!(header["kid"], "key-1");
        assert!(header.get("x5t").is_none());
        let claims = part(&jwt, 1);
        assert_eq!(claims["iss"], "orders");
        assert_eq!(claims["sub"], "orders");
        assert_eq!(claims["aud"], url.as_str());
        let now = Clock::system().now().wall.0.as_secs();
        let issued = claims["iat"].as_u64().unwrap();
        assert!((now - 10..=now).contains(&issued));
        assert_eq!(claims["exp"].as_u64().unwrap() - issued, 60);
        assert_eq!(claims["jti"].as_str().unwrap().len(), 22);
    }
}

#[tokio::test]
async fn a_configured_algorithm_and_the_older_key_formats() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    // PKCS#8 wraps PKCS#1: it is the last OCTET STRING.
    let der = key.serialize_der();
    let pkcs1 = STANDARD.encode(&der[26..]);
    let text = format!("-----BEGIN RSA PRIVATE KEY-----\n{pkcs1}\n-----END RSA PRIVATE KEY-----\n");
    let mut settings = assertion(pem(folder.path(), &text));
    settings.algorithm = Some("PS384".into());
    settings.audience = Some(Audience::Named("https://aud.example".into()));
    let (jwt, _) = sent(ClientAuth::PrivateKeyJwt(settings)).await;
    verify(&jwt, &RSA_PSS_2048_8192_SHA384, key.public_key_raw());
    assert_eq!(part(&jwt, 1)["aud"], "https://aud.example");
    // SEC1
    let key = KeyPair::generate().unwrap();
    let der = key.serialize_der();
    let start = der
        .windows(5)
        .position(|window| window == [0x30, 0x6b, 2, 1, 1])
        .unwrap();
    let sec1 = STANDARD.encode(&der[start..start + 0x6d]);
    let text = format!("-----BEGIN EC PRIVATE KEY-----\n{sec1}\n-----END EC PRIVATE KEY-----\n");
    let (jwt, _) = sent(ClientAuth::PrivateKeyJwt(assertion(pem(
        folder.path(),
        &text,
    ))))
    .await;
    verify(&jwt, &ECDSA_P256_SHA256_FIXED, key.public_key_raw());
}

#[tokio::test]
async fn every_assertion_is_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::plain(|_| good_token()).await;
    let key = KeyPair::generate().unwrap();
    let source = pem(folder.path(), &key.serialize_pem());
    let provider = provider(oauth(
        at_token(&server.url("/token")),
        ClientAuth::PrivateKeyJwt(assertion(source)),
    ));
    for _ in 0..3 {
        provider.fetch(&Variant::default()).await.unwrap();
    }
    let ids: std::collections::HashSet<String> = server
        .seen()
        .iter()
        .map(|seen| part(&seen.parameters("client_assertion")[0], 1)["jti"].to_string())
        .collect();
    assert_eq!(ids.len(), 3);
}

/// Audiences that are words and not URLs depend on what the issuer says about itself.
#[tokio::test]
async fn the_audience_is_the_issuer_where_it_is_known_or_what_is_configured() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::plain(|seen| {
        let base = format!("http://{}", seen.header("host").unwrap());
        match seen.line() {
            // This is the issuer's own spelling, without the slash that a parsed URL would have.
            "GET /.well-known/openid-configuration" => json(&serde_json::json!({
                "issuer": base, "token_endpoint": format!("{base}/a/../token"),
            })),
            _ => good_token(),
        }
    })
    .await;
    let key = KeyPair::generate().unwrap();
    let source = pem(folder.path(), &key.serialize_pem());
    let named = "https://aud.example".to_owned();
    for (audience, expected) in [
        (None, server.url("")),
        (Some(Audience::Issuer), server.url("")),
        (Some(Audience::TokenEndpoint), server.url("/a/../token")),
        (Some(Audience::Named(named.clone())), named),
    ] {
        let mut settings = assertion(source.clone());
        settings.audience = audience;
        let client_auth = ClientAuth::PrivateKeyJwt(settings);
        fetch(oauth(at_issuer(&server.url("")), client_auth))
            .await
            .unwrap();
        let seen = server.seen().pop().unwrap();
        let jwt = seen.parameters("client_assertion").remove(0);
        assert_eq!(part(&jwt, 1)["aud"], expected);
    }
    let mut settings = assertion(source);
    settings.audience = Some(Audience::TokenEndpoint);
    let (jwt, url) = sent(ClientAuth::PrivateKeyJwt(settings)).await;
    assert_eq!(part(&jwt, 1)["aud"], url.as_str());
}

/// RFC 7638 §3: the members of the public key that it needs, in the order of their names.
#[tokio::test]
async fn a_key_identifier_by_thumbprint_follows_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    for (kind, curve) in [
        (&rcgen::PKCS_RSA_SHA256, ""),
        (&rcgen::PKCS_ECDSA_P256_SHA256, "P-256"),
        (&rcgen::PKCS_ECDSA_P384_SHA384, "P-384"),
        (&rcgen::PKCS_ECDSA_P521_SHA512, "P-521"),
        (&rcgen::PKCS_ED25519, "Ed25519"),
    ] {
        let key = KeyPair::generate_for(kind).unwrap();
        let public = key.public_key_raw();
        let members = match curve {
            // SEQUENCE { INTEGER of 2048 bits with a zero before it, INTEGER 65537 }
            "" => format!(
                r#"{{"e":"AQAB","kty":"RSA","n":"{}"}}"#,
                base64(&public[9..265])
            ),
            "Ed25519" => format!(
                r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#,
                base64(public)
            ),
            _ => {
                let (x, y) = public[1..].split_at(public.len() / 2);
                let (x, y) = (base64(x), base64(y));
                format!(r#"{{"crv":"{curve}","kty":"EC","x":"{x}","y":"{y}"}}"#)
            }
        };
        let expected = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, members.as_bytes());
        let mut settings = assertion(pem(folder.path(), &key.serialize_pem()));
        settings.kid = Some(Kid::Thumbprint);
        let (jwt, _) = sent(ClientAuth::PrivateKeyJwt(settings)).await;
        assert_eq!(part(&jwt, 0)["kid"], base64(expected.as_ref()), "{curve}");
    }
}

#[tokio::test]
async fn thumbprints_name_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["c".into()])
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let path: PathBuf = folder.path().join("cert.pem");
    std::fs::write(&path, certificate.pem()).unwrap();
    let Some(AssertionSource::Pem { key: file, .. }) = pem(folder.path(), &key.serialize_pem())
    else {
        panic!("a PEM source")
    };
    let mut settings = assertion(Some(AssertionSource::Pem {
        key: file,
        key_password: None,
        certificate: Some(path),
    }));
    settings.x5t = true;
    let (jwt, _) = sent(ClientAuth::PrivateKeyJwt(settings)).await;
    let header = part(&jwt, 0);
    let print =
        |algorithm| URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(algorithm, certificate.der()));
    assert_eq!(
        header["x5t"],
        print(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY)
    );
    assert_eq!(header["x5t#S256"], print(&aws_lc_rs::digest::SHA256));
}

#[tokio::test]
async fn client_secret_jwt_signs_with_the_secret() {
    let (jwt, _) = sent(ClientAuth::SecretJwt(secret(), assertion(None))).await;
    assert_eq!(part(&jwt, 0)["alg"], "HS256");
    let (message, signature) = jwt.rsplit_once('.').unwrap();
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    aws_lc_rs::hmac::verify(
        &key,
        message.as_bytes(),
        &URL_SAFE_NO_PAD.decode(signature).unwrap(),
    )
    .unwrap();
}

#[tokio::test]
async fn a_ready_assertion_is_sent_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("assertion");
    std::fs::write(&file, format!("{}\n", ready("s", 0))).unwrap();
    let source = file_source(&file, JWT_BEARER);
    let (jwt, _) = sent(ClientAuth::PrivateKeyJwt(assertion(source))).await;
    assert_eq!(jwt, ready("s", 0));
}

/// An assertion as another program makes it. Each `number` gives a different one.
fn ready(subject: &str, number: u64) -> String {
    let exp = Clock::system().now().wall.0.as_secs() / 1000 * 1000 + 100_000;
    let claims =
        format!(r#"{{"iss":"i","sub":"{subject}","aud":"a","exp":{exp},"jti":"{number}"}}"#);
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

fn file_source(path: &Path, kind: &str) -> Option<AssertionSource> {
    Some(AssertionSource::File {
        path: path.into(),
        kind: kind.into(),
    })
}

/// Broken by a form that always has `client_id`, or only one kind of assertion.
#[tokio::test]
async fn a_ready_assertion_may_name_the_client_and_be_of_another_kind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("assertion");
    std::fs::write(&file, ready("s", 0)).unwrap();
    let server = Server::plain(|_| good_token()).await;
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
    let client_auth = ClientAuth::PrivateKeyJwt(assertion(file_source(&file, kind)));
    let mut oauth = oauth(at_token(&server.url("/token")), client_auth);
    oauth.client_id = String::new();
    fetch(oauth).await.unwrap();
    let seen = &server.seen()[0];
    assert_eq!(seen.parameters("client_assertion_type"), [kind]);
    assert_eq!(seen.parameters("client_id"), [""; 0]);
}

/// Trap 56: broken by a digest of the file's content. An assertion that names another client is
/// other material.
#[tokio::test]
async fn a_renewed_assertion_is_the_same_material_and_goes_with_the_next_request() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("assertion");
    let server = Server::plain(|_| good_token()).await;
    let client_auth = ClientAuth::PrivateKeyJwt(assertion(file_source(&file, JWT_BEARER)));
    let profile = profile(oauth(at_token(&server.url("/token")), client_auth));
    let read = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let now = Clock::system().now().wall;
        material::read(&profile, &Surroundings::default(), now).unwrap()
    };
    let (first, second, other) = (
        read(&ready("s", 1)),
        read(&ready("s", 2)),
        read(&ready("o", 3)),
    );
    assert!(first.digest == second.digest && first.digest != other.digest);
    let provider = build(&profile, first, &shared()).unwrap();
    provider.fetch(&Variant::default()).await.unwrap();
    assert!(provider.renewed(&second), "another one");
    assert!(!provider.renewed(&second), "the same");
    provider.fetch(&Variant::default()).await.unwrap();
    let sent: Vec<String> = server
        .seen()
        .iter()
        .map(|seen| seen.parameters("client_assertion").remove(0))
        .collect();
    assert_eq!(sent, [ready("s", 1), ready("s", 2)]);
}

#[test]
fn keys_that_cannot_sign_are_refused_when_the_provider_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |kind, settings: &dyn Fn(&mut Assertion)| {
        let key = KeyPair::generate_for(kind).unwrap();
        let mut assertion = assertion(pem(folder.path(), &key.serialize_pem()));
        settings(&mut assertion);
        let oauth = oauth(
            at_token("http://127.0.0.1:1/"),
            ClientAuth::PrivateKeyJwt(assertion),
        );
        let failure = provider_with(oauth, &shared()).err().expect("a failure");
        assert_eq!(failure.kind, FailureKind::Permanent);
        failure.message
    };
    let message = refused(&rcgen::PKCS_ECDSA_P256_SHA256, &|it| {
        it.algorithm = Some("RS256".into())
    });
    assert!(
        message.contains("does not go with a P-256 key"),
        "{message}"
    );
    let message = refused(&rcgen::PKCS_ECDSA_P256_SHA256, &|it| it.x5t = true);
    assert!(message.contains("assertion.certificate"), "{message}");
}
