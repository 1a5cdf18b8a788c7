use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::core::credential::Lifetime;
use crate::core::failure::FailureKind;
use crate::core::time::{BootTime, WallTime};

/// Tue, 24 Nov 2026 03:29:00 GMT.
const NOW: u64 = 1_795_490_940;
const DATE: &str = "Tue, 24 Nov 2026 03:29:00 GMT";
const SECRET: &str = "MarkerSecret-0123456789";

fn stamp(seconds: u64) -> Stamp {
    Stamp {
        boot: BootTime(Duration::from_secs(seconds - NOW + 1000)),
        wall: WallTime(Duration::from_secs(seconds)),
    }
}

fn answer<'a>(status: u16, body: &'a [u8]) -> Response<'a> {
    Response {
        status,
        content_type: Some("application/json;charset=UTF-8"),
        content_encoding: None,
        date: None,
        retry_after: None,
        location: None,
        body: Some(body),
    }
}

fn ask_with(response: &Response<'_>, refuse_bound: bool) -> Result<Issued, Failure> {
    grant_with(response, refuse_bound).map(|granted| granted.issued)
}

fn grant_with(response: &Response<'_>, refuse_bound: bool) -> Result<Granted, Failure> {
    let endpoint = Url::parse("https://user:pw@idp.example/token?key=hidden").unwrap();
    let secret = Secret::new(SECRET.into());
    judge(
        response,
        &Asked {
            endpoint: &endpoint,
            at: &crate::core::oauth::withhold::place(&endpoint),
            client_auth: "client_secret_basic",
            scopes: &["read".into(), "write".into()],
            refuse_bound,
            secrets: &[&secret],
            asked_at: stamp(NOW),
            now: stamp(NOW + 1),
        },
    )
}

fn ask(response: &Response<'_>) -> Result<Issued, Failure> {
    ask_with(response, false)
}

fn body(value: &Value) -> Result<Issued, Failure> {
    ask(&answer(200, value.to_string().as_bytes()))
}

fn jwt(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.c2ln", part(&json!({"alg": "none"})), part(claims))
}

fn transient(outcome: Result<Issued, Failure>) -> String {
    let failure = outcome.expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Transient, "{}", failure.message);
    failure.message
}

fn permanent(outcome: Result<Issued, Failure>) -> String {
    let failure = outcome.expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Permanent, "{}", failure.message);
    failure.message
}

#[test]
fn a_plain_success() {
    let issued = body(&json!({
        "access_token": "opaque-token", "token_type": "bearer", "expires_in": 300, "scope": "read  admin \" ",
    }))
    .unwrap();
    assert_eq!(issued.token.expose(), "opaque-token");
    assert_eq!(issued.scheme, Scheme::Bearer);
    assert_eq!(issued.asked_at, stamp(NOW));
    assert_eq!(issued.lifetime, Lifetime::For(Duration::from_secs(300)));
    assert_eq!(issued.scopes, ["read", "admin"]);
    assert_eq!(issued.clock_skew, None);
    let silent = body(&json!({ "access_token": "t", "token_type": "Bearer" })).unwrap();
    assert_eq!(silent.scopes, ["read", "write"]);
    assert_eq!(silent.lifetime, Lifetime::Unknown);
}

fn granted(scope: &str) -> (Vec<String>, usize) {
    let body = json!({
        "access_token": "opaque-token-of-the-day", "token_type": "Bearer", "scope": scope,
        "refresh_token": "opaque-for-the-next",
    });
    let granted = grant_with(&answer(200, body.to_string().as_bytes()), false).unwrap();
    (granted.issued.scopes, granted.withheld)
}

#[test]
fn trap_48_a_scope_that_repeats_the_secret_or_the_token_is_withheld_and_counted() {
    for echo in [
        SECRET.to_owned(),
        format!("x-{}", SECRET.to_uppercase()),
        "erSecret-0".into(),
        "opaque-token-of-the-day".into(),
        "api:token-of-the".into(),
        "opaque-for-the-next".into(),
    ] {
        assert_eq!(granted(&format!("admin {echo}")), (vec!["admin".into()], 1));
    }
    // In pieces, each of them too short to tell, what was asked for in between.
    let pieces = "Marker Secret- read 012345 6789";
    assert_eq!(granted(pieces), (vec!["read".into()], 4));
    // Short words occur in any long secret.
    assert_eq!(granted("token Secret day").1, 0);
}

