//! Load from a client that does as little as possible, so that the server is what is measured.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokend::proto;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

type Sender = SendRequest<Full<Bytes>>;

/// The result of one slice.
#[derive(Default)]
pub struct Slice {
    /// The latencies in nanoseconds, one for each request.
    pub latencies: Vec<f64>,
    pub elapsed: Duration,
}

impl Slice {
    pub fn per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.elapsed.as_secs_f64()
    }

    pub fn micros(&self, q: f64) -> f64 {
        crate::stats::quantile(&self.latencies, q) / 1000.0
    }
}

/// gRPC connections to one server, and the runtime that drives them while a slice runs.
pub struct Grpc {
    runtime: Runtime,
    senders: Vec<Sender>,
}

impl Grpc {
    pub fn connect(socket: &Path, connections: usize) -> Grpc {
        let runtime = runtime();
        let senders = runtime.block_on(async {
            let mut senders = Vec::with_capacity(connections);
            for _ in 0..connections {
                senders.push(connect(socket).await);
            }
            senders
        });
        Grpc { runtime, senders }
    }

    /// Asks for the profiles in turn, with `in_flight` calls at a time on each connection.
    pub fn slice(&self, profiles: &[String], in_flight: usize, length: Duration) -> Slice {
        let bodies: Vec<Bytes> = profiles.iter().map(|profile| question(profile)).collect();
        self.runtime.block_on(async {
            let begin = Instant::now();
            let end = begin + length;
            let mut tasks = tokio::task::JoinSet::new();
            for (n, sender) in self.senders.iter().enumerate() {
                for m in 0..in_flight {
                    let mut sender = sender.clone();
                    let bodies = bodies.clone();
                    let mut next = (n * in_flight + m) * 7919;
                    tasks.spawn(async move {
                        let mut latencies = Vec::new();
                        loop {
                            let body = bodies[next % bodies.len()].clone();
                            next += 1;
                            let asked = Instant::now();
                            get_token(&mut sender, body).await;
                            let now = Instant::now();
                            latencies.push((now - asked).as_nanos() as f64);
                            if now >= end {
                                return latencies;
                            }
                        }
                    });
                }
            }
            let mut slice = Slice::default();
            while let Some(latencies) = tasks.join_next().await {
                slice.latencies.extend(latencies.expect("no call fails"));
            }
            slice.elapsed = begin.elapsed();
            slice
        })
    }

    /// Makes exactly `count` calls, one after the other.
    pub fn calls(&self, profile: &str, count: usize) {
        let body = question(profile);
        self.runtime.block_on(async {
            let mut sender = self.senders[0].clone();
            for _ in 0..count {
                get_token(&mut sender, body.clone()).await;
            }
        });
    }

    /// Makes one call for each of `callers` at the same moment, spread over the connections.
    pub fn crowd(&self, profile: &str, callers: usize) {
        let body = question(profile);
        self.runtime.block_on(async {
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..callers {
                let mut sender = self.senders[n % self.senders.len()].clone();
                let body = body.clone();
                tasks.spawn(async move { get_token(&mut sender, body).await });
            }
            while let Some(answer) = tasks.join_next().await {
                answer.expect("every caller gets its credential");
            }
        });
    }

    /// Opens a stream on each connection, reads its first message and keeps it open.
    pub fn watch(&self, profile: &str) -> Vec<hyper::body::Incoming> {
        let body = question(profile);
        self.runtime.block_on(async {
            let mut streams = Vec::with_capacity(self.senders.len());
            for sender in &self.senders {
                let mut sender = sender.clone();
                let request = request("WatchToken", body.clone());
                let response = sender.send_request(request).await.expect("an answer");
                let mut stream = response.into_body();
                stream.frame().await.expect("a message").expect("no error");
                streams.push(stream);
            }
            streams
        })
    }
}

/// Connects, asks and closes, over and over.
pub fn oneshot_grpc(socket: &Path, profile: &str, length: Duration) -> Slice {
    let body = question(profile);
    runtime().block_on(async {
        let mut slice = Slice::default();
        let begin = Instant::now();
        while begin.elapsed() < length {
            let asked = Instant::now();
            let mut sender = connect(socket).await;
            get_token(&mut sender, body.clone()).await;
            drop(sender);
            slice.latencies.push(asked.elapsed().as_nanos() as f64);
        }
        slice.elapsed = begin.elapsed();
        slice
    })
}

