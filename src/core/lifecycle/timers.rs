//! When to wake up, and what for.

use super::{IDLE_AFTER, Lifecycle};
use crate::core::time::{BootTime, Stamp};

impl Lifecycle {
    /// When to send the next [`Tick`](super::LifecycleEvent::Tick), if nothing else happens.
    #[must_use]
    pub fn wake_at(&self, now: Stamp) -> Option<BootTime> {
        [self.due(now), self.look(now), self.expiry(now)]
            .into_iter()
            .flatten()
            .min()
    }

    /// When to start the next attempt; None while one is under way or none is wanted.
    #[must_use]
    pub fn due(&self, now: Stamp) -> Option<BootTime> {
        if self.doing.is_some() {
            return None;
        }
        let wanted = match &self.held {
            Some(held) => {
                let doubted = held.credential.doubted(now) && !held.doubt_tried;
                if doubted { Some(now.boot) } else { held.due }
            }
            None => Some(now.boot),
        }?;
        self.awake(now).then(|| wanted.max(self.earliest))
    }

    /// When to look whether a caller reads the credential of a sleeping profile, since reads make
    /// no event. The first look is when renewal is due, the next after half of what is left, so
    /// that a reader is noticed while there is time to renew.
    fn look(&self, now: Stamp) -> Option<BootTime> {
        let held = self.held.as_ref()?;
        let (due, end) = (held.due?, held.credential.expires?);
        if self.doing.is_some() || self.awake(now) || end <= now.boot {
            return None;
        }
        Some(if due > now.boot {
            due
        } else {
            now.boot
                .plus((end.since(now.boot) / 2).max(self.rules.min_interval))
        })
    }

    /// When to publish that the credential has ended.
    fn expiry(&self, now: Stamp) -> Option<BootTime> {
        let end = self.held.as_ref()?.credential.expires?;
        (end > now.boot).then_some(end)
    }

    /// Whether an attempt would be for somebody.
    pub(super) fn awake(&self, now: Stamp) -> bool {
        self.rules.eager
            || self
                .asked
                .is_some_and(|asked| now.boot.since(asked) < IDLE_AFTER)
    }
}
