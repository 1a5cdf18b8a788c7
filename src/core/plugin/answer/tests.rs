//! Answers in every form, good and bad.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::failure::FailureKind::{self, Permanent, Transient};
use crate::core::profile::exec::FORMATS;
use crate::core::time::BootTime;

/// 2026-11-24T03:29:00Z
const NOW: u64 = 1_795_490_940;

fn asked() -> AskedPlugin<'static> {
    let stamp = |boot, wall| Stamp {
        boot: BootTime(Duration::from_secs(boot)),
        wall: WallTime(Duration::from_secs(wall)),
    };
    AskedPlugin {
        at: "/p",
        ended: None,
        format: AnswerFormat::Auto,
        lifetime: None,
        scopes: &[],
        refuse_bound: false,
        secrets: &[],
        asked_at: stamp(100, NOW),
        now: stamp(101, NOW + 1),
    }
}

fn good(answer: impl ToString, asked: &AskedPlugin<'_>) -> Issued {
    let answer = answer.to_string();
    judge(answer.as_bytes(), asked).unwrap_or_else(|why| panic!("{answer}: {}", why.message))
}

fn bad(answer: impl ToString, asked: &AskedPlugin<'_>) -> Failure {
    judge(answer.to_string().as_bytes(), asked).expect_err("refused")
}

const K8S: &str = "client.authentication.k8s.io/v1";

#[test]
fn every_form_is_told_by_its_content() {
    let id_token = "urn:ietf:params:oauth:token-type:id_token";
    for (answer, life) in [
        (
            json!({"version": 1, "token": "t0", "token_type": "Bearer", "expires_in": 300}),
            300,
        ),
        (
            json!({"version": 1, "token": "t0", "expires_at": "2026-11-24T04:39:00+01:00"}),
            600,
        ),
        (
            json!({"version": 1, "token": "t0", "expires_in": 300, "cache_for": 20, "new": [1]}),
            20,
        ),
        (
            json!({"version": "1.7", "token": "t0", "expires_in": "300"}),
            300,
        ),
        (
            json!({"token": "t0", "expires_in": 300, "expiration": NOW + 60}),
            60,
        ),
        (
            json!({"access_token": "t0", "expires_at": NOW + 60, "error": null}),
            60,
        ),
        (
            json!({"access_token": "t0", "expires_at": "9999-12-31T23:59:59Z"}),
            365 * 86_400,
        ),
        (
            json!({"version": 1, "success": true, "token_type": id_token, "id_token": "t0",
                "expiration_time": NOW + 60}),
            60,
        ),
        (
            json!({"apiVersion": K8S, "kind": "ExecCredential", "spec": {},
                "status": {"token": "t0", "expirationTimestamp": "2026-11-24T03:30:00Z"}}),
            60,
        ),
    ] {
        let issued = good(format!("\u{feff}\n{answer}\r\n"), &asked());
        assert_eq!(issued.token.expose(), "t0", "{answer}");
        assert_eq!(
            issued.lifetime,
            Lifetime::For(Duration::from_secs(life)),
            "{answer}"
        );
        assert_eq!(
            (issued.scheme, issued.asked_at),
            (Scheme::Bearer, asked().asked_at)
        );
    }
    let lifetime = Some(Duration::from_secs(90));
    let bare = AskedPlugin {
        lifetime,
        ..asked()
    };
    assert_eq!(
        good("t0\n", &bare).lifetime,
        Lifetime::For(Duration::from_secs(90))
    );
    assert_eq!(
        good(json!({"token": "t0"}), &asked()).lifetime,
        Lifetime::Unknown
    );
    let basic = json!({"version": 1, "token": "dTpw", "token_type": "basic"});
    assert_eq!(good(basic, &asked()).scheme, Scheme::Basic);
}

fn refused(all: &[(String, FailureKind, &str)]) {
    for (answer, kind, says) in all {
        let failure = bad(answer, &asked());
        assert_eq!(failure.kind, *kind, "{answer}");
        assert!(
            failure.message.contains(says),
            "{answer}: {}",
            failure.message
        );
    }
}

