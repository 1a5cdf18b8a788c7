//! HTTP clients and discovery documents, shared by the profiles that go the same way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, RequestBuilder, retry};
use rustls::ClientConfig;
use tower::util::MapRequestLayer;
use url::Url;

use super::discovery::Discovery;
use super::lane::{Lane, LaneError, Lanes};
use super::proxy::Environment;
use super::transport::{self, HttpReply};
use crate::core::failure::Failure;
use crate::core::oauth::withhold::origin;
use crate::core::profile::{Http, is_loopback};
use crate::material::{ClientIdentity, Digest, Trust};
use crate::tls::Tls;

/// An idle connection is closed after this. Renewals are minutes apart, so that a longer time would
/// keep TLS buffers (tens of kilobytes each) for nothing; a burst of profiles of one issuer still
/// shares a connection.
const IDLE: Duration = Duration::from_secs(30);

/// Idle connections kept per host.
const MOST_IDLE: usize = 4;

/// As it stands in the issuer's log.
const USER_AGENT: &str = concat!("tokend/", env!("CARGO_PKG_VERSION"));

/// Added to `http.timeout` on the asking side: time for the client to notice by itself and to say
/// more exactly what it waited for.
const NOTICE: Duration = Duration::from_millis(500);

/// Makes two profiles share a client: the same identity provider, settings, trust and certificate.
/// Connections live on the thread of the one that they were opened for, so that no two identity
/// providers share any.
#[derive(Clone, PartialEq, Eq, Hash)]
struct IdpKey {
    /// Of the configured URL.
    origin: String,
    http: Http,
    trust: Option<Digest>,
    identity: Option<Digest>,
}

/// All upstreams in use. They go with their last profile.
#[derive(Default)]
pub(in crate::provider) struct IdpClients(Mutex<OpenClients>);

#[derive(Default)]
struct OpenClients {
    upstreams: HashMap<IdpKey, Weak<IdpClient>>,
    lanes: Lanes,
}

impl IdpClients {
    /// The upstream for an identity provider and these settings, an existing one if there is one.
    pub(super) fn get(
        &self,
        idp: &Url,
        http: &Http,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
        tls: &Tls,
    ) -> Result<Arc<IdpClient>, Failure> {
        let key = IdpKey {
            origin: origin(idp),
            http: http.clone(),
            trust: match trust {
                Trust::System => None,
                Trust::Roots(_, digest) => Some(*digest),
            },
            identity: identity.map(|identity| identity.digest),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upstream) = all.upstreams.get(&key).and_then(Weak::upgrade) {
            return Ok(upstream);
        }
        let config = tls.client_config(trust, identity).map_err(|_| {
            Failure::permanent(
                "tls.certificate and tls.key cannot be used for TLS: use RSA, P-256, P-384 or Ed25519",
            )
        })?;
        let lane = all.lanes.get(&key.origin);
        let upstream = Arc::new(IdpClient::new(http, config, identity.is_some(), lane));
        all.upstreams
            .retain(|_, upstream| upstream.strong_count() > 0);
        all.upstreams.insert(key, Arc::downgrade(&upstream));
        Ok(upstream)
    }

    /// How many are in use.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.upstreams
            .values()
            .filter(|upstream| upstream.strong_count() > 0)
            .count()
    }
}

/// One way to identity providers.
pub(super) struct IdpClient {
    http: Http,
    environment: Environment,
    with_certificate: bool,
    tls: ClientConfig,
    /// With the proxy that is configured, or that of the environment.
    usual: OnceLock<Client>,
    /// Without any, for loopback.
    direct: OnceLock<Client>,
    discoveries: Mutex<HashMap<(String, bool), Weak<Discovery>>>,
    /// Where its connections live.
    lane: Arc<Lane>,
    /// How many were begun.
    opened: Arc<AtomicUsize>,
}

/// There was no answer.
pub(super) struct NoReply {
    pub(super) failure: Failure,
    /// There was not even a connection.
    pub(super) unconnected: bool,
}

impl IdpClient {
    /// Opens nothing yet.
    pub(super) fn new(
        http: &Http,
        tls: ClientConfig,
        with_certificate: bool,
        lane: Arc<Lane>,
    ) -> IdpClient {
        IdpClient {
            http: http.clone(),
            environment: Environment::of_process(),
            with_certificate,
            tls,
            usual: OnceLock::new(),
            direct: OnceLock::new(),
            discoveries: Mutex::default(),
            lane,
            opened: Arc::default(),
        }
    }