/// The answer to one call, as the bytes that came.
pub fn answer(socket: &Path, profile: &str) -> Bytes {
    let body = question(profile);
    runtime().block_on(async {
        let mut sender = connect(socket).await;
        get_token(&mut sender, body).await
    })
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime")
}

async fn connect(socket: &Path) -> Sender {
    let stream = UnixStream::connect(socket).await.expect("connect");
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(stream))
        .await
        .expect("handshake");
    tokio::spawn(connection);
    sender
}

/// A message in its gRPC frame.
fn question(profile: &str) -> Bytes {
    let message = proto::GetTokenRequest {
        profile: profile.to_owned(),
        ..Default::default()
    }
    .encode_to_vec();
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).expect("small").to_be_bytes());
    frame.extend(message);
    frame.into()
}

fn request(method: &str, body: Bytes) -> Request<Full<Bytes>> {
    Request::post(format!(
        "http://localhost/tokend.v1.CredentialService/{method}"
    ))
    .header("content-type", "application/grpc")
    .header("te", "trailers")
    .body(Full::new(body))
    .expect("a request")
}

async fn get_token(sender: &mut Sender, body: Bytes) -> Bytes {
    let response = sender
        .send_request(request("GetToken", body))
        .await
        .expect("an answer");
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a whole answer");
    let status = body
        .trailers()
        .and_then(|trailers| trailers.get("grpc-status"))
        .cloned();
    assert_eq!(
        status.as_ref().map(|s| s.as_bytes()),
        Some(&b"0"[..]),
        "not OK"
    );
    body.to_bytes().slice(5..)
}

/// HTTP/1.1 by hand, on one connection or on a new one for each request.
pub struct Http {
    stream: Option<BlockingStream>,
    buffer: Vec<u8>,
}

impl Http {
    pub fn new() -> Http {
        Http {
            stream: None,
            buffer: vec![0; 65536],
        }
    }

    pub fn slice(&mut self, socket: &Path, profile: &str, keep: bool, length: Duration) -> Slice {
        let mut slice = Slice::default();
        let begin = Instant::now();
        while begin.elapsed() < length {
            let asked = Instant::now();
            self.get(socket, &format!("/v1/profiles/{profile}/token"));
            if !keep {
                self.stream = None;
            }
            slice.latencies.push(asked.elapsed().as_nanos() as f64);
        }
        slice.elapsed = begin.elapsed();
        slice
    }

    /// The body of an answer with status 200.
    pub fn get(&mut self, socket: &Path, path: &str) -> &[u8] {
        match self.ask(socket, path) {
            (200, body) => &self.buffer[body],
            (status, body) => panic!(
                "status {status}: {}",
                String::from_utf8_lossy(&self.buffer[body])
            ),
        }
    }

    pub fn ask(&mut self, socket: &Path, path: &str) -> (u16, std::ops::Range<usize>) {
        let stream = self
            .stream
            .get_or_insert_with(|| BlockingStream::connect(socket).expect("connect"));
        let question = format!("GET {path} HTTP/1.1\r\nhost: tokend\r\n\r\n");
        stream.write_all(question.as_bytes()).expect("asked");
        let mut filled = 0;
        loop {
            if filled == self.buffer.len() {
                self.buffer.resize(2 * filled, 0);
            }
            let read = stream.read(&mut self.buffer[filled..]).expect("answer");
            assert_ne!(read, 0, "closed early");
            filled += read;
            let Some(head) = self.buffer[..filled]
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
            else {
                continue;
            };
            let text = std::str::from_utf8(&self.buffer[..head]).expect("text");
            let length: usize = text
                .split("\r\n")
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")?
                        .parse()
                        .ok()
                })
                .expect("a length");
            if filled == head + 4 + length {
                let status = text[9..12].parse().expect("a status");
                return (status, head + 4..filled);
            }
        }
    }
}
