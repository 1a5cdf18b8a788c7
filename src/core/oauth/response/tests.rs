//! How answers of the token endpoint are judged.

mod cure;
mod failures;
mod random;

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;
use crate::core::credential::Lifetime;
use crate::core::failure::FailureKind;
use crate::core::profile::SecretRef;
use crate::core::profile::client_auth::ClientAuth;
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

/// A client of which nothing else is known.
fn suspects(auth: &ClientAuth) -> Suspects<'_> {
    Suspects {
        auth,
        issuer_known: false,
        plain: true,
        certificate: None,
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
            suspects: suspects(&ClientAuth::SecretBasic(SecretRef::Env("UNUSED".into()))),
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
    // The secret comes in pieces, each too short to tell, with the requested scope in between.
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
    // The issuer's clock is 40 s behind the daemon's, and its Date says so.
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
