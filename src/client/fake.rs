//! A fake daemon for tests: a thread that answers each connection as it is told.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The answer on a connection after its request was read.
pub(crate) enum Reply {
    /// Sends these bytes, then closes.
    Bytes(Vec<u8>),
    /// Sends these bytes, then nothing, and leaves the connection open.
    Hang(Vec<u8>),
}

/// A complete answer.
pub(crate) fn json(status: u16, body: &str) -> Reply {
    Reply::Bytes(
        format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

/// The body of a refusal.
pub(crate) fn refusal(status: u16, code: &str, reason: &str, message: &str) -> Reply {
    json(
        status,
        &serde_json::json!({"code": code, "reason": reason, "message": message}).to_string(),
    )
}

pub(crate) const TOKEN: &str = r#"{"token":"tok.en","token_type":"Bearer","authorization":"Bearer tok.en","expires_at":"2030-01-02T03:04:05.678Z","refresh_at":"2030-01-02T03:00:00Z","scopes":["a"],"stale":false,"fingerprint":"00","generation":3,"expires_in":59.5}"#;

/// A fake daemon that listens until dropped.
pub(crate) struct Fake {
    socket: PathBuf,
    requests: Arc<Mutex<Vec<String>>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Fake {
    /// Starts it. `answer` gets the number of the connection, from 0, and the target of its
    /// request.
    pub(crate) fn new(answer: impl Fn(usize, &str) -> Reply + Send + 'static) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        Fake::at(dir.path().join("tokend.sock"), dir, answer)
    }

    pub(crate) fn at(
        socket: PathBuf,
        dir: tempfile::TempDir,
        answer: impl Fn(usize, &str) -> Reply + Send + 'static,
    ) -> Fake {
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (seen, stop) = (Arc::clone(&requests), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut open = Vec::new();
            for number in 0.. {
                let (mut stream, _) = listener.accept().unwrap();
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let head = head(&mut stream);
                let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                seen.lock().unwrap().push(head);
                // A client that has gone away is no error for a server.
                match answer(number, &target) {
                    Reply::Bytes(bytes) => drop(stream.write_all(&bytes)),
                    Reply::Hang(bytes) => {
                        drop(stream.write_all(&bytes));
                        open.push(stream);
                    }
                }
            }
        });
        Fake {
            socket,
            requests,
            over,
            thread: Some(thread),
            _dir: dir,
        }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.socket));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the fake daemon panicked"
            );
        }
    }
}