#[test]
fn trap_48_scopes_are_bounded_in_number_and_length() {
    let many: Vec<String> = (0..300).map(|number| format!("s{number}")).collect();
    let (shown, withheld) = granted(&many.join(" "));
    assert_eq!((shown.len(), withheld), (256, 44));
    let long = "x".repeat(257);
    assert_eq!(granted(&format!("{long} a")), (vec!["a".into()], 1));
    let (shown, withheld) = granted(&vec!["x".repeat(256); 40].join(" "));
    assert_eq!((shown.len(), withheld), (32, 8));
    assert_eq!(
        granted("caf\u{e9} a\u{7}b \"q\" back\\slash a"),
        (vec!["a".into()], 4)
    );
}

#[test]
fn trap_48_an_access_token_that_is_the_secret_is_refused() {
    for token in [
        SECRET.to_owned(),
        format!("v1.{SECRET}"),
        SECRET[..20].into(),
    ] {
        let message = permanent(body(
            &json!({ "access_token": token, "token_type": "Bearer" }),
        ));
        assert!(
            message.contains("what the client proves itself with"),
            "{message}"
        );
        assert!(!message.contains(&SECRET[..8]), "{message}");
    }
}

#[test]
fn trap_48_a_thumbprint_that_is_the_secret_is_none() {
    let bound = |print: &str| {
        let token = jwt(&json!({ "cnf": { "x5t#S256": print } }));
        body(&json!({ "access_token": token, "token_type": "Bearer" })).unwrap()
    };
    assert_eq!(bound(SECRET).confirmation, None);
    assert_eq!(bound("abc").confirmation.as_deref(), Some("abc"));
}

#[test]
fn trap_48_an_error_beside_a_token_does_not_repeat_it() {
    let both = json!({ "access_token": "a_lower_case_token", "token_type": "Bearer", "error": "lower_case_token" });
    let message = transient(body(&both));
    assert!(!message.contains("lower_case"), "{message}");
}

fn with_expires_in(expires_in: Value) -> Result<Lifetime, Failure> {
    body(&json!({ "access_token": "t", "token_type": "Bearer", "expires_in": expires_in }))
        .map(|issued| issued.lifetime)
}

fn seconds(seconds: u64) -> Lifetime {
    Lifetime::For(Duration::from_secs(seconds))
}

#[test]
fn trap_38_no_expires_in() {
    assert_eq!(with_expires_in(Value::Null).unwrap(), Lifetime::Unknown);
}

#[test]
fn trap_38_expires_in_as_a_string() {
    assert_eq!(with_expires_in(json!("3600")).unwrap(), seconds(3600));
}

#[test]
fn trap_38_expires_in_zero_or_negative() {
    for dead in [json!(0), json!(-1), json!("0"), json!("-60"), json!(0.2)] {
        let failure = with_expires_in(dead).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Transient);
        assert!(failure.message.contains("says it is already expired"));
    }
    let failure = with_expires_in(json!("soon")).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient);
}

#[test]
fn trap_38_expires_in_of_a_hundred_years() {
    for endless in [
        json!(3_153_600_000_u64),
        json!("9".repeat(40)),
        json!(1e200),
    ] {
        assert_eq!(with_expires_in(endless).unwrap(), seconds(365 * 86_400));
    }
}

#[test]
fn trap_38_opaque_and_jwt_tokens() {
    let token = jwt(&json!({ "exp": NOW + 100 }));
    let text =
        json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600 }).to_string();
    let mut response = answer(200, text.as_bytes());
    assert_eq!(ask(&response).unwrap().lifetime, seconds(100));
    // The issuer's clock is 40 s behind ours, and its Date says so.
    response.date = Some("Tue, 24 Nov 2026 03:28:20 GMT");
    let issued = ask(&response).unwrap();
    assert_eq!(issued.lifetime, seconds(139));
    assert_eq!(issued.clock_skew, Some(-40));
    response.date = Some("Tue, 24 Nov 2026 03:29:31 GMT");
    let issued = ask(&response).unwrap();
    assert_eq!(issued.lifetime, seconds(68));
    assert_eq!(issued.clock_skew, Some(30));
    response.date = Some(DATE);
    assert_eq!(ask(&response).unwrap().clock_skew, Some(0));
    let old = jwt(&json!({ "exp": NOW - 1 }));
    let message = transient(body(
        &json!({ "access_token": old, "token_type": "Bearer", "expires_in": 3600 }),
    ));
    assert!(message.contains("already expired"), "{message}");
}

