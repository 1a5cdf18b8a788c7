//! Each fault as bytes on the wire.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::*;

const SHORT: Duration = Duration::from_millis(60);

/// An issuer without TLS, for tests that look at bytes.
async fn plain() -> Issuer {
    Issuer::start(Settings {
        clients: vec![RegisteredClient::new("public", ClientCredential::None)],
        ..Settings::default()
    })
    .await
    .unwrap()
}

async fn connect(issuer: &Issuer) -> TcpStream {
    let mut stream = TcpStream::connect(issuer.address()).await.unwrap();
    let body = "grant_type=client_credentials&client_id=public";
    let head =
        "POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n";
    let request = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

/// Reads everything until the issuer closes.
async fn drain(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset counts as an end here.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    String::from_utf8(bytes).unwrap()
}

async fn once(world: &World, fault: Fault) -> reqwest::Response {
    world.issuer.script(fault, Times::Next(1));
    let response = world.ask().await.unwrap();
    // The fault is used up after one request.
    assert_eq!(world.ask().await.unwrap().status(), 200);
    response
}

#[tokio::test]
async fn statuses_and_errors() {
    let world = world().await;
    let fault = Fault::Status {
        status: 502,
        body: "bad gateway".into(),
        headers: vec![("x-proxy".into(), "yes".into())],
    };
    let response = once(&world, fault).await;
    assert_eq!(response.status(), 502);
    assert_eq!(response.headers()["x-proxy"], "yes");
    assert_eq!(response.text().await.unwrap(), "bad gateway");
    assert_eq!(world.issuer.requests()[0].outcome, RequestOutcome::Fault);

    let response = once(&world, Fault::Html200).await;
    assert_eq!(response.status(), 200);
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
    );
    assert!(response.text().await.unwrap().contains("<h1>"));

    let response = once(&world, Fault::oauth_error("invalid_client")).await;
    assert_eq!(refused(Ok(response)).await, (401, "invalid_client".into()));
    let response = once(&world, Fault::oauth_error("temporarily_unavailable")).await;
    assert_eq!(
        refused(Ok(response)).await,
        (400, "temporarily_unavailable".into())
    );

    let fault = Fault::Redirect {
        status: 307,
        location: "https://elsewhere.example/token".into(),
    };
    let response = once(&world, fault).await;
    assert_eq!(response.status(), 307);
    assert_eq!(
        response.headers()["location"],
        "https://elsewhere.example/token"
    );
}

#[tokio::test]
async fn retry_after_in_both_forms_and_a_wrong_date() {
    // 1994-11-06 08:49:37
    let at = Duration::from_secs(784_111_777);
    let issuer = Issuer::start(Settings {
        clock: WallClock::given(move || at),
        ..Settings::default()
    })
    .await
    .unwrap();
    let get = async || {
        let browser = reqwest::Client::builder().no_proxy();
        let browser = browser
            .tls_backend_preconfigured(bare_tls())
            .build()
            .unwrap();
        browser.post(issuer.token_url()).send().await.unwrap()
    };
    issuer.script(
        Fault::RetryAfter(429, Duration::from_secs(17)),
        Times::Next(1),
    );
    issuer.script(
        Fault::RetryAfterDate(503, Duration::from_secs(23)),
        Times::Next(1),
    );
    issuer.script(Fault::Date(-3600), Times::Next(1));
    issuer.script(Fault::Date(23), Times::Next(1));
    let response = get().await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "17");
    assert_eq!(response.headers()["date"], "Sun, 06 Nov 1994 08:49:37 GMT");
    let response = get().await;
    assert_eq!(response.status(), 503);
    assert_eq!(
        response.headers()["retry-after"],
        "Sun, 06 Nov 1994 08:50:00 GMT"
    );
    assert_eq!(
        get().await.headers()["date"],
        "Sun, 06 Nov 1994 07:49:37 GMT"
    );
    assert_eq!(
        get().await.headers()["date"],
        "Sun, 06 Nov 1994 08:50:00 GMT"
    );
}

fn bare_tls() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

#[tokio::test]
async fn fields_say_whatever_the_script_says() {
    let world = world().await;
    for raw in [
        "\"3600\"", "0", "-1", "1e99", "1e999", "null", "2.5", "[]", "garbage",
    ] {
        let text = once(&world, Fault::expires_in(Some(raw)))
            .await
            .text()
            .await
            .unwrap();
        assert!(text.contains(&format!("\"expires_in\":{raw}")), "{text}");
    }
    let answer = json(once(&world, Fault::expires_in(None)).await).await;
    assert_eq!(answer.get("expires_in"), None);
    let answer = json(once(&world, Fault::token_type(Some("mac"))).await).await;
    assert_eq!(answer["token_type"], "mac");
    let answer = json(once(&world, Fault::token_type(None)).await).await;
    assert_eq!(answer.get("token_type"), None);
    for token in ["a\r\nX-Evil: 1", "\u{1}", "", "ümlaut"] {
        let answer = json(once(&world, Fault::token(Some(token))).await).await;
        assert_eq!(answer["access_token"], token);
    }
    let answer = json(once(&world, Fault::field("access_token", Some("42"))).await).await;
    assert_eq!(answer["access_token"], 42);
    let answer = json(once(&world, Fault::token(None)).await).await;
    assert_eq!(answer.get("access_token"), None);
    let fault = Fault::ExtraHeader {
        name: "content-type".into(),
        value: "text/plain".into(),
    };
    let both = Fault::All(vec![fault, Fault::expires_in(Some("1"))]);
    let response = once(&world, both).await;
    assert_eq!(response.headers()["content-type"], "text/plain");
    assert_eq!(json(response).await["expires_in"], 1);
    let impossible = Fault::ExtraHeader {
        name: "a".into(),
        value: "b\r\nc".into(),
    };
    assert_eq!(once(&world, impossible).await.status(), 500);
}

