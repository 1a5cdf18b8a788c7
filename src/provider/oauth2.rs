//! `method = "oauth2"`: discovery if needed, then one POST to the token endpoint. It never follows
//! redirects and never retries. Everything is bounded in time and size.

mod discovery;
mod idp_client;
mod lane;
mod pool;
pub mod probe;
pub mod proxy;
mod sign;
mod transport;
mod tunnel;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, DATE, HeaderMap, HeaderName,
    HeaderValue, LOCATION, RETRY_AFTER,
};
use tracing::warn;
use url::Url;

use self::discovery::Discovery;
use self::idp_client::IdpClient;
pub(super) use self::pool::IdpClients;
use self::sign::Signer;
use self::transport::HttpReply;
use super::{Attempt, Provider, Random, Shared, required};
use crate::clock::Clock;
use crate::core::certificate::Certificate;
use crate::core::credential::{Issued, Variant};
use crate::core::diagnostic::Diagnostic;
use crate::core::failure::{Failure, FailureKind};
use crate::core::oauth::date;
use crate::core::oauth::discovery::Document;
use crate::core::oauth::request::{
    Proof, TokenRequest, encoded, is_plain, may_be_repeated, scopes,
};
use crate::core::oauth::response::cure::{Shown, Suspects};
use crate::core::oauth::response::{self, Asked, Granted, Response, judge};
use crate::core::oauth::wanted::lacking;
use crate::core::oauth::withhold::{foreign_place, place};
use crate::core::profile::client_auth::{Audience, ClientAuth};
use crate::core::profile::{Endpoint, OAuth2, Profile, ProfileName};
use crate::core::secret::Secret;
use crate::material::{AssertionMaterial, Material};

/// Gets tokens with the client credentials grant.
pub(super) struct OAuth2Provider {
    profile: ProfileName,
    oauth: OAuth2,
    refuse_bound: bool,
    proof: Prover,
    /// The client certificate and the length of its chain. With a certificate, the mTLS alias of
    /// the token endpoint applies.
    certificate: Option<(Certificate, usize)>,
    upstream: Arc<IdpClient>,
    /// None if the token endpoint is configured.
    discovery: Option<Arc<Discovery>>,
    /// The number of scopes of the last answer that were not passed on.
    withheld: AtomicUsize,
    /// What the profile's own credential was requested with and the last one lacks.
    lacking: Mutex<Vec<Diagnostic>>,
    /// By how much the server's clock was ahead in its last answer.
    clock_skew: Mutex<Option<i64>>,
    clock: Clock,
    random: Random,
}

/// The proof of the client's identity.
enum Prover {
    Nothing,
    Secret(Secret),
    Signed(Signer),
    /// client_secret_jwt. The secret is kept to be withheld from messages.
    SignedWithSecret(Signer, Secret),
    /// An assertion that another program renews.
    Ready(Mutex<Secret>),
}

impl OAuth2Provider {
    pub(super) fn new(
        profile: &Profile,
        oauth: &OAuth2,
        material: Material,
        shared: &Shared,
    ) -> Result<OAuth2Provider, Failure> {
        let proof = prover(oauth, &material)?;
        let (upstream, discovery) = shared.upstreams.get(
            &oauth.idp,
            &material.trust,
            material.identity.as_ref(),
            &shared.tls,
        )?;
        Ok(OAuth2Provider {
            profile: profile.name.clone(),
            oauth: oauth.clone(),
            refuse_bound: profile.refuse_bound_tokens,
            proof,
            certificate: material
                .identity
                .map(|identity| (identity.facts, identity.chain.len())),
            upstream,
            discovery,
            withheld: AtomicUsize::new(0),
            lacking: Mutex::default(),
            clock_skew: Mutex::default(),
            clock: shared.clock.clone(),
            random: shared.random,
        })
    }

    async fn ask(&self, variant: &Variant) -> Result<Issued, Failure> {
        let document = match &self.discovery {
            Some(discovery) => Some(
                discovery
                    .document(&self.upstream, &self.clock, &self.kept_secrets())
                    .await?,
            ),
            None => None,
        };
        let endpoint = match (&document, &self.oauth.idp.endpoint) {
            (Some(document), _) => document.endpoint(self.certificate.is_some()),
            (None, Endpoint::Token(url) | Endpoint::Issuer(url)) => url,
        };
        let outcome = self.post(endpoint, document.as_deref(), variant).await;
        match outcome {
            Ok(issued) => Ok(issued),
            Err(ExchangeFailure {
                mut failure,
                endpoint_lost,
            }) => {
                if let (Some(discovery), Some(document)) = (&self.discovery, &document) {
                    if endpoint_lost {
                        discovery.doubt(document);
                    }
                    let hint = document.hint(self.oauth.client_auth.as_str());
                    if let (FailureKind::Permanent, Some(hint)) = (failure.kind, hint) {
                        failure.message = format!("{}; {hint}", failure.message);
                    }
                }
                Err(failure)
            }
        }
    }

