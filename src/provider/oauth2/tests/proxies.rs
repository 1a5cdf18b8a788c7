//! Requests through a proxy: the way there, and who a refusal came from.

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::encrypted::Authority;
use super::server::{Server, answer, good_token};
use super::*;

/// A proxy that connects every client with `server`, whatever it asks for, and that reports the
/// requests.
async fn leading_to(server: &Server) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, heads) = tokio::sync::mpsc::channel(8);
    let to = server.address;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            asked.send(String::from_utf8(head).unwrap()).await.unwrap();
            let mut there = TcpStream::connect(to).await.unwrap();
            let opened = b"HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n";
            stream.write_all(opened).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut stream, &mut there).await });
        }
    });
    (format!("http://{address}/"), heads)
}

fn through(proxy: &str, url: &str, trust: TrustSource) -> OAuth2 {
    let mut settings = oauth(at_token(url), ClientAuth::SecretBasic(secret()));
    settings.idp.http.proxy = Some(Url::parse(proxy).unwrap());
    settings.idp.trust = trust;
    settings
}

/// reqwest's own tunnel takes the brackets for part of the server's name.
#[tokio::test]
async fn an_ipv6_literal_is_reached_through_a_proxy() {
    let authority = Authority::new();
    let acceptor = authority.acceptor("2001:db8::7", None);
    let server = Server::tls(acceptor, |_| good_token()).await;
    let (proxy, mut heads) = leading_to(&server).await;
    for (port, target, host) in [
        ("", "[2001:db8::7]:443", "[2001:db8::7]"),
        (":8443", "[2001:db8::7]:8443", "[2001:db8::7]:8443"),
    ] {
        let url = format!("https://[2001:db8::7]{port}/token?a=b");
        let issued = fetch(through(&proxy, &url, authority.trust()))
            .await
            .unwrap();
        assert_eq!(issued.token.expose(), "the-token");
        let head = heads.recv().await.unwrap();
        assert!(
            head.starts_with(&format!("CONNECT {target} HTTP/1.1\r\n")),
            "{head}"
        );
        let seen = server.seen().pop().unwrap();
        assert_eq!(seen.line(), "POST /token?a=b");
        assert_eq!(seen.header("host"), Some(host));
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert!(
            seen.body.starts_with("grant_type=client_credentials"),
            "{}",
            seen.body
        );
    }
}

#[tokio::test]
async fn a_proxys_user_and_password_are_for_the_proxy_alone() {
    let authority = Authority::new();
    let server = Server::tls(authority.acceptor("idp.invalid", None), |_| good_token()).await;
    let (proxy, mut heads) = leading_to(&server).await;
    // p@ss:word
    let proxy = proxy.replace("//", "//us%65r:p%40ss%3Aword@");
    let settings = through(&proxy, "https://idp.invalid/token", authority.trust());
    fetch(settings).await.unwrap();
    let head = heads.recv().await.unwrap();
    let basic = "Proxy-Authorization: Basic dXNlcjpwQHNzOndvcmQ=\r\n";
    assert!(head.contains(basic), "{head}");
    assert_eq!(server.seen()[0].header("proxy-authorization"), None);
}

#[tokio::test]
async fn a_refusal_of_the_proxy_is_the_proxys() {
    for (status, user, told) in [
        (
            407,
            "",
            "the proxy wants user and password (407): put them into http.proxy",
        ),
        (
            407,
            "user:ProxyMarker@",
            "the proxy refuses user and password (407)",
        ),
        (403, "", "the proxy does not permit idp.invalid:443 (403)"),
        (
            502,
            "",
            "the proxy itself cannot reach idp.invalid:443 (502)",
        ),
        (
            503,
            "",
            "the proxy itself cannot reach idp.invalid:443 (503)",
        ),
        (
            504,
            "",
            "the proxy itself cannot reach idp.invalid:443 (504)",
        ),
        (
            405,
            "",
            "the proxy does not do CONNECT to idp.invalid:443 (405)",
        ),
        (
            302,
            "",
            "the proxy answers CONNECT to idp.invalid:443 with status 302",
        ),
    ] {
        let proxy = Server::plain(move |_| answer(status, "", "<html>ProxyText</html>")).await;
        let url = proxy.url("/").replace("//", &format!("//{user}"));
        let settings = through(&url, "https://idp.invalid/token", TrustSource::System);
        let message = transient(fetch(settings).await);
        let way = format!("cannot be reached (through the proxy {}): ", proxy.url(""));
        assert!(message.contains(&format!("{way}{told}")), "{message}");
        for secret in ["ProxyMarker", "ProxyText"] {
            assert!(!message.contains(secret), "{message}");
        }
        assert_eq!(proxy.lines(), ["CONNECT idp.invalid:443"]);
    }
}

#[tokio::test]
async fn what_is_no_proxy_is_told_to_be_none() {
    let act = |bytes: &[u8]| super::server::Act::Send(bytes.to_vec());
    let closing = Server::plain(move |_| act(b"")).await;
    let message = fetched_through(&closing.url("/")).await;
    assert!(
        message.contains("at the proxy the connection was closed"),
        "{message}"
    );
    let other = Server::plain(move |_| act(b"220 mail.example ESMTP\r\n\r\n")).await;
    let message = fetched_through(&other.url("/")).await;
    assert!(
        message.contains("the proxy does not speak HTTP"),
        "{message}"
    );
    let message = fetched_through("http://proxy.invalid:3128/").await;
    let told = "the host name of the proxy cannot be resolved: check http.proxy and DNS";
    assert!(message.contains(told), "{message}");
}

async fn fetched_through(proxy: &str) -> String {
    let settings = through(proxy, "https://idp.invalid/token", TrustSource::System);
    transient(fetch(settings).await)
}

/// The certificate behind the proxy belongs to the identity provider, and failures say so.
#[tokio::test]
async fn a_certificate_behind_a_proxy_is_the_identity_providers() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = Server::tls(stranger.acceptor("idp.invalid", None), |_| good_token()).await;
    let (proxy, _heads) = leading_to(&server).await;
    let settings = through(&proxy, "https://idp.invalid/token", authority.trust());
    let message = transient(fetch(settings).await);
    let told = "the TLS certificate of https://idp.invalid/token cannot be trusted: its issuer";
    assert!(message.contains(told), "{message}");
}
