//! The oracle's knowledge of the credential, the attempts and the failures.

mod held;

use std::collections::VecDeque;

use self::held::{Held, halvings, tolerated};

use super::super::{Kind, MINUTE, Moment, Nanos, SECOND, Said, fingerprint, nanos};
use crate::core::credential::Credential;
use crate::core::lifecycle::IDLE_AFTER;
use crate::core::profile::Refresh;

/// At most this many attempts in a row of failures may fall into [`WINDOW`]. The mean pause is 30
/// s, so 20 are expected. If full jitter yielded 70, it would be off by more than ten standard
/// deviations.
const WINDOW_ATTEMPTS: usize = 70;
const WINDOW: Nanos = 10 * MINUTE;

#[derive(Default)]
pub struct Books {
    pub in_flight: Option<u64>,
    attempts: u64,
    /// When the newest attempt started.
    last_start: Option<Nanos>,
    pub held: Option<Held>,
    generation: u64,
    /// The life of the newest token that was new, less the margin.
    pub granted: Option<Nanos>,
    pub row: Option<Row>,
    /// The profile has worked, or is to replace what works, so a refusal may pass in seconds.
    in_rotation: bool,
    /// The issuer has asked for no attempt before this.
    told_until: Nanos,
    /// An event allows an attempt before the planned one.
    hurry: bool,
    /// A caller wanted a credential that lives longer than the one that others are served.
    forced: bool,
    last_seen: Option<Nanos>,
    recent: VecDeque<Nanos>,
    pub due: Option<DueSeen>,
}

/// The plan after the last step, and its circumstances.
#[derive(Clone, Copy, PartialEq)]
pub struct DueSeen {
    pub due: Option<Nanos>,
    pub awake: bool,
    pub doubted: bool,
}

/// Failures in a row.
pub struct Row {
    pub failures: u32,
    pub permanents: u32,
    /// No attempt starts before this, and none is planned later than `not_after`.
    pub not_before: Nanos,
    pub not_after: Nanos,
}

pub enum Outcome {
    Void,
    Accepted(Kind),
}

