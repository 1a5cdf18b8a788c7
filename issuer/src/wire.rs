//! Listener, TLS and connections.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::clock::WallClock;
#[cfg(not(feature = "faults"))]
use crate::endpoint::respond;
#[cfg(feature = "faults")]
use crate::faults::play::respond;
use crate::peer::{ConnectionPeer, PeerCertificate};
use crate::{IssuerState, IssuerTls, locked};

/// The kernel accepts this many connections before the issuer does. A test can reconnect many
/// clients at once, and none of them may meet a full queue.
const BACKLOG: u32 = 4096;

/// The issuer closes a connection on which the client has said nothing for this long.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after a failed accept, which keeps the loop from spinning. The most likely cause is a
/// lack of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(20);

/// A socket that owns its address but refuses connections until it listens. If `shared`, other
/// sockets of the same user that are shared too can reserve the same address while it is in use.
/// The kernel never picks an address that is shared already.
pub(crate) fn reserve(address: SocketAddr, shared: bool) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // Without this, connections in TIME_WAIT would keep a restarted issuer off its own port.
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(shared)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Makes a reserved socket accept connections.
pub(crate) fn listen(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Accepts connections until `stop` says so or its sender is gone. Closes every connection before
/// it returns.
pub(crate) async fn serve(
    listener: TcpListener,
    state: Arc<IssuerState>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, Arc::clone(&state)));
                }
                Err(_) => tokio::time::sleep(ACCEPT_REST).await,
            },
            // This removes connections that have ended.
            Some(_) = connections.join_next() => {}
        }
    }
    // The shutdown refuses connections at once, even while a process that is being started has a
    // copy of the socket.
    let _ = rustix::net::shutdown(&listener, rustix::net::Shutdown::Both);
    drop(listener);
    connections.shutdown().await;
}

async fn connection(stream: TcpStream, state: Arc<IssuerState>) {
    let number = state.connections.fetch_add(1, Ordering::Relaxed) + 1;
    // Without TCP_NODELAY a byte that trickles would wait for the next one. If the option cannot be
    // set, the connection goes on without it.
    let _ = stream.set_nodelay(true);
    let tls = locked(&state.tls).clone();
    let Some(config) = tls else {
        return http(stream, state, number, None).await;
    };
    let handshake = TlsAcceptor::from(config).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => {
            let certificate = stream
                .get_ref()
                .1
                .peer_certificates()
                .and_then(<[_]>::first)
                .and_then(|der| PeerCertificate::read(der));
            http(stream, state, number, certificate).await;
        }
        _ => {
            state.failed_handshakes.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn http<S>(
    stream: S,
    state: Arc<IssuerState>,
    number: u64,
    certificate: Option<PeerCertificate>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let peer = Arc::new(ConnectionPeer {
        number,
        certificate,
        close: Notify::new(),
    });
    let service = service_fn(|request| {
        let (state, peer) = (Arc::clone(&state), Arc::clone(&peer));
        async move { Ok::<_, Infallible>(respond(state, peer, request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        // An error here comes from the client or from the script.
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = peer.close.notified() => {}
    }
}

/// HTTP/2 and HTTP/1.1 over TLS 1.2 and 1.3. The server asks for a client certificate if there are
/// roots for one, and accepts clients without one. Sessions can be resumed, as with real providers:
/// a client that resumes presents its *old* certificate.
pub(crate) fn server_config(tls: &IssuerTls, clock: &WallClock) -> io::Result<Arc<ServerConfig>> {
    let invalid =
        |error: &dyn fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, error.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_details(
        Arc::clone(&provider),
        Arc::new(TlsClock(clock.clone())),
    )
    .with_safe_default_protocol_versions()
    .map_err(|error| invalid(&error))?;
    let builder = if tls.client_roots.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for pem in &tls.client_roots {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots
                    .add(certificate.map_err(|error| invalid(&error))?)
                    .map_err(|error| invalid(&error))?;
            }
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .map_err(|error| invalid(&error))?;
        builder.with_client_cert_verifier(verifier)
    };
    let chain = CertificateDer::pem_slice_iter(tls.server.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(&error))?;
    let key = PrivateKeyDer::from_pem_slice(tls.server.key_pem().as_bytes())
        .map_err(|error| invalid(&error))?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| invalid(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Certificates expire by the issuer's clock, so that a test can move it.
struct TlsClock(WallClock);

impl fmt::Debug for TlsClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClock")
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(self.0.now()))
    }
}