#[test]
fn what_is_no_credential_is_refused_with_the_reason() {
    let version = |version: Value| json!({"version": version, "token": "t0", "expires_in": 9});
    refused(&[
        (String::new(), Transient, "nothing to standard output"),
        ("please log in".into(), Transient, "several words"),
        ("Error:".into(), Transient, "no token"),
        ("t0".into(), Permanent, "set `lifetime`"),
        ("{\"token\":\"t0\"".into(), Transient, "begins like JSON"),
        ("[1]".into(), Transient, "without a token"),
        (
            json!({"Version": 1, "AccessKeyId": "A"}).to_string(),
            Permanent,
            "credential_process",
        ),
        (
            version(json!(2)).to_string(),
            Permanent,
            "version 2 of the contract",
        ),
        (
            version(json!("v1")).to_string(),
            Permanent,
            "version v1 of the contract",
        ),
        (version(json!([])).to_string(), Permanent, "of no number"),
        (
            json!({"apiVersion": "client.authentication.k8s.io/v2", "status": {}}).to_string(),
            Permanent,
            "client.authentication.k8s.io/v2",
        ),
        (
            json!({"apiVersion": K8S, "status": {"clientKeyData": "k"}}).to_string(),
            Permanent,
            "client certificate",
        ),
    ]);
}

#[test]
fn a_token_that_cannot_be_served_is_refused_with_the_reason() {
    refused(&[
        (
            json!({"version": 1, "token": ""}).to_string(),
            Transient,
            "empty",
        ),
        (
            json!({"version": 1, "token": "a b"}).to_string(),
            Transient,
            "header",
        ),
        (
            json!({"version": 1, "token": 7}).to_string(),
            Transient,
            "without a token",
        ),
        (
            json!({"version": 1, "token": "t", "token_type": "mac"}).to_string(),
            Permanent,
            "token_type",
        ),
        (
            json!({"token": "t", "expires_in": 0}).to_string(),
            Transient,
            "expired on arrival",
        ),
        (
            json!({"token": "t", "expires_in": -9}).to_string(),
            Transient,
            "expires_in",
        ),
        (
            json!({"token": "t", "expires_in": "soon"}).to_string(),
            Transient,
            "no number",
        ),
        (
            json!({"token": "t", "expires_at": NOW}).to_string(),
            Transient,
            "has expired",
        ),
        (
            json!({"token": "t", "expires_at": "1969-01-01T00:00:00Z"}).to_string(),
            Transient,
            "expires_at",
        ),
        (
            json!({"token": "t", "expiration": "soon"}).to_string(),
            Transient,
            "RFC 3339",
        ),
        (
            json!({"token": "t", "cache_for": 0}).to_string(),
            Transient,
            "cache_for",
        ),
        (
            json!({"version": 1, "success": true, "saml_response": "s"}).to_string(),
            Permanent,
            "SAML",
        ),
    ]);
    // The end of a token counts even if the answer says otherwise.
    let claims = jwt_of(&json!({"exp": NOW - 1}));
    let expired = json!({"version": 1, "token": claims, "expires_in": 300});
    assert!(bad(expired, &asked()).message.contains("has expired"));
}

fn jwt_of(claims: &Value) -> String {
    use base64::Engine;
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims.to_string());
    format!("e30.{claims}.c2ln")
}

#[test]
fn an_error_is_the_error_however_the_program_ends() {
    let failed = AskedPlugin {
        ended: Some("exit status 3"),
        ..asked()
    };
    let own = |kind: &str| {
        json!({"version": 1, "token": "t",
        "error": {"kind": kind, "message": "no\u{1b} account", "retry_after": 5}})
    };
    for asked in [asked(), failed] {
        let failure = bad(own("permanent"), &asked);
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (Permanent, "/p says: no account")
        );
        assert_eq!(failure.retry_after, Some(Duration::from_secs(5)));
        assert_eq!(bad(own("transient"), &asked).kind, Transient);
        assert_eq!(bad(own("other"), &asked).kind, Transient);
        let google = json!({"version": 1, "success": false, "code": "401", "message": "no login"});
        let failure = bad(google, &asked);
        assert_eq!(
            (failure.kind, failure.message.as_str()),
            (Permanent, "/p says: no login")
        );
        let plain = bad(json!({"error": "out of order"}), &asked);
        assert_eq!(
            (plain.kind, plain.message.as_str()),
            (Transient, "/p says: out of order")
        );
    }
    // Whatever a program wrote that failed without an error, it is no credential.
    for answer in [
        json!({"token": "t", "expires_in": 9}).to_string(),
        "t0".into(),
    ] {
        let failure = bad(answer, &failed);
        assert!(
            failure.message.contains("exit status 3"),
            "{}",
            failure.message
        );
        assert_eq!(failure.kind, Transient);
    }
}

