//! What callers get, right now: a credential, the next result, or the reason why neither.

use std::sync::Arc;
use std::time::Duration;

use super::{Lifecycle, LifecycleState, Refusal, RefusalKind, Verdict};
use crate::core::credential::{Credential, Fingerprint};
use crate::core::failure::FailureKind;
use crate::core::time::Stamp;

/// When to ask again for what is being fetched; most token requests take less.
const UNDER_WAY: Duration = Duration::from_millis(100);

impl Lifecycle {
    /// What a caller that wants `min_ttl` gets right now.
    #[must_use]
    pub fn verdict(&self, now: Stamp, min_ttl: Duration) -> Verdict {
        if let Some(credential) = self.servable(now, min_ttl) {
            return Verdict::Serve(credential.clone());
        }
        if let Some(granted) = self.granted
            && min_ttl > granted
        {
            return Verdict::Refuse(Refusal {
                kind: RefusalKind::MinTtlTooLong,
                message: format!(
                    "min_ttl of {}s is longer than this issuer's credentials live ({}s after the safety margin): ask for less",
                    min_ttl.as_secs(),
                    granted.as_secs()
                ),
                oauth_error: None,
                retry_after: None,
            });
        }
        let nothing_known = self.trouble.is_none() && !self.repeating(now);
        let comes = nothing_known && !self.too_slow_for(min_ttl) && !self.too_young(now);
        if self.doing.is_some() || comes {
            return Verdict::Wait;
        }
        Verdict::Refuse(self.refusal(now, min_ttl))
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self, now: Stamp) -> LifecycleState {
        let usable = self.servable(now, Duration::ZERO).is_some();
        let idle = self.doing.is_none() && !self.awake(now);
        match (&self.trouble, usable) {
            (None, true) => LifecycleState::Fresh,
            (Some(_), true) => LifecycleState::Stale,
            // Nobody knows whether what failed then would fail now.
            (_, false) if idle => LifecycleState::Asleep,
            (Some(trouble), false) if trouble.failure.kind == FailureKind::Permanent => {
                LifecycleState::Rejected
            }
            (Some(_), false) => LifecycleState::Backoff,
            (None, false) => LifecycleState::Fetching,
        }
    }

    /// Whether a usable credential other than the one that was refused is there.
    #[must_use]
    pub fn replaced(&self, now: Stamp, refused: Fingerprint) -> bool {
        self.servable(now, Duration::ZERO)
            .is_some_and(|credential| credential.fingerprint != refused)
    }

    /// When to ask again after a report: soon while a request is under way, else when one is due.
    #[must_use]
    pub fn ask_again_in(&self, now: Stamp) -> Duration {
        if self.doing.is_some() {
            return UNDER_WAY;
        }
        let due = self
            .due(now)
            .map_or(Duration::ZERO, |due| due.since(now.boot));
        due.max(self.rules.min_interval)
    }

    pub(super) fn servable(&self, now: Stamp, min_ttl: Duration) -> Option<&Arc<Credential>> {
        let held = self.held.as_ref()?;
        let credential = &held.credential;
        if !credential.lives(now, min_ttl) {
            return None;
        }
        if credential.doubted(now) {
            // The boot clock may have stood still. A renewal decides; where none can be had, the
            // wall clock does.
            let renewable = self.doing.is_some() || self.earliest <= now.boot;
            if (renewable && !held.doubt_tried) || !credential.lives_by_wall(now, min_ttl) {
                return None;
            }
        }
        Some(credential)
    }

    /// The issuer hands out the same living credential again and again: asking more often yields
    /// nothing else.
    pub(super) fn repeating(&self, now: Stamp) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.repeats > 0 && held.credential.lives(now, Duration::ZERO))
    }

    /// The newest credential had lost too much of its life on the way already. Whoever waits on may
    /// do so for ever.
    fn too_slow_for(&self, min_ttl: Duration) -> bool {
        self.held
            .as_ref()
            .and_then(|held| held.arrived_with)
            .is_some_and(|left| min_ttl > left)
    }

    /// There is one that is good for others, and no caller can have it replaced yet.
    fn too_young(&self, now: Stamp) -> bool {
        let near = now.boot.plus(self.rules.min_interval);
        self.servable(now, Duration::ZERO).is_some() && self.due(now).is_none_or(|due| due > near)
    }

    fn refusal(&self, now: Stamp, min_ttl: Duration) -> Refusal {
        let mut next = self.due(now).unwrap_or(self.earliest);
        if self.trouble.is_none() && !self.repeating(now) {
            next = next.min(self.forced_from(now).max(self.earliest));
        }
        let retry_after = Some(next.since(now.boot).max(self.rules.min_interval / 10));
        match &self.trouble {
            Some(trouble) => Refusal {
                kind: match trouble.failure.kind {
                    FailureKind::Transient => RefusalKind::Unavailable,
                    FailureKind::Permanent => RefusalKind::Rejected,
                },
                message: trouble.failure.message.clone(),
                oauth_error: trouble.failure.oauth_error.clone(),
                retry_after,
            },
            None => Refusal {
                kind: RefusalKind::Unavailable,
                message: if self.repeating(now) {
                    "the identity provider keeps returning the same token, and it does not live that long any more"
                } else if self.too_slow_for(min_ttl) {
                    "the identity provider is so slow that its tokens do not live that long any more when they arrive"
                } else {
                    "the token does not live that long any more, and it is too new to be replaced for that: ask for less, \
                     or again later"
                }
                .to_owned(),
                oauth_error: None,
                retry_after,
            },
        }
    }
}
