//! The life of one credential: what callers may have, and what is being done about the next one.
//!
//! These are two facts and they are kept apart: `held` is the best credential so far, `doing` says whether an attempt is
//! under way. An attempt that fails never touches `held`; a `held` that dies never cancels an attempt.
//!
//! The machine is pure. [`Lifecycle::handle`] takes the time and an event and says what to do; [`Lifecycle::verdict`] says
//! what a caller gets; [`Lifecycle::wake_at`] says when to call again. Retrying happens here and nowhere else.

mod draw;
pub mod rotation;
mod schedule;
#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use self::draw::Draws;
use super::credential::{Credential, Fingerprint, Issued, Lifetime};
use super::failure::{Failure, FailureKind};
use super::profile::Refresh;
use super::time::{BootTime, STEP_BACK_NOTICED, Stamp};

/// A lazy profile that nobody has asked for this long is no longer renewed. Shorter than most tokens live, so that a
/// profile used once costs at most one renewal; long enough that a worker polling every few minutes never meets a cold one.
pub const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// Time passed.
    Tick,
    /// A caller wants a credential that lives for at least `min_ttl`, and memory had none.
    Asked {
        /// Zero: any that has not expired.
        min_ttl: Duration,
    },
    /// An attempt succeeded.
    Fetched {
        /// The attempt that this is the result of.
        attempt: u64,
        /// What came.
        issued: Box<Issued>,
        /// Of what came.
        fingerprint: Fingerprint,
    },
    /// An attempt failed.
    Failed {
        /// The attempt that this is the result of.
        attempt: u64,
        /// Why.
        failure: Failure,
    },
    /// An API refused a credential.
    Rejected {
        /// Of the credential that was refused.
        fingerprint: Fingerprint,
    },
    /// The profile's secret, key, certificate or definition changed.
    MaterialChanged,
    /// What was refused or failed may do now: the version that it is to replace is refused, or has ended.
    Again,
}

/// What to do about an event.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Reaction {
    /// Start the attempt of this number. One that is under way with a lower number is void.
    pub fetch: Option<u64>,
    /// What callers see has changed.
    pub publish: bool,
}

/// What a caller gets.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// This credential.
    Serve(Arc<Credential>),
    /// The result of an attempt that is under way or due within the minimum interval.
    Wait,
    /// Nothing, and why.
    Refuse(Refusal),
}

/// Why a caller gets nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Decides the status.
    pub kind: RefusalKind,
    /// For people.
    pub message: String,
    /// The OAuth error code, where there is one.
    pub oauth_error: Option<String>,
    /// When asking again makes sense.
    pub retry_after: Option<Duration>,
}

/// What kind of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// It will be tried again.
    Unavailable,
    /// The identity provider says no; somebody has to repair something.
    Rejected,
    /// The issuer's credentials never live that long.
    MinTtlTooLong,
}

/// Where a profile stands, for status and health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// A usable credential, and the last attempt succeeded.
    Fresh,
    /// A usable credential, but the last attempt failed.
    Stale,
    /// None, and the first attempt is under way or due.
    Fetching,
    /// None, and the last attempt failed in a way that may pass.
    Backoff,
    /// None, and the identity provider says no.
    Rejected,
    /// None, and nobody wants one.
    Asleep,
}

impl State {
    /// As in status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Fresh => "fresh",
            State::Stale => "stale",
            State::Fetching => "fetching",
            State::Backoff => "backoff",
            State::Rejected => "rejected",
            State::Asleep => "asleep",
        }
    }

    /// Whether a caller may expect a credential at once or on first use.
    #[must_use]
    pub fn available(self) -> bool {
        matches!(self, State::Fresh | State::Stale | State::Asleep)
    }
}

/// A row of failures.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The last of them.
    pub failure: Failure,
    /// When the first of them came.
    pub since: Stamp,
    /// How many.
    pub failures: u32,
    /// How many of them were permanent.
    permanents: u32,
}

/// The state machine of one credential.
#[derive(Debug)]
pub struct Lifecycle {
    rules: Refresh,
    draws: Draws,
    /// Changes on Fetched only. Kept when it expires, so that the same one coming again is recognised.
    held: Option<Held>,
    /// The attempt under way. Set when one starts; cleared by its result or by MaterialChanged.
    doing: Option<u64>,
    /// Number of the newest attempt.
    attempts: u64,
    /// When it started.
    started: BootTime,
    /// Generation of the newest credential.
    generation: u64,
    /// No attempt before this. Set when an attempt starts (minimum interval) and when one fails (back-off).
    earliest: BootTime,
    /// The identity provider has asked not to be asked before this. Set on Failed, forgotten on MaterialChanged.
    told_until: BootTime,
    /// It has worked, or it is to replace what works: the identity provider may merely not know it yet, or no more, so that a
    /// refusal may pass in seconds. Set on Fetched, MaterialChanged and Again; never cleared.
    in_rotation: bool,
    /// Set on Failed, cleared on Fetched and MaterialChanged.
    trouble: Option<Trouble>,
    /// Full lifetime of the last credential that was new, for "never lives that long". None: unknown or unlimited.
    granted: Option<Duration>,
    /// When somebody last asked; lazy profiles sleep when it is long ago.
    asked: Option<BootTime>,
    rejections: Rejections,
}

