//! A small HTTP server, over plain TCP or TLS. It answers as it is told, and remembers the
//! requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the server does with a request.
pub enum Act {
    /// Sends these bytes and closes.
    Send(Vec<u8>),
    /// Sends these bytes and closes without TLS's farewell.
    SendAndDrop(Vec<u8>),
    /// Sends these bytes and then keeps silent.
    SendAndHang(Vec<u8>),
    /// Sends a head, then body bytes until the client stops reading.
    Endless(Vec<u8>),
    /// Sends these bytes over and over until the client stops reading.
    Repeat(Vec<u8>),
}

#[derive(Clone, Debug)]
pub struct Seen {
    pub head: String,
    pub body: String,
}

impl Seen {
    /// The request line without the version: `GET /path`.
    pub fn line(&self) -> &str {
        let line = self.head.lines().next().unwrap();
        line.strip_suffix(" HTTP/1.1").unwrap_or(line)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    /// The values of a form parameter, decoded.
    pub fn parameters(&self, name: &str) -> Vec<String> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .filter(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
            .collect()
    }
}

/// A server that ends with the test.
pub struct Server {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    /// The number of bytes that `Act::Endless` has sent.
    pub sent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub async fn plain(answer: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Server {
        Server::start(None, answer).await
    }

    pub async fn tls(
        acceptor: TlsAcceptor,
        answer: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Server {
        Server::start(Some(acceptor), answer).await
    }

    async fn start(
        acceptor: Option<TlsAcceptor>,
        answer: impl Fn(&Seen) -> Act + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sent = Arc::new(AtomicUsize::new(0));
        let answer = Arc::new(answer);
        let (seen_by, sent_by) = (seen.clone(), sent.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, sent, answer) = (seen_by.clone(), sent_by.clone(), answer.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    match acceptor {
                        None => exchange(stream, &seen, &sent, &*answer).await,
                        Some(acceptor) => match acceptor.accept(stream).into_fallible().await {
                            Ok(stream) => exchange(stream, &seen, &sent, &*answer).await,
                            // Closing with unread bytes would reset the connection and could lose
                            // the alert.
                            Err((_, mut stream)) => {
                                let _ = stream.shutdown().await;
                                let _ = stream.read_to_end(&mut Vec::new()).await;
                            }
                        },
                    }
                });
            }
        });
        Server {
            address,
            seen,
            sent,
            task,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The request lines so far, without the version.
    pub fn lines(&self) -> Vec<String> {
        self.seen().iter().map(|seen| seen.line().into()).collect()
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    seen: &Mutex<Vec<Seen>>,
    sent: &AtomicUsize,
    answer: &(dyn Fn(&Seen) -> Act + Send + Sync),
) {
    let mut bytes = Vec::new();
    let request = loop {
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let request = Seen {
            head: head.into(),
            body: body.into(),
        };
        let length: usize = request
            .header("content-length")
            .map_or(0, |text| text.parse().unwrap());
        if body.len() >= length {
            break request;
        }
    };
    seen.lock().unwrap().push(request.clone());
    match answer(&request) {
        Act::Send(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.shutdown().await;
        }
        Act::SendAndDrop(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
        }
        Act::SendAndHang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.flush().await;
            std::future::pending::<()>().await;
        }
        Act::Repeat(bytes) => {
            let many = bytes.repeat(64 * 1024 / bytes.len());
            while stream.write_all(&many).await.is_ok() {
                sent.fetch_add(many.len(), Ordering::Relaxed);
            }
        }
        Act::Endless(head) => {
            let _ = stream.write_all(&head).await;
            let junk = [b' '; 16 * 1024];
            while stream.write_all(&junk).await.is_ok() {
                sent.fetch_add(junk.len(), Ordering::Relaxed);
            }
        }
    }
}

/// An answer with a body; `headers` are whole lines with their line breaks.
pub fn answer(status: u16, headers: &str, body: &str) -> Act {
    let mut bytes = format!(
        "HTTP/1.1 {status} Said\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body.as_bytes());
    Act::Send(bytes)
}

/// JSON with status 200.
pub fn json(value: &serde_json::Value) -> Act {
    answer(
        200,
        "content-type: application/json\r\n",
        &value.to_string(),
    )
}

/// A good token response.
pub fn good_token() -> Act {
    json(
        &serde_json::json!({ "access_token": "the-token", "token_type": "Bearer", "expires_in": 300 }),
    )
}

/// A port that refuses connections for as long as this lives. It is bound but not listening, so no
/// other test gets it.
pub struct Refusing(tokio::net::TcpSocket);

impl Refusing {
    pub fn new() -> Refusing {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Refusing(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }
}
