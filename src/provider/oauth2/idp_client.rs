//! The HTTP clients for one way to identity providers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, HeaderMap, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, RequestBuilder, retry};
use rustls::ClientConfig;
use tower::util::MapRequestLayer;
use url::Url;

use super::lane::{Lane, LaneError};
use super::proxy::{Environment, ProxyRoute};
use super::transport::{self, HttpReply, NoReply, USER_AGENT};
use super::tunnel::Tunnel;
use crate::core::failure::Failure;
use crate::core::oauth::withhold::origin;
use crate::core::profile::Http;

/// An idle connection is closed after this time. Renewals are minutes apart, so a longer time would
/// keep TLS buffers (tens of kilobytes each) for nothing. Profiles of one issuer that ask in a
/// burst still share a connection.
const IDLE: Duration = Duration::from_secs(30);

/// At most this many idle connections are kept per host.
const MOST_IDLE: usize = 4;

/// The asking side waits this much longer than `http.timeout`. In that time the client can notice
/// the timeout itself, and say more exactly what it waited for.
const NOTICE: Duration = Duration::from_millis(500);

/// The HTTP clients and settings for one way to identity providers.
pub(super) struct IdpClient {
    http: Http,
    environment: Environment,
    with_certificate: bool,
    tls: Arc<ClientConfig>,
    /// The client for requests that need no tunnel.
    client: OnceLock<Client>,
    /// The thread that its connections live on.
    lane: Arc<Lane>,
    /// The number of connections that were opened.
    opened: Arc<AtomicUsize>,
}

impl IdpClient {
    /// Makes a client without opening anything.
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
            tls: Arc::new(tls),
            client: OnceLock::new(),
            lane,
            opened: Arc::default(),
        }
    }

    /// The client for a URL. It is made at its first use.
    pub(super) fn client(&self, url: &Url) -> Result<&Client, Failure> {
        if self.http.proxy.is_none() {
            self.environment.check(url)?;
        }
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = self.make()?;
        Ok(self.client.get_or_init(|| client))
    }

    /// The configured `http.timeout`.
    pub(super) fn timeout(&self) -> Duration {
        self.http.timeout
    }

    /// The time that the asking side waits for one step: discovery, or a token request.
    pub(super) fn limit(&self) -> Duration {
        self.http.timeout.saturating_add(NOTICE)
    }

    /// Makes one exchange with `at`, on the identity provider's thread. `repeated`: the request may
    /// be carried out twice.
    pub(super) async fn send(
        &self,
        request: RequestBuilder,
        at: &str,
        repeated: bool,
    ) -> Result<HttpReply, NoReply> {
        let limit = self.limit();
        let unsent = |error: reqwest::Error, way: &transport::Route| NoReply {
            failure: transport::explain(&error, at, way),
            unconnected: error.is_connect(),
        };
        let (client, request) = request.build_split();
        let request = request.map_err(|error| unsent(error, &self.way()))?;
        let way = self.way_to(request.url());
        let outcome = match self.tunnel(request.url(), at) {
            Some(tunnel) => self.lane.run(limit, tunnel.send(request)).await,
            None => {
                let request = RequestBuilder::from_parts(client, request);
                let outcome = self
                    .lane
                    .run(
                        limit,
                        transport::send(request, repeated, self.opened.clone()),
                    )
                    .await;
                outcome.map(|sent| sent.map_err(|error| unsent(error, &way)))
            }
        };
        outcome.unwrap_or_else(|lost| {
            Err(NoReply {
                failure: match lost {
                    LaneError::Late => transport::too_late(at, &way),
                    LaneError::Broken => Failure::transient(format!(
                        "{at} cannot be asked: there is no thread for it, most likely because the limit of threads \
                         or memory is reached; raise it, it is tried again by itself"
                    )),
                },
                unconnected: false,
            })
        })
    }

    /// The tunnel to a URL, if there is a proxy and it must not see the request.
    fn tunnel(&self, url: &Url, at: &str) -> Option<Tunnel> {
        let proxy = self.proxy_for(url).filter(|_| url.scheme() == "https")?;
        Some(Tunnel {
            proxy,
            setting: match self.http.proxy {
                Some(_) => "http.proxy",
                None => "HTTPS_PROXY",
            },
            tls: self.tls.clone(),
            way: self.way_to(url),
            at: at.to_owned(),
        })
    }

    /// The route as failures describe it, whatever the URL.
    pub(super) fn way(&self) -> transport::Route {
        transport::Route {
            connect_timeout: self.http.connect_timeout,
            timeout: self.http.timeout,
            through: String::new(),
            with_certificate: self.with_certificate,
        }
    }

    /// The route to a URL as failures describe it.
    pub(super) fn way_to(&self, url: &Url) -> transport::Route {
        let through = match (&self.http.proxy, self.environment.route(url)) {
            (Some(proxy), _) => format!(" (through the proxy {})", origin(proxy)),
            (None, ProxyRoute::Through(proxy)) => format!(
                " (through the proxy {}, which HTTPS_PROXY in the environment names)",
                origin(&proxy)
            ),
            (None, ProxyRoute::Excepted) => {
                " (without the proxy of HTTPS_PROXY, since NO_PROXY excepts it)".into()
            }
            (None, ProxyRoute::Direct | ProxyRoute::Unusable) => String::new(),
        };
        transport::Route {
            through,
            ..self.way()
        }
    }

    /// The proxy on the way to a URL: `http.proxy`, or the environment's. The environment's proxy
    /// never sees requests that stay on this machine.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<Url> {
        let configured = self.http.proxy.clone();
        configured.or_else(|| self.environment.proxy_for(url))
    }

    fn make(&self) -> Result<Client, Failure> {
        let opened = self.opened.clone();
        let mut builder = Client::builder()
            .connector_layer(MapRequestLayer::new(move |request| {
                opened.fetch_add(1, Ordering::Relaxed);
                request
            }))
            // The environment's proxies are only used by tunnels.
            .no_proxy()
            .tls_backend_preconfigured(self.tls.as_ref().clone())
            .http1_only()
            // A redirect would carry the secret to wherever the server names.
            .redirect(Policy::none())
            // Retrying is the lifecycle's business, and each retry counts. The only exception is
            // the repetition in transport::send.
            .retry(retry::never())
            .referer(false)
            .user_agent(USER_AGENT)
            // Nothing is decompressed here. Without this header the server could use any coding
            // (RFC 9110 §12.5.3).
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
        }
        builder.build().map_err(|_| {
            Failure::permanent(
                "the HTTP client cannot be set up: check http and tls of this profile",
            )
        })
    }
}