    /// The client for a URL, made at its first use.
    pub(super) fn client(&self, url: &Url) -> Result<&Client, Failure> {
        let cell = if self.goes_direct(url) {
            &self.direct
        } else {
            &self.usual
        };
        if let Some(client) = cell.get() {
            return Ok(client);
        }
        let client = self.make(url)?;
        Ok(cell.get_or_init(|| client))
    }

    /// The shared state of an issuer's discovery.
    pub(super) fn discovery(&self, issuer: &Url, allow_insecure_http: bool) -> Arc<Discovery> {
        let key = (issuer.as_str().to_owned(), allow_insecure_http);
        let mut all = self
            .discoveries
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(discovery) = all.get(&key).and_then(Weak::upgrade) {
            return discovery;
        }
        let discovery = Arc::new(Discovery::new(issuer.clone(), allow_insecure_http));
        all.retain(|_, discovery| discovery.strong_count() > 0);
        all.insert(key, Arc::downgrade(&discovery));
        discovery
    }

    /// `http.timeout`
    pub(super) fn timeout(&self) -> Duration {
        self.http.timeout
    }

    /// One exchange with `at`, on the identity provider's thread. `repeated`: the request may be
    /// carried out twice.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        at: &str,
        repeated: bool,
    ) -> Result<HttpReply, NoReply> {
        let limit = self.http.timeout.saturating_add(NOTICE);
        let exchange = transport::send(request, repeated, self.opened.clone());
        match self.lane.run(limit, exchange).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                let mut way = self.way();
                way.proxy = error
                    .url()
                    .and_then(|url| self.proxy_for(url))
                    .as_ref()
                    .map(origin);
                Err(NoReply {
                    failure: transport::explain(&error, at, &way),
                    unconnected: error.is_connect(),
                })
            }
            Err(lost) => Err(NoReply {
                failure: match lost {
                    LaneError::Late => transport::too_late(at, &self.way()),
                    LaneError::Broken => Failure::transient(format!(
                        "{at} cannot be asked: there is no thread for it, most likely because the limit of threads \
                         or memory is reached; raise it, it is tried again by itself"
                    )),
                },
                unconnected: false,
            }),
        }
    }

    /// In the words of failures.
    pub(super) fn way(&self) -> transport::Route {
        transport::Route {
            connect_timeout: self.http.connect_timeout,
            timeout: self.http.timeout,
            proxy: self.http.proxy.as_ref().map(origin),
            with_certificate: self.with_certificate,
        }
    }

    /// The proxy on the way to a URL: `http.proxy`, or the environment's, which never sees what
    /// stays on this machine.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<Url> {
        let configured = self.http.proxy.clone();
        configured.or_else(|| self.environment.proxy_for(url))
    }

    fn goes_direct(&self, url: &Url) -> bool {
        self.http.proxy.is_none() && is_loopback(url)
    }

    fn make(&self, url: &Url) -> Result<Client, Failure> {
        let opened = self.opened.clone();
        let mut builder = Client::builder()
            .connector_layer(MapRequestLayer::new(move |request| {
                opened.fetch_add(1, Ordering::Relaxed);
                request
            }))
            // Of the environment's only those that are documented; they are added below.
            .no_proxy()
            .tls_backend_preconfigured(self.tls.clone())
            .http1_only()
            // A redirect would carry the secret to whoever the server names.
            .redirect(Policy::none())
            // Retrying is the lifecycle's business, and it counts; but for what transport::send
            // repeats.
            .retry(retry::never())
            .referer(false)
            .user_agent(USER_AGENT)
            // Nothing is decompressed here, and without a word any coding would do (RFC 9110
            // §12.5.3).
            .default_headers(HeaderMap::from_iter([(
                ACCEPT_ENCODING,
                HeaderValue::from_static("identity"),
            )]))
            .connect_timeout(self.http.connect_timeout)
            .timeout(self.http.timeout)
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(MOST_IDLE);
        if let Some(proxy) = &self.http.proxy {
            let proxy = Proxy::all(proxy.as_str()).map_err(|_| {
                Failure::permanent("http.proxy cannot be used: write it as http://host:port")
            })?;
            builder = builder.proxy(proxy);
        } else if !self.goes_direct(url)
            && let Some(proxy) = self.environment.proxy()?
        {
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|_| {
            Failure::permanent(
                "the HTTP client cannot be set up: check http and tls of this profile",
            )
        })
    }
}
