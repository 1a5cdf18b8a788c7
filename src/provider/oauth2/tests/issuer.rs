//! Discovery.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::json;

use super::server::{Act, Refusing, Seen, Server, answer, good_token, json};
use super::*;
use crate::core::time::{BootTime, Stamp, WallTime};

const OIDC: &str = "GET /realms/a/.well-known/openid-configuration";
const RFC_8414: &str = "GET /.well-known/oauth-authorization-server/realms/a";

/// The server's own document, whatever its port.
fn document(seen: &Seen) -> Act {
    let base = format!("http://{}", seen.header("host").unwrap());
    json(
        &json!({ "issuer": format!("{base}/realms/a"), "token_endpoint": format!("{base}/token") }),
    )
}

fn settings(server: &Server) -> OAuth2 {
    oauth(
        at_issuer(&server.url("/realms/a")),
        ClientAuth::SecretBasic(secret()),
    )
}

/// A clock that is moved by hand.
#[derive(Clone)]
struct Hand(Arc<Mutex<Duration>>);

impl Hand {
    fn shared() -> (Hand, Shared) {
        let hand = Hand(Arc::new(Mutex::new(Duration::from_secs(1000))));
        let read = hand.clone();
        let clock = Clock::given(move || Stamp {
            boot: BootTime(*read.0.lock().unwrap()),
            wall: WallTime(Duration::from_secs(1_795_490_940)),
        });
        (hand, Shared::new(clock))
    }