#[test]
fn trap_38_truncated_html_and_array_bodies_with_status_200() {
    let whole = json!({ "access_token": "t", "token_type": "Bearer" }).to_string();
    for bad in [
        &whole[..whole.len() - 1],
        "",
        "[]",
        "\"t\"",
        "null",
        "<html>Login</html>",
        "access_token=t",
    ] {
        let mut response = answer(200, bad.as_bytes());
        response.content_type = Some("text/HTML; charset=x");
        let message = transient(ask(&response));
        assert!(message.contains("(text/html)"), "{message}");
        assert!(message.contains("check"), "{message}");
    }
    for (content_type, expected) in [
        (None, "(no content type)"),
        (
            Some("text/MarkerSecret-0123456789"),
            "(a content type that is not shown here)",
        ),
        (
            Some("te\txt/ht\u{7}ml"),
            "(a content type that is not shown here)",
        ),
        (Some("nonsense"), "(a content type that is not shown here)"),
    ] {
        let mut response = answer(200, b"x");
        response.content_type = content_type;
        let message = transient(ask(&response));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_token_beside_an_error_is_not_served() {
    let with = |error: Value| {
        body(&json!({
            "access_token": "t", "token_type": "Bearer", "expires_in": 60, "error": error,
        }))
    };
    let message = transient(with(json!("access_denied")));
    assert!(message.contains("an error (access_denied)"), "{message}");
    for error in [json!(SECRET), json!({}), json!(1), json!(true)] {
        let message = transient(with(error));
        assert!(
            message.contains("an error and an access_token"),
            "{message}"
        );
    }
    for nothing in [Value::Null, json!("")] {
        assert!(with(nothing).is_ok());
    }
}

#[test]
fn a_date_of_1970_gives_no_expired_token_a_year() {
    let old = jwt(&json!({ "exp": NOW - 100 }));
    let text = json!({ "access_token": old, "token_type": "Bearer" }).to_string();
    let mut response = answer(200, text.as_bytes());
    response.date = Some("Thu, 01 Jan 1970 00:00:00 GMT");
    let message = transient(ask(&response));
    assert!(
        message
            .contains("expired by the clock of this machine and not by the answer's Date header"),
        "{message}"
    );
}

#[test]
fn trap_38_a_huge_body() {
    let mut response = answer(200, b"");
    response.body = None;
    let message = transient(ask(&response));
    assert!(message.contains("more than 64 KiB"), "{message}");
    response.status = 401;
    assert!(permanent(ask(&response)).contains("refused the client (HTTP 401)"));
}

#[test]
fn trap_38_a_redirect_names_only_the_origin() {
    for status in [301, 302, 303, 307, 308] {
        let mut response = answer(status, b"");
        response.location = Some("https://login.example:444/path?secret=1#f");
        let message = transient(ask(&response));
        assert!(
            message.contains("a redirect to https://login.example:444,"),
            "{message}"
        );
        assert!(
            !message.contains("secret=1") && !message.contains("/path"),
            "{message}"
        );
    }
    for (location, expected) in [
        (Some("/elsewhere"), "https://idp.example,"),
        (
            Some("https://markersecret-0123456789.example/"),
            "a place that is not shown here",
        ),
        (Some("data:text/html,x"), "a place that it does not name"),
        (None, "a place that it does not name"),
    ] {
        let mut response = answer(302, b"");
        response.location = location;
        let message = transient(ask(&response));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn trap_38_a_token_that_splits_a_header() {
    for token in [
        "xq7\r\nX: y",
        "xq7 b",
        "xq7\tb",
        "xq7\u{7f}",
        "xq7ö",
        "xq7\0",
        " xq7",
        "xq7\n",
    ] {
        let message = transient(body(
            &json!({ "access_token": token, "token_type": "Bearer" }),
        ));
        assert!(message.contains("cannot stand in a header"), "{message}");
        assert!(!message.contains("xq7"), "{message}");
    }
}

#[test]
fn trap_1_never_a_success_without_a_token() {
    for value in [
        json!({}),
        json!({ "access_token": "", "token_type": "Bearer", "expires_in": 3600 }),
        json!({ "access_token": null, "token_type": "Bearer" }),
        json!({ "access_token": 7, "token_type": "Bearer" }),
        json!({ "access_token": ["t"], "token_type": "Bearer" }),
        json!({ "token": "t", "token_type": "Bearer" }),
        json!({ "error": "invalid_client" }),
    ] {
        transient(body(&value));
    }
    let whole =
        json!({ "access_token": "t", "token_type": "Bearer", "expires_in": 60 }).to_string();
    for status in [
        0, 100, 201, 202, 204, 206, 301, 400, 401, 403, 404, 418, 429, 500, 503, 999,
    ] {
        assert!(ask(&answer(status, whole.as_bytes())).is_err(), "{status}");
    }
}

#[test]
fn only_bearer_tokens_are_understood() {
    for ok in ["Bearer", "bearer", "BEARER"] {
        assert!(body(&json!({ "access_token": "t", "token_type": ok })).is_ok());
    }
    let message = permanent(body(&json!({ "access_token": "t", "token_type": "dpop" })));
    assert!(message.contains("type DPoP"), "{message}");
    let message = permanent(body(&json!({ "access_token": "t", "token_type": SECRET })));
    assert!(message.contains("type unknown"), "{message}");
    for missing in [
        json!({ "access_token": "t" }),
        json!({ "access_token": "t", "token_type": 1 }),
    ] {
        assert!(transient(body(&missing)).contains("token_type"));
    }
}

#[test]
fn bound_tokens_are_served_with_their_thumbprint_or_refused() {
    let token =
        jwt(&json!({ "cnf": { "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" } }));
    let text = json!({ "access_token": token, "token_type": "Bearer" }).to_string();
    let issued = ask(&answer(200, text.as_bytes())).unwrap();
    assert_eq!(
        issued.confirmation.as_deref(),
        Some("bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2")
    );
    let message = permanent(ask_with(&answer(200, text.as_bytes()), true));
    assert!(message.contains("bound_tokens"), "{message}");
    let free = json!({ "access_token": jwt(&json!({})), "token_type": "Bearer" }).to_string();
    assert!(ask_with(&answer(200, free.as_bytes()), true).is_ok());
}

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
            // A gateway's answer.
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
    // A status that means trouble stays transient whatever the code says.
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
        let seen = super::errors::code_of(&answer, &[&secret]);
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

#[test]
fn the_cure_knows_the_client_authentication() {
    let endpoint = Url::parse("https://idp.example/token").unwrap();
    for (client_auth, expected) in [
        ("private_key_jwt", "assertion"),
        ("client_secret_jwt", "client_secret"),
        ("tls_client_auth", "tls.certificate"),
        ("none", "public client"),
    ] {
        let asked = Asked {
            endpoint: &endpoint,
            at: &crate::core::oauth::withhold::place(&endpoint),
            client_auth,
            scopes: &[],
            refuse_bound: false,
            secrets: &[],
            asked_at: stamp(NOW),
            now: stamp(NOW),
        };
        let refused = judge(&answer(401, br#"{"error":"invalid_client"}"#), &asked);
        let message = permanent(refused.map(|granted| granted.issued));
        assert!(message.contains(expected), "{message}");
    }
}

/// JSON that is nearly an answer, so that the random bodies get past the parser.
fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        any::<i64>().prop_map(|number| json!(number)),
        any::<f64>().prop_map(|number| json!(number)),
        any::<String>().prop_map(|text| json!(text)),
        Just(json!("Bearer")),
        Just(json!(jwt(
            &json!({ "exp": u64::MAX, "iat": -1, "cnf": {} })
        ))),
        Just(Value::Null),
    ];
    const NAMES: [&str; 6] = [
        "access_token",
        "token_type",
        "expires_in",
        "scope",
        "error",
        "error_description",
    ];
    let object = proptest::collection::vec((proptest::sample::select(&NAMES[..]), scalar), 0..8)
        .prop_map(|fields| {
            let fields: Map<String, Value> = fields
                .into_iter()
                .map(|(name, value)| (name.into(), value))
                .collect();
            Value::Object(fields).to_string().into_bytes()
        });
    prop_oneof![any::<Vec<u8>>(), object]
}

proptest! {
    #[test]
    fn whatever_comes_there_is_no_panic_and_no_bad_token(
        status in prop_oneof![Just(200_u16), any::<u16>()],
        content_type in any::<Option<String>>(),
        content_encoding in any::<Option<String>>(),
        date in proptest::option::of(prop_oneof![Just(DATE.to_owned()), any::<String>(), "[A-Za-z0-9,: -]{0,40}"]),
        retry_after in any::<Option<String>>(),
        location in any::<Option<String>>(),
        body in proptest::option::of(bodies()),
        refuse_bound: bool,
    ) {
        let response = Response {
            status,
            content_type: content_type.as_deref(),
            content_encoding: content_encoding.as_deref(),
            date: date.as_deref(),
            retry_after: retry_after.as_deref(),
            location: location.as_deref(),
            body: body.as_deref(),
        };
        match ask_with(&response, refuse_bound) {
            Ok(issued) => {
                prop_assert_eq!(status, 200);
                prop_assert!(fits_header(issued.token.expose()));
                if let Lifetime::For(life) = issued.lifetime {
                    prop_assert!(!life.is_zero() && life <= Duration::from_secs(365 * 86_400));
                }
            }
            Err(failure) => {
                prop_assert!(!failure.message.chars().any(char::is_control));
                prop_assert!(failure.message.len() < 1000);
            }
        }
    }
}
