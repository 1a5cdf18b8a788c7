//! Signs of life for the service manager's watchdog. One is sent when a request has really been
//! answered, not when a timer has run out.
//!
//! The thread that owns the lifecycles asks, and the thread that serves answers, so that a
//! standstill of either is noticed. The request takes the way of every request, but does not come
//! through the socket: a restart would cure neither a flood of connections there nor a name that
//! leads elsewhere.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;
use tracing::error;

use crate::supervisor;

const QUESTION: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n";

/// Buffer for the question or its answer, in bytes. Each is shorter than this.
const ROOM: usize = 1024;

/// Asks for ever, three times within the watchdog's limit.
pub async fn run(connections: mpsc::Sender<DuplexStream>, limit: Duration) {
    let pause = limit / 3;
    loop {
        tokio::time::sleep(pause).await;
        match tokio::time::timeout(pause, is_answered(&connections)).await {
            Ok(true) => supervisor::alive(),
            Ok(false) => {} // The daemon ends.
            Err(_) => error!(
                "no request has been answered for {} ms: the service manager gets no sign of life",
                pause.as_millis()
            ),
        }
    }
}

/// True when the server has answered; false when it has closed the connection without an answer.
async fn is_answered(connections: &mpsc::Sender<DuplexStream>) -> bool {
    let (mut here, there) = tokio::io::duplex(ROOM);
    if connections.send(there).await.is_err() {
        return false;
    }
    let mut answer = Vec::with_capacity(ROOM);
    here.write_all(QUESTION).await.is_ok()
        && here.read_to_end(&mut answer).await.is_ok()
        && answer.starts_with(b"HTTP/1.1 200")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by an `is_answered` that is content with a connection.
    #[tokio::test]
    async fn who_accepts_and_says_nothing_has_not_answered() {
        let (connections, mut accepted) = mpsc::channel(1);
        let answers = async || {
            tokio::time::timeout(Duration::from_millis(200), is_answered(&connections)).await
        };
        assert!(answers().await.is_err(), "nobody accepts");
        let silent = accepted.recv().await.expect("the one that was given up");
        assert!(answers().await.is_err(), "nobody answers");
        drop(silent);
        drop(accepted.recv().await);
        let (answered, ()) = tokio::join!(answers(), async {
            let mut stream = accepted.recv().await.expect("a connection");
            let mut question = [0; QUESTION.len()];
            stream
                .read_exact(&mut question)
                .await
                .expect("the question");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\n\r\n")
                .await
                .expect("written");
        });
        assert_eq!(answered, Ok(true));
        let (closed, ()) = tokio::join!(answers(), async {
            drop(accepted.recv().await);
        });
        assert_eq!(closed, Ok(false));
    }
}
