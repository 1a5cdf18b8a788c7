//! The end of an attempt: a credential is held, or a failure is counted.

use std::sync::Arc;
use std::time::Duration;

use super::{Held, Lifecycle, Trouble};
use crate::core::credential::{Credential, Fingerprint, Issued, Lifetime};
use crate::core::failure::{Failure, FailureKind};
use crate::core::time::{BootTime, Stamp};

impl Lifecycle {
    pub(super) fn fetched(&mut self, now: Stamp, issued: Issued, fingerprint: Fingerprint) {
        let same = self
            .held
            .as_ref()
            .filter(|held| held.credential.fingerprint == fingerprint);
        let stated = self.stated(&issued);
        let mut expires = stated.map(|life| self.end_of_life(issued.asked_at.boot, life));
        if let Some(before) = same.and_then(|held| held.credential.expires) {
            // The same credential cannot live longer than it was first said to.
            expires = Some(expires.map_or(before, |end| end.min(before)));
        }
        if expires.is_some_and(|end| end <= now.boot) {
            let message = if same.is_some() {
                "the identity provider returned the same token again although it has expired; it probably caches tokens"
            } else {
                "the identity provider returned a token that has expired already: compare its clock with this machine's"
            };
            return self.failed(now, Failure::transient(message));
        }
        // The same statement again may come from a cache, and then a boot clock that has stood
        // still since the first one is still wrong. An issuer that counts down has looked at its
        // clock.
        let (obtained, stated) = match same {
            Some(held) if !held.counted_down_to(stated) => (held.credential.obtained, held.stated),
            _ => (issued.asked_at, stated),
        };
        let repeats = same.map_or(0, |held| held.repeats + 1);
        let rejected = same.is_some_and(|held| held.rejected);
        let due = expires.map(|end| {
            if repeats > 0 {
                self.due_after_repeat(now.boot, end)
            } else {
                self.due_after(issued.asked_at.boot, end)
            }
        });
        if repeats == 0 {
            self.generation += 1;
            self.granted = expires.map(|end| end.since(issued.asked_at.boot));
        }
        self.trouble = None;
        self.in_rotation = true;
        let credential = Credential {
            token: issued.token,
            scheme: issued.scheme,
            scopes: issued.scopes,
            confirmation: issued.confirmation,
            fingerprint,
            generation: self.generation,
            obtained,
            expires,
            refresh_at: due,
            clock_skew: issued.clock_skew,
        };
        self.held = Some(Held {
            doubt_tried: repeats > 0 && credential.doubted(now),
            arrived_with: expires.map(|end| end.since(now.boot)),
            credential: Arc::new(credential),
            due,
            stated,
            repeats,
            rejected,
        });
    }

    fn stated(&self, issued: &Issued) -> Option<Duration> {
        match issued.lifetime {
            Lifetime::Unlimited => None,
            Lifetime::Unknown => Some(self.rules.default_lifetime),
            Lifetime::For(life) => Some(life),
        }
    }

    /// The moment before it was asked for, plus its life, less the margin.
    fn end_of_life(&self, asked_at: BootTime, life: Duration) -> BootTime {
        asked_at.plus(life - self.rules.margin.min(life / 10))
    }

    pub(super) fn failed(&mut self, now: Stamp, failure: Failure) {
        let before = self.trouble.take();
        let since = before.as_ref().map_or(now, |trouble| trouble.since);
        let failures = before.as_ref().map_or(0, |trouble| trouble.failures) + 1;
        let permanents = before.map_or(0, |trouble| trouble.permanents)
            + u32::from(failure.kind == FailureKind::Permanent);
        let pause = match failure.kind {
            FailureKind::Transient => self.back_off(failures),
            FailureKind::Permanent => self.probe_pause(permanents),
        };
        let asked_for = failure.retry_after.map_or(Duration::ZERO, |after| {
            after.min(self.rules.retry_after_max)
        });
        self.told_until = self.told_until.max(now.boot.plus(asked_for));
        self.earliest = self
            .earliest
            .max(now.boot.plus(pause))
            .max(now.boot.plus(asked_for));
        if let Some(held) = &mut self.held {
            held.doubt_tried = held.credential.doubted(now);
            // Due already, or this attempt was made for a caller: either way it is tried again.
            held.due = held.due.map(|due| due.min(self.earliest));
        }
        self.trouble = Some(Trouble {
            failure,
            since,
            failures,
            permanents,
        });
    }
}

impl Held {
    /// Whether an issuer that repeats it states less life than before.
    fn counted_down_to(&self, stated: Option<Duration>) -> bool {
        stated.is_some_and(|life| self.stated.is_none_or(|before| life < before))
    }
}
