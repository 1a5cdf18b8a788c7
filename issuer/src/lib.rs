//! A small OAuth2 and OpenID Connect issuer on loopback: RFC 6749 §4.4 with every client
//! authentication of RFC 8414 §2, bound tokens (RFC 8705), resource indicators (RFC 8707), JWT
//! access tokens (RFC 9068) and both kinds of metadata.
//!
//! `tokend dev` runs it so that tokend can be tried with nothing to set up. The tests run it to see
//! tokend cope: with the feature `faults` it does what a script says, and tells what it was asked.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may look at the clock")
)]

mod answer;
pub mod certificates;
pub mod client;
pub mod clock;
mod documents;
mod endpoint;
#[cfg(feature = "faults")]
pub mod faults;
mod form;
mod keys;
mod peer;
#[cfg(feature = "faults")]
#[cfg(test)]
mod tests;
mod token;
mod wire;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use self::certificates::Pair;
use self::client::{ClientCredential, RegisteredClient, UsedAssertions};
use self::clock::WallClock;
use self::documents::DocumentPlace;
use self::keys::SigningKeys;

#[derive(Clone)]
pub struct Settings {
    /// The address to listen on. Default: 127.0.0.1 and a free port.
    pub listen: SocketAddr,
    /// None (default): plain HTTP.
    pub tls: Option<IssuerTls>,
    /// Path of the issuer URL: empty (default), or with a slash at its start and none at its end,
    /// for instance `/realms/dev`.
    pub path: String,
    pub clients: Vec<RegisteredClient>,
    /// Life of a token, in whole seconds. Default: 5 minutes.
    pub token_lifetime: Duration,
    /// The audience that `/api/topology` requires; None (default): any.
    pub api_audience: Option<String>,
    /// The clock that dates tokens, answers and certificates. Default: the machine's.
    pub clock: WallClock,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            tls: None,
            path: String::new(),
            clients: Vec::new(),
            token_lifetime: Duration::from_secs(300),
            api_audience: None,
            clock: WallClock::system(),
        }
    }
}

/// TLS settings of the issuer.
#[derive(Clone, Debug)]
pub struct IssuerTls {
    /// The certificate of the issuer, which must have the name `localhost`.
    pub server: Pair,
    /// Authorities of client certificates in PEM, or self-signed client certificates themselves.
    /// Empty: the issuer asks for no certificate.
    pub client_roots: Vec<String>,
}

/// A running issuer. When it is dropped, it ends and closes every connection.
pub struct Issuer {
    state: Arc<IssuerState>,
    address: SocketAddr,
    listening: Mutex<Listening>,
}

enum Listening {
    Running {
        stop: oneshot::Sender<()>,
        task: JoinHandle<()>,
    },
    /// The issuer refuses connections, but keeps the port, so that no other program gets it.
    Stopped(TcpSocket),
    /// The issuer is being stopped or restarted, or that has failed.
    Between,
}

/// State that all connections share.
struct IssuerState {
    clock: WallClock,
    url: String,
    path: String,
    /// Values of `aud` in an assertion that mean this issuer.
    audiences: Vec<String>,
    token_lifetime: Duration,
    api_audience: Option<String>,
    tls: Mutex<Option<Arc<ServerConfig>>>,
    clients: Mutex<HashMap<String, RegisteredClient>>,
    keys: Mutex<SigningKeys>,
    used_assertions: Mutex<UsedAssertions>,
    connections: AtomicU64,
    failed_handshakes: AtomicUsize,
    #[cfg(feature = "faults")]
    faults: faults::Instrumentation,
}

impl Issuer {
    /// Binds and serves on the current tokio runtime. The issuer accepts connections when this
    /// returns.
    ///
    /// # Errors
    /// The address is not available; certificate, key or roots cannot be used (`InvalidInput`).
    pub async fn start(settings: Settings) -> io::Result<Issuer> {
        let tls = settings
            .tls
            .as_ref()
            .map(|tls| wire::server_config(tls, &settings.clock))
            .transpose()?;
        let listener = wire::listen(wire::reserve(settings.listen, settings.listen.port() == 0)?)?;
        let address = listener.local_addr()?;
        // With TLS the URL needs the name in the certificate. Without TLS an address saves the
        // look-up.
        let url = if tls.is_some() {
            format!("https://localhost:{}{}", address.port(), settings.path)
        } else {
            format!("http://{address}{}", settings.path)
        };
        let audiences = ["", "/token", "/mtls/token"]
            .map(|path| format!("{url}{path}"))
            .to_vec();
        let state = Arc::new(IssuerState {
            clock: settings.clock,
            url,
            path: settings.path,
            audiences,
            token_lifetime: settings.token_lifetime,
            api_audience: settings.api_audience,
            tls: Mutex::new(tls),
            clients: Mutex::new(
                settings
                    .clients
                    .into_iter()
                    .map(|client| (client.id.clone(), client))
                    .collect(),
            ),
            keys: Mutex::new(SigningKeys::new()?),
            used_assertions: Mutex::default(),
            connections: AtomicU64::new(0),
            failed_handshakes: AtomicUsize::new(0),
            #[cfg(feature = "faults")]
            faults: faults::Instrumentation::default(),
        });
        let listening = Mutex::new(Listening::running(listener, &state));
        Ok(Issuer {
            state,
            address,
            listening,
        })
    }