    async fn post(
        &self,
        endpoint: &Url,
        document: Option<&Document>,
        variant: &Variant,
    ) -> Result<Issued, ExchangeFailure> {
        let assertion = self.assertion(endpoint, document)?;
        let proof = match (&self.proof, &assertion) {
            (_, Some(assertion)) => Proof::Assertion(assertion),
            (Prover::Secret(secret), None) => Proof::Secret(secret),
            (_, None) => Proof::Nothing,
        };
        let request = TokenRequest::new(&self.oauth, variant, proof);
        let seen = self.seen(&request, assertion.as_ref());
        let seen: Vec<&Secret> = seen.iter().collect();

        let at = match document {
            Some(_) => foreign_place(endpoint, &seen),
            None => place(endpoint),
        };

        let client = self.upstream.client(endpoint)?;
        let mut post = client
            .post(endpoint.clone())
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = &request.authorization {
            let mut value = HeaderValue::from_str(authorization.expose()).map_err(|_| {
                Failure::permanent("client_id and client_secret do not fit into a header")
            })?;
            value.set_sensitive(true);
            post = post.header(AUTHORIZATION, value);
        }
        let post = post.body(Bytes::from_owner(request.form()));
        let asked_at = self.clock.now();
        let answer = self
            .upstream
            .send(post, &at, may_be_repeated(&self.oauth.grant))
            .await
            .map_err(|none| ExchangeFailure {
                failure: none.failure,
                endpoint_lost: none.unconnected,
            })?;
        let now = self.clock.now();
        let HttpReply {
            status,
            headers,
            body,
        } = &answer;
        let response = Response {
            status: *status,
            content_type: text(headers, CONTENT_TYPE),
            content_encoding: text(headers, CONTENT_ENCODING),
            date: text(headers, DATE),
            retry_after: text(headers, RETRY_AFTER),
            location: text(headers, LOCATION),
            body: body.as_ref().map(|body| body.as_slice()),
        };
        let date = response.date.and_then(date::parse);
        *current(&self.clock_skew) = date.map(|date| response::skew(date, asked_at, now));
        let granted = judge(
            &response,
            &Asked {
                endpoint,
                at: &at,
                suspects: self.suspects(),
                scopes: scopes(&self.oauth, variant),
                refuse_bound: self.refuse_bound,
                secrets: &seen,
                asked_at,
                now,
            },
        )
        .map_err(|failure| ExchangeFailure {
            failure,
            endpoint_lost: matches!(status, 404 | 405),
        })?;
        let issued = self.note_withheld(granted);
        if variant.is_default() {
            let (audience, resource) = (self.oauth.audience.as_deref(), &self.oauth.resource);
            let token = issued.token.expose();
            *current(&self.lacking) = lacking(token, audience, resource, &self.oauth.scopes);
        }
        Ok(issued)
    }

    /// Logs the withheld scopes once, and again when their number changes, since an answer comes
    /// with every renewal.
    fn note_withheld(&self, Granted { issued, withheld }: Granted) -> Issued {
        if self.withheld.swap(withheld, Ordering::Relaxed) != withheld && withheld > 0 {
            warn!(profile = %self.profile, withheld, "{}", not_passed_on(withheld));
        }
        issued
    }

    /// Signs a client assertion for this one request.
    fn assertion(
        &self,
        endpoint: &Url,
        document: Option<&Document>,
    ) -> Result<Option<Secret>, Failure> {
        let signer = match &self.proof {
            Prover::Nothing | Prover::Secret(_) => return Ok(None),
            Prover::Ready(assertion) => return Ok(Some(current(assertion).clone())),
            Prover::Signed(signer) | Prover::SignedWithSecret(signer, _) => signer,
        };
        let named = document.map(|it| (it.issuer.as_str(), it.token_endpoint_named.as_str()));
        let audience = match (&signer.audience, named) {
            (Some(Audience::Named(audience)), _) => audience,
            (Some(Audience::TokenEndpoint), Some((_, endpoint))) => endpoint,
            (Some(Audience::Issuer) | None, Some((issuer, _))) => issuer,
            (_, None) => endpoint.as_str(),
        };
        signer
            .sign(
                &self.oauth.client_id,
                audience,
                self.clock.now().wall,
                self.random,
            )
            .map(Some)
    }

    /// The parts of the client that may be at fault if the server refuses it.
    fn suspects(&self) -> Suspects<'_> {
        let plain = match &self.proof {
            Prover::Secret(secret) => is_plain(&self.oauth.client_id) && is_plain(secret.expose()),
            _ => true,
        };
        Suspects {
            auth: &self.oauth.client_auth,
            issuer_known: self.discovery.is_some(),
            plain,
            certificate: self.certificate.as_ref().map(|(facts, chain)| Shown {
                role: facts.role,
                subject: &facts.subject,
                chain: *chain,
            }),
        }
    }

    /// The secrets that the server may know from earlier requests.
    fn kept_secrets(&self) -> Vec<Secret> {
        match &self.proof {
            Prover::Secret(secret) | Prover::SignedWithSecret(_, secret) => vec![secret.clone()],
            Prover::Ready(assertion) => vec![current(assertion).clone()],
            Prover::Nothing | Prover::Signed(_) => Vec::new(),
        }
    }

    /// Every secret in this request, in every form that the server sees.
    fn seen(&self, request: &TokenRequest, assertion: Option<&Secret>) -> Vec<Secret> {
        let mut seen = self.kept_secrets();
        seen.extend(seen.first().map(encoded));
        seen.extend(request.authorization.as_ref().map(|header| {
            let bare = header.expose();
            Secret::new(bare.strip_prefix("Basic ").unwrap_or(bare).into())
        }));
        seen.extend(assertion.cloned());
        seen
    }
}

