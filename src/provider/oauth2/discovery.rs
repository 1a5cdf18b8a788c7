//! The discovery document of one issuer. Attempts look it up, not only the start (trap 34).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_ENCODING, DATE, RETRY_AFTER};
use url::Url;

use super::idp_client::IdpClient;
use super::text;
use super::transport::{HttpReply, too_late};
use crate::clock::Clock;
use crate::core::failure::Failure;
use crate::core::oauth::date;
use crate::core::oauth::discovery::{Document, DocumentError, parse, places};
use crate::core::oauth::response;
use crate::core::oauth::withhold::place;
use crate::core::secret::Secret;
use crate::core::time::BootTime;

/// A document younger than this is used without another look. Issuers rarely move their endpoints,
/// and a lost endpoint makes the document doubtful at once.
const FRESH: Duration = Duration::from_secs(3600);

/// After a failed look, an old document is used for this long before the next look. Otherwise an
/// issuer with broken discovery would cost every attempt a timeout.
const GRACE: Duration = Duration::from_secs(60);

/// The endpoints of an issuer, as far as they are known.
pub(super) struct Discovery {
    issuer: Url,
    allow_insecure_http: bool,
    state: Mutex<DiscoveryState>,
    /// The task that looks holds this lock. The others take its result.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct DiscoveryState {
    /// The last document. It is kept however old it gets: that is better than nothing.
    document: Option<Arc<Document>>,
    /// The document is used without a look until then. None: a look is due.
    fresh_until: Option<BootTime>,
    /// The last failed look, and when it ended.
    failed: Option<(BootTime, Failure)>,
}

impl Discovery {
    pub(super) fn new(issuer: Url, allow_insecure_http: bool) -> Discovery {
        Discovery {
            issuer,
            allow_insecure_http,
            state: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// The document, fetched if there is no fresh one. If many need it at the same time, one looks
    /// and the others take its result, even a failure. They do not queue up to be refused one after
    /// the other (trap 11).
    pub(super) async fn document(
        &self,
        upstream: &IdpClient,
        clock: &Clock,
        secrets: &[Secret],
    ) -> Result<Arc<Document>, Failure> {
        let asked = clock.now().boot;
        if let Some(document) = self.fresh(asked) {
            return Ok(document);
        }
        let _turn = self.turn.lock().await;
        if let Some(document) = self.fresh(clock.now().boot) {
            return Ok(document);
        }
        if let Some((ended, failure)) = &self.state().failed
            && *ended > asked
        {
            return Err(failure.clone());
        }
        let secrets: Vec<&Secret> = secrets.iter().collect();
        // Both places share one limit, so that discovery and token request stay within the
        // deadline.
        let mut skew = None;
        let look = self.look(upstream, clock, &secrets, &mut skew);
        let looked = tokio::time::timeout(upstream.limit(), look)
            .await
            .unwrap_or_else(|_| Err(too_late(&place(&self.issuer), &upstream.way())));
        let now = clock.now().boot;
        let mut state = self.state();
        match looked {
            Ok(document) => {
                let document = Arc::new(document);
                state.document = Some(document.clone());
                state.fresh_until = Some(now.plus(FRESH));
                state.failed = None;
                Ok(document)
            }
            Err(failure) => {
                if let Some(document) = state.document.clone() {
                    state.fresh_until = Some(now.plus(GRACE));
                    return Ok(document);
                }
                state.failed = Some((now, failure.clone()));
                Err(failure)
            }
        }
    }

    /// The document in use. None before the first.
    pub(super) fn known(&self) -> Option<Arc<Document>> {
        self.state().document.clone()
    }

    /// Marks the document as doubtful, since its token endpoint is gone. The next request looks
    /// again first.
    pub(super) fn doubt(&self, used: &Arc<Document>) {
        let mut state = self.state();
        if state
            .document
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, used))
        {
            state.fresh_until = None;
        }
    }

    fn fresh(&self, now: BootTime) -> Option<Arc<Document>> {
        let state = self.state();
        state.fresh_until.filter(|until| now < *until)?;
        state.document.clone()
    }

    fn state(&self) -> MutexGuard<'_, DiscoveryState> {
        // Every change is a few assignments that cannot panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at OpenID Connect's place first, then at RFC 8414's if there is no document. Sets
    /// `skew` to how far the issuer's clock is ahead, if an answer tells.
    pub(super) async fn look(
        &self,
        upstream: &IdpClient,
        clock: &Clock,
        secrets: &[&Secret],
        skew: &mut Option<i64>,
    ) -> Result<Document, Failure> {
        let mut looked = Vec::new();
        for url in places(&self.issuer) {
            let at = place(&url);
            let get = upstream
                .client(&url)?
                .get(url.clone())
                .header(ACCEPT, "application/json");
            let asked_at = clock.now();
            let answer = upstream
                .send(get, &at, true)
                .await
                .map_err(|none| none.failure)?;
            let HttpReply {
                status,
                headers,
                body,
            } = &answer;
            let date = text(headers, DATE).and_then(date::parse);
            if let Some(date) = date {
                *skew = Some(response::skew(date, asked_at, clock.now()));
            }
            match (status, body) {
                // Some servers refuse paths that they do not know.
                (400..=499, _) if !matches!(status, 408 | 429) => {
                    looked.push(format!("{at} (HTTP {status})"));
                }
                (200, None) => looked.push(format!("{at} (too long)")),
                (200, Some(body)) => {
                    match parse(body, &self.issuer, self.allow_insecure_http, secrets) {
                        Ok(document) => return Ok(document),
                        Err(DocumentError::Foreign(why)) => return Err(Failure::permanent(why)),
                        Err(DocumentError::Unusable(why)) => return Err(Failure::transient(why)),
                        Err(DocumentError::Missing) => {
                            let coding = response::coding(text(headers, CONTENT_ENCODING), body);
                            looked.push(match coding {
                                Some(coding) => format!("{at} (in the coding {coding}, unasked)"),
                                None => format!("{at} (no issuer and token_endpoint in it)"),
                            });
                        }
                    }
                }
                _ => {
                    let wait = text(headers, RETRY_AFTER)
                        .and_then(|text| date::retry_after(text, date, clock.now().wall.0));
                    return Err(Failure::transient(format!(
                        "{at} answered HTTP {status} instead of the discovery document: check issuer, or set token_url \
                         instead; it is asked again by itself"
                    ))
                    .with_retry_after(wait));
                }
            }
        }
        Err(Failure::transient(format!(
            "there is no discovery document at {}: check issuer, or set token_url instead; it is asked again by itself",
            looked.join(" or ")
        )))
    }
}
