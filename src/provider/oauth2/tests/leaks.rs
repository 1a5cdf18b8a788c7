//! Trap 32: a server that repeats everything it is told, wherever an answer has room, gets none of
//! it into a failure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;

use super::server::{Act, Seen, Server, answer};
use super::*;
use crate::core::profile::client_auth::{Assertion, AssertionSource};

const PLAIN: &str = "MarkerSecret-0123456789";

/// Every secret in a request, in all its forms.
fn secrets_of(seen: &Seen) -> Vec<String> {
    let mut all: Vec<String> = ["client_secret", "client_assertion"]
        .iter()
        .flat_map(|name| seen.parameters(name))
        .collect();
    if let Some(header) = seen.header("authorization") {
        let bare = header.strip_prefix("Basic ").unwrap();
        let pair = String::from_utf8(STANDARD.decode(bare).unwrap()).unwrap();
        all.push(bare.into());
        all.push(pair.split_once(':').unwrap().1.into());
    }
    all
}

/// The answers that repeat `text`, one for each place that has room for it.
fn echoes(text: &str) -> Vec<Act> {
    let mut all = Vec::new();
    for status in [200, 302, 400, 401, 403, 404, 429, 500] {
        let bodies = [
            text.to_owned(),
            serde_json::json!({ "error": text }).to_string(),
            serde_json::json!({ "error": format!("E.{text}") }).to_string(),
            serde_json::json!({ "error": &text[..text.len().min(12)] }).to_string(),
            serde_json::json!({ "error": "invalid_client", "error_description": text, "error_uri": text }).to_string(),
            serde_json::json!({ "access_token": format!("{text}\n"), "token_type": text }).to_string(),
            serde_json::json!({ "access_token": "t", "token_type": text }).to_string(),
            serde_json::json!({ "access_token": "t", "token_type": "Bearer", "expires_in": text }).to_string(),
        ];
        for body in bodies {
            let headers = format!(
                "content-type: text/{text}\r\nlocation: https://{text}.example/{text}?{text}\r\nretry-after: {text}\r\n\
                 date: {text}\r\nwww-authenticate: Basic realm=\"{text}\"\r\n"
            );
            all.push(answer(status, &headers, &body));
        }
    }
    all.push(Act::Send(format!("{text} {text}\r\n\r\n").into_bytes()));
    all.push(Act::Send(
        format!("HTTP/1.1 200 {text}\r\n{text}\r\n\r\n").into_bytes(),
    ));
    all.push(Act::Send(
        format!("HTTP/1.1 200 {text}\r\ncontent-length: {text}\r\n\r\n").into_bytes(),
    ));
    all
}

fn marked(text: &str) -> SecretRef {
    SecretRef::Literal(Secret::new(text.into()))
}

fn hushed(outcome: Result<Issued, Failure>, secrets: &[String]) -> bool {
    let shown = format!("{outcome:?}").to_lowercase();
    for secret in secrets {
        // An assertion begins with its header, which is no secret but is withheld as well.
        for piece in secret
            .as_bytes()
            .chunks(12)
            .filter(|piece| piece.len() == 12)
        {
            let piece = String::from_utf8_lossy(piece).to_lowercase();
            assert!(!shown.contains(&piece), "{piece} of {secret} in {shown}");
        }
    }
    outcome.is_err()
}

#[tokio::test]
async fn trap_32_an_echoing_server_gets_no_secret_into_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    std::fs::write(&key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let assertion = |source| Assertion {
        source,
        algorithm: None,
        kid: None,
        x5t: false,
        audience: None,
        lifetime: Duration::from_secs(60),
    };
    let source = Some(AssertionSource::Pem {
        key,
        key_password: None,
        certificate: None,
    });
    for client_auth in [
        ClientAuth::SecretBasic(marked(PLAIN)),
        ClientAuth::SecretBasic(marked(SECRET)),
        ClientAuth::SecretPost(marked(PLAIN)),
        ClientAuth::SecretPost(marked(SECRET)),
        ClientAuth::SecretJwt(marked(PLAIN), assertion(None)),
        ClientAuth::PrivateKeyJwt(assertion(source)),
    ] {
        let count = echoes("x").len();
        let mut failures = 0;
        for index in 0..count {
            for which in 0..2 {
                let server = Server::plain(move |seen| {
                    let secrets = secrets_of(seen);
                    echoes(&secrets[which.min(secrets.len() - 1)]).swap_remove(index)
                })
                .await;
                let mut settings = oauth(at_token(&server.url("/token")), client_auth.clone());
                settings.scopes = Vec::new();
                let outcome = fetch(settings).await;
                let mut secrets = secrets_of(&server.seen()[0]);
                secrets.extend([PLAIN.into(), SECRET.into()]);
                failures += usize::from(hushed(outcome, &secrets));
            }
        }
        assert_eq!(failures, 2 * count, "every one of these is a failure");
    }
}

#[tokio::test]
async fn trap_32_an_echo_in_a_later_discovery_document() {
    for document in [
        serde_json::json!({ "issuer": format!("https://{PLAIN}.example/{PLAIN}") }),
        serde_json::json!({ "issuer": "ISSUER", "token_endpoint": format!("http://127.0.0.1:1/{PLAIN}") }),
        serde_json::json!({ "issuer": "ISSUER", "token_endpoint": format!("https://{PLAIN}.invalid:1/{PLAIN}") }),
        serde_json::json!({ "issuer": "ISSUER", "token_endpoint": PLAIN }),
    ] {
        let server = Server::plain(move |seen| {
            let issuer = format!("http://{}", seen.header("host").unwrap());
            answer(200, "", &document.to_string().replace("ISSUER", &issuer))
        })
        .await;
        let settings = oauth(
            at_issuer(&server.url("")),
            ClientAuth::SecretPost(marked(PLAIN)),
        );
        assert!(hushed(fetch(settings).await, &[PLAIN.into()]));
    }
    // The token endpoint is on the echoing server itself, and the secret is its path. Then the
    // server answers.
    for status in [401, 500, 302, 200] {
        let server = Server::plain(move |seen| {
            let base = format!("http://{}", seen.header("host").unwrap());
            match seen.line().starts_with("GET") {
                true => answer(
                    200,
                    "",
                    &serde_json::json!({ "issuer": base, "token_endpoint": format!("{base}/{PLAIN}") }).to_string(),
                ),
                false => answer(status, "", "nothing"),
            }
        })
        .await;
        let settings = oauth(
            at_issuer(&server.url("")),
            ClientAuth::SecretPost(marked(PLAIN)),
        );
        assert!(hushed(fetch(settings).await, &[PLAIN.into()]));
    }
}
