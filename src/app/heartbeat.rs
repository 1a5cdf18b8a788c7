//! Signs of life for the service manager's watchdog: given when the socket has really answered, not when a timer has run out.
//!
//! The question is asked on the thread that owns the lifecycles and answered on the one that serves, so that either of them
//! standing still is noticed. What the service manager's restart would not cure is no reason to ask for one: a name that
//! leads elsewhere, or a caller's flood that has taken all places.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tracing::{debug, error};

use crate::supervisor;

const QUESTION: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n";

/// While the queue of connections is full, it is tried again this often.
const AGAIN: Duration = Duration::from_millis(50);

/// Asks three times in the time that the service manager waits, for ever.
pub async fn run(socket: PathBuf, limit: Duration) {
    let pause = limit / 3;
    loop {
        tokio::time::sleep(pause).await;
        match tokio::time::timeout(pause, answer(&socket)).await {
            Ok(()) => supervisor::alive(),
            Err(_) => error!(
                "the socket has not answered for {} ms: the service manager gets no sign of life",
                pause.as_millis()
            ),
        }
    }
}

/// Comes when the socket has answered, if only by closing the connection.
async fn answer(socket: &Path) {
    let mut stream = loop {
        match UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(AGAIN).await;
            }
            // Told elsewhere, and repaired there if it can be.
            Err(error) => {
                debug!(%error, "the socket cannot be reached by its name");
                return;
            }
        }
    };
    let mut answer = Vec::with_capacity(512);
    // Either may fail when the daemon closes the connection at once, for want of room: that is an answer.
    let _ = stream.write_all(QUESTION).await;
    let _ = stream.read_to_end(&mut answer).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    /// Broken by an `answer` that is content with a connection: the kernel makes those while the daemon stands still.
    #[tokio::test]
    async fn who_accepts_and_says_nothing_has_not_answered() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("s");
        let answers = async || {
            tokio::time::timeout(Duration::from_millis(200), answer(&path))
                .await
                .is_ok()
        };
        assert!(answers().await, "nothing there is not for the watchdog");
        let listener = UnixListener::bind(&path).expect("bound");
        assert!(!answers().await, "nobody accepts");
        let silent = listener.accept();
        assert!(!answers().await);
        drop(silent.await.expect("the one that was given up"));
        let (_, open) = tokio::join!(answers(), async {
            let (stream, _) = listener.accept().await.expect("accepted");
            tokio::time::sleep(Duration::from_millis(10)).await;
            stream
        });
        drop(open);
        let closing = async {
            loop {
                drop(listener.accept().await);
            }
        };
        tokio::select! {
            answered = answers() => assert!(answered, "closed is answered"),
            () = closing => {}
        }
    }
}