    fn forward(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

async fn ok(provider: &Arc<dyn Provider>) {
    provider.fetch(&Variant::default()).await.unwrap();
}

#[tokio::test]
async fn the_token_endpoint_is_discovered_once_and_shared_by_profiles() {
    let server = Server::plain(|seen| match seen.line() {
        OIDC => document(seen),
        "POST /token" => good_token(),
        _ => answer(404, "", ""),
    })
    .await;
    let shared = shared();
    for _ in 0..3 {
        ok(&provider_with(settings(&server), &shared).unwrap()).await;
    }
    // The pool has weak references. The document goes with the last profile, so one is kept here.
    let kept = provider_with(settings(&server), &shared).unwrap();
    ok(&kept).await;
    ok(&provider_with(settings(&server), &shared).unwrap()).await;
    let looks = server.lines().iter().filter(|line| *line == OIDC).count();
    assert_eq!(looks, 4, "{:?}", server.lines());
}

#[tokio::test]
async fn trap_48_a_token_endpoint_elsewhere_is_asked_and_remarked() {
    let tokens = Server::plain(|_| good_token()).await;
    let there = tokens.url("/token");
    let server = Server::plain(move |seen| {
        let issuer = format!("http://{}/realms/a", seen.header("host").unwrap());
        json(&json!({ "issuer": issuer, "token_endpoint": there }))
    })
    .await;
    let provider = provider(settings(&server));
    assert_eq!(provider.remarks(), [], "nothing is known yet");
    ok(&provider).await;
    let remarks = provider.remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    let told = format!(
        "issuer: its document leads token requests, and with them the client's secret or assertion, to \
                        another origin ({})",
        tokens.url("")
    );
    assert!(remarks[0].to_string().starts_with(&told), "{remarks:?}");
}

#[tokio::test]
async fn rfc_8414s_place_is_the_second_choice() {
    for (first, body) in [
        (404, ""),
        (401, ""),
        (403, ""),
        (405, ""),
        (200, "<html>"),
        (200, r#"{"status":"starting"}"#),
    ] {
        let server = Server::plain(move |seen| match seen.line() {
            OIDC => answer(first, "", body),
            RFC_8414 => document(seen),
            _ => good_token(),
        })
        .await;
        fetch(settings(&server)).await.unwrap();
        assert_eq!(server.lines(), [OIDC, RFC_8414, "POST /token"]);
    }
    let server = Server::plain(|_| answer(404, "", "")).await;
    let message = transient(fetch(settings(&server)).await);
    assert!(message.contains("no discovery document at"), "{message}");
}

/// Broken by `look` that takes a document without its members for a foreign one.
#[tokio::test]
async fn trap_14_an_issuer_that_is_starting_is_no_permanent_failure() {
    for body in [
        r#"{"status":"starting"}"#,
        r#"{"issuer":"","token_endpoint":"https://idp.example/token"}"#,
    ] {
        let server = Server::plain(move |_| answer(200, "", body)).await;
        let message = transient(fetch(settings(&server)).await);
        assert_eq!(server.lines(), [OIDC, RFC_8414]);
        for line in [OIDC, RFC_8414] {
            let path = line.strip_prefix("GET ").unwrap();
            assert!(message.contains(path), "{message}");
        }
    }
    for patience in [408, 429] {
        let server = Server::plain(move |_| answer(patience, "", "")).await;
        transient(fetch(settings(&server)).await);
        assert_eq!(server.lines(), [OIDC], "{patience}");
    }
}

/// Broken by `document` that returns the last failure whenever there is one.
#[tokio::test]
async fn trap_34_discovery_that_failed_is_done_again() {
    let up = Arc::new(AtomicBool::new(false));
    let seen_up = up.clone();
    let server = Server::plain(
        move |seen| match (seen_up.load(Ordering::Relaxed), seen.line()) {
            (false, _) => answer(503, "retry-after: 7\r\n", ""),
            (true, OIDC) => document(seen),
            (true, _) => good_token(),
        },
    )
    .await;
    let provider = provider(settings(&server));
    let failure = provider.fetch(&Variant::default()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Transient);
    assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    up.store(true, Ordering::Relaxed);
    ok(&provider).await;
}

#[tokio::test]
async fn a_document_is_renewed_after_an_hour_and_an_old_one_is_better_than_none() {
    let up = Arc::new(AtomicBool::new(true));
    let seen_up = up.clone();
    let server = Server::plain(move |seen| match seen.line() {
        OIDC if seen_up.load(Ordering::Relaxed) => document(seen),
        OIDC => answer(500, "", ""),
        _ => good_token(),
    })
    .await;
    let (hand, shared) = Hand::shared();
    let provider = provider_with(settings(&server), &shared).unwrap();
    let looks = || server.lines().iter().filter(|line| *line == OIDC).count();
    ok(&provider).await;
    hand.forward(Duration::from_secs(3599));
    ok(&provider).await;
    assert_eq!(looks(), 1);
    hand.forward(Duration::from_secs(2));
    ok(&provider).await;
    assert_eq!(looks(), 2);
    up.store(false, Ordering::Relaxed);
    hand.forward(Duration::from_secs(3601));
    ok(&provider).await;
    assert_eq!(looks(), 3);
    ok(&provider).await;
    assert_eq!(looks(), 3, "not at every attempt");
    hand.forward(Duration::from_secs(61));
    ok(&provider).await;
    assert_eq!(looks(), 4);
}

#[tokio::test]
async fn a_token_endpoint_that_moved_is_found_again() {
    let moved = Arc::new(AtomicBool::new(false));
    let seen_moved = moved.clone();
    let server = Server::plain(move |seen| {
        let moved = seen_moved.load(Ordering::Relaxed);
        match (moved, seen.line()) {
            (false, OIDC) => document(seen),
            (true, OIDC) => {
                let base = format!("http://{}", seen.header("host").unwrap());
                json(&json!({ "issuer": format!("{base}/realms/a/"), "token_endpoint": format!("{base}/new") }))
            }
            (false, "POST /token") | (true, "POST /new") => good_token(),
            _ => answer(404, "", ""),
        }
    })
    .await;
    let provider = provider(settings(&server));
    ok(&provider).await;
    moved.store(true, Ordering::Relaxed);
    let message = transient(provider.fetch(&Variant::default()).await);
    assert!(message.contains("HTTP 404"), "{message}");
    ok(&provider).await;
    // The same holds after a connection that fails.
    let refusing = Refusing::new();
    let dead = refusing.address();
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let server = Server::plain(move |seen| match seen.line() {
        OIDC if counted.fetch_add(1, Ordering::Relaxed) == 0 => {
            let base = format!("http://{}", seen.header("host").unwrap());
            json(&json!({ "issuer": format!("{base}/realms/a"), "token_endpoint": format!("http://{dead}/token") }))
        }
        OIDC => document(seen),
        _ => good_token(),
    })
    .await;
    let provider = super::provider(settings(&server));
    let message = transient(provider.fetch(&Variant::default()).await);
    assert!(message.contains("refused"), "{message}");
    ok(&provider).await;
    assert_eq!(looks.load(Ordering::Relaxed), 2);
}

/// Broken by `document` that looks again although another look has just failed.
#[tokio::test]
async fn trap_11_many_at_once_look_once_and_share_a_failure() {
    for status in [200, 500] {
        let server = Server::plain(move |seen| match seen.line() {
            OIDC if status == 200 => document(seen),
            OIDC => answer(status, "", ""),
            _ => good_token(),
        })
        .await;
        let shared = shared();
        let providers: Vec<_> = (0..20)
            .map(|_| provider_with(settings(&server), &shared).unwrap())
            .collect();
        let tasks: Vec<_> = providers
            .into_iter()
            .map(|provider| {
                tokio::spawn(async move { provider.fetch(&Variant::default()).await.is_ok() })
            })
            .collect();
        for task in tasks {
            assert_eq!(task.await.unwrap(), status == 200);
        }
        let looks = server.lines().iter().filter(|line| *line == OIDC).count();
        assert_eq!(looks, 1);
    }
}

#[tokio::test]
async fn a_foreign_document_and_a_redirect_are_refused() {
    let server = Server::plain(|_| {
        json(&json!({ "issuer": "https://evil.example/", "token_endpoint": "https://evil.example/token" }))
    })
    .await;
    let message = permanent(fetch(settings(&server)).await);
    assert!(
        message.contains("another issuer (https://evil.example"),
        "{message}"
    );
    let server = Server::plain(|_| answer(302, "location: https://evil.example/\r\n", "")).await;
    let message = transient(fetch(settings(&server)).await);
    assert!(message.contains("HTTP 302"), "{message}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn discovery_and_token_request_stay_within_twice_the_timeout() {
    let server = Server::plain(|_| Act::SendAndHang(Vec::new())).await;
    let mut settings = settings(&server);
    settings.idp.http.timeout = Duration::from_millis(200);
    let started = std::time::Instant::now();
    let message = transient(fetch(settings).await);
    assert!(message.contains("200ms"), "{message}");
    assert!(started.elapsed() < Duration::from_secs(2));
}

/// The first place answers late with a refusal, and the second never answers. Their common timer
/// reports this in the words of every late answer.
#[tokio::test]
async fn discovery_that_is_late_in_two_places_is_told_as_every_late_answer() {
    let server = Server::plain(|seen| match seen.line() {
        OIDC => {
            std::thread::sleep(Duration::from_millis(700));
            answer(404, "", "")
        }
        _ => Act::SendAndHang(Vec::new()),
    })
    .await;
    let mut settings = settings(&server);
    settings.idp.http.timeout = Duration::from_millis(900);
    let message = transient(fetch(settings).await);
    assert!(
        message.contains("no complete answer within 900ms"),
        "{message}"
    );
}

#[tokio::test]
async fn an_unlisted_client_auth_is_mentioned_only_when_it_is_refused() {
    let good = Arc::new(AtomicBool::new(true));
    let seen_good = good.clone();
    let server = Server::plain(move |seen| match seen.line() {
        OIDC => {
            let base = format!("http://{}", seen.header("host").unwrap());
            json(&json!({
                "issuer": format!("{base}/realms/a"),
                "token_endpoint": format!("{base}/token"),
                "token_endpoint_auth_methods_supported": ["private_key_jwt"],
            }))
        }
        _ if seen_good.load(Ordering::Relaxed) => good_token(),
        _ => answer(401, "", r#"{"error":"invalid_client"}"#),
    })
    .await;
    let provider = provider(settings(&server));
    ok(&provider).await;
    good.store(false, Ordering::Relaxed);
    let message = permanent(provider.fetch(&Variant::default()).await);
    assert!(
        message.ends_with(
            "does not list client_auth client_secret_basic as supported (it lists private_key_jwt)"
        ),
        "{message}"
    );
}

#[tokio::test]
async fn a_document_in_a_coding_that_was_not_asked_for_is_named() {
    let server = Server::plain(|seen| {
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        answer(200, "content-encoding: gzip\r\n", "\u{1f}packed")
    })
    .await;
    let message = transient(fetch(settings(&server)).await);
    assert!(
        message.contains("(in the coding gzip, unasked)"),
        "{message}"
    );
}
