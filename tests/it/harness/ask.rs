//! Calls to a daemon over gRPC and over HTTP, as this user or as another one.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustix::process::{Gid, Uid};
use serde_json::Value;
use tokend::proto::credential_service_client::CredentialServiceClient;
use tokend::proto::{self, GetTokenRequest, ListProfilesRequest};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::{Daemon, PATIENCE, Secrets, block};

#[derive(Clone, Debug)]
pub struct Who {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Who {
    /// A user with a group of the same number.
    pub fn user(id: u32) -> Who {
        Who {
            uid: id,
            gid: id,
            groups: Vec::new(),
        }
    }

    /// Makes the current thread, and no other, run as this user.
    pub fn take_over_thread(&self) -> std::io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|id| Gid::from_raw(*id)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
    }
}

/// Connects as this user. The kernel records the user of the thread, so another user needs no other
/// process.
pub fn connect(socket: &Path, who: Option<&Who>) -> std::io::Result<UnixStream> {
    let Some(who) = who else {
        return UnixStream::connect(socket);
    };
    let socket = socket.to_owned();
    as_user(who, move || UnixStream::connect(socket))
}

/// Runs `work` on a thread of another user.
pub fn as_user<T: Send + 'static>(who: &Who, work: impl FnOnce() -> T + Send + 'static) -> T {
    let who = who.clone();
    std::thread::spawn(move || {
        who.take_over_thread().expect("root may");
        work()
    })
    .join()
    .expect("no panic")
}

/// Whether the daemon answers.
pub fn is_up(socket: &Path) -> bool {
    exchange(
        socket,
        None,
        b"GET /healthz HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n",
    )
    .is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200 "))
}

/// The answer to a request whose body, of 600 KiB, is sent whole before the answer is read.
pub fn after_long_body(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    more: &str,
) -> String {
    let body = "x".repeat(600 * 1024);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\n{more}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("head");
    stream
        .write_all(body.as_bytes())
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Sends bytes and reads the answer to its end.
pub fn exchange(socket: &Path, who: Option<&Who>, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(socket, who)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// A refusal, over either protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The code as gRPC names it.
    pub code: String,
    pub reason: String,
    pub message: String,
    pub retry_after: Option<Duration>,
    pub oauth_error: Option<String>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Headers, with names in small letters.
    pub headers: Vec<(String, String)>,
    /// The body as JSON; null if it is not JSON.
    pub body: Value,
}

impl Answer {
    pub fn read(bytes: &[u8]) -> Answer {
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        let (head, body) = text
            .split_once("\r\n\r\n")
            .unwrap_or_else(|| panic!("no HTTP: {text:?}"));
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .expect("status line");
        let headers = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").expect("header");
                (name.to_ascii_lowercase(), value.to_owned())
            })
            .collect();
        Answer {
            status: status.parse().expect("number"),
            headers,
            body: serde_json::from_str(body).unwrap_or_default(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| value.as_str())
    }

    /// A text field of the body.
    pub fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }

    pub fn refusal(&self) -> Refusal {
        assert_ne!(self.status, 200, "{self:?}");
        Refusal {
            code: self.text("code").to_owned(),
            reason: self.text("reason").to_owned(),
            message: self.text("message").to_owned(),
            retry_after: self.body["retry_after"]
                .as_f64()
                .map(Duration::from_secs_f64),
            oauth_error: self.body["oauth_error"].as_str().map(str::to_owned),
        }
    }
}

/// A credential, over either protocol.
pub struct Token {
    pub credential: proto::Credential,
    pub expires_in: Option<f64>,
}

#[derive(Clone)]
pub struct Grpc {
    pub channel: Channel,
    secrets: Secrets,
}

impl Grpc {
    pub fn ask(&self, request: GetTokenRequest) -> Result<Token, Refusal> {
        block(self.clone().asking(Request::new(request)))
    }

    /// The same call as a future: the calling thread does not wait.
    pub async fn asking(self, request: Request<GetTokenRequest>) -> Result<Token, Refusal> {
        let mut client = CredentialServiceClient::new(self.channel.clone());
        let answer = client
            .get_token(request)
            .await
            .map_err(|status| self.refusal(&status))?;
        let answer = answer.into_inner();
        let credential = proto::Credential::decode(answer.credential).expect("a credential");
        self.secrets.add(&credential.token);
        let expires_in = answer
            .expires_in
            .map(|left| left.seconds as f64 + f64::from(left.nanos) / 1e9);
        Ok(Token {
            credential,
            expires_in,
        })
    }

    pub fn token(&self, profile: &str) -> Result<Token, Refusal> {
        self.ask(get(profile))
    }

