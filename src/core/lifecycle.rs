//! The life of one credential: what callers may have, and what is being done about the next one.
//!
//! These are two facts and they are kept apart: `held` is the best credential so far, `doing` says
//! whether an attempt is under way. An attempt that fails never touches `held`; a `held` that dies
//! never cancels an attempt.
//!
//! The machine is pure. [`Lifecycle::handle`] takes the time and an event and says what to do;
//! [`Lifecycle::verdict`] says what a caller gets; [`Lifecycle::wake_at`] says when to call again.
//! Retrying happens here and nowhere else.

mod draw;
mod outcome;
pub mod rotation;
mod schedule;
#[cfg(test)]
mod tests;
mod timers;
mod verdict;

use std::sync::Arc;
use std::time::Duration;

use self::draw::Draws;
use super::credential::{Credential, Fingerprint, Issued};
use super::failure::Failure;
use super::profile::Refresh;
use super::time::{BootTime, STEP_BACK_NOTICED, Stamp};

/// A lazy profile that nobody has asked for this long is no longer renewed. Shorter than most
/// tokens live, so that a profile used once costs at most one renewal; long enough that a worker
/// polling every few minutes never meets a cold one.
pub const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);

/// Something that happened.
#[derive(Debug)]
pub enum LifecycleEvent {
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
    /// What was refused or failed may do now: the version that it is to replace is refused, or has
    /// ended.
    Again,
}

/// What to do about an event.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Reaction {
    /// Start the attempt of this number.
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
pub enum LifecycleState {
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

impl LifecycleState {
    /// As in status.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            LifecycleState::Fresh => "fresh",
            LifecycleState::Stale => "stale",
            LifecycleState::Fetching => "fetching",
            LifecycleState::Backoff => "backoff",
            LifecycleState::Rejected => "rejected",
            LifecycleState::Asleep => "asleep",
        }
    }

    /// Whether a caller may expect a credential at once or on first use.
    #[must_use]
    pub fn available(self) -> bool {
        matches!(
            self,
            LifecycleState::Fresh | LifecycleState::Stale | LifecycleState::Asleep
        )
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
    /// Changes on Fetched only. Kept when it expires, so that the same one coming again is
    /// recognised.
    held: Option<Held>,
    /// The attempt under way. Set when one starts; cleared by its result.
    doing: Option<u64>,
    /// Number of the newest attempt.
    attempts: u64,
    /// When it started.
    started: BootTime,
    /// Generation of the newest credential.
    generation: u64,
    /// No attempt before this. Set when an attempt starts (minimum interval) and when one fails
    /// (back-off).
    earliest: BootTime,
    /// The identity provider has asked not to be asked before this. Set on Failed; never cleared.
    told_until: BootTime,
    /// It has worked, or it is to replace what works: the identity provider may merely not know it
    /// yet, or no more, so that a refusal may pass in seconds. Set on Fetched and Again; never
    /// cleared.
    in_rotation: bool,
    /// Set on Failed, cleared on Fetched.
    trouble: Option<Trouble>,
    /// Full lifetime of the last credential that was new, for "never lives that long". None:
    /// unknown or unlimited.
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
}

/// Renewals that callers caused by reporting a credential.
#[derive(Debug, Default)]
struct Rejections {
    row: u32,
    last: Option<BootTime>,
}

impl Lifecycle {
    /// A life that begins without a credential. `seed` is derived from host and profile, so that
    /// equal configurations on many hosts do not act at the same moment.
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

    /// Takes over a credential that an earlier run of the daemon obtained, if it lives. `outdated`:
    /// it was proven with something else than there is now, so that it is renewed at once; it is
    /// good until then.
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
            credential: Arc::new(credential),
        });
    }

    /// Takes the place of another life, whose newest credential had this generation: ours are
    /// newer.
    pub fn take_over_from(&mut self, generation: u64) {
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

    /// Takes note of an event and says what to do.
    pub fn handle(&mut self, now: Stamp, event: LifecycleEvent) -> Reaction {
        let mut publish = false;
        match event {
            LifecycleEvent::Tick => {
                self.wall_set_back(now);
                publish = true;
            }
            LifecycleEvent::Asked { min_ttl } => {
                self.note_asked(now.boot);
                let from = self.forced_from(now);
                // Who would have to wait longer is sent away, and comes again if it is still
                // wanted.
                if self.wants_for(now, min_ttl) && from <= now.boot.plus(self.rules.min_interval) {
                    self.hurry(from);
                }
            }
            LifecycleEvent::Fetched {
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
            LifecycleEvent::Failed { attempt, failure } => {
                if self.doing != Some(attempt) {
                    return Reaction::default();
                }
                self.doing = None;
                self.failed(now, failure);
                publish = true;
            }
            LifecycleEvent::Rejected { fingerprint } => self.rejected(now, fingerprint),
            LifecycleEvent::Again => {
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

    /// Somebody was served from memory at `at`.
    pub fn note_asked(&mut self, at: BootTime) {
        self.asked = self.asked.max(Some(at));
    }

    /// The best credential so far, alive or not.
    #[must_use]
    pub fn held(&self) -> Option<&Arc<Credential>> {
        self.held.as_ref().map(|held| &held.credential)
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

    /// A wall clock that was set back bears witness from now on as it is now. Whoever drives this
    /// sends a tick when that happens.
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

    /// Makes the next attempt due as soon as it is allowed, and not before `from`.
    fn hurry(&mut self, from: BootTime) {
        if let Some(held) = &mut self.held {
            let at = from.max(self.earliest);
            held.due = Some(held.due.map_or(at, |due| due.min(at)));
        }
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

    fn again(&mut self, now: Stamp) {
        let Some(trouble) = &mut self.trouble else {
            return;
        };
        // The row of refusals begins anew; why there is nothing so far is still told.
        trouble.permanents = 0;
        self.in_rotation = true;
        self.earliest = self.past_the_interval(now).max(self.told_until);
        self.note_asked(now.boot);
        self.hurry(self.earliest);
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
