//! One POST, to good servers and bad ones.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::server::{Act, Refusing, Server, answer, good_token, json};
use super::*;
use crate::core::credential::{Lifetime, Scheme};
use crate::provider::oauth2::proxy;

fn basic(url: &str) -> OAuth2 {
    oauth(at_token(url), ClientAuth::SecretBasic(secret()))
}

#[tokio::test]
async fn a_token_is_asked_for_and_comes() {
    let server = Server::plain(|_| good_token()).await;
    let mut settings = basic(&server.url("/token"));
    settings.resource = vec!["https://one.example".into(), "https://two.example".into()];
    settings.audience = Some("api".into());
    let before = Clock::system().now();
    let issued = fetch(settings).await.unwrap();
    assert_eq!(issued.token.expose(), "the-token");
    assert_eq!(issued.scheme, Scheme::Bearer);
    assert_eq!(issued.lifetime, Lifetime::For(Duration::from_secs(300)));
    assert_eq!(issued.scopes, ["read", "write"]);
    assert!(issued.asked_at.boot >= before.boot);
    let seen = server.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].line(), "POST /token");
    assert_eq!(seen[0].header("accept"), Some("application/json"));
    assert_eq!(seen[0].header("accept-encoding"), Some("identity"));
    assert_eq!(
        seen[0].header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let agent = concat!("tokend/", env!("CARGO_PKG_VERSION"));
    assert_eq!(seen[0].header("user-agent"), Some(agent));
    // base64 of orders:MarkerSecret%3A%2B%2F+%25-0123456789
    assert_eq!(
        seen[0].header("authorization"),
        Some("Basic b3JkZXJzOk1hcmtlclNlY3JldCUzQSUyQiUyRislMjUtMDEyMzQ1Njc4OQ==")
    );
    assert_eq!(seen[0].parameters("grant_type"), ["client_credentials"]);
    assert_eq!(seen[0].parameters("scope"), ["read write"]);
    assert_eq!(seen[0].parameters("audience"), ["api"]);
    assert_eq!(
        seen[0].parameters("resource"),
        ["https://one.example", "https://two.example"]
    );
    assert!(!seen[0].body.contains("client_secret"));
}

#[tokio::test]
async fn client_secret_post_and_none() {
    let server = Server::plain(|_| good_token()).await;
    let url = server.url("/token");
    fetch(oauth(at_token(&url), ClientAuth::SecretPost(secret())))
        .await
        .unwrap();
    fetch(oauth(at_token(&url), ClientAuth::None))
        .await
        .unwrap();
    let seen = server.seen();
    assert_eq!(seen[0].parameters("client_secret"), [SECRET]);
    assert_eq!(seen[0].parameters("client_id"), ["orders"]);
    assert!(seen[1].parameters("client_secret").is_empty());
    assert_eq!(seen[1].parameters("client_id"), ["orders"]);
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization").is_none())
    );
}

/// Broken by `RequestSettings::new` with the default variant.
#[tokio::test]
async fn trap_25_a_variant_asks_for_its_own_scopes() {
    let server = Server::plain(|_| good_token()).await;
    let variant = Variant {
        scopes: vec!["admin".into()],
        audience: Some("other".into()),
    };
    let issued = provider(basic(&server.url("/token")))
        .fetch(&variant)
        .await
        .unwrap();
    assert_eq!(issued.scopes, ["admin"]);
    assert_eq!(server.seen()[0].parameters("scope"), ["admin"]);
    assert_eq!(server.seen()[0].parameters("audience"), ["other"]);
}

#[tokio::test]
async fn trap_38_redirects_are_not_followed() {
    let elsewhere = Server::plain(|_| good_token()).await;
    let target = elsewhere.url("/token?key=1");
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {target}\r\n");
        let server = Server::plain(move |_| answer(status, &location, "")).await;
        let message = transient(fetch(basic(&server.url("/token"))).await);
        assert!(
            message.contains(&format!("a redirect to {},", elsewhere.url(""))),
            "{message}"
        );
    }
    assert!(elsewhere.seen().is_empty());
}

