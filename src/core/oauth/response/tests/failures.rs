//! Answers that are no success: the kind of each, its advice, and what is withheld.

use super::*;

#[test]
fn error_codes_are_permanent_or_transient_with_their_cure() {
    use FailureKind::{Permanent, Transient};
    for (code, kind, cure) in [
        (
            "invalid_client",
            Permanent,
            "check client_id, client_secret and client_auth",
        ),
        ("unauthorized_client", Permanent, "service account"),
        ("invalid_grant", Permanent, "assertion"),
        ("invalid_scope", Permanent, "check scopes"),
        ("invalid_target", Permanent, "check resource and audience"),
        ("invalid_request", Permanent, "extra"),
        ("unsupported_grant_type", Permanent, "token_url"),
        ("access_denied", Permanent, "policy"),
        ("vendor_code", Permanent, "documentation"),
        ("temporarily_unavailable", Transient, "by itself"),
        ("server_error", Transient, "by itself"),
        ("slow_down", Transient, "min_interval"),
    ] {
        for status in [400, 401, 403] {
            let text = json!({ "error": code }).to_string();
            let failure = ask(&answer(status, text.as_bytes())).unwrap_err();
            assert_eq!(failure.kind, kind, "{code}");
            assert_eq!(failure.oauth_error.as_deref(), Some(code));
            let start = format!("https://idp.example/token answered HTTP {status}, error {code}: ");
            assert!(failure.message.starts_with(&start), "{}", failure.message);
            assert!(failure.message.contains(cure), "{}", failure.message);
        }
    }
}