#[tokio::test]
async fn the_same_token_again() {
    let moved = Arc::new(AtomicU64::new(0));
    let clock = {
        let moved = Arc::clone(&moved);
        let start = WallClock::system().now();
        WallClock::given(move || start + Duration::from_secs(moved.load(Ordering::SeqCst)))
    };
    let world = world_at(clock).await;
    let ask = async || {
        let answer = json(world.ask().await.unwrap()).await;
        let token = answer["access_token"].as_str().unwrap().to_owned();
        (token, answer["expires_in"].as_u64().unwrap())
    };
    for shrinking in [true, false] {
        world.issuer.clear_script();
        world
            .issuer
            .script(Fault::SameToken { shrinking }, Times::Always);
        let (first, lifetime) = ask().await;
        assert_eq!(lifetime, 300);
        for (later, left) in [(100, 200), (250, 0)] {
            moved.fetch_add(later, Ordering::SeqCst);
            let left = if shrinking { left } else { 300 };
            assert_eq!(ask().await, (first.clone(), left));
        }
        // Another client gets another token.
        let form = [("client_id", "scoped"), ("client_secret", SECRET)];
        let answer = json(world.post(None, None, &form).await.unwrap()).await;
        assert_ne!(answer["access_token"], first.as_str());
    }
    world.issuer.clear_script();
    assert_ne!(ask().await.0, ask().await.0);
}

#[tokio::test]
async fn secrets_come_back() {
    let world = world().await;
    let answer = json(once(&world, Fault::EchoSecret).await).await;
    assert_eq!(answer["error"], SECRET);
    assert!(
        answer["error_description"]
            .as_str()
            .unwrap()
            .contains(SECRET)
    );
    world.issuer.script(Fault::EchoSecret, Times::Next(1));
    let header = basic("se cret", SECRET);
    let answer = json(world.post(None, Some(&header), &[]).await.unwrap()).await;
    assert_eq!(answer["error"], SECRET);
    assert!(
        answer["error_description"]
            .as_str()
            .unwrap()
            .contains(&header)
    );
}

#[tokio::test]
async fn big_bodies_are_as_big_as_asked_for() {
    let world = world().await;
    let response = once(&world, Fault::BigBody(10_000_000)).await;
    assert_eq!(response.content_length(), Some(10_000_000));
    let answer = json(response).await;
    assert!(answer["access_token"].as_str().unwrap().len() > 9_999_000);
}

