//! A stream of credentials. This is the one call that lasts, so it speaks gRPC, with a runtime of
//! its own.

use std::io;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Client, ClientError, Deadline, ServerRefusal, connect};
use crate::proto::credential_service_client::CredentialServiceClient;
use crate::proto::watch_token_response::Event;
use crate::proto::{Credential, Unavailable, WatchTokenRequest};

/// A daemon that does not accept within this time hangs. Connecting to a socket on this machine
/// takes microseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An event of the stream.
#[derive(Debug)]
pub enum WatchEvent {
    /// A credential: the current one, or a replacement.
    Credential(Box<Credential>),
    /// There is no credential now.
    Unavailable(Unavailable),
}

impl Client {
    /// Calls `tell` with the current state and with each change, until it returns false.
    ///
    /// # Errors
    /// When the daemon cannot be reached, refuses, or ends the stream ([`ClientError::Closed`]).
    pub fn watch(
        &self,
        profile: &str,
        tell: &mut dyn FnMut(WatchEvent) -> bool,
    ) -> Result<(), ClientError> {
        // This connection tells why a daemon cannot be reached. A gRPC channel does not.
        let deadline = Deadline {
            clock: &self.clock,
            at: self.clock.now().boot.plus(CONNECT_TIMEOUT),
            timeout: CONNECT_TIMEOUT,
        };
        // The stream is silent while nothing changes, but a daemon that does not answer is silent
        // for ever. This request tells them apart.
        self.attempt("GET", "/healthz", &deadline)?;
        let connection = connect::connect(&self.socket, &deadline)?;
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| self.nonsense(error.to_string()))?
            .block_on(self.stream(connection, profile, tell))
    }

    async fn stream(
        &self,
        connection: std::os::unix::net::UnixStream,
        profile: &str,
        tell: &mut dyn FnMut(WatchEvent) -> bool,
    ) -> Result<(), ClientError> {
        let closed = || ClientError::Closed(self.socket.clone());
        connection.set_nonblocking(true).map_err(|_| closed())?;
        let connection = UnixStream::from_std(connection).map_err(|_| closed())?;
        // The channel uses this connection, whose listener has been checked. When the connection
        // ends, the stream ends too.
        let mut connection = Some(TokioIo::new(connection));
        let channel = Endpoint::from_static("http://tokend")
            .connect_with_connector(tower::service_fn(move |_| {
                let connection = connection.take();
                async move { connection.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected)) }
            }))
            .await
            .map_err(|_| closed())?;
        let request = WatchTokenRequest {
            profile: profile.to_owned(),
            ..WatchTokenRequest::default()
        };
        let mut stream = CredentialServiceClient::new(channel)
            .watch_token(request)
            .await
            .map_err(|status| self.refused(&status))?
            .into_inner();
        while let Some(response) = stream
            .message()
            .await
            .map_err(|status| self.refused(&status))?
        {
            let news = match response.event {
                Some(Event::Credential(credential)) => WatchEvent::Credential(Box::new(credential)),
                Some(Event::Unavailable(unavailable)) => WatchEvent::Unavailable(unavailable),
                None => continue,
            };
            if !tell(news) {
                return Ok(());
            }
        }
        Err(closed())
    }

    fn refused(&self, status: &Status) -> ClientError {
        let details = status.get_error_details();
        let code = match status.code() {
            Code::NotFound => "NOT_FOUND",
            Code::FailedPrecondition => "FAILED_PRECONDITION",
            Code::InvalidArgument => "INVALID_ARGUMENT",
            Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Code::PermissionDenied => "PERMISSION_DENIED",
            // The daemon has ended, or is about to.
            _ => return ClientError::Closed(self.socket.clone()),
        };
        ClientError::Refused(ServerRefusal {
            code: code.to_owned(),
            reason: details
                .error_info()
                .map(|info| info.reason.clone())
                .unwrap_or_default(),
            message: status.message().to_owned(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        })
    }
}
