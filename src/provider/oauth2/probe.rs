//! Goes the way of a token request to an identity provider, step by step, but never sends one. An
//! operator who has no tokens sees which step fails, and how long the others took.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::DATE;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::discovery::Discovery;
use super::idp_client::IdpClient;
use super::lane::Lane;
use super::text;
use super::transport::{self, Route};
use super::tunnel::{first, server_name};
use crate::clock::Clock;
use crate::core::certificate::Certificate;
use crate::core::failure::Failure;
use crate::core::oauth::withhold::{foreign_place, origin, place};
use crate::core::oauth::{date, response};
use crate::core::profile::{Endpoint, Idp};
use crate::core::secret::Secret;
use crate::material::{ClientIdentity, Trust, certificate};
use crate::provider::Shared;
use crate::tls::verifier::Witness;

/// The findings so far. They are filled in during the probe, so that a probe that is given up shows
/// how far it came.
#[derive(Clone, Debug, Default)]
pub struct Probe {
    /// The proxy on the way, from the configuration or from this process's environment.
    pub proxy: Option<String>,
    /// The steps that went well, and how long each took.
    pub steps: Vec<Step>,
    /// The current step. None once everything is done.
    pub doing: Option<&'static str>,
    /// The failure that ended the probe.
    pub failure: Option<Failure>,
    /// The certificates that the identity provider showed, its own first, even if they were
    /// refused.
    pub certificates: Vec<Certificate>,
    /// The issuer that the last of them names.
    pub signed_by: Option<String>,
    /// How many seconds the identity provider's clock is ahead, if it tells.
    pub clock_skew: Option<i64>,
}

/// One step that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// DNS, TCP, TLS, discovery or HTTP.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Goes the way to `idp`, within the profile's own timeouts. Dropping the future ends the probe.
/// `secrets` are withheld from messages, since the identity provider may know them from the
/// daemon's requests.
pub async fn probe(
    idp: &Idp,
    (trust, identity): (&Trust, Option<&ClientIdentity>),
    secrets: &[Secret],
    shared: &Shared,
    found: &mut Probe,
) {
    let secrets: Vec<&Secret> = secrets.iter().collect();
    let outcome = go(idp, (trust, identity), &secrets, shared, found).await;
    found.failure = outcome.err();
    found.doing = None;
}

async fn go(
    idp: &Idp,
    (trust, identity): (&Trust, Option<&ClientIdentity>),
    secrets: &[&Secret],
    shared: &Shared,
    found: &mut Probe,
) -> Result<(), Failure> {
    let witness = Arc::new(Witness::default());
    let config = shared
        .tls
        .client_config(trust, identity, Some(witness.clone()))
        .map_err(|_| {
            Failure::permanent("its TLS settings cannot be used: `tokend check` says why")
        })?;
    let config = Arc::new(config);
    let upstream = IdpClient::new(
        &idp.http,
        config.as_ref().clone(),
        identity.is_some(),
        Arc::new(Lane::default()),
    );
    let mut walk = Walk {
        upstream: &upstream,
        connector: TlsConnector::from(config),
        witness: &witness,
        clock: &shared.clock,
        secrets,
        found,
    };
    let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &idp.endpoint;
    walk.connect(url, place(url)).await?;
    let Endpoint::Issuer(issuer) = &idp.endpoint else {
        return walk.greet(url).await;
    };
    let endpoint = walk.discover(issuer, idp.allow_insecure_http).await?;
    if origin(&endpoint) != origin(issuer) {
        walk.connect(&endpoint, foreign_place(&endpoint, secrets))
            .await?;
    }
    Ok(())
}

struct Walk<'a> {
    upstream: &'a IdpClient,
    connector: TlsConnector,
    witness: &'a Witness,
    clock: &'a Clock,
    secrets: &'a [&'a Secret],
    found: &'a mut Probe,
}