#[tokio::test]
async fn an_endless_body_ends_when_the_client_leaves() {
    let issuer = plain().await;
    issuer.script(Fault::EndlessBody, Times::Next(1));
    let mut stream = connect(&issuer).await;
    let mut read = 0;
    let mut buffer = vec![0; 64 * 1024];
    while read < 20_000_000 {
        let some = stream.read(&mut buffer).await.unwrap();
        assert_ne!(some, 0);
        read += some;
    }
    assert_eq!(issuer.state.faults.in_flight.load(Ordering::Relaxed), 1);
    drop(stream);
    eventually(|| issuer.state.faults.in_flight.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn truncated_bodies_break_off_in_the_middle() {
    let issuer = plain().await;
    issuer.script(Fault::Truncated, Times::Next(1));
    let text = drain(connect(&issuer).await).await;
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let promised: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .unwrap()
        .parse()
        .unwrap();
    assert!(head.starts_with("HTTP/1.1 200"));
    assert_eq!(body.len(), promised / 2);
    assert!(body.starts_with("{\"access_token\":\"ey"));

    let world = world().await;
    world.issuer.script(Fault::Truncated, Times::Next(1));
    let response = world.ask().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.text().await.is_err());
}

#[tokio::test]
async fn slow_headers_and_slow_bodies_take_their_time_and_are_whole() {
    let world = world().await;
    world
        .issuer
        .script(Fault::SlowHeaders(SHORT), Times::Next(1));
    let began = Instant::now();
    let response = world.ask().await.unwrap();
    assert!(began.elapsed() >= SHORT);
    assert_eq!(response.status(), 200);

    let fault = Fault::OAuthError {
        status: 400,
        code: "x".into(),
    };
    let interval = Duration::from_millis(2);
    world.issuer.script(
        Fault::All(vec![fault, Fault::SlowBody(interval)]),
        Times::Next(1),
    );
    let response = world.ask().await.unwrap();
    let began = Instant::now();
    let length = response.content_length().unwrap();
    let text = response.text().await.unwrap();
    assert_eq!(text.len() as u64, length);
    assert!(text.starts_with("{\"error\":\"x\""));
    assert!(began.elapsed() >= interval * u32::try_from(length / 2).unwrap());
}

#[tokio::test]
async fn hanging_ends_when_the_client_leaves() {
    let issuer = plain().await;
    issuer.script(Fault::Hang, Times::Next(1));
    let mut stream = connect(&issuer).await;
    eventually(|| issuer.requests().len() == 1).await;
    let silence = tokio::time::timeout(SHORT, stream.read_u8()).await;
    assert!(silence.is_err());
    assert_eq!(issuer.state.faults.in_flight.load(Ordering::Relaxed), 1);
    drop(stream);
    eventually(|| issuer.state.faults.in_flight.load(Ordering::Relaxed) == 0).await;
    assert_eq!(issuer.requests()[0].outcome, RequestOutcome::Unanswered);
}

#[tokio::test]
async fn closing_says_nothing_at_all() {
    let issuer = plain().await;
    issuer.script(Fault::CloseConnection, Times::Next(1));
    assert_eq!(drain(connect(&issuer).await).await, "");
    assert_eq!(issuer.requests().len(), 1);
}

#[tokio::test]
async fn on_http_2_closing_ends_the_whole_connection() {
    use http_body_util::{BodyExt as _, Empty};
    use hyper_util::rt::{TokioExecutor, TokioIo};
    let issuer = plain().await;
    let target = Target::Path("/jwks".into());
    issuer.script_for(target, Fault::CloseConnection, Times::Next(1));
    let stream = TcpStream::connect(issuer.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let mut get = async |path: &str| {
        let request = http::Request::get(format!("{}{path}", issuer.url()));
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        sender.send_request(request).await
    };
    let response = get("/.well-known/openid-configuration").await.unwrap();
    assert_eq!(response.version(), http::Version::HTTP_2);
    assert!(!response.collect().await.unwrap().to_bytes().is_empty());
    assert!(soon(get("/jwks")).await.is_err());
    let _ended = soon(connection).await.unwrap();
    assert_eq!(issuer.connections(), 1);
}

#[tokio::test]
async fn held_requests_go_one_by_one_and_are_counted() {
    let world = Arc::new(world().await);
    let permits = Arc::new(Semaphore::new(0));
    world
        .issuer
        .script(Fault::Hold(Arc::clone(&permits)), Times::Always);
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let world = Arc::clone(&world);
        asking.spawn(async move { world.ask().await.unwrap().status() });
    }
    eventually(|| world.issuer.requests().len() == 5).await;
    permits.add_permits(1);
    assert_eq!(asking.join_next().await.unwrap().unwrap(), 200);
    assert!(
        tokio::time::timeout(SHORT, asking.join_next())
            .await
            .is_err()
    );
    let outcomes = |wanted| {
        let requests = world.issuer.requests();
        requests.iter().filter(|it| it.outcome == wanted).count()
    };
    assert_eq!(
        (
            outcomes(RequestOutcome::Issued),
            outcomes(RequestOutcome::Unanswered)
        ),
        (1, 4)
    );
    permits.close();
    while let Some(status) = asking.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(world.issuer.max_in_flight_seen(), 5);
}

#[tokio::test]
async fn faults_for_one_client_and_for_one_path_leave_others_alone() {
    let world = world().await;
    let client = Target::Client("scoped".into());
    world
        .issuer
        .script_for(client, Fault::Html200, Times::Always);
    let path = "/.well-known/openid-configuration";
    let wrong = Fault::wrong_issuer("https://evil.example");
    world
        .issuer
        .script_for(Target::Path(path.into()), wrong, Times::Next(1));
    let down = Fault::Status {
        status: 500,
        body: String::new(),
        headers: Vec::new(),
    };
    world
        .issuer
        .script_for(Target::Path(path.into()), down, Times::Next(1));

    assert_eq!(
        json(world.ask().await.unwrap()).await["token_type"],
        "Bearer"
    );
    let header = basic("scoped", "not even right");
    let answer = world.post(None, Some(&header), &[]).await.unwrap();
    assert!(answer.text().await.unwrap().contains("<h1>"));

    let metadata = json(world.get(path).await).await;
    assert_eq!(metadata["issuer"], "https://evil.example");
    assert_eq!(metadata["token_endpoint"], world.issuer.token_url());
    assert_eq!(world.get(path).await.status(), 500);
    let metadata = json(world.get(path).await).await;
    assert_eq!(metadata["issuer"], world.issuer.url());
    assert_eq!(world.issuer.count(path), 3);
}