#[derive(Debug)]
struct Held {
    credential: Arc<Credential>,
    /// Its replacement is due; None: never by itself.
    due: Option<BootTime>,
    /// The life that the issuer stated for it, as of `credential.obtained`; None: unlimited.
    stated: Option<Duration>,
    /// Life that was left when it came, which is what a caller could get at best; None: unlimited.
    arrived_with: Option<Duration>,
    /// How often the issuer has returned this same one again.
    repeats: u32,
    /// An API has refused it.
    rejected: bool,
    /// An attempt was made since the wall clock was seen running ahead.
    doubt_tried: bool,
    /// The material changed while nobody was there. The next caller gets what the new material yields, and this one only
    /// if that fails.
    outdated: bool,
}

impl Held {
    /// Whether an issuer that repeats it states less life than before.
    fn counted_down_to(&self, stated: Option<Duration>) -> bool {
        stated.is_some_and(|life| self.stated.is_none_or(|before| life < before))
    }
}

/// Renewals that callers caused by reporting a credential.
#[derive(Debug, Default)]
struct Rejections {
    row: u32,
    last: Option<BootTime>,
}

impl Lifecycle {
    /// A life that begins without a credential. `seed` is derived from host and profile, so that equal configurations on
    /// many hosts do not act at the same moment.
    #[must_use]
    pub fn new(rules: Refresh, seed: u64) -> Lifecycle {
        Lifecycle {
            rules,
            draws: Draws::new(seed),
            held: None,
            doing: None,
            attempts: 0,
            started: BootTime(Duration::ZERO),
            generation: 0,
            earliest: BootTime(Duration::ZERO),
            told_until: BootTime(Duration::ZERO),
            in_rotation: false,
            trouble: None,
            granted: None,
            asked: None,
            rejections: Rejections::default(),
        }
    }

    /// Obeys what another life was told to wait, and knows why.
    #[must_use]
    pub fn told_to_wait(mut self, until: BootTime, trouble: Trouble) -> Lifecycle {
        self.earliest = until;
        self.told_until = until;
        self.trouble = Some(trouble);
        self
    }

    /// Is to replace a version of the same profile that works.
    #[must_use]
    pub fn replacing(mut self) -> Lifecycle {
        self.in_rotation = true;
        self
    }

    /// Takes over a credential that an earlier run of the daemon obtained, if it lives. `outdated`: it was proven with something
    /// else than there is now, so that it is renewed at once; it is good until then.
    pub fn inherit(&mut self, now: Stamp, credential: Credential, outdated: bool) {
        if self.held.is_some() || !credential.lives(now, Duration::ZERO) {
            return;
        }
        let life = credential
            .expires
            .map(|end| end.since(credential.obtained.boot));
        let planned = if outdated {
            Some(now.boot)
        } else {
            credential.refresh_at
        };
        self.generation = self.generation.max(credential.generation);
        self.in_rotation = true;
        self.granted = life;
        self.held = Some(Held {
            due: planned.filter(|_| credential.expires.is_some()),
            stated: life,
            arrived_with: life,
            repeats: 0,
            rejected: false,
            doubt_tried: false,
            outdated: false,
            credential: Arc::new(credential),
        });
    }

    /// Takes the place of another life, whose newest credential had this generation: ours are newer.
    pub fn succeed(&mut self, generation: u64) {
        if self.generation > generation {
            return;
        }
        self.generation = generation;
        if let Some(held) = &mut self.held {
            self.generation += 1;
            held.credential = Arc::new(Credential {
                generation: self.generation,
                ..Credential::clone(&held.credential)
            });
        }
    }

    /// Other rules, from the next decision on.
    pub fn set_rules(&mut self, rules: Refresh) {
        self.rules = rules;
    }

    /// Takes note of an event and says what to do.
    pub fn handle(&mut self, now: Stamp, event: Event) -> Reaction {
        let mut publish = false;
        match event {
            Event::Tick => {
                self.wall_set_back(now);
                publish = true;
            }
            Event::Asked { min_ttl } => {
                self.note_asked(now.boot);
                if self.wants_for(now, min_ttl) {
                    self.hurry();
                }
            }
            Event::Fetched {
                attempt,
                issued,
                fingerprint,
            } => {
                if self.doing != Some(attempt) {
                    return Reaction::default();
                }
                self.doing = None;
                self.fetched(now, *issued, fingerprint);
                // While it was on its way, too.
                self.wall_set_back(now);
                publish = true;
            }
            Event::Failed { attempt, failure } => {
                if self.doing != Some(attempt) {
                    return Reaction::default();
                }
                self.doing = None;
                self.failed(now, failure);
                publish = true;
            }
            Event::Rejected { fingerprint } => self.rejected(now, fingerprint),
            Event::MaterialChanged => {
                self.material_changed(now);
                publish = true;
            }
            Event::Again => {
                self.again(now);
                publish = true;
            }
        }
        if self.due(now).is_some_and(|due| due <= now.boot) {
            return self.start(now);
        }
        Reaction {
            fetch: None,
            publish,
        }
    }