impl Walk<'_> {
    /// Resolves the name, connects and, without a proxy, makes the TLS handshake. Through a proxy,
    /// TLS is part of the next exchange.
    async fn connect(&mut self, url: &Url, at: String) -> Result<(), Failure> {
        let limit = self.upstream.way().connect_timeout;
        let hop = self.hop(url);
        let way = self.upstream.way_to(url);
        self.found.proxy.clone_from(&hop.proxy);
        let resolve = tokio::net::lookup_host((hop.host.as_str(), hop.port));
        let addresses: Vec<SocketAddr> = match hop.host.parse() {
            Ok(ip) => vec![SocketAddr::new(ip, hop.port)],
            Err(_) => match self.timed("DNS", limit, resolve).await {
                Some(Ok(found)) => found.collect(),
                Some(Err(_)) | None => return Err(transport::unresolved(&at, &way)),
            },
        };
        let stream = match self.timed("TCP", limit, first(&addresses, limit)).await {
            Some(Ok(stream)) => stream,
            Some(Err(error)) if error.kind() != io::ErrorKind::TimedOut => {
                return Err(transport::explain_connection(&error, &at, &way));
            }
            Some(Err(_)) | None => return Err(transport::unconnected(&at, &way)),
        };
        if hop.proxy.is_none() && url.scheme() == "https" {
            self.handshake(url, stream, &at, &way, limit).await?;
        }
        Ok(())
    }

    async fn handshake(
        &mut self,
        url: &Url,
        stream: TcpStream,
        at: &str,
        way: &Route,
        limit: Duration,
    ) -> Result<(), Failure> {
        let Some(name) = server_name(url) else {
            return Err(transport::unresolved(at, way));
        };
        let connecting = self.connector.connect(name, stream);
        let outcome = self.timed("TLS", limit, connecting).await;
        self.note_certificates();
        match outcome {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(transport::explain_connection(&error, at, way)),
            None => Err(transport::unconnected(at, way)),
        }
    }

    /// Gets the discovery document as the daemon does. Returns the token endpoint that it names.
    async fn discover(&mut self, issuer: &Url, insecure: bool) -> Result<Url, Failure> {
        let discovery = Discovery::new(issuer.clone(), insecure);
        let (upstream, clock) = (self.upstream, self.clock);
        let mut skew = None;
        let look = discovery.look(upstream, clock, self.secrets, &mut skew);
        let outcome = self.timed("discovery", upstream.timeout(), look).await;
        self.found.clock_skew = skew;
        self.note_certificates();
        let document = outcome.unwrap_or_else(|| {
            Err(transport::too_late(
                &place(issuer),
                &upstream.way_to(issuer),
            ))
        })?;
        Ok(document.endpoint(upstream.way().with_certificate).clone())
    }

    /// Gets any answer from a host of which only the token endpoint is known. A HEAD of its root
    /// reveals nothing about us and is no token request, and every answer has a date.
    async fn greet(&mut self, endpoint: &Url) -> Result<(), Failure> {
        let root = endpoint
            .join("/")
            .map_err(|_| Failure::permanent("token_url is no URL with a host: correct it"))?;
        let at = place(&root);
        let way = self.upstream.way_to(&root);
        let head = self.upstream.client(&root)?.head(root);
        let asked_at = self.clock.now();
        let (upstream, limit) = (self.upstream, self.upstream.timeout());
        let outcome = self
            .timed("HTTP", limit, upstream.send(head, &at, true))
            .await;
        self.note_certificates();
        let answer = match outcome {
            Some(answer) => answer.map_err(|none| none.failure)?,
            None => return Err(transport::too_late(&at, &way)),
        };
        let date = text(&answer.headers, DATE).and_then(date::parse);
        self.found.clock_skew = date.map(|date| response::skew(date, asked_at, self.clock.now()));
        Ok(())
    }

    /// Runs one step within `limit`, and records how long it took if it went well. None: the step
    /// was not over in time.
    async fn timed<T, E>(
        &mut self,
        name: &'static str,
        limit: Duration,
        step: impl Future<Output = Result<T, E>>,
    ) -> Option<Result<T, E>> {
        self.found.doing = Some(name);
        let begun = self.clock.now().boot;
        let outcome = tokio::time::timeout(limit, step).await.ok();
        if matches!(outcome, Some(Ok(_))) {
            let took = self.clock.now().boot.since(begun);
            self.found.steps.push(Step { name, took });
        }
        outcome
    }

    fn note_certificates(&mut self) {
        let seen = self.witness.seen();
        let Some(last) = seen.last() else {
            return;
        };
        self.found.signed_by = certificate::issuer(last);
        self.found.certificates = seen
            .iter()
            .filter_map(|shown| certificate::facts("server", shown))
            .collect();
    }

    /// The first host to connect to.
    fn hop(&self, url: &Url) -> Hop {
        let of = |url: &Url, proxy: Option<String>| Hop {
            // Resolvers do not accept the brackets of IPv6.
            host: url
                .host_str()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
            proxy,
        };
        match self.upstream.proxy_for(url) {
            Some(proxy) => of(&proxy, Some(origin(&proxy))),
            None => of(url, None),
        }
    }
}

/// A host to connect to: the identity provider's, or the proxy's.
struct Hop {
    host: String,
    port: u16,
    proxy: Option<String>,
}
