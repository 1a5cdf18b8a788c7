//! Assertions that another program makes and renews: what they cost, and what the daemon reports.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokend_issuer::Issuer;
use tokend_issuer::client::RegisteredClient;

use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually};

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

/// An assertion for `it`, as another program would make it. It is signed with the client's secret,
/// which is what this issuer can check, and is valid for `lasts` seconds.
fn assertion(issuer: &Issuer, secret: &str, lasts: u64, id: &str) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let (iat, exp) = (now(), now() + lasts);
    let claims = format!(
        r#"{{"iss":"it","sub":"it","aud":"{}","iat":{iat},"exp":{exp},"jti":"{id}"}}"#,
        issuer.url()
    );
    let signed = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn with_it() -> (Issuer, Place) {
    (
        idp::issuer(vec![RegisteredClient::with_secret("it", SECRET)]),
        Place::new(),
    )
}

fn config(issuer: &Issuer) -> String {
    format!(
        "[profiles.it]\nmethod = \"oauth2\"\nissuer = \"{}\"\nclient_id = \"it\"\nclient_auth = \"private_key_jwt\"\n\
         assertion = {{ file = \"assertion\" }}\n",
        issuer.url()
    )
}

/// Writes another assertion to the file, and waits until the daemon has read it.
fn rewrite(daemon: &Daemon, text: &str) {
    daemon.place.write("assertion", text);
    let ran = daemon.place.run(&["reload"]);
    assert_eq!(ran.code, Some(0), "{} {}", ran.out, ran.err);
}

/// Broken by a digest of the file's content, and by a renewal that does not check whether the last
/// assertion was refused.
#[test]
fn trap_56_an_assertion_that_is_rewritten_costs_no_request_unless_the_one_before_was_refused() {
    let (issuer, place) = with_it();
    place.write("assertion", &assertion(&issuer, "wrong", 3600, "0"));
    let daemon = place.serve(&config(&issuer));
    let refused = daemon.grpc().token("it").err().expect("a wrong signature");
    assert!(refused.message.contains("assertion.file"), "{refused:?}");
    let before = issuer.requests().len();
    rewrite(&daemon, &assertion(&issuer, SECRET, 3600, "1"));
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    assert_eq!(issuer.requests().len(), before + 1, "at once, and once");
    for id in ["2", "3", "4", "5"] {
        rewrite(&daemon, &assertion(&issuer, SECRET, 3600, id));
    }
    assert_eq!(issuer.requests().len(), before + 1, "nothing was due");
    let status = daemon.place.run(&["status", "it"]).out;
    assert!(
        status.contains("assertion.file it (of it): in use until"),
        "{status}"
    );
}

#[test]
fn an_assertion_that_has_ended_is_told_by_check() {
    let (issuer, place) = with_it();
    place.write("assertion", &assertion(&issuer, SECRET, 0, "0"));
    place.write("tokend.toml", &config(&issuer));
    let ran = place.run(&["check"]);
    assert!(ran.out.contains("has expired on"), "{}", ran.out);
    assert!(ran.out.contains("profiles.it.assertion"), "{}", ran.out);
}
