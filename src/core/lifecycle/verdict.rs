//! What a caller gets right now: a credential, the result of the next attempt, or a reason.

use std::sync::Arc;
use std::time::Duration;

use super::{Lifecycle, LifecycleState, Refusal, RefusalKind, Verdict};
use crate::core::credential::{Credential, Fingerprint};
use crate::core::failure::FailureKind;
use crate::core::time::Stamp;

/// When a caller should ask again for a credential that is being fetched; most token requests take
/// less.
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

    /// The state of the profile.
    #[must_use]
    pub fn state(&self, now: Stamp) -> LifecycleState {
        let usable = self.servable(now, Duration::ZERO).is_some();
        let idle = self.doing.is_none() && !self.awake(now);
        match (&self.trouble, usable) {
            (None, true) => LifecycleState::Fresh,
            (Some(_), true) => LifecycleState::Stale,
            // It is unknown whether an attempt that failed then would fail now.
            (_, false) if idle => LifecycleState::Asleep,
            (Some(trouble), false) if trouble.failure.kind == FailureKind::Permanent => {
                LifecycleState::Rejected
            }
            (Some(_), false) => LifecycleState::Backoff,
            (None, false) => LifecycleState::Fetching,
        }
    }

    /// Whether there is a usable credential other than the refused one.
    #[must_use]
    pub fn replaced(&self, now: Stamp, refused: Fingerprint) -> bool {
        self.servable(now, Duration::ZERO)
            .is_some_and(|credential| credential.fingerprint != refused)
    }

    /// When to ask again after a report: soon while an attempt is under way, else when one is due.
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

    /// Whether the issuer hands out the same living credential again and again. Then further
    /// requests bring nothing new.
    pub(super) fn repeating(&self, now: Stamp) -> bool {
        self.held
            .as_ref()
            .is_some_and(|held| held.repeats > 0 && held.credential.lives(now, Duration::ZERO))
    }

    /// Whether the newest credential came with less life than the caller wants. Such a caller might
    /// wait for ever.
    fn too_slow_for(&self, min_ttl: Duration) -> bool {
        self.held
            .as_ref()
            .and_then(|held| held.arrived_with)
            .is_some_and(|left| min_ttl > left)
    }

    /// Whether there is a credential that is good for others, and it is too early to replace it for
    /// one caller.
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