    /// When to send the next [`Event::Tick`], if nothing else happens.
    #[must_use]
    pub fn wake_at(&self, now: Stamp) -> Option<BootTime> {
        let expiry = self
            .held
            .as_ref()
            .and_then(|held| held.credential.expires)
            .filter(|end| *end > now.boot);
        [self.due(now), self.look(now), expiry]
            .into_iter()
            .flatten()
            .min()
    }

    /// When to see whether somebody reads what a sleeping profile has published: readers make no event. When renewal is
    /// due, and from then on after half of what is left, so that a reader is noticed while there is time to renew.
    fn look(&self, now: Stamp) -> Option<BootTime> {
        let held = self.held.as_ref()?;
        let (due, end) = (held.due?, held.credential.expires?);
        let unread = held.outdated || end <= now.boot;
        if self.doing.is_some() || self.awake(now) || unread {
            return None;
        }
        Some(if due > now.boot {
            due
        } else {
            now.boot
                .plus((end.since(now.boot) / 2).max(self.rules.min_interval))
        })
    }

    /// When the next attempt is planned; None while one is under way or none is wanted.
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

    /// Somebody was served from memory at `at`.
    pub fn note_asked(&mut self, at: BootTime) {
        self.asked = self.asked.max(Some(at));
    }

    /// The best credential so far, alive or not; None while one from before a change is kept back.
    #[must_use]
    pub fn held(&self) -> Option<&Arc<Credential>> {
        self.held
            .as_ref()
            .filter(|held| !held.outdated)
            .map(|held| &held.credential)
    }

    /// The failures since the last success.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    fn wants_for(&self, now: Stamp, min_ttl: Duration) -> bool {
        self.servable(now, min_ttl).is_none()
            && self.granted.is_none_or(|granted| min_ttl <= granted)
            && !self.repeating(now)
    }

    /// A wall clock that was set back bears witness from now on as it is now. Whoever drives this sends a tick when that
    /// happens.
    fn wall_set_back(&mut self, now: Stamp) {
        if let Some(held) = &mut self.held
            && now.wall_behind_since(held.credential.obtained) > STEP_BACK_NOTICED
        {
            let boot = held.credential.obtained.boot;
            let wall = now.wall_of(boot);
            held.credential = Arc::new(Credential {
                obtained: Stamp { boot, wall },
                ..Credential::clone(&held.credential)
            });
        }
    }

    /// Makes the next attempt due as soon as it is allowed.
    fn hurry(&mut self) {
        if let Some(held) = &mut self.held {
            held.due = Some(held.due.map_or(self.earliest, |due| due.min(self.earliest)));
        }
    }

    fn awake(&self, now: Stamp) -> bool {
        self.rules.eager
            || self
                .asked
                .is_some_and(|asked| now.boot.since(asked) < IDLE_AFTER)
    }

    fn start(&mut self, now: Stamp) -> Reaction {
        self.attempts += 1;
        self.doing = Some(self.attempts);
        self.started = now.boot;
        self.earliest = now.boot.plus(self.rules.min_interval);
        Reaction {
            fetch: Some(self.attempts),
            publish: true,
        }
    }

    fn fetched(&mut self, now: Stamp, issued: Issued, fingerprint: Fingerprint) {
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
        // The same statement again may come from a cache, and then a boot clock that has stood still since the first one is
        // still wrong. An issuer that counts down has looked at its clock.
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
            outdated: false,
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

    fn failed(&mut self, now: Stamp, failure: Failure) {
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
            held.outdated = false;
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

    fn rejected(&mut self, now: Stamp, fingerprint: Fingerprint) {
        let Some(held) = &mut self.held else { return };
        if held.credential.fingerprint != fingerprint || held.rejected {
            return;
        }
        held.rejected = true;
        let at = self.rejections.next(now.boot, self.rules.min_interval);
        held.due = Some(held.due.map_or(at, |due| due.min(at)));
        self.note_asked(now.boot);
    }

    fn material_changed(&mut self, now: Stamp) {
        self.doing = None;
        self.trouble = None;
        self.granted = None;
        self.in_rotation = true;
        self.told_until = now.boot;
        self.earliest = self.past_the_interval(now);
        self.hurry();
        if !self.awake(now)
            && let Some(held) = &mut self.held
        {
            held.outdated = true;
        }
    }

    fn again(&mut self, now: Stamp) {
        let Some(trouble) = &mut self.trouble else {
            return;
        };
        // The row of refusals begins anew; why there is nothing so far is still told.
        trouble.permanents = 0;
        self.in_rotation = true;
        self.earliest = self.past_the_interval(now).max(self.told_until);
        self.note_asked(now.boot);
        self.hurry();
    }

    /// The first moment that the minimum interval allows.
    fn past_the_interval(&self, now: Stamp) -> BootTime {
        if self.attempts == 0 {
            now.boot
        } else {
            now.boot.max(self.started.plus(self.rules.min_interval))
        }
    }
}