impl Provider for OAuth2Provider {
    fn fetch<'a>(&'a self, variant: &'a Variant) -> Attempt<'a> {
        Box::pin(self.ask(variant))
    }

    /// Discovery and the token request may each take their full time.
    fn deadline(&self) -> Duration {
        self.upstream.limit().saturating_mul(2)
    }

    fn renewed(&self, material: &Material) -> bool {
        let (Prover::Ready(known), Some(AssertionMaterial::Ready(ready))) =
            (&self.proof, &material.assertion)
        else {
            return false;
        };
        let mut known = current(known);
        let another = known.expose() != ready.assertion.expose();
        if another {
            *known = ready.assertion.clone();
        }
        another
    }

    fn clock_skew(&self) -> Option<i64> {
        *current(&self.clock_skew)
    }

    fn remarks(&self) -> Vec<Diagnostic> {
        let known = self.discovery.as_ref().and_then(|it| it.known());
        let secrets = self.kept_secrets();
        let secrets: Vec<&Secret> = secrets.iter().collect();
        let elsewhere = match (&known, &self.oauth.idp.endpoint) {
            (Some(document), Endpoint::Issuer(issuer)) => {
                document.elsewhere(issuer, self.certificate.is_some(), &secrets)
            }
            _ => None,
        };
        let elsewhere = elsewhere.map(|there| {
            let message = format!(
                "its document leads token requests, and with them the client's secret or assertion, to another \
                 origin ({there}): see that this is the identity provider's, or set token_url instead"
            );
            Diagnostic::new("issuer", message)
        });
        let withheld = self.withheld.load(Ordering::Relaxed);
        let withheld = (withheld > 0).then(|| Diagnostic::new("scopes", not_passed_on(withheld)));
        let lacking = current(&self.lacking).clone();
        elsewhere
            .into_iter()
            .chain(withheld)
            .chain(lacking)
            .collect()
    }
}

fn not_passed_on(scopes: usize) -> String {
    format!(
        "{scopes} of the scopes that the identity provider says it granted are not passed on, since they repeat a \
         secret or the token, have characters that no scope has, or are too many or too long; the token is served: ask \
         the identity provider's operator"
    )
}

/// A failure, and whether it makes the discovered endpoint doubtful.
struct ExchangeFailure {
    failure: Failure,
    endpoint_lost: bool,
}

impl From<Failure> for ExchangeFailure {
    fn from(failure: Failure) -> ExchangeFailure {
        ExchangeFailure {
            failure,
            endpoint_lost: false,
        }
    }
}

/// Makes the proof from exactly what its method needs, or fails. No method falls back to another
/// (trap 30).
fn prover(oauth: &OAuth2, material: &Material) -> Result<Prover, Failure> {
    let secret = || required(material.secret.clone(), "client_secret");
    match &oauth.client_auth {
        ClientAuth::SecretBasic(_)
        | ClientAuth::SecretBasicPlain(_)
        | ClientAuth::SecretPost(_) => Ok(Prover::Secret(secret()?)),
        ClientAuth::SecretJwt(_, assertion) => {
            let secret = secret()?;
            let signer = Signer::with_secret(assertion, &secret)?;
            Ok(Prover::SignedWithSecret(signer, secret))
        }
        ClientAuth::PrivateKeyJwt(assertion) => match &material.assertion {
            Some(AssertionMaterial::Key(key)) => {
                Ok(Prover::Signed(Signer::with_key(assertion, key)?))
            }
            Some(AssertionMaterial::Ready(ready)) => {
                Ok(Prover::Ready(Mutex::new(ready.assertion.clone())))
            }
            None => Err(Failure::permanent(
                "client_auth = \"private_key_jwt\" needs assertion.key or assertion.file",
            )),
        },
        ClientAuth::Tls | ClientAuth::SelfSignedTls => match &material.identity {
            Some(_) => Ok(Prover::Nothing),
            None => Err(Failure::permanent(format!(
                "client_auth = \"{}\" needs tls.certificate and tls.key",
                oauth.client_auth.as_str()
            ))),
        },
        ClientAuth::None => Ok(Prover::Nothing),
    }
}

fn current<T>(kept: &Mutex<T>) -> MutexGuard<'_, T> {
    // The value is only ever replaced whole.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The value of a header, if it is text.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}
