//! One exchange with an identity provider through a proxy: CONNECT (RFC 9110 §9.3.6), TLS inside,
//! one request.
//!
//! The HTTP client has a tunnel of its own, which cannot use IPv6 addresses and hides the proxy's
//! answer. No tunnel is kept for the next request: proxies drop silent ones, and renewals are
//! minutes apart.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use reqwest::header::{ACCEPT_ENCODING, HOST, HeaderValue, USER_AGENT};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::transport::{self, HttpReply, NoReply, Route, USER_AGENT as AGENT};
use crate::core::failure::Failure;
use crate::core::oauth::response::LONGEST_BODY;

/// Longest head of an answer to CONNECT, in bytes. Some proxies explain themselves at length, but
/// their head is short.
const LONGEST_HEAD: usize = 8192;

/// The way through one proxy.
pub(super) struct Tunnel {
    /// This URL may contain user and password.
    pub(super) proxy: Url,
    /// The setting that names it.
    pub(super) setting: &'static str,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) way: Route,
    /// The request, as failures describe it.
    pub(super) at: String,
}

/// A byte stream in both directions.
trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

impl Tunnel {
    /// Sends a request and reads the answer, as [`transport::send`] does.
    pub(super) async fn send(self, request: reqwest::Request) -> Result<HttpReply, NoReply> {
        let exchange = async {
            let opening = tokio::time::timeout(self.way.connect_timeout, self.open(request.url()));
            let opened = opening.await.unwrap_or_else(|_| Err(self.too_slow()));
            let stream = opened.map_err(|failure| NoReply {
                failure,
                unconnected: true,
            })?;
            let answer = ask(stream, &request).await;
            answer.map_err(|error| NoReply {
                failure: transport::explain_exchange(&error, &self.at, &self.way),
                unconnected: false,
            })
        };
        let outcome = tokio::time::timeout(self.way.timeout, exchange).await;
        outcome.unwrap_or_else(|_| {
            Err(NoReply {
                failure: transport::too_late(&self.at, &self.way),
                unconnected: false,
            })
        })
    }

    /// Connects to the identity provider itself.
    async fn open(&self, url: &Url) -> Result<Box<dyn Duplex>, Failure> {
        let mut stream = self.reach_proxy().await?;
        self.ask_for(url, &mut stream).await?;
        let Some(name) = server_name(url) else {
            return Err(transport::unresolved(&self.at, &self.way));
        };
        match TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(transport::explain_connection(&error, &self.at, &self.way)),
        }
    }

    async fn reach_proxy(&self) -> Result<Box<dyn Duplex>, Failure> {
        let host = self.proxy.host_str().unwrap_or_default();
        let host = host.trim_matches(['[', ']']);
        let port = self.proxy.port_or_known_default().unwrap_or(80);
        let addresses: Vec<SocketAddr> = match tokio::net::lookup_host((host, port)).await {
            Ok(found) => found.collect(),
            Err(_) => {
                return Err(self.lost(&format!(
                    "the host name of the proxy cannot be resolved: check {} and DNS",
                    self.setting
                )));
            }
        };
        let connecting = first(&addresses, self.way.connect_timeout).await;
        let stream = connecting.map_err(|error| {
            let why = transport::explain_io(&error);
            self.lost(&format!("on the way to the proxy {why}"))
        })?;
        if self.proxy.scheme() != "https" {
            return Ok(Box::new(stream));
        }
        let Some(name) = server_name(&self.proxy) else {
            return Err(self.lost("the proxy has no host name: write it as https://host:port"));
        };
        match TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
        {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(transport::explain_connection(
                &error,
                "the proxy",
                &self.way,
            )),
        }
    }

    /// Asks the proxy to connect to the host of this URL.
    async fn ask_for(&self, url: &Url, stream: &mut Box<dyn Duplex>) -> Result<(), Failure> {
        let target = format!(
            "{}:{}",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or(443)
        );
        let mut request = Zeroizing::new(format!(
            "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {}\r\n",
            AGENT
        ));
        let authorization = authorization(&self.proxy);
        if let Some(authorization) = &authorization {
            request.push_str("Proxy-Authorization: ");
            request.push_str(authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let answered = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            status(stream).await
        };
        match answered.await {
            Ok(Some(200..=299)) => Ok(()),
            Ok(status) => Err(self.lost(&self.refusal(status, &target, authorization.is_some()))),
            Err(error) => {
                let why = transport::explain_io(&error);
                Err(self.lost(&format!("at the proxy {why}")))
            }
        }
    }

    /// The meaning of the proxy's answer, and what to do about it.
    fn refusal(&self, status: Option<u16>, target: &str, has_authorization: bool) -> String {
        let setting = self.setting;
        let Some(status) = status else {
            return format!("the proxy does not speak HTTP: check scheme and port in {setting}");
        };
        match status {
            407 if has_authorization => format!(
                "the proxy refuses user and password (407): correct those in {setting}, or ask its operator which kind \
                 of authentication it wants (Basic is sent)"
            ),
            407 => format!(
                "the proxy wants user and password (407): put them into {setting} \
                 (http://user:password@host:port)"
            ),
            401 | 403 | 451 => format!(
                "the proxy does not permit {target} ({status}): have its operator permit it, or go without the proxy"
            ),
            502..=504 => format!(
                "the proxy itself cannot reach {target} ({status}): check the host name, and have its operator look \
                 into its log"
            ),
            429 => "the proxy is asked too often (429): ask its operator".into(),
            400 | 404 | 405 | 501 => format!(
                "the proxy does not do CONNECT to {target} ({status}): check that {setting} names an HTTP proxy, and \
                 which ports it permits"
            ),
            _ => format!(
                "the proxy answers CONNECT to {target} with status {status}: check {setting}, and have its operator \
                 look into its log"
            ),
        }
    }

    fn lost(&self, why: &str) -> Failure {
        transport::unreached(&self.at, &self.way, why)
    }

    fn too_slow(&self) -> Failure {
        transport::unconnected(&self.at, &self.way)
    }
}