    /// The issuer identifier, for instance `https://localhost:40123`. Endpoints are below it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.state.url
    }

    #[must_use]
    pub fn token_url(&self) -> String {
        format!("{}/token", self.state.url)
    }

    /// The address that the issuer listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The number of TCP connections so far.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }

    /// The number of connections whose TLS handshake failed on this side, for instance because of
    /// an untrusted client certificate.
    #[must_use]
    pub fn failed_handshakes(&self) -> usize {
        self.state.failed_handshakes.load(Ordering::Relaxed)
    }

    /// Signs with a new key from now on; tokens of the last few keys still verify.
    ///
    /// # Errors
    /// A key could not be made.
    pub fn rotate_signing_key(&self) -> io::Result<()> {
        locked(&self.state.keys).rotate()
    }

    /// Registers a client, or replaces the one with this id.
    pub fn set_client(&self, client: RegisteredClient) {
        locked(&self.state.clients).insert(client.id.clone(), client);
    }

    /// Gives a client another secret, however it authenticated before. Registers an unknown client.
    pub fn set_client_secret(&self, id: &str, secret: &str) {
        let credential = ClientCredential::Secret(secret.into());
        locked(&self.state.clients)
            .entry(id.to_owned())
            .or_insert_with(|| RegisteredClient::new(id, ClientCredential::None))
            .credential = credential;
    }

    /// Sets certificate and client roots of new connections. An issuer that was started without TLS
    /// stays without.
    ///
    /// # Errors
    /// `InvalidInput`: certificate, key or roots cannot be used.
    pub fn set_tls(&self, tls: &IssuerTls) -> io::Result<()> {
        let config = wire::server_config(tls, &self.state.clock)?;
        if let Some(current) = &mut *locked(&self.state.tls) {
            *current = config;
        }
        Ok(())
    }

    /// Closes every connection and refuses new ones until [`Issuer::restart`]. The issuer keeps
    /// keys, clients, script and record.
    ///
    /// # Errors
    /// Another program took a port that the settings named. This cannot happen to a port that the
    /// system chose.
    pub async fn stop(&self) -> io::Result<()> {
        let before = std::mem::replace(&mut *locked(&self.listening), Listening::Between);
        let after = match before {
            Listening::Running { stop, task } => {
                // The port is reserved before the old socket goes: in between, the system could
                // give the port to any program.
                let early = wire::reserve(self.address, true);
                // The task may have ended with its runtime; either way the listener is gone
                // afterwards.
                let _ = stop.send(());
                let _ = task.await;
                Listening::Stopped(early.or_else(|_| wire::reserve(self.address, false))?)
            }
            other => other,
        };
        *locked(&self.listening) = after;
        Ok(())
    }

    /// Listens again on the same port after [`Issuer::stop`], on the current tokio runtime. Does
    /// nothing if the issuer was not stopped.
    ///
    /// # Errors
    /// The issuer cannot listen on the port, or [`Issuer::stop`] has failed.
    pub fn restart(&self) -> io::Result<()> {
        let mut listening = locked(&self.listening);
        *listening = match std::mem::replace(&mut *listening, Listening::Between) {
            Listening::Stopped(socket) => Listening::running(wire::listen(socket)?, &self.state),
            Listening::Between => return Err(io::Error::other("stopping has not succeeded")),
            running @ Listening::Running { .. } => running,
        };
        Ok(())
    }
}

impl Listening {
    fn running(listener: tokio::net::TcpListener, state: &Arc<IssuerState>) -> Listening {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(wire::serve(listener, Arc::clone(state), stopped));
        Listening::Running { stop, task }
    }
}

impl IssuerState {
    fn is_token_path(&self, path: &str) -> bool {
        matches!(
            path.strip_prefix(&self.path),
            Some("/token" | "/mtls/token")
        )
    }

    /// What a path stands for. RFC 8414 §3.1 puts its well-known part before the issuer's path,
    /// OpenID Connect puts it after.
    fn place(&self, path: &str) -> Option<DocumentPlace> {
        if path.strip_prefix("/.well-known/oauth-authorization-server") == Some(&self.path) {
            return Some(DocumentPlace::Metadata);
        }
        match path.strip_prefix(&self.path)? {
            "/.well-known/openid-configuration" => Some(DocumentPlace::Metadata),
            "/jwks" => Some(DocumentPlace::Keys),
            "/api/topology" => Some(DocumentPlace::Api),
            _ => None,
        }
    }
}

/// Locks the mutex even if a thread panicked while it held the lock: each change of the guarded
/// value is a single step.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