    /// The refusal in a status, with its details. Fails if it contains a secret.
    pub fn refusal(&self, status: &Status) -> Refusal {
        self.secrets
            .assert_none_in(&format!("{status:?}"), "a gRPC status");
        let details = String::from_utf8_lossy(status.details()).into_owned();
        self.secrets
            .assert_none_in(&details, "the details of a gRPC status");
        let details = status.get_error_details();
        let info = details.error_info();
        if let Some(info) = info {
            assert_eq!(info.domain, "tokend");
        }
        Refusal {
            code: name(status.code()).to_owned(),
            reason: info.map_or(String::new(), |info| info.reason.clone()),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            oauth_error: info.and_then(|info| info.metadata.get("oauth_error").cloned()),
        }
    }

    pub fn profiles(&self) -> Vec<String> {
        let mut client = CredentialServiceClient::new(self.channel.clone());
        let answer = block(client.list_profiles(ListProfilesRequest {})).expect("listed");
        let profiles = answer.into_inner().profiles;
        profiles.into_iter().map(|profile| profile.name).collect()
    }

    /// The health of a service, such as `SERVING`, or the code of the refusal.
    pub fn health(&self, service: &str) -> String {
        let mut client = HealthClient::new(self.channel.clone());
        let request = HealthCheckRequest {
            service: service.to_owned(),
        };
        match block(client.check(request)) {
            Ok(answer) => answer.into_inner().status().as_str_name().to_owned(),
            Err(status) => self.refusal(&status).code,
        }
    }
}

/// A request for the profile's own credential.
pub fn get(profile: &str) -> GetTokenRequest {
    GetTokenRequest {
        profile: profile.to_owned(),
        ..GetTokenRequest::default()
    }
}

fn name(code: Code) -> &'static str {
    match code {
        Code::Cancelled => "CANCELLED",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Unavailable => "UNAVAILABLE",
        _ => "another code",
    }
}

impl Daemon {
    pub fn grpc(&self) -> Grpc {
        self.grpc_as(None)
    }

    /// A new connection, as this user if there is one.
    pub fn grpc_as(&self, who: Option<&Who>) -> Grpc {
        self.grpc_over(who, Endpoint::from_static("http://localhost"))
    }

    /// A new connection. Each of its streams has room for this many bytes that have not been read.
    pub fn grpc_with_window(&self, bytes: u32) -> Grpc {
        let endpoint = Endpoint::from_static("http://localhost").initial_stream_window_size(bytes);
        self.grpc_over(None, endpoint)
    }

    fn grpc_over(&self, who: Option<&Who>, endpoint: Endpoint) -> Grpc {
        let (socket, who) = (self.socket(), who.cloned());
        let connector = tower::service_fn(move |_| {
            let stream = connect_async(socket.clone(), who.clone());
            async move { stream.await.map(TokioIo::new) }
        });
        let channel = endpoint.connect_with_connector(connector);
        Grpc {
            channel: block(channel).expect("connected"),
            secrets: self.place.secrets.clone(),
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        self.get_as(None, path)
    }

    pub fn get_as(&self, who: Option<&Who>, path: &str) -> Answer {
        self.http(who, "GET", path, "Host: tokend\r\n")
    }

    /// Sends any request; `head` contains its header lines.
    pub fn http(&self, who: Option<&Who>, method: &str, path: &str, head: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
        let bytes = exchange(&self.socket(), who, request.as_bytes()).expect("an answer");
        let answer = Answer::read(&bytes);
        if answer.status == 200 {
            self.place.secrets.add(answer.text("token"));
        }
        if answer.status != 200
            || !path
                .split('?')
                .next()
                .is_some_and(|path| path.ends_with("/token"))
        {
            let text = String::from_utf8_lossy(&bytes);
            self.place.secrets.assert_none_in(&text, "an HTTP answer");
        }
        answer
    }

    /// The page at a path, as text.
    pub fn page(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n");
        let answer = exchange(&self.socket(), None, request.as_bytes()).expect("an answer");
        let text = String::from_utf8(answer).expect("text");
        self.place.secrets.assert_none_in(&text, "a page");
        text
    }

    /// The credential over HTTP.
    pub fn http_token(&self, profile: &str) -> Answer {
        self.get(&format!("/v1/profiles/{profile}/token"))
    }
}

async fn connect_async(
    socket: PathBuf,
    who: Option<Who>,
) -> std::io::Result<tokio::net::UnixStream> {
    let stream = tokio::task::spawn_blocking(move || connect(&socket, who.as_ref()))
        .await
        .expect("no panic")?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
