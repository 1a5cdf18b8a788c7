//! An identity provider with bad answers. The daemon refuses each with its reason or copes with it,
//! and passes on nothing of what the answer says (traps 1, 31, 32 and 38).

use std::time::{Duration, Instant};

use serde_json::json;
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::faults::{Fault, Target, Times};

use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually};

/// A body that must not be repeated.
const INNER: &str = "inner text of <the> answer";

/// The result of a bad answer.
enum Outcome {
    /// The code, the reason and a part of the message.
    Refused(&'static str, &'static str, &'static str),
    /// A credential whose `expires_in` lies between these.
    Served(f64, f64),
}
use Outcome::{Refused, Served};

const TRANSIENT: &str = "UPSTREAM_UNAVAILABLE";
const PERMANENT: &str = "UPSTREAM_REJECTED";

fn status(status: u16, kind: &str, body: &str) -> Fault {
    Fault::Status {
        status,
        body: body.into(),
        headers: vec![("Content-Type".into(), kind.into())],
    }
}

fn opaque(also: Fault) -> Fault {
    Fault::All(vec![Fault::token(Some("opaque-token.value")), also])
}

fn unavailable(part: &'static str) -> Outcome {
    Refused("UNAVAILABLE", TRANSIENT, part)
}

fn rejected(part: &'static str) -> Outcome {
    Refused("FAILED_PRECONDITION", PERMANENT, part)
}

fn cases(redirect: &str) -> Vec<(&'static str, Fault, Outcome)> {
    let mut all = errors();
    all.extend(torn(redirect));
    all.extend(tokens());
    all.extend(lifetimes());
    all
}

/// Answers that refuse, or are about something else.
fn errors() -> Vec<(&'static str, Fault, Outcome)> {
    let error = format!("{{\"error\":\"{INNER}\",\"error_description\":\"{INNER}\"}}");
    vec![
        (
            "html",
            Fault::Html200,
            unavailable("not with a JSON object (text/html)"),
        ),
        (
            "html-as-json",
            status(200, "application/json", INNER),
            unavailable("not with a JSON object"),
        ),
        (
            "array",
            status(200, "application/json", "[1]"),
            unavailable("not with a JSON object"),
        ),
        (
            "empty-body",
            status(200, "application/json", ""),
            unavailable("not with a JSON object"),
        ),
        (
            "error-200",
            status(200, "application/json", &error),
            unavailable("without an access_token"),
        ),
        (
            "s500",
            status(500, "text/plain", INNER),
            unavailable("HTTP 500"),
        ),
        (
            "s503",
            status(503, "application/json", &error),
            unavailable("HTTP 503"),
        ),
        (
            "s404",
            status(404, "text/html", INNER),
            unavailable("check token_url or issuer"),
        ),
        (
            "patience",
            Fault::RetryAfter(429, Duration::from_secs(7)),
            unavailable("asks for patience"),
        ),
        (
            "client",
            Fault::oauth_error("invalid_client"),
            rejected("check client_id, client_secret"),
        ),
        (
            "scope",
            Fault::oauth_error("invalid_scope"),
            rejected("check scopes"),
        ),
        (
            "grant",
            Fault::oauth_error("unauthorized_client"),
            rejected("allow it"),
        ),
        ("echo", Fault::EchoSecret, rejected("withheld")),
    ]
}

/// Answers that are too long, break off, do not come, or redirect.
fn torn(redirect: &str) -> Vec<(&'static str, Fault, Outcome)> {
    vec![
        (
            "big",
            Fault::BigBody(10 << 20),
            unavailable("more than 64 KiB"),
        ),
        (
            "endless",
            Fault::EndlessBody,
            unavailable("more than 64 KiB"),
        ),
        (
            "truncated",
            Fault::Truncated,
            unavailable("closed in the middle"),
        ),
        (
            "closed",
            Fault::CloseConnection,
            unavailable("closed before message completed"),
        ),
        (
            "hang",
            Fault::Hang,
            unavailable("no complete answer within 1s"),
        ),
        (
            "drip",
            Fault::SlowBody(Duration::from_millis(100)),
            unavailable("no complete answer within 1s"),
        ),
        (
            "redirect",
            Fault::Redirect {
                status: 307,
                location: redirect.into(),
            },
            unavailable("credentials never follow"),
        ),
        (
            "redirect-302",
            Fault::Redirect {
                status: 302,
                location: redirect.into(),
            },
            unavailable("credentials never follow"),
        ),
    ]
}

/// Tokens that cannot be used.
fn tokens() -> Vec<(&'static str, Fault, Outcome)> {
    vec![
        (
            "crlf",
            Fault::token(Some("abc\r\nX-Injected: yes")),
            unavailable("cannot stand in a header"),
        ),
        (
            "control",
            Fault::token(Some("abc\u{0}def")),
            unavailable("cannot stand in a header"),
        ),
        (
            "blank",
            Fault::token(Some("abc def")),
            unavailable("cannot stand in a header"),
        ),
        (
            "umlaut",
            Fault::token(Some("abc\u{e4}")),
            unavailable("cannot stand in a header"),
        ),
        (
            "empty",
            Fault::token(Some("")),
            unavailable("empty access_token"),
        ),
        (
            "missing",
            Fault::token(None),
            unavailable("without an access_token"),
        ),
        (
            "number",
            Fault::field("access_token", Some("17")),
            unavailable("without an access_token"),
        ),
        (
            "mac",
            Fault::token_type(Some("mac")),
            rejected("of type mac"),
        ),
        (
            "dpop",
            Fault::token_type(Some("DPoP")),
            rejected("of type DPoP"),
        ),
        (
            "odd-type",
            Fault::token_type(Some(INNER)),
            rejected("of type unknown"),
        ),
        (
            "no-type",
            Fault::token_type(None),
            unavailable("without a token_type"),
        ),
    ]
}

/// Possible and impossible lifetimes.
fn lifetimes() -> Vec<(&'static str, Fault, Outcome)> {
    vec![
        (
            "zero",
            Fault::expires_in(Some("0")),
            unavailable("already expired"),
        ),
        (
            "negative",
            Fault::expires_in(Some("-1")),
            unavailable("already expired"),
        ),
        (
            "nonsense",
            Fault::expires_in(Some("\"soon\"")),
            unavailable("not a number"),
        ),
        (
            "lower",
            Fault::token_type(Some("bearer")),
            Served(280.0, 295.0),
        ),
        (
            "text",
            opaque(Fault::expires_in(Some("\"3600\""))),
            Served(3580.0, 3595.0),
        ),
        (
            "fraction",
            opaque(Fault::expires_in(Some("100.9"))),
            Served(90.0, 95.0),
        ),
        (
            "century",
            opaque(Fault::expires_in(Some("3153600000"))),
            Served(364.0 * 86400.0, 365.0 * 86400.0),
        ),
        (
            "for-ever",
            opaque(Fault::expires_in(Some("1e99"))),
            Served(364.0 * 86400.0, 365.0 * 86400.0),
        ),
        // The token itself says five minutes, which counts more than the fields beside it.
        (
            "liar",
            Fault::expires_in(Some("3153600000")),
            Served(280.0, 295.0),
        ),
        ("by-exp", Fault::expires_in(None), Served(280.0, 295.0)),
        // Neither says, so the configured default of five minutes holds.
        (
            "opaque",
            opaque(Fault::expires_in(None)),
            Served(280.0, 295.0),
        ),
    ]
}

#[test]
fn traps_1_31_32_38_no_bad_answer_becomes_a_credential_or_a_secret_in_a_message() {
    let elsewhere = idp::issuer(vec![RegisteredClient::with_secret("redirect", SECRET)]);
    let cases = cases(&elsewhere.token_url());
    let clients = cases
        .iter()
        .map(|(name, ..)| RegisteredClient::with_secret(name, SECRET));
    let issuer = idp::issuer(clients.collect());
    let place = Place::new();
    let mut config = idp::idp(&issuer);
    for (name, fault, _) in &cases {
        place.secret(&format!("{name}.secret"), SECRET);
        issuer.script_for(Target::Client((*name).into()), fault.clone(), Times::Always);
        config += &idp::profile(name, name, "");
    }
    place.secrets.add(INNER);
    place.secrets.add("X-Injected");
    let daemon = place.serve(&config);
    for (name, _, outcome) in &cases {
        match outcome {
            Refused(code, reason, part) => refused(&daemon, name, (code, reason, part)),
            Served(least, most) => {
                let token = daemon.grpc().token(name);
                let token = token.unwrap_or_else(|why| panic!("{name}: {why:?}"));
                let left = token.expires_in.expect("it expires");
                assert!((*least..=*most).contains(&left), "{name}: {left}");
                assert!(!token.credential.token.is_empty());
                assert_eq!(
                    token.credential.authorization,
                    format!("Bearer {}", token.credential.token)
                );
                assert_eq!(daemon.http_token(name).status, 200);
            }
        }
    }
    assert_eq!(elsewhere.count("/token"), 0, "redirects are not followed");
    assert_eq!(elsewhere.connections(), 0);
    // Status repeats what was reported before; the harness searches it for secrets.
    let status = daemon.get("/v1/status");
    assert_eq!(
        status.body["profiles"].as_array().map(Vec::len),
        Some(cases.len())
    );
    daemon.get("/readyz");
    let ran = daemon.place.run(&["status"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    daemon
        .place
        .secrets
        .assert_none_in(&ran.out, "tokend status");
}

fn refused(daemon: &Daemon, name: &str, (code, reason, part): (&str, &str, &str)) {
    let why = daemon.grpc().token(name).err();
    let why = why.unwrap_or_else(|| panic!("{name}: a success"));
    assert_eq!(
        (why.code.as_str(), why.reason.as_str()),
        (code, reason),
        "{name}: {why:?}"
    );
    assert!(
        why.message.contains(&format!("profile {name}:")),
        "{name}: {why:?}"
    );
    assert!(why.message.contains(part), "{name}: {why:?}");
    assert!(
        why.retry_after.is_some_and(|after| !after.is_zero()),
        "{name}: {why:?}"
    );
    let oauth_error = match name {
        "client" => Some("invalid_client"),
        "scope" => Some("invalid_scope"),
        "grant" => Some("unauthorized_client"),
        _ => None,
    };
    assert_eq!(why.oauth_error.as_deref(), oauth_error, "{name}");
    if name == "patience" {
        let after = why.retry_after.unwrap_or_default();
        assert!(
            after > Duration::from_secs(3) && after <= Duration::from_secs(7),
            "{after:?}"
        );
    }

    let http = daemon.http_token(name);
    let status = if reason == TRANSIENT { 503 } else { 424 };
    assert_eq!(http.status, status, "{name}: {http:?}");
    assert_eq!(
        http.header("retry-after").is_some(),
        status == 503,
        "{name}"
    );
    assert_eq!(http.header("cache-control"), Some("no-store"));
    assert_eq!(http.body["token"], json!(null), "{name}");
    let same = http.refusal();
    assert_eq!((same.code, same.reason), (why.code, why.reason), "{name}");
    assert_eq!(same.message, why.message, "{name}");
    assert_eq!(same.oauth_error, why.oauth_error, "{name}");
}

#[test]
fn bad_discovery_is_refused_and_asked_again() {
    let (issuer, place, config) = idp::one("");
    let well_known = || Target::Path("/.well-known/openid-configuration".into());
    let first = issuer_of("http://127.0.0.1:1/elsewhere");
    issuer.script_for(well_known(), first, Times::Next(1));
    issuer.script_for(well_known(), Fault::Html200, Times::Always);
    issuer.script_for(
        Target::Path("/.well-known/oauth-authorization-server".into()),
        Fault::Html200,
        Times::Always,
    );
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let why = grpc.token("it").err().expect("another issuer");
    assert_eq!(why.reason, PERMANENT, "{why:?}");
    assert!(why.message.contains("issuer"), "{why:?}");
    // The second opinion finds no document at all.
    let why = eventually(PATIENCE, || {
        grpc.token("it").err().filter(|why| why.reason == TRANSIENT)
    });
    assert!(why.message.contains("no discovery document"), "{why:?}");
    assert_eq!(issuer.count("/token"), 0);
    issuer.clear_script();
    eventually(PATIENCE, || grpc.token("it").ok());
}

fn issuer_of(url: &str) -> Fault {
    Fault::wrong_issuer(url)
}

/// Broken by a `failed` without `earliest.max(now + pause)`.
#[test]
fn trap_9_failures_are_not_repeated_in_a_hot_loop() {
    let (issuer, place, config) = idp::one("");
    issuer.script(Fault::Html200, Times::Always);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    eventually(PATIENCE, || (issuer.count("/token") >= 1).then_some(()));
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < Duration::from_millis(1500) {
        assert!(grpc.token("it").is_err());
        calls += 1;
    }
    // The daemon asks once at the start and then at most once a second, however many callers ask.
    let asked = issuer.count("/token");
    assert!(calls > 20 && asked <= 3, "{calls} calls, {asked} requests");
}

/// Broken by a `probe_pause` without the second opinion.
#[test]
fn trap_14_a_refusal_while_the_identity_provider_starts_costs_seconds_only() {
    let (issuer, place, config) = idp::one(LAZY);
    issuer.script(Fault::oauth_error("invalid_client"), Times::Next(1));
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let why = grpc.token("it").err().expect("refused");
    assert_eq!(why.oauth_error.as_deref(), Some("invalid_client"));
    assert!(
        why.retry_after
            .is_some_and(|after| after <= Duration::from_secs(4)),
        "{why:?}"
    );
    eventually(PATIENCE, || grpc.token("it").ok());
    assert_eq!(issuer.count("/token"), 2);
}