#[test]
fn the_profile_may_insist_on_one_form() {
    let own = json!({"version": 1, "token": "t0", "expires_in": 9}).to_string();
    for format in [
        AnswerFormat::Google,
        AnswerFormat::Kubernetes,
        AnswerFormat::Token,
    ] {
        let asked = AskedPlugin { format, ..asked() };
        let failure = bad(&own, &asked);
        assert!(
            failure.message.contains(format.as_str()),
            "{}",
            failure.message
        );
        assert_eq!(bad(json!({"error": "x"}), &asked).message, "/p says: x");
    }
    assert!(
        FORMATS
            .iter()
            .all(|word| AnswerFormat::parse(word).expect("one").as_str() == *word)
    );
}

#[test]
fn a_bound_token_is_told_or_refused() {
    let bound = json!({"version": 1, "token": "t0", "confirmation": {"x5t#S256": "abc"}});
    assert_eq!(good(&bound, &asked()).confirmation.as_deref(), Some("abc"));
    let refusing = AskedPlugin {
        refuse_bound: true,
        ..asked()
    };
    assert!(bad(&bound, &refusing).message.contains("bound"));
}

#[test]
fn no_message_repeats_a_secret_or_the_token() {
    let secret = Secret::new("correct-horse-battery".into());
    let secrets = [&secret];
    let asked = AskedPlugin {
        secrets: &secrets,
        ..asked()
    };
    let texts = [
        "correct-horse-battery",
        "token is tok-12345678",
        "correct-hor se-battery",
    ];
    for text in texts {
        let answer = json!({"version": 1, "token": "tok-12345678",
            "error": {"kind": "permanent", "message": text}});
        assert!(bad(answer, &asked).message.contains("not shown"), "{text}");
    }
    let answer = json!({"version": "correct-horse-battery"});
    assert!(!bad(answer, &asked).message.contains("horse"));
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let whole = [
        json!({"version": 1, "token": "TOKEN-TOKEN-TOKEN", "expires_at": "2026-11-24T04:39:00Z"}),
        json!({"version": 1, "success": true, "id_token": "TOKEN-TOKEN-TOKEN"}),
        json!({"apiVersion": K8S, "status": {"token": "TOKEN-TOKEN-TOKEN"}}),
        json!({"access_token": "TOKEN-TOKEN-TOKEN", "expires_in": 9, "error": "x"}),
    ];
    let whole = prop::sample::select(whole.map(|it| it.to_string()).to_vec());
    let damage = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (whole, damage).prop_map(|(text, damage)| {
        let mut bytes = text.into_bytes();
        for (place, byte) in damage {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn damaged_answers_are_judged_without_a_panic_or_a_leak(
        bytes in prop_oneof![damaged(), prop::collection::vec(any::<u8>(), 0..60)],
        ended in prop::option::of(Just("signal 9")),
    ) {
        let kind: Option<FailureKind> = match judge(&bytes, &AskedPlugin { ended, ..asked() }) {
            Ok(issued) => {
                prop_assert!(ended.is_none() && fits_header(issued.token.expose()));
                prop_assert_ne!(issued.lifetime, Lifetime::For(Duration::ZERO));
                None
            }
            Err(failure) => {
                prop_assert!(!failure.message.contains("TOKEN-TOK"), "{}", failure.message);
                Some(failure.kind)
            }
        };
        prop_assert!(kind.is_some() || ended.is_none());
    }
}