/// The name that the certificate must be for. None if there is no valid name.
pub(super) fn server_name(url: &Url) -> Option<ServerName<'static>> {
    match url.host()? {
        Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
        Host::Ipv4(ip) => Some(ServerName::from(std::net::IpAddr::V4(ip))),
        Host::Ipv6(ip) => Some(ServerName::from(std::net::IpAddr::V6(ip))),
    }
}

/// Connects to the first address that accepts. Each address gets a share of the time, so that one
/// that never answers does not hide one that would.
pub(super) async fn first(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    let share = limit / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::from(io::ErrorKind::HostUnreachable);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(last)
}

/// The user and password in a proxy's URL, as Basic wants them (RFC 7617).
fn authorization(proxy: &Url) -> Option<Zeroizing<String>> {
    if proxy.username().is_empty() && proxy.password().is_none() {
        return None;
    }
    let mut pair = Zeroizing::new(percent_decode_str(proxy.username()).collect::<Vec<u8>>());
    pair.push(b':');
    pair.extend(percent_decode_str(proxy.password().unwrap_or_default()));
    Some(Zeroizing::new(format!("Basic {}", STANDARD.encode(&*pair))))
}

/// Reads the head of an answer, and returns its status. None: it is not HTTP, or too long.
async fn status(stream: &mut Box<dyn Duplex>) -> io::Result<Option<u16>> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD {
            return Ok(None);
        }
        if stream.read_buf(&mut head).await? == 0 {
            return match head.is_empty() {
                true => Err(io::ErrorKind::UnexpectedEof.into()),
                false => Ok(None),
            };
        }
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let is_http = words
        .next()
        .is_some_and(|version| version.starts_with(b"HTTP/1."));
    let status = words.next().and_then(|status| str::from_utf8(status).ok());
    Ok(status
        .filter(|_| is_http)
        .and_then(|status| status.parse().ok()))
}

/// Sends the request over an open connection, and reads at most [`LONGEST_BODY`] bytes of the
/// answer.
async fn ask(
    stream: Box<dyn Duplex>,
    request: &reqwest::Request,
) -> Result<HttpReply, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let url = request.url();
    let mut host = url.host_str().unwrap_or_default().to_owned();
    if let Some(port) = url.port() {
        host = format!("{host}:{port}");
    }
    let body = request.body().and_then(reqwest::Body::as_bytes);
    let mut sent = http::Request::new(Full::new(Bytes::copy_from_slice(body.unwrap_or_default())));
    *sent.method_mut() = request.method().clone();
    let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
    *sent.uri_mut() = target.parse().expect("what a URL holds is a path");
    *sent.headers_mut() = request.headers().clone();
    let headers = sent.headers_mut();
    headers.insert(
        HOST,
        HeaderValue::from_str(&host).expect("what a URL holds is a host"),
    );
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    let answer = async {
        let mut response = sender.send_request(sent).await?;
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::with_capacity(LONGEST_BODY));
        let body = loop {
            match response
                .frame()
                .await
                .map(|frame| frame.map(|frame| frame.into_data()))
            {
                None => break Some(body),
                Some(Ok(Ok(data))) if body.len() + data.len() > LONGEST_BODY => break None,
                Some(Ok(Ok(data))) => body.extend_from_slice(&data),
                // Trailers are ignored.
                Some(Ok(Err(_))) => {}
                Some(Err(error)) if status == 200 => return Err(error),
                Some(Err(_)) => break None,
            }
        };
        let headers = std::mem::take(response.headers_mut());
        Ok(HttpReply {
            status,
            headers,
            body,
        })
    };
    tokio::pin!(answer, connection);
    tokio::select! {
        biased;
        answer = &mut answer => answer,
        // The bytes that were read so far belong to the answer.
        _ = &mut connection => answer.await,
    }
}