#[tokio::test]
async fn trap_38_an_endless_body_is_cut_off() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 10485760\r\n\r\n",
    ] {
        let server = Server::plain(move |_| Act::Endless(head.into())).await;
        let message = transient(fetch(basic(&server.url("/token"))).await);
        assert!(
            message.contains("more than 64 KiB (application/json)"),
            "{message}"
        );
        // The bytes sent are what the sockets of both sides buffer, not all that the server wanted
        // to send.
        assert!(server.sent.load(Ordering::Relaxed) < 10 * 1024 * 1024);
    }
    let server =
        Server::plain(|_| Act::Endless("HTTP/1.1 401 No\r\nconnection: close\r\n\r\n".into()))
            .await;
    permanent(fetch(basic(&server.url("/token"))).await);
}

#[tokio::test]
async fn a_slow_answer_meets_the_timeout() {
    for bytes in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_token\":\"the-",
    ] {
        let server = Server::plain(move |_| Act::SendAndHang(bytes.into())).await;
        let mut settings = basic(&server.url("/token"));
        settings.idp.http.timeout = Duration::from_millis(200);
        let started = Instant::now();
        let message = transient(fetch(settings).await);
        assert!(
            message.contains("no complete answer within 200ms"),
            "{message}"
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn trap_38_a_truncated_body_is_no_answer() {
    let server = Server::plain(|_| {
        Act::Send(
            "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"access_token\":\"the-token\"".into(),
        )
    })
    .await;
    let message = transient(fetch(basic(&server.url("/token"))).await);
    assert!(message.contains("cannot be reached"), "{message}");
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_is_told_apart() {
    let refusing = Refusing::new();
    let free = refusing.address();
    let message = transient(fetch(basic(&format!("http://{free}/token?key=1"))).await);
    assert_eq!(
        message,
        format!(
            "http://{free}/token cannot be reached: the connection was refused: check host and port, and that it is \
             running"
        )
    );
    // The resolver itself refuses a label of 70 letters, without a question to the network.
    let mut settings = basic(&format!("http://{}.example/token", "a".repeat(70)));
    settings.idp.allow_insecure_http = true;
    let message = transient(fetch(settings).await);
    assert!(
        message.contains("host name cannot be resolved"),
        "{message}"
    );
    let server = Server::plain(|_| Act::Send("SSH-2.0-OpenSSH\r\n".into())).await;
    let message = transient(fetch(basic(&server.url("/token"))).await);
    assert!(message.contains("no proper HTTP"), "{message}");
    let server = Server::plain(|_| Act::Send(Vec::new())).await;
    transient(fetch(basic(&server.url("/token"))).await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 16];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut hello)
            .await
            .unwrap();
        let refusal = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, refusal)
            .await
            .unwrap();
        stream
    });
    let message = transient(fetch(basic(&format!("https://{address}/token"))).await);
    task.await.unwrap();
    assert!(message.contains("does not speak TLS"), "{message}");
}

#[tokio::test]
async fn a_configured_proxy_is_used() {
    let proxy = Server::plain(|_| good_token()).await;
    let mut settings = basic("http://idp.invalid/token");
    settings.idp.allow_insecure_http = true;
    settings.idp.http.proxy = Some(Url::parse(&proxy.url("/")).unwrap());
    fetch(settings.clone()).await.unwrap();
    assert_eq!(proxy.lines(), ["POST http://idp.invalid/token"]);
    let refusing = Refusing::new();
    let free = refusing.address();
    let proxy = format!("http://user:ProxyMarker@{free}/");
    settings.idp.http.proxy = Some(Url::parse(&proxy).unwrap());
    let message = transient(fetch(settings).await);
    assert!(
        message.contains(&format!("(through the proxy http://{free})")),
        "{message}"
    );
    assert!(!message.contains("ProxyMarker"), "{message}");
}

#[tokio::test]
async fn trap_48_scopes_that_repeat_a_secret_are_withheld_and_remarked() {
    let server = Server::plain(|seen| {
        let header = seen.header("authorization").unwrap_or_default();
        let basic = header.strip_prefix("Basic ").unwrap_or_default();
        json(&serde_json::json!({
            "access_token": "the-token-of-today", "token_type": "Bearer", "expires_in": 300,
            "scope": format!("read {basic} the-token-of-today admin {}", SECRET.replace(' ', "")),
        }))
    })
    .await;
    let provider = provider(basic(&server.url("/token")));
    let issued = provider.fetch(&Variant::default()).await.unwrap();
    assert_eq!(issued.scopes, ["read", "admin"]);
    let remarks = provider.remarks();
    assert_eq!(remarks.len(), 1, "{remarks:?}");
    assert!(
        remarks[0]
            .to_string()
            .starts_with("scopes: 3 of the scopes"),
        "{remarks:?}"
    );
}

