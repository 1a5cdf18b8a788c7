//! HTTP/1.1 and JSON on the socket: which callers are refused for any request, and which requests
//! are valid.

use std::io::Write;
use std::time::Duration;

use serde_json::json;
use tokend::proto::GetTokenRequest;
use tokend_issuer::Settings;
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::faults::{Fault, Times};

use crate::harness::ask::{after_long_body, connect, exchange, get};
use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually};

const NONE: &str = "[profiles.p]\nmethod = \"none\"\n";

#[test]
fn browsers_and_foreign_hosts_are_refused_and_nothing_is_cached() {
    let daemon = Daemon::start(NONE);
    let path = "/v1/profiles/p/token";
    for host in [
        "tokend",
        "localhost",
        "LOCALHOST:8080",
        "127.0.0.1",
        "[::1]",
        "127.0.0.1:1",
    ] {
        let answer = daemon.http(None, "GET", path, &format!("Host: {host}\r\n"));
        assert_eq!(answer.status, 200, "{host}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for head in [
        "Host: evil.example\r\n",
        "Host: tokend.evil.example\r\n",
        "Host: 127.0.0.1.evil.example\r\n",
        "Host: tokend\r\nOrigin: http://tokend\r\n",
        "Host: tokend\r\nOrigin: null\r\n",
        "Host: tokend\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\n",
        "Host: tokend\r\nSec-Fetch-Site: none\r\n",
        "Host:\r\n",
    ] {
        for path in [path, "/healthz", "/v1/status", "/nowhere"] {
            let answer = daemon.http(None, "GET", path, head);
            assert_eq!(answer.status, 403, "{head} {path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert_eq!(answer.refusal().code, "PERMISSION_DENIED");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }
    let absolute = daemon.http(
        None,
        "GET",
        "http://evil.example/healthz",
        "Host: tokend\r\n",
    );
    assert_eq!(absolute.status, 403);
    let preflight = daemon.http(
        None,
        "OPTIONS",
        path,
        "Host: tokend\r\nOrigin: http://x\r\n",
    );
    assert_eq!(preflight.status, 403);
}

/// Traps 52 and 58: a client may send its body while the answer is made, as Node's `fetch` does.
#[test]
fn a_refusal_arrives_however_long_the_body_is() {
    let daemon = Daemon::start(NONE);
    let node = "Sec-Fetch-Mode: cors\r\n";
    for (method, path, more, status) in [
        ("POST", "/nowhere", node, 404),
        ("POST", "/v1/profiles/p/token", node, 405),
        ("POST", "/v1/profiles/p/rejected", node, 400),
        ("POST", "/v1/status", "Origin: http://x\r\n", 403),
        ("GET", "/v1/profiles/p/token", node, 200),
    ] {
        let stream = connect(&daemon.socket(), None).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let more = format!("{more}Connection: close\r\n");
        let answer = after_long_body(stream, method, path, &more);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method} {path}: {answer}"
        );
    }
}

fn is_json_and_not_cached(
    daemon: &Daemon,
    (method, path): (&str, &str),
    status: u16,
    reason: &str,
) {
    let answer = daemon.http(None, method, path, "Host: tokend\r\n");
    assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{path}"
    );
    assert_eq!(answer.text("reason"), reason, "{method} {path}");
    if status != 200 {
        assert!(!answer.text("code").is_empty() && !answer.text("message").is_empty());
    }
    if status == 400 {
        assert_eq!(answer.text("code"), "INVALID_ARGUMENT", "{path}");
    }
}

#[test]
fn every_answer_is_json_and_never_cached() {
    let daemon = Daemon::start(NONE);
    for (method, path, status, reason) in [
        ("GET", "/healthz", 200, ""),
        ("GET", "/readyz", 200, ""),
        ("GET", "/v1/profiles", 200, ""),
        ("GET", "/v1/status", 200, ""),
        ("GET", "/v1/status?profile=p", 200, ""),
        ("GET", "/v1/profiles/p/token", 200, ""),
        ("GET", "/", 404, "PATH_NOT_FOUND"),
        ("GET", "/v2/profiles", 404, "PATH_NOT_FOUND"),
        ("GET", "/v1/profiles/p", 404, "PATH_NOT_FOUND"),
        ("GET", "/v1/profiles/p/token/", 404, "PATH_NOT_FOUND"),
        ("GET", "/v1/profiles/q/token", 404, "PROFILE_NOT_FOUND"),
        (
            "GET",
            "/v1/profiles/%2e%2e%2f/token",
            404,
            "PROFILE_NOT_FOUND",
        ),
        ("GET", "/v1/status?profile=q", 404, "PROFILE_NOT_FOUND"),
        ("POST", "/v1/profiles/p/token", 405, "METHOD_NOT_ALLOWED"),
        ("DELETE", "/v1/profiles", 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/v1/profiles/p/rejected", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/v1/profiles/p/rejected", 400, "INVALID_REQUEST"),
        (
            "GET",
            "/v1/profiles/p/token?scope=a",
            400,
            "INVALID_REQUEST",
        ),
        (
            "GET",
            "/v1/profiles/p/token?min_ttl",
            400,
            "INVALID_REQUEST",
        ),
        (
            "GET",
            "/v1/profiles/p/token?min_ttl=5",
            400,
            "INVALID_REQUEST",
        ),
        (
            "GET",
            "/v1/profiles/p/token?min_ttl=-5s",
            400,
            "INVALID_REQUEST",
        ),
        (
            "GET",
            "/v1/profiles/p/token?min_ttl=5s&min=1",
            400,
            "INVALID_REQUEST",
        ),
        (
            "GET",
            "/v1/profiles/p/token?scopes=a",
            400,
            "INVALID_REQUEST",
        ),
        (
            "GET",
            "/v1/profiles/p/token?audience=a",
            400,
            "INVALID_REQUEST",
        ),
    ] {
        is_json_and_not_cached(&daemon, (method, path), status, reason);
    }
}

#[test]
fn min_ttl_is_honoured_or_refused_and_never_undercut() {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        token_lifetime: Duration::from_secs(20),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let config = idp::idp(&issuer) + &idp::profile("it", "it", LAZY);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let with = |seconds| GetTokenRequest {
        min_ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..get("it")
    };
    let first = grpc.ask(with(10)).expect("a token");
    assert!(first.expires_in >= Some(10.0));
    // This issuer gives at most twenty seconds, less two.
    let why = grpc.ask(with(3600)).err().expect("too long");
    assert_eq!(
        (why.code.as_str(), why.reason.as_str()),
        ("OUT_OF_RANGE", "MIN_TTL_TOO_LONG")
    );
    let http = daemon.get("/v1/profiles/it/token?min_ttl=1h");
    assert_eq!(http.status, 400);
    assert_eq!(http.refusal(), why);
    let why = grpc.ask(with(-1)).err().expect("negative");
    assert_eq!(
        (why.code.as_str(), why.reason.as_str()),
        ("INVALID_ARGUMENT", "INVALID_REQUEST")
    );
    let why = grpc.ask(get("")).err().expect("no profile");
    assert_eq!(why.code, "INVALID_ARGUMENT");
    assert_eq!(
        issuer.count("/token"),
        1,
        "nothing of this was worth a request"
    );
    // Fifteen seconds are more than what is left of the first token, and less than a new one has.
    // By then a tenth of its life is over.
    let longer = eventually(PATIENCE, || {
        let left = grpc.token("it").ok()?.expires_in?;
        (left < 15.0).then_some(())?;
        grpc.ask(with(15)).ok()
    });
    assert!(longer.expires_in >= Some(15.0), "{:?}", longer.expires_in);
    assert_ne!(longer.credential.token, first.credential.token);
    assert_eq!(issuer.count("/token"), 2);
    // While the issuer fails, a `min_ttl` that is not met gives "unavailable". Callers that want
    // less are still served from what is there.
    issuer.script(Fault::Html200, Times::Always);
    let why = eventually(PATIENCE, || {
        let left = grpc.token("it").expect("served").expires_in?;
        (left < 15.0).then(|| grpc.ask(with(15)).err()).flatten()
    });
    assert_eq!(
        (why.code.as_str(), why.reason.as_str()),
        ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
    );
    assert!(why.retry_after.is_some());
    assert_eq!(
        grpc.token("it").expect("served").credential.token,
        longer.credential.token
    );
}

#[test]
fn a_min_ttl_that_is_just_missed_does_not_cost_one_token_after_the_other() {
    let (issuer, place, config) = idp::one(LAZY);
    // The issuer's clock counts whole seconds, so a token lives up to a second longer than it says.
    // The answer takes longer than the rest of that second.
    let slow = Fault::SlowHeaders(Duration::from_millis(50));
    issuer.script(slow, Times::Always);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let granted = |seconds| GetTokenRequest {
        min_ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..get("it")
    };
    // The issuer gives 300 s. One goes for the whole seconds of its clock, five for the margin.
    let why = grpc.ask(granted(294)).err().expect("it arrives with less");
    let reasons = ["UPSTREAM_UNAVAILABLE", "MIN_TTL_TOO_LONG"];
    assert!(reasons.contains(&why.reason.as_str()), "{why:?}");
    assert_eq!(issuer.count("/token"), 1);
    assert!(grpc.token("it").is_ok());
}

/// Broken by a `life_for` that gives the profile's own life to every variant.
#[test]
fn trap_25_other_scopes_and_audiences_are_other_tokens_and_only_those_allowed() {
    let (issuer, place, config) = idp::one(&format!(
        "scopes = [\"base\"]\naudience = \"api\"\n{LAZY}\n\
         request = {{ scopes = [\"read\", \"write\"], audiences = [\"other\"] }}"
    ));
    place.secret("twin.secret", SECRET);
    issuer.set_client(RegisteredClient::with_secret("twin", SECRET));
    let config = config + &idp::profile("twin", "twin", LAZY);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let with = |scopes: &[&str], audience: &str| GetTokenRequest {
        scopes: scopes.iter().map(ToString::to_string).collect(),
        audience: audience.into(),
        ..get("it")
    };
    let ask = |scopes: &[&str], audience: &str| {
        let token = grpc
            .ask(with(scopes, audience))
            .expect("allowed")
            .credential;
        let claims = idp::claims(&issuer, None, &token.token);
        (token, claims)
    };
    let (own, claims) = ask(&[], "");
    assert_eq!(
        (&claims["scope"], &claims["aud"]),
        (&json!("base"), &json!("api"))
    );
    let (read, claims) = ask(&["read"], "");
    assert_eq!(
        (&claims["scope"], &claims["aud"]),
        (&json!("read"), &json!("api"))
    );
    assert_eq!(read.scopes, ["read"]);
    let (both, claims) = ask(&["write", "read"], "other");
    assert_eq!(
        (&claims["scope"], &claims["aud"]),
        (&json!("read write"), &json!("other"))
    );
    let (again, _) = ask(&["read", "write", "read"], "other");
    assert_eq!(again.token, both.token, "the order does not matter");
    assert_eq!(grpc.token("it").expect("own").credential.token, own.token);
    assert_eq!(issuer.count("/token"), 3);
    let twin = grpc.token("twin").expect("a token").credential.token;
    for (one, other) in [(&own, &read), (&read, &both), (&own, &both)] {
        assert_ne!(one.token, other.token);
        assert_ne!(one.fingerprint, other.fingerprint);
        assert_ne!(one.token, twin);
    }
    let http = daemon.get("/v1/profiles/it/token?scopes=write%20read&audience=other");
    assert_eq!(http.text("token"), both.token);
    let http = daemon.get("/v1/profiles/it/token?scopes=write&scopes=read&audience=other");
    assert_eq!(http.text("token"), both.token);
    for (scopes, audience) in [
        (&["admin"][..], ""),
        (&["read", "admin"], ""),
        (&[], "third"),
        (&["base"], ""),
    ] {
        let why = grpc.ask(with(scopes, audience)).err().expect("not allowed");
        assert_eq!(
            (why.code.as_str(), why.reason.as_str()),
            ("INVALID_ARGUMENT", "INVALID_REQUEST")
        );
        assert!(why.message.contains("request."), "{why:?}");
    }
    assert_eq!(issuer.count("/token"), 4);
}

/// Broken by a `rejected` that does not look at `held.rejected`.
#[test]
fn trap_13_a_rejected_token_is_replaced_once_however_many_report_it() {
    let (issuer, place, config) = idp::one("");
    let daemon = place.serve(&config);
    let first = daemon.grpc().token("it").expect("a token").credential;
    let body = json!({ "fingerprint": first.fingerprint }).to_string();
    let report = || {
        let request = format!(
            "POST /v1/profiles/it/rejected HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = exchange(&daemon.socket(), None, request.as_bytes()).expect("an answer");
        String::from_utf8(answer).expect("text")
    };
    for _ in 0..10 {
        let answer = report();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    let second = eventually(PATIENCE, || {
        let token = daemon.grpc().token("it").expect("served").credential;
        (token.token != first.token).then_some(token)
    });
    assert!(report().contains("\"replaced\":true"));
    assert!(second.generation > first.generation);
    assert_eq!(issuer.count("/token"), 2);
}

#[test]
fn what_is_no_request_ends_its_own_connection_only() {
    let daemon = Daemon::start(&format!(
        "[server.limits]\nhandshake_timeout = \"200ms\"\n{NONE}"
    ));
    let huge = format!(
        "GET /{} HTTP/1.1\r\nHost: tokend\r\n\r\n",
        "x".repeat(1 << 20)
    );
    for bytes in [
        &b"\x00\x01\x02\x03\r\n\r\n"[..],
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\ngarbage that is no frame at all, and long enough",
        huge.as_bytes(),
    ] {
        // The daemon refuses the request or cuts it off, possibly before everything was sent.
        if let Ok(answer) = exchange(&daemon.socket(), None, bytes) {
            assert!(!answer.starts_with(b"HTTP/1.1 200 "));
        }
    }
    // Half a request and then silence must not hold a place for ever.
    let mut stream = connect(&daemon.socket(), None).expect("connected");
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHo")
        .expect("sent");
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .expect("timeout");
    let mut rest = Vec::new();
    let ended = std::io::Read::read_to_end(&mut stream, &mut rest);
    let timed_out = ended.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!timed_out, "the connection is still open");
    assert_eq!(daemon.get("/healthz").status, 200);
    assert!(daemon.grpc().token("p").is_ok());
}
