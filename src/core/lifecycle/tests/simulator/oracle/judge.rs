//! The promises, checked after every step.

use std::time::Duration;

use super::super::{Input, Kind, MINUTE, Moment, Nanos, SECOND, nanos};
use super::Oracle;
use super::books::DueSeen;
use crate::core::lifecycle::{LifecycleState, RefusalKind, Verdict};

impl Oracle {
    pub(super) fn judge(&mut self, now: Moment, kind: Kind, input: &Input) -> Result<(), String> {
        let wanted = match input {
            Input::Ask(min_ttl) | Input::Read(min_ttl) => *min_ttl,
            _ => 0,
        };
        self.books_agree(now, kind)?;
        self.books.note_doubt(now)?;
        // A void result may come before the due tick: it does nothing, so it starts no attempt
        // either.
        if kind != Kind::Void {
            self.answers_are_right(now, 0)?;
            if wanted > 0 {
                self.answers_are_right(now, wanted)?;
            }
            self.plans_are_right(now)?;
        }
        self.plans_are_kept(now, kind)
    }

    fn answers_are_right(&self, now: Moment, min_ttl: Nanos) -> Result<(), String> {
        let books = &self.books;
        let verdict = self
            .life
            .verdict(now.stamp(), Duration::from_nanos(min_ttl));
        let lives = books.lives(now, min_ttl);
        let lives_at_all = books.lives(now, 0);
        let interval = nanos(self.rules.min_interval);
        match verdict {
            Verdict::Serve(credential) => books.served(&credential, now, min_ttl),
            _ if lives && !books.doubted(now) => Err(format!(
                "a credential that lives {min_ttl} ns is there, and a caller gets {verdict:?}"
            )),
            Verdict::Refuse(refusal) if refusal.kind == RefusalKind::MinTtlTooLong => {
                match books.granted {
                    Some(granted) if min_ttl > granted => Ok(()),
                    granted => Err(format!(
                        "min_ttl of {min_ttl} ns called too long; the last was {granted:?}"
                    )),
                }
            }
            // No caller has asked for a sleeping profile: the first that does wakes it.
            Verdict::Refuse(_) if lives && min_ttl == 0 && books.awake(&self.rules, now) => {
                match books
                    .held
                    .as_ref()
                    .is_some_and(|held| held.lives_by_wall(now))
                {
                    true => Err("refused although it lives by both clocks".to_owned()),
                    false => Ok(()),
                }
            }
            Verdict::Refuse(refusal) => {
                if books.granted.is_some_and(|granted| min_ttl > granted) {
                    return Err(
                        "min_ttl is longer than the issuer's tokens live, and it is not said"
                            .to_owned(),
                    );
                }
                let row = books.row.as_ref();
                let rejected = refusal.kind == RefusalKind::Rejected;
                if row.is_none() && rejected {
                    return Err("called rejected, and nobody rejected it".to_owned());
                }
                // The caller is told to come back at a sensible time.
                let Some(after) = refusal.retry_after else {
                    return Err("refused without a time to come back".to_owned());
                };
                let back = now.boot.saturating_add(nanos(after));
                let late = books
                    .held
                    .as_ref()
                    .is_some_and(|held| held.arrived_with < min_ttl);
                let young =
                    lives_at_all && row.is_none() && !books.repeated_and_alive(now) && !late;
                let from = books.forced_from();
                if young && !books.doubted(now) && (now.boot >= from || back > from + interval / 10)
                {
                    return Err("sent away although a renewal could be forced".to_owned());
                }
                match row {
                    Some(row) if back < row.not_before && row.not_before > now.boot => {
                        Err("told to come back before there can be anything".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            Verdict::Wait => Ok(()),
        }
    }

    /// Checks that a caller that has to wait waits for something.
    pub(super) fn wait_is_bounded(&self, now: Moment, min_ttl: Nanos) -> Result<(), String> {
        let books = &self.books;
        let verdict = self
            .life
            .verdict(now.stamp(), Duration::from_nanos(min_ttl));
        if !matches!(verdict, Verdict::Wait) || books.in_flight.is_some() {
            return Ok(());
        }
        match self.life.wake_at(now.stamp()).map(|at| nanos(at.0)) {
            Some(at)
                if at
                    <= books
                        .interval_over(&self.rules)
                        .max(now.boot + nanos(self.rules.min_interval)) =>
            {
                Ok(())
            }
            at => Err(format!(
                "a caller waits, no attempt is in flight, and the next wake-up is {at:?} (now {})",
                now.boot
            )),
        }
    }

    fn books_agree(&self, now: Moment, kind: Kind) -> Result<(), String> {
        let books = &self.books;
        let failing = self.life.trouble().map(|trouble| trouble.failures);
        if failing != books.row.as_ref().map(|row| row.failures) {
            return Err(format!("stale is wrong: {failing:?} failures"));
        }
        match (self.life.held(), &books.held) {
            (Some(credential), Some(held)) => {
                if credential.generation != held.generation {
                    return Err(format!(
                        "generation {} instead of {}",
                        credential.generation, held.generation
                    ));
                }
                let end = credential.expires.map(|end| nanos(end.0));
                if end != held.end {
                    return Err(format!("expires at {end:?} instead of {:?}", held.end));
                }
                if matches!(kind, Kind::New | Kind::Repeated)
                    && let (Some(planned), Some(end)) = (held.planned, end)
                    && planned >= end.max(now.boot + nanos(self.rules.min_interval) + 1)
                {
                    return Err("renewal is planned for after the end".to_owned());
                }
            }
            (None, None) => {}
            _ => return Err("an unexpired credential was dropped".to_owned()),
        }
        if kind == Kind::New {
            self.share_is_right(now)?;
        }
        Ok(())
    }

    /// Checks that the renewal of a new credential lies within `at ± jitter` of its life.
    fn share_is_right(&self, now: Moment) -> Result<(), String> {
        const DAY: Nanos = 24 * 60 * MINUTE;
        let Some(credential) = self.life.held() else {
            return Ok(());
        };
        let (Some(end), Some(planned)) = (credential.expires, credential.refresh_at) else {
            return Ok(());
        };
        let asked = nanos(credential.obtained.boot.0);
        let life = nanos(end.0).saturating_sub(asked).min(DAY) as f64;
        let share = (nanos(planned.0).saturating_sub(asked)) as f64 / life;
        let rules = &self.rules;
        let (low, high) = (rules.at - rules.jitter, rules.at + rules.jitter);
        if share < low.clamp(0.05, 0.98) - 0.001 || share > high.clamp(0.05, 0.98) + 0.001 {
            return Err(format!(
                "renewal is planned at {share} of the life (now {now:?})"
            ));
        }
        Ok(())
    }

    fn plans_are_right(&self, now: Moment) -> Result<(), String> {
        let stamp = now.stamp();
        let books = &self.books;
        let due = self.life.due(stamp).map(|at| nanos(at.0));
        let wake = self.life.wake_at(stamp).map(|at| nanos(at.0));
        if due.is_some_and(|due| due <= now.boot) {
            return Err("an attempt is due and was not started".to_owned());
        }
        if wake.is_some_and(|wake| wake <= now.boot) {
            return Err("a wake-up is planned for the past".to_owned());
        }
        if let Some(due) = due
            && wake.is_none_or(|wake| wake > due)
        {
            return Err("the wake-up is later than the attempt".to_owned());
        }
        let state = self.life.state(stamp);
        if state.available() != (self.serves(now) || state == LifecycleState::Asleep) {
            return Err(format!("{state:?} is not what a caller would find"));
        }
        let idle = books.in_flight.is_none() && !books.awake(&self.rules, now);
        if (state == LifecycleState::Asleep) != (idle && !self.serves(now)) {
            return Err(format!("{state:?}, and idle is {idle}"));
        }
        if books.in_flight.is_some() {
            return match due {
                Some(_) => Err("the next attempt is planned while one is in flight".to_owned()),
                None => Ok(()),
            };
        }
        if !books.awake(&self.rules, now) {
            if due.is_some() {
                return Err("an attempt is planned for a sleeping profile".to_owned());
            }
            return self.sleeper_is_watched(now, wake);
        }
        let needed = !(books.unlimited() && books.row.is_none());
        match (due, &books.row) {
            (None, _) if needed => Err("no attempt is planned and none is in flight".to_owned()),
            (Some(due), Some(row)) if due > row.not_after => Err(format!(
                "the next attempt is planned {} ns too late after {} failures",
                due - row.not_after,
                row.failures
            )),
            (Some(due), None) if !books.lives(now, 0) && due > books.interval_over(&self.rules) => {
                Err("nothing to serve, nothing has failed, and nothing is tried".to_owned())
            }
            (Some(due), None)
                if !books.unlimited()
                    && due
                        > books
                            .planned()
                            .unwrap_or(0)
                            .max(books.interval_over(&self.rules)) =>
            {
                Err("the attempt is planned for later than the credential says".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Checks that a sleeping profile is looked at before its credential ends: only a look notices
    /// its readers.
    fn sleeper_is_watched(&self, now: Moment, wake: Option<Nanos>) -> Result<(), String> {
        let books = &self.books;
        let interval = nanos(self.rules.min_interval).max(SECOND / 100);
        match (books.planned(), books.end()) {
            (Some(planned), Some(end)) if now.boot < end => {
                let left = end - now.boot;
                let latest = planned.max(now.boot + (left / 2).max(interval)).min(end);
                match wake {
                    Some(wake) if wake <= latest => Ok(()),
                    _ => Err(
                        "a sleeping profile is not looked at before its credential ends".to_owned(),
                    ),
                }
            }
            // Nothing can be read, so no look is needed.
            _ if !books.lives(now, 0) && wake.is_some() => {
                Err("a sleeping profile without a credential is woken".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn serves(&self, now: Moment) -> bool {
        matches!(
            self.life.verdict(now.stamp(), Duration::ZERO),
            Verdict::Serve(_)
        )
    }

    /// Checks that a drawn number stays: a look changes no plan.
    fn plans_are_kept(&mut self, now: Moment, kind: Kind) -> Result<(), String> {
        let seen = DueSeen {
            due: self.life.due(now.stamp()).map(|at| nanos(at.0)),
            awake: self.books.awake(&self.rules, now),
            doubted: self.books.doubted(now),
        };
        let before = self.books.due.replace(seen);
        let only_looked =
            matches!(kind, Kind::Tick | Kind::Void | Kind::ReportOther) && self.fetch.is_none();
        match before {
            Some(before)
                if only_looked
                    && before.awake == seen.awake
                    && before.doubted == seen.doubted
                    && before.due.is_none_or(|due| due > now.boot)
                    && before.due != seen.due =>
            {
                Err(format!(
                    "the plan moved from {:?} to {:?} by being looked at",
                    before.due, seen.due
                ))
            }
            _ => Ok(()),
        }
    }
}