#[tokio::test]
async fn trap_48_an_access_token_that_is_sent_back_is_refused() {
    let server = Server::plain(|seen| {
        let header = seen.header("authorization").unwrap_or_default();
        let token = header.strip_prefix("Basic ").unwrap_or_default();
        json(&serde_json::json!({ "access_token": token, "token_type": "Bearer", "expires_in": 300 }))
    })
    .await;
    let message = permanent(fetch(basic(&server.url("/token"))).await);
    assert!(
        message.contains("what the client proves itself with"),
        "{message}"
    );
}

/// Of the environment's proxies only `HTTPS_PROXY` is obeyed, with the exceptions of `NO_PROXY`,
/// and never for loopback. The environment belongs to the process, so this test runs itself again
/// with another one.
#[tokio::test]
async fn trap_48_the_environments_proxies_are_obeyed_as_documented() {
    const WITH: &str = "TOKEND_TEST_PROXIED";
    if let Ok(proxy) = std::env::var(WITH) {
        let server = Server::plain(|_| good_token()).await;
        fetch(basic(&server.url("/token"))).await.unwrap();
        for (url, proxied) in [
            ("https://idp.invalid/token", true),
            ("http://idp.invalid/token", false),
            ("https://excepted.invalid/token", false),
            ("https://a.below.invalid/token", false),
        ] {
            let mut settings = basic(url);
            settings.idp.allow_insecure_http = true;
            let remark = proxy::remark(&settings.idp);
            let message = transient(fetch(settings).await);
            let through = format!("through the proxy {proxy}");
            assert_eq!(message.contains(&through), proxied, "{message}");
            let named =
                "which HTTPS_PROXY in the environment names): the proxy itself cannot reach";
            assert_eq!(message.contains(named), proxied, "{message}");
            let excepted = url.contains("excepted") || url.contains("below");
            assert_eq!(
                message.contains("NO_PROXY excepts it"),
                excepted,
                "{message}"
            );
            assert_eq!(remark.is_some(), proxied, "{remark:?}");
            if let Some(remark) = remark.map(|it| it.to_string()) {
                assert!(remark.contains(&through), "{remark}");
                assert!(!remark.contains("password"), "{remark}");
                assert!(remark.contains("not understood: [\"10.*\"]"), "{remark}");
            }
        }
        return;
    }
    let obeyed = Server::plain(|_| answer(502, "", "")).await;
    let ignored = Server::plain(|_| good_token()).await;
    let status = tokio::task::spawn_blocking({
        let with_password = obeyed.url("").replace("//", "//user:password@");
        let (shown, ignored) = (obeyed.url(""), ignored.url(""));
        move || {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "provider::oauth2::tests::exchange::trap_48_the_environments_proxies_are_obeyed_as_documented",
                ])
                .env(WITH, shown)
                .env_remove("no_proxy")
                .env("NO_PROXY", "10.*, excepted.invalid:443, *.below.invalid")
                .env("HTTPS_PROXY", &with_password)
                .env("https_proxy", &with_password)
                .envs(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"].map(|name| (name, &ignored)))
                .stdout(std::process::Stdio::null())
                .status()
        }
    })
    .await
    .unwrap()
    .unwrap();
    assert!(status.success());
    assert_eq!(obeyed.lines(), ["CONNECT idp.invalid:443"]);
    assert_eq!(ignored.lines(), [""; 0]);
}

#[tokio::test]
async fn trap_30_material_that_does_not_fit_is_no_other_method() {
    let shared = shared();
    let wrong = profile(oauth(at_token("http://127.0.0.1:1/"), ClientAuth::None));
    let material =
        || material::read(&wrong, &Surroundings::default(), Clock::system().now().wall).unwrap();
    for client_auth in [
        ClientAuth::SecretBasic(secret()),
        ClientAuth::SecretPost(secret()),
        ClientAuth::Tls,
        ClientAuth::SelfSignedTls,
    ] {
        let right = profile(oauth(at_token("http://127.0.0.1:1/"), client_auth));
        let failure = build(&right, material(), &shared).err().unwrap();
        assert_eq!(failure.kind, FailureKind::Permanent);
    }
}