#[test]
fn statuses_without_a_code() {
    for status in [401, 403] {
        for text in ["", "<html>", "{}", r#"{"error":1}"#] {
            // This is a gateway's answer.
            if status == 403 && !text.starts_with('{') {
                continue;
            }
            let message = permanent(ask(&answer(status, text.as_bytes())));
            assert!(
                message.contains(&format!("refused the client (HTTP {status})")),
                "{message}"
            );
        }
    }
    for status in [
        201, 204, 302, 400, 402, 404, 405, 408, 410, 425, 429, 500, 502, 503, 504, 599, 600,
    ] {
        transient(ask(&answer(status, b"<html>")));
    }
    // A status that means trouble stays transient, whatever the code says.
    for status in [404, 429, 500, 503] {
        transient(ask(&answer(status, br#"{"error":"invalid_client"}"#)));
    }
}

#[test]
fn a_gateways_refusal_is_no_verdict_on_the_client() {
    for status in [400, 403] {
        for body in [
            Some(&b""[..]),
            Some(b"<html><title>Just a moment...</title>"),
            Some(b"denied"),
            None,
        ] {
            let mut response = answer(status, b"");
            response.body = body;
            response.content_type = Some("text/html; charset=UTF-8");
            let message = transient(ask(&response));
            assert!(message.contains("(text/html), as a gateway"), "{message}");
        }
    }
}

/// Glewlwyd refuses clients so.
#[test]
fn an_empty_refusal_may_be_of_the_client() {
    for status in [400, 403] {
        for (body, suspected) in [(&b""[..], true), (b" \r\n", true), (b"denied", false)] {
            let message = transient(ask(&answer(status, body)));
            assert_eq!(message.contains("client_secret"), suspected, "{message}");
            assert!(
                message.contains("a gateway, firewall or proxy"),
                "{message}"
            );
        }
    }
}

/// Trap 55.
#[test]
fn a_byte_order_mark_or_an_odd_byte_leaves_an_answer_what_it_is() {
    for status in [400, 401, 403] {
        for body in [
            &b"\xef\xbb\xbf{\"error\":\"invalid_client\"}"[..],
            b"{\"error\":\"invalid_client\",\"error_description\":\"ung\xfcltig\"}",
        ] {
            let failure = ask(&answer(status, body)).unwrap_err();
            assert_eq!(failure.oauth_error.as_deref(), Some("invalid_client"));
            assert_eq!(failure.kind, FailureKind::Permanent, "{}", failure.message);
        }
    }
    let body = b"\xef\xbb\xbf{\"access_token\":\"t\",\"token_type\":\"Bearer\",\"expires_in\":300,\"x\":\"\xfc\"}";
    assert!(ask(&answer(200, body)).is_ok());
}

#[test]
fn a_coding_that_was_not_asked_for_is_named() {
    for (said, body, name) in [
        (Some("gzip"), &b"\x1f\x8b\x08"[..], "gzip"),
        (None, b"\x1f\x8b\x08", "gzip"),
        (Some("BR"), b"\x01\x02", "br"),
        (Some("MarkerSecret"), b"\x01\x02", "(not shown here)"),
    ] {
        for status in [200, 400, 401, 403] {
            let mut response = answer(status, body);
            response.content_encoding = said;
            let message = transient(ask(&response));
            assert!(
                message.contains(&format!("in the coding {name}, and asked for was")),
                "{message}"
            );
        }
    }
    let mut response = answer(401, br#"{"error":"invalid_client"}"#);
    response.content_encoding = Some("gzip");
    permanent(ask(&response));
}

#[test]
fn a_client_that_is_unauthorized_with_401_may_have_a_wrong_secret() {
    let refused = |status| {
        let body = br#"{"error":"unauthorized_client"}"#;
        ask(&answer(status, body)).unwrap_err().message
    };
    let message = refused(401);
    assert!(
        message.contains("client_secret") && message.contains("service account"),
        "{message}"
    );
    assert!(!refused(400).contains("client_secret"));
}

#[test]
fn retry_after_is_kept_with_any_error() {
    for (text, expected) in [
        ("17", Some(17)),
        ("Tue, 24 Nov 2026 03:30:00 GMT", Some(59)),
        ("Tue, 24 Nov 2020 03:30:00 GMT", Some(0)),
        ("soon", None),
    ] {
        for status in [401, 429, 503] {
            let mut response = answer(status, b"");
            response.retry_after = Some(text);
            let wait = ask(&response).unwrap_err().retry_after;
            assert_eq!(wait.map(|wait| wait.as_secs()), expected, "{text}");
        }
    }
    let mut response = answer(503, b"");
    response.retry_after = Some("Tue, 24 Nov 2026 03:30:00 GMT");
    response.date = Some("Tue, 24 Nov 2026 03:29:50 GMT");
    assert_eq!(
        ask(&response).unwrap_err().retry_after,
        Some(Duration::from_secs(10))
    );
}

#[test]
fn trap_32_nothing_of_a_body_gets_into_a_message() {
    let marker = SECRET;
    let prefix = format!("x-{}", &SECRET[3..15]);
    let reversed: String = SECRET.chars().rev().collect();
    let hex: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    for code in [
        marker,
        &marker.to_lowercase(),
        &marker[..6],
        &prefix,
        &reversed,
        &hex,
        &hex[..16],
        "vendor.code-1",
        "CamelCase",
        &"a".repeat(41),
        "with space",
        "with\nbreak",
        "",
        &"a".repeat(65),
        "Realm does not exist",
        "umläut",
    ] {
        let text = json!({
            "error": code,
            "error_description": format!("AADSTS12 leaked {marker}"),
            "error_uri": marker,
        })
        .to_string();
        for status in [400, 401, 403, 404, 500] {
            let failure = ask(&answer(status, text.as_bytes())).unwrap_err();
            let shown = format!("{failure:?}");
            assert!(
                failure
                    .message
                    .contains("an unregistered error code (withheld)"),
                "{shown}"
            );
            assert_eq!(failure.oauth_error, None);
            assert!(
                !shown.contains("leaked") && !shown.contains("AADSTS"),
                "{shown}"
            );
            assert!(code.is_empty() || !shown.contains(code), "{shown}");
            assert!(
                !shown.contains("hidden") && !shown.contains("user") && !shown.contains("pw"),
                "{shown}"
            );
        }
    }
}

#[test]
fn trap_32_a_secret_of_small_letters_is_known_backwards_too() {
    let secret = Secret::new("correct_horse_battery".into());
    for (code, shown) in [
        ("correct_horse_battery", false),
        ("yrettab_esroh_tcerroc", false),
        ("x_tab_esroh_", false),
        ("consent_required", true),
    ] {
        let Value::Object(answer) = json!({ "error": code }) else {
            unreachable!()
        };
        let seen = errors::code_of(&answer, &[&secret]);
        assert_eq!(seen.is_some(), shown, "{code}");
    }
}

#[test]
fn microsofts_code_is_all_that_is_taken_from_a_description() {
    let code = |text: &str| {
        let text = json!({ "error": "invalid_client", "error_description": text }).to_string();
        permanent(ask(&answer(401, text.as_bytes())))
    };
    let message = code("AADSTS7000215: Invalid client secret provided. Trace ID: 1234");
    assert!(
        message.contains("error invalid_client (AADSTS7000215): "),
        "{message}"
    );
    assert!(
        !message.contains("Trace") && !message.contains("provided"),
        "{message}"
    );
    for none in ["AADSTS123", "AADSTS123456789", "aadsts70002", "AADSTS-7000"] {
        assert!(!code(none).to_lowercase().contains("aadsts"), "{none}");
    }
}
