//! When the next attempt is due: after a success, a repetition, a failure or a report.

use std::time::Duration;

use super::{Lifecycle, Rejections};
use crate::core::time::{BootTime, Stamp};

/// The first pause after failures that may pass; the longest is below.
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LONGEST: Duration = Duration::from_secs(60);

/// The pause before the second opinion after a refusal. An identity provider that is starting up
/// answers 401 for a moment, and that must not cost minutes.
const SECOND_OPINION: Duration = Duration::from_secs(2);

/// This many refusals in a row are followed by pauses of seconds where the identity provider and
/// this side may not agree yet. With the pauses below that is about six minutes, since some
/// providers read keys once in five. More would lock clients out at providers that count failures.
const ROTATION_REFUSALS: u32 = 12;

/// The longest of these pauses, before it is spread by half. At most this much time lies between
/// agreement and the next attempt.
const ROTATION_LONGEST: Duration = Duration::from_secs(40);

/// The first pause after the last of those refusals, or after a second refusal; it grows to the
/// longest below. Shorter pauses would lock clients out at providers that count failures. Changed
/// material ends the wait at once anyway.
const PROBE_FIRST: Duration = Duration::from_secs(5 * 60);
const PROBE_LONGEST: Duration = Duration::from_secs(60 * 60);

/// Credentials that live longer than this are renewed as if they lived this long. So a credential
/// whose lifetime the issuer overstates, or that was revoked, is not kept for weeks.
const RENEW_AT_LEAST_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// A credential that is good for others is replaced for one caller's `min_ttl` only after this part
/// of its life, and never before the least time below. Otherwise a `min_ttl` just below what the
/// issuer grants would make every call a token request, at the cost of all profiles of that issuer.
/// With it, ten such requests per life are the most.
const FORCED_AFTER_PART: u32 = 10;
const FORCED_AFTER_LEAST: Duration = Duration::from_secs(1);

/// Reports that are further apart than this do not form a row.
const REJECTION_ROW: Duration = Duration::from_secs(10 * 60);

impl Lifecycle {
    /// The due time after a new credential: the configured share of its life, spread by the jitter,
    /// which is drawn once per credential.
    pub(super) fn due_after(&mut self, obtained: BootTime, expires: BootTime) -> BootTime {
        let life = expires.since(obtained).min(RENEW_AT_LEAST_EVERY);
        let spread = self.rules.jitter * (2.0 * self.draws.next() - 1.0);
        let share = (self.rules.at + spread).clamp(0.05, 0.98);
        obtained.plus(life.mul_f64(share))
    }

    /// The due time after the same credential came again: half of what is left. So the number of
    /// attempts grows with the logarithm of the remaining life.
    pub(super) fn due_after_repeat(&self, now: BootTime, expires: BootTime) -> BootTime {
        now.plus((expires.since(now) / 2).max(self.rules.min_interval))
            .min(expires)
    }

    /// From this moment on a caller whose `min_ttl` is not met can cause a renewal. At once, if no
    /// caller can be served.
    pub(super) fn forced_from(&self, now: Stamp) -> BootTime {
        let Some(credential) = self.servable(now, Duration::ZERO) else {
            return now.boot;
        };
        let born = credential.obtained.boot;
        let life = credential
            .expires
            .map_or(Duration::ZERO, |end| end.since(born));
        let part = life.min(RENEW_AT_LEAST_EVERY) / FORCED_AFTER_PART;
        born.plus(part.max(FORCED_AFTER_LEAST))
    }

    /// Exponential with full jitter, never below the minimum interval.
    pub(super) fn back_off(&mut self, failures: u32) -> Duration {
        let ceiling = doubled(BACK_OFF_FIRST, failures - 1, BACK_OFF_LONGEST);
        ceiling
            .mul_f64(self.draws.next())
            .max(self.rules.min_interval)
    }

    /// The pause after a refusal: a quick second opinion, more of them in a rotation, then a slow
    /// and growing probe.
    pub(super) fn probe_pause(&mut self, refusals: u32) -> Duration {
        let spread = self.draws.next();
        let quick = if self.in_rotation {
            ROTATION_REFUSALS
        } else {
            1
        };
        if refusals <= quick {
            return doubled(SECOND_OPINION, refusals - 1, ROTATION_LONGEST)
                .mul_f64(0.5 + spread)
                .max(self.rules.min_interval);
        }
        doubled(PROBE_FIRST, refusals - quick - 1, PROBE_LONGEST).mul_f64(0.9 + 0.2 * spread)
    }
}

impl Rejections {
    /// When the renewal that a report asks for may start: at once for the first report, later and
    /// later while reports come in a row.
    pub(super) fn next(&mut self, now: BootTime, min_interval: Duration) -> BootTime {
        let at = match self.last {
            Some(last) if now.since(last) < REJECTION_ROW => {
                self.row += 1;
                last.plus(doubled(min_interval, self.row, BACK_OFF_LONGEST))
                    .max(now)
            }
            _ => {
                self.row = 0;
                now
            }
        };
        self.last = Some(at);
        at
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    first
        .saturating_mul(1u32.checked_shl(times).unwrap_or(u32::MAX))
        .min(longest)
}
