//! Metadata, the API, changed keys, and an issuer that stops and starts again.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

/// Whether the issuer closes a connection on which no handshake has begun, sooner than its
/// handshake timeout would.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    let reading = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut byte));
    matches!(reading.await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn metadata_says_what_is_there() {
    let world = world().await;
    let url = world.issuer.url();
    assert!(url.starts_with("https://localhost:"));
    let metadata = json(world.get("/.well-known/openid-configuration").await).await;
    let other = json(world.get("/.well-known/oauth-authorization-server").await).await;
    assert_eq!(metadata, other);
    assert_eq!(metadata["issuer"], url);
    assert_eq!(metadata["token_endpoint"], world.issuer.token_url());
    assert_eq!(
        metadata["scopes_supported"],
        serde_json::json!(["read", "write"])
    );
    assert_eq!(metadata["tls_client_certificate_bound_access_tokens"], true);
    let methods = metadata["token_endpoint_auth_methods_supported"]
        .as_array()
        .unwrap();
    assert_eq!(methods.len(), 7);
    let keys = world
        .browser(None)
        .get(metadata["jwks_uri"].as_str().unwrap());
    let keys = json(keys.send().await.unwrap()).await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    // The alias is an endpoint of its own, so that a test can see which one a client takes.
    let alias = metadata["mtls_endpoint_aliases"]["token_endpoint"]
        .as_str()
        .unwrap();
    let request = world.browser(Some(&world.identity)).post(alias);
    let request = request
        .header("content-type", "application/x-www-form-urlencoded")
        .body("grant_type=client_credentials&client_id=mtls");
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(
        (
            world.issuer.count("/mtls/token"),
            world.issuer.count("/token")
        ),
        (1, 0)
    );
    assert_eq!(world.last().path, "/mtls/token");
    assert_eq!(world.get("/nowhere").await.status(), 404);
    let wrong = world.browser(None).delete(format!("{url}/jwks"));
    assert_eq!(wrong.send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn an_issuer_with_a_path_has_both_kinds_of_metadata_where_they_belong() {
    let issuer = Issuer::start(Settings {
        path: "/realms/dev".into(),
        ..Settings::default()
    })
    .await
    .unwrap();
    assert!(issuer.token_url().ends_with("/realms/dev/token"));
    for (path, status) in [
        ("/realms/dev/.well-known/openid-configuration", "200"),
        ("/.well-known/oauth-authorization-server/realms/dev", "200"),
        ("/realms/dev/.well-known/oauth-authorization-server", "404"),
        ("/.well-known/openid-configuration", "404"),
        ("/realms/dev/jwks", "200"),
        ("/jwks", "404"),
    ] {
        let mut stream = TcpStream::connect(issuer.address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert_eq!(&answer[9..12], status, "{path}");
    }
}

#[tokio::test]
async fn the_api_takes_tokens_until_they_expire() {
    let moved = Arc::new(AtomicU64::new(0));
    let clock = {
        let moved = Arc::clone(&moved);
        let start = WallClock::system().now();
        WallClock::given(move || start + Duration::from_secs(moved.load(Ordering::SeqCst)))
    };
    let world = world_at(clock).await;
    let call = async |token: Option<&str>| {
        let mut request = world
            .browser(None)
            .get(format!("{}/api/topology", world.issuer.url()));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap()
    };
    let answer = json(world.ask().await.unwrap()).await;
    let token = answer["access_token"].as_str().unwrap();
    let response = call(Some(token)).await;
    assert_eq!(response.status(), 200);
    assert_eq!(json(response).await["client"], "se cret");
    let response = call(None).await;
    assert_eq!(response.status(), 401);
    assert!(
        !response.headers()["www-authenticate"]
            .to_str()
            .unwrap()
            .contains("error")
    );
    // The last letter of a signature has unused bits; the first one has none.
    let (head, signature) = token.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { 'B' } else { 'A' };
    assert_eq!(
        call(Some(&format!("{head}.{first}{}", &signature[1..])))
            .await
            .status(),
        401
    );
    moved.store(299, Ordering::SeqCst);
    assert_eq!(call(Some(token)).await.status(), 200);
    moved.store(300, Ordering::SeqCst);
    assert_eq!(call(Some(token)).await.status(), 401);
}

#[tokio::test]
async fn old_tokens_outlive_a_change_of_the_signing_key() {
    let world = world().await;
    let old = json(world.ask().await.unwrap()).await;
    world.issuer.rotate_signing_key().unwrap();
    let new = json(world.ask().await.unwrap()).await;
    let id = |answer: &Value| {
        let token = answer["access_token"].as_str().unwrap();
        jsonwebtoken::decode_header(token).unwrap().kid.unwrap()
    };
    assert_ne!(id(&old), id(&new));
    world.claims(&old).await;
    world.claims(&new).await;
    for _ in 0..10 {
        world.issuer.rotate_signing_key().unwrap();
    }
    let keys = json(world.get("/jwks").await).await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_new_secret_replaces_the_old_one() {
    let world = world().await;
    world.issuer.set_client_secret("se cret", "new");
    assert_eq!(refused(world.ask().await).await.0, 401);
    let header = basic("se cret", "new");
    assert_eq!(
        world.post(None, Some(&header), &[]).await.unwrap().status(),
        200
    );
    world.issuer.set_client_secret("newcomer", "new");
    let header = basic("newcomer", "new");
    assert_eq!(
        world.post(None, Some(&header), &[]).await.unwrap().status(),
        200
    );
}

#[tokio::test]
async fn new_connections_see_a_new_server_certificate_and_open_ones_live_on() {
    let world = world().await;
    let browser = world.browser(None);
    let jwks = format!("{}/jwks", world.issuer.url());
    let before = browser.get(&jwks).send().await.unwrap();
    assert!(!before.text().await.unwrap().is_empty());
    let other = Authority::new("other root", &WallClock::system()).unwrap();
    let tls = IssuerTls {
        server: other.server(&["localhost"]).unwrap(),
        client_roots: Vec::new(),
    };
    world.issuer.set_tls(&tls).unwrap();
    assert_eq!(browser.get(&jwks).send().await.unwrap().status(), 200);
    assert_eq!(world.issuer.connections(), 1);
    assert!(world.browser(None).get(&jwks).send().await.is_err());
    // TLS settings that cannot be used change nothing.
    let torn = IssuerTls {
        server: Pair {
            key_pem: world.identity.key_pem.clone(),
            ..tls.server.clone()
        },
        client_roots: Vec::new(),
    };
    let error = world.issuer.set_tls(&torn).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(world.browser(None).get(&jwks).send().await.is_err());
}

#[tokio::test]
async fn it_goes_away_and_comes_back_on_the_same_port() {
    let world = world().await;
    let token = json(world.ask().await.unwrap()).await;
    let mut open = TcpStream::connect(world.issuer.address()).await.unwrap();
    for _ in 0..3 {
        world.issuer.stop().await.unwrap();
        world.issuer.stop().await.unwrap();
        assert!(is_closed(&mut open).await);
        let refused = TcpStream::connect(world.issuer.address())
            .await
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(world.ask().await.is_err());
        world.issuer.restart().unwrap();
        world.issuer.restart().unwrap();
        assert_eq!(world.ask().await.unwrap().status(), 200);
        world.claims(&token).await;
        open = TcpStream::connect(world.issuer.address()).await.unwrap();
    }
    assert_eq!(world.issuer.requests().len(), 4);
}

/// Between fork and exec, a new process has a copy of every open descriptor.
#[tokio::test]
async fn it_goes_away_while_somebody_has_a_copy_of_its_socket() {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let world = world().await;
    let address = world.issuer.address();
    let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
    let copies: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|fd| pidfd_getfd(&own, fd, PidfdGetfdFlags::empty()).ok())
        .filter(|fd| rustix::net::getsockname(fd).is_ok_and(|name| name == address.into()))
        .collect();
    assert!(!copies.is_empty());
    world.issuer.stop().await.unwrap();
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    world.issuer.restart().unwrap();
    assert_eq!(world.ask().await.unwrap().status(), 200);
}

#[tokio::test]
async fn dropping_it_closes_everything() {
    let world = world().await;
    world.issuer.script(Fault::Hang, Times::Always);
    let address = world.issuer.address();
    let mut open = TcpStream::connect(address).await.unwrap();
    eventually(|| world.issuer.connections() == 1).await;
    drop(world);
    assert!(is_closed(&mut open).await);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn hundreds_of_connections_stay_open_and_are_served() {
    let issuer = Issuer::start(Settings {
        clients: vec![RegisteredClient::new("public", ClientCredential::None)],
        ..Settings::default()
    })
    .await
    .unwrap();
    let body = "grant_type=client_credentials&client_id=public";
    let request = format!(
        "POST /token HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut open = Vec::new();
    for _ in 0..400 {
        open.push(TcpStream::connect(issuer.address()).await.unwrap());
    }
    for _ in 0..3 {
        for stream in &mut open {
            stream.write_all(request.as_bytes()).await.unwrap();
        }
        for stream in &mut open {
            let mut start = [0; 12];
            stream.read_exact(&mut start).await.unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
            let mut rest = vec![0; 4096];
            let read = stream.read(&mut rest).await.unwrap();
            assert!(rest[..read].ends_with(b"}"));
        }
    }
    assert_eq!(issuer.count("/token"), 1200);
    assert_eq!(issuer.connections(), 400);
}