impl Books {
    pub fn token(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.token)
    }

    pub fn end(&self) -> Option<Nanos> {
        self.held.as_ref()?.end
    }

    pub fn planned(&self) -> Option<Nanos> {
        self.held.as_ref()?.planned
    }

    pub fn not_before(&self) -> Option<Nanos> {
        self.row.as_ref().map(|row| row.not_before)
    }

    pub fn unlimited(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.end.is_none())
    }

    /// Whether a credential is held that lives for `min_ttl` on the boot clock.
    pub fn lives(&self, now: Moment, min_ttl: Nanos) -> bool {
        self.held.as_ref().is_some_and(|held| {
            held.end
                .is_none_or(|end| now.boot < end && min_ttl <= end - now.boot)
        })
    }

    pub fn doubted(&self, now: Moment) -> bool {
        self.held.as_ref().is_some_and(|held| held.doubted(now))
    }

    pub fn came_late_for(&self, min_ttl: Nanos) -> bool {
        self.in_flight.is_some()
            && self
                .held
                .as_ref()
                .is_some_and(|held| held.arrived_with < min_ttl)
    }

    pub fn repeated_and_alive(&self, now: Moment) -> bool {
        self.lives(now, 0) && self.held.as_ref().is_some_and(|held| held.repeats > 0)
    }

    pub fn awake(&self, rules: &Refresh, now: Moment) -> bool {
        rules.eager
            || self
                .last_seen
                .is_some_and(|seen| now.boot.saturating_sub(seen) < nanos(IDLE_AFTER))
    }

    /// The earliest start of the next attempt by the minimum interval.
    pub fn interval_over(&self, rules: &Refresh) -> Nanos {
        self.last_start.unwrap_or(0) + nanos(rules.min_interval)
    }

    pub fn seen(&mut self, now: Moment) {
        self.last_seen = self.last_seen.max(Some(now.boot));
    }

    pub fn asked(&mut self, now: Moment, min_ttl: Nanos) {
        self.seen(now);
        let possible = self.granted.is_none_or(|granted| min_ttl <= granted);
        // An issuer that repeats itself is not asked more often because a caller wants what the
        // issuer does not give.
        let unmet = !self.lives(now, min_ttl) || self.doubted(now);
        if possible && unmet && !self.repeated_and_alive(now) {
            let good = self.lives(now, 0) && !self.doubted(now);
            self.forced |= good;
            self.hurry |= !good;
        }
    }

    /// The moment before which no caller's `min_ttl` replaces the held credential.
    pub fn forced_from(&self) -> Nanos {
        let held = self.held.as_ref();
        let life = held.and_then(|held| Some((held.statement?.0.boot, held.end?)));
        life.map_or(0, |(asked, end)| {
            asked + ((end - asked).min(24 * 60 * MINUTE) / 10).max(SECOND)
        })
    }

    /// Notes a tick. Once the wall clock is seen to be set back, the step hides no later pause.
    pub fn wall_set_back(&mut self, now: Moment) {
        if let Some((asked, _)) = self.held.as_mut().and_then(|held| held.statement.as_mut()) {
            let even = asked.wall + (now.boot - asked.boot);
            let behind = even.saturating_sub(now.wall);
            if behind > SECOND {
                asked.wall -= behind;
            }
        }
    }

    /// Whether the reported token is the held one.
    pub fn reported(&mut self, now: Moment, token: u64) -> bool {
        let Some(held) = self.held.as_mut().filter(|held| held.token == token) else {
            return false;
        };
        if !held.reported {
            held.reported = true;
            held.allowance += 1;
            self.hurry = true;
            self.seen(now);
        }
        true
    }

    /// Notes that a refused attempt may succeed now. Only the minimum interval and the issuer's
    /// wish to wait hold it back.
    pub fn again(&mut self, now: Moment, rules: &Refresh) {
        let earliest = self.interval_over(rules).max(self.told_until).max(now.boot);
        let Some(row) = &mut self.row else { return };
        row.permanents = 0;
        (row.not_before, row.not_after) = (earliest, earliest);
        self.in_rotation = true;
        self.hurry = true;
        self.recent.clear();
        self.seen(now);
        if let Some(held) = &mut self.held {
            held.allowance += 1;
        }
    }

    pub fn started(&mut self, now: Moment, rules: &Refresh, attempt: u64) -> Result<(), String> {
        if let Some(other) = self.in_flight {
            return Err(format!(
                "attempt {attempt} started while {other} is in flight"
            ));
        }
        if attempt != self.attempts + 1 {
            return Err(format!("attempt {attempt} after {}", self.attempts));
        }
        if let Some(last) = self.last_start
            && now.boot < self.interval_over(rules)
        {
            return Err(format!(
                "an attempt {} ns after the one before: less than the minimum interval",
                now.boot - last
            ));
        }
        if let Some(row) = &self.row {
            if now.boot < row.not_before {
                return Err(format!(
                    "an attempt {} ns before back-off, Retry-After or probe are over ({} failures, {} permanent)",
                    row.not_before - now.boot,
                    row.failures,
                    row.permanents
                ));
            }
            self.recent.push_back(now.boot);
            if self.recent.len() > WINDOW_ATTEMPTS
                && let Some(first) = self.recent.pop_front()
                && now.boot - first < WINDOW
            {
                return Err("too many attempts in a row of failures".to_owned());
            }
        }
        if !self.awake(rules, now) {
            return Err("an attempt for a sleeping profile".to_owned());
        }
        let wanted = self.hurry
            || self.forced && now.boot >= self.forced_from()
            || self.row.is_some()
            || !self.lives(now, 0)
            || self.planned().is_some_and(|planned| planned <= now.boot)
            || self.doubted(now);
        if !wanted {
            return Err("an attempt without a reason".to_owned());
        }
        self.hurry = false;
        self.forced = false;
        self.in_flight = Some(attempt);
        self.attempts = attempt;
        self.last_start = Some(now.boot);
        Ok(())
    }

    fn end_attempt(&mut self, attempt: u64) -> bool {
        if self.in_flight != Some(attempt) {
            return false;
        }
        self.in_flight = None;
        true
    }

    pub fn granted(
        &mut self,
        now: Moment,
        rules: &Refresh,
        attempt: u64,
        token: u64,
        asked: Moment,
        said: Said,
    ) -> Outcome {
        if !self.end_attempt(attempt) {
            return Outcome::Void;
        }
        let life = match said {
            Said::Unlimited => None,
            Said::Unknown => Some(nanos(rules.default_lifetime)),
            Said::For(life) => Some(life),
        };
        let less_margin = life.map(|life| life - nanos(rules.margin).min(life / 10));
        let said_end = less_margin.map(|life| asked.boot + life);
        let same = self.held.as_ref().filter(|held| held.token == token);
        // One token has one end: the earliest that was ever stated.
        let end = match (said_end, same.and_then(|held| held.end)) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let repeated = same.is_some();
        if end.is_some_and(|end| end <= now.boot) {
            self.row_of_failures(now, rules, false, None);
            return Outcome::Accepted(Kind::Dead);
        }
        self.row = None;
        self.in_rotation = true;
        self.recent.clear();
        if let (Some(held), true) = (&mut self.held, repeated) {
            if let (None, Some(end)) = (held.end, end) {
                // The token was said to live for ever, and now has an end towards which repetitions
                // halve.
                held.allowance += halvings(end - now.boot, rules);
            }
            held.end = end;
            held.repeats += 1;
            held.allowance -= 1;
            // An issuer that counts down has looked at its clock. One that says the same as before
            // may answer from a cache.
            if let Some(life) = life
                && held.statement.is_none_or(|(_, before)| life < before)
            {
                held.statement = Some((asked, life));
            }
            return Outcome::Accepted(Kind::Repeated);
        }
        self.generation += 1;
        self.granted = less_margin;
        self.held = Some(Held {
            token,
            generation: self.generation,
            end,
            statement: life.map(|life| (asked, life)),
            planned: None,
            reported: false,
            repeats: 0,
            allowance: life.map_or(0, |life| halvings(life, rules)) + 6,
            was_doubted: false,
            arrived_with: end.map_or(Nanos::MAX, |end| end - now.boot),
        });
        Outcome::Accepted(if end.is_none() {
            Kind::Unlimited
        } else {
            Kind::New
        })
    }

    pub fn failed(
        &mut self,
        now: Moment,
        rules: &Refresh,
        attempt: u64,
        permanent: bool,
        retry_after: Option<Nanos>,
    ) -> Outcome {
        if !self.end_attempt(attempt) {
            return Outcome::Void;
        }
        self.row_of_failures(now, rules, permanent, retry_after);
        Outcome::Accepted(match (permanent, retry_after) {
            (true, _) => Kind::Permanent,
            (false, None) => Kind::Transient,
            (false, Some(_)) => Kind::RetryAfter,
        })
    }

    fn row_of_failures(
        &mut self,
        now: Moment,
        rules: &Refresh,
        permanent: bool,
        retry_after: Option<Nanos>,
    ) {
        let (failures, permanents) = self
            .row
            .as_ref()
            .map_or((0, 0), |row| (row.failures, row.permanents));
        let failures = failures + 1;
        let permanents = permanents + u32::from(permanent);
        let quick = if self.in_rotation { 12 } else { 1 };
        let (least, most) = match (permanent, permanents) {
            (false, _) => (0, (SECOND << (failures - 1).min(6)).min(MINUTE)),
            (true, refusals) if refusals <= quick => {
                let pause = ((2 * SECOND) << (refusals - 1).min(5)).min(40 * SECOND);
                (pause / 2, pause / 2 * 3)
            }
            (true, refusals) => {
                let probe = ((5 * MINUTE) << (refusals - quick - 1).min(4)).min(60 * MINUTE);
                (probe / 10 * 9, probe / 10 * 11)
            }
        };
        let asked_for = retry_after.map_or(0, |after| after.min(nanos(rules.retry_after_max)));
        self.told_until = self.told_until.max(now.boot + asked_for);
        let floor = nanos(rules.min_interval).max(asked_for);
        let started = self.interval_over(rules);
        self.row = Some(Row {
            failures,
            permanents,
            not_before: now.boot + least.max(floor),
            not_after: (now.boot + most.max(floor)).max(started),
        });
        if let Some(held) = &mut self.held {
            held.allowance += 1;
        }
    }

    /// Checks promise 1 and `min_ttl`: judges a credential that a caller got.
    pub fn served(
        &self,
        credential: &Credential,
        now: Moment,
        min_ttl: Nanos,
    ) -> Result<(), String> {
        let Some(held) = &self.held else {
            return Err("served a credential that nobody issued".to_owned());
        };
        if credential.fingerprint != fingerprint(held.token) {
            return Err("served another credential than the newest".to_owned());
        }
        let Some(end) = held.end else { return Ok(()) };
        if now.boot >= end {
            return Err(format!(
                "served {} ns after its end on the boot clock",
                now.boot - end
            ));
        }
        if end - now.boot < min_ttl {
            return Err(format!(
                "served with {} ns to live to a caller who wants {min_ttl}",
                end - now.boot
            ));
        }
        let Some((asked, life)) = held.statement else {
            return Ok(());
        };
        let lived = now.truth - asked.truth;
        if lived.saturating_add(min_ttl) > life.saturating_add(tolerated(asked, now)) {
            return Err(format!(
                "served {lived} ns after it was asked for, for {min_ttl} ns more, while its life is {life}"
            ));
        }
        Ok(())
    }

    /// Notes after each step whether the clocks permit a renewal from a repeating issuer.
    pub fn note_doubt(&mut self, now: Moment) -> Result<(), String> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        let doubted = held.doubted(now);
        if doubted != held.was_doubted {
            held.was_doubted = doubted;
            held.allowance += 1;
        }
        if held.allowance < 0 {
            return Err(format!(
                "the issuer was made to repeat the same token {} times",
                held.repeats
            ));
        }
        Ok(())
    }
}