#[test]
fn interim_answers_without_end_block_nobody_else() {
    // The evil server has a thread of its own, so that the test measures the client.
    let (tell, address) = std::sync::mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        runtime().block_on(async {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n".to_vec();
            let server = Server::plain(move |_| Act::Repeat(interim.clone())).await;
            tell.send((server.url("/token"), server.sent.clone()))
                .unwrap();
            let _ = stopped.await;
        });
    });
    let (evil, sent) = address.recv().unwrap();
    runtime().block_on(async {
        let good = Server::plain(|_| good_token()).await;
        let shared = shared();
        let mut settings = basic(&evil);
        settings.idp.http.timeout = Duration::from_secs(2);
        let evil = provider_with(settings, &shared).unwrap();
        let good = provider_with(basic(&good.url("/token")), &shared).unwrap();
        let started = Instant::now();
        let attempt = tokio::spawn(async move {
            let outcome = evil.fetch(&Variant::default()).await;
            (outcome, started.elapsed())
        });
        let mut slowest = Duration::ZERO;
        while !attempt.is_finished() {
            let asked = Instant::now();
            good.fetch(&Variant::default()).await.unwrap();
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (outcome, took) = attempt.await.unwrap();
        let message = transient(outcome);
        assert!(
            message.contains("no complete answer within 2s"),
            "{message}"
        );
        assert!(took < Duration::from_secs(3), "{took:?}");
        assert!(slowest < Duration::from_millis(500), "{slowest:?}");
        // The connection ends too, as soon as the parser yields.
        let ended = async {
            let mut before = 0;
            while sent.load(Ordering::Relaxed) != before {
                before = sent.load(Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .expect("nobody takes its bytes any more");
    });
    drop(stop);
    serving.join().unwrap();
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Broken by a `send` that never sends again.
#[tokio::test]
async fn a_kept_connection_that_is_closed_as_it_is_used_again_is_one_silent_repetition() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    const ANSWER: &str =
        "{\"access_token\":\"the-token\",\"token_type\":\"Bearer\",\"expires_in\":300}";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    // The requests on each connection. Only the first one of a connection is ever answered.
    let came = tokio::spawn(async move {
        let mut came = Vec::new();
        for answered in [1, 1, 0] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut count = 0;
            while stream.read(&mut [0; 4096]).await.unwrap_or(0) > 0 {
                count += 1;
                if count > answered {
                    break;
                }
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}",
                    ANSWER.len()
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                if came.len() == 1 {
                    break;
                }
            }
            came.push(count);
        }
        came
    });
    let asked = provider(basic(&url));
    for _ in 0..2 {
        let issued = asked.fetch(&Variant::default()).await.unwrap();
        assert_eq!(issued.token.expose(), "the-token");
    }
    // A new connection that is closed is a failure, which is not repeated here.
    let message = transient(fetch(basic(&url)).await);
    assert!(message.contains("cannot be reached"), "{message}");
    assert_eq!(came.await.unwrap(), [2, 1, 1]);
}

/// Broken by not reading the claims of the token in the answer.
#[tokio::test]
async fn what_a_token_lacks_is_remarked_until_one_has_it() {
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::plain(move |_| {
        let first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        // {"aud":"other"} and {"aud":"api"}
        let claims = if first {
            "eyJhdWQiOiJvdGhlciJ9"
        } else {
            "eyJhdWQiOiJhcGkifQ"
        };
        json(&serde_json::json!({
            "access_token": format!("e30.{claims}.c2ln"), "token_type": "Bearer", "expires_in": 300,
        }))
    })
    .await;
    let mut settings = basic(&server.url("/token"));
    settings.audience = Some("api".into());
    let asked = provider(settings);
    asked.fetch(&Variant::default()).await.unwrap();
    let remarks = asked.remarks();
    assert_eq!(remarks[0].key, "audience", "{remarks:?}");
    asked.fetch(&Variant::default()).await.unwrap();
    assert_eq!(asked.remarks(), []);
}
