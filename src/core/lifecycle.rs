//! The life of one credential: what callers may have, and what is being done about the next one.
//!
//! These are two separate facts: `held` is the best credential so far, `doing` says whether an
//! attempt is under way. An attempt that fails never touches `held`; a `held` that dies never
//! cancels an attempt.
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
use super::plugin::request::FetchReason;
use super::profile::Refresh;
use super::time::{BootTime, STEP_BACK_NOTICED, Stamp};

/// A lazy profile is no longer renewed once no caller has asked for it for this long. The time is
/// shorter than the life of most tokens, so that a profile used once costs at most one renewal. It
/// is long enough that a worker that polls every few minutes always finds a credential.
pub const IDLE_AFTER: Duration = Duration::from_secs(15 * 60);

/// An event in the life of a credential.
#[derive(Debug)]
pub enum LifecycleEvent {
    /// Time passed.
    Tick,
    /// A caller wants a credential that lives for at least `min_ttl`, and memory had none.
    Asked {
        /// Zero: any credential that has not expired will do.
        min_ttl: Duration,
    },
    /// An attempt succeeded.
    Fetched {
        /// The attempt that succeeded.
        attempt: u64,
        /// The new credential.
        issued: Box<Issued>,
        /// The fingerprint of the new credential.
        fingerprint: Fingerprint,
    },
    /// An attempt failed.
    Failed {
        /// The attempt that failed.
        attempt: u64,
        failure: Failure,
    },
    /// An API refused a credential.
    Rejected {
        /// The fingerprint of the refused credential.
        fingerprint: Fingerprint,
    },
    /// A refused or failed attempt may succeed now, because the version that the profile is to
    /// replace is refused or has ended.
    Again,
}

/// What to do after an event.
#[derive(Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Reaction {
    /// The number of the attempt to start.
    pub fetch: Option<u64>,
    /// Whether what callers see has changed.
    pub publish: bool,
}

/// The answer to a caller.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// The caller gets this credential.
    Serve(Arc<Credential>),
    /// The caller waits for an attempt that is under way or due within the minimum interval.
    Wait,
    /// The caller gets no credential, for this reason.
    Refuse(Refusal),
}

/// Why a caller gets no credential.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Decides the status of the answer.
    pub kind: RefusalKind,
    /// The reason, for people.
    pub message: String,
    /// The OAuth error code, if there is one.
    pub oauth_error: Option<String>,
    /// When it makes sense to ask again.
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The daemon will try again.
    Unavailable,
    /// The identity provider rejects the client; somebody has to repair something.
    Rejected,
    /// The issuer's credentials never live that long.
    MinTtlTooLong,
}

/// The state of a profile, for status and health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LifecycleState {
    /// There is a usable credential, and the last attempt succeeded.
    Fresh,
    /// There is a usable credential, but the last attempt failed.
    Stale,
    /// There is no credential, and the first attempt is under way or due.
    Fetching,
    /// There is no credential, and the last attempt failed in a way that may pass.
    Backoff,
    /// There is no credential, and the identity provider rejects the client.
    Rejected,
    /// There is no credential, and no caller wants one.
    Asleep,
}

impl LifecycleState {
    /// The word in the status.
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

/// Failures in a row.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// The last failure.
    pub failure: Failure,
    /// When the first failure came.
    pub since: Stamp,
    /// The number of failures.
    pub failures: u32,
    /// The number of permanent failures.
    permanents: u32,
}

/// The state machine of one credential.
#[derive(Debug)]
pub struct Lifecycle {
    rules: Refresh,
    draws: Draws,
    /// The best credential so far. It changes on Fetched only, and is kept when it expires, so that
    /// the daemon recognises the same token if it comes again.
    held: Option<Held>,
    /// The attempt under way. It is set when one starts, and cleared by its result.
    doing: Option<u64>,
    /// The number of the newest attempt.
    attempts: u64,
    /// When the newest attempt started.
    started: BootTime,
    /// The generation of the newest credential.
    generation: u64,
    /// No attempt starts before this. It is set when an attempt starts (minimum interval) and when
    /// one fails (back-off).
    earliest: BootTime,
    /// The identity provider has asked for no attempt before this. It is set on Failed and never
    /// cleared.
    told_until: BootTime,
    /// The profile has worked, or is to replace a version that works. So the identity provider may
    /// not know it yet, or not any more, and a refusal may pass in seconds. It is set on Fetched
    /// and Again, and never cleared.
    in_rotation: bool,
    /// The failures so far. They are set on Failed and cleared on Fetched.
    trouble: Option<Trouble>,
    /// The full lifetime of the last credential that was new, for the refusal "never lives that
    /// long". None: unknown or unlimited.
    granted: Option<Duration>,
    /// When a caller last asked. A lazy profile sleeps if that is long ago.
    asked: Option<BootTime>,
    rejections: Rejections,
}

#[derive(Debug)]
struct Held {
    credential: Arc<Credential>,
    /// When its replacement is due. None: never by itself.
    due: Option<BootTime>,
    /// The life that the issuer stated, counted from `credential.obtained`. None: unlimited.
    stated: Option<Duration>,
    /// The life that was left when it came: the most that a caller could get. None: unlimited.
    arrived_with: Option<Duration>,
    /// How often the issuer has returned the same credential again.
    repeats: u32,
    /// An API has refused it.
    rejected: bool,
    /// An attempt was made since the wall clock was seen to run ahead.
    doubt_tried: bool,
}

/// Renewals that callers caused by reporting a credential.
#[derive(Debug, Default)]
struct Rejections {
    row: u32,
    last: Option<BootTime>,
}

impl Lifecycle {
    /// A life without a credential so far. `seed` comes from host and profile, so that equal
    /// configurations on many hosts do not act at the same moment.
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

    /// Makes this life wait as another life was told to, for the same reason.
    #[must_use]
    pub fn told_to_wait(mut self, until: BootTime, trouble: Trouble) -> Lifecycle {
        self.earliest = until;
        self.told_until = until;
        self.trouble = Some(trouble);
        self
    }

    /// Says that this life is to replace a working version of the same profile.
    #[must_use]
    pub fn replacing(mut self) -> Lifecycle {
        self.in_rotation = true;
        self
    }

    /// Takes over a credential that an earlier run of the daemon obtained, if it lives. `outdated`:
    /// other material proved the client then. The credential is renewed at once, and is served
    /// until then.
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

    /// Lets this life take the place of another, whose newest credential had this generation. The
    /// credentials of this life get higher generations.
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

    /// Handles an event and says what to do.
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
                // A caller that would have to wait longer is refused, and comes again if it still
                // wants the credential.
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
                // The wall clock may have been set back while the answer was on its way, too.
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

    /// Notes that a caller was served from memory at `at`.
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

    /// Lets a wall clock that was set back bear witness from its new time on. The driver of the
    /// lifecycle sends a tick when the clock is set back.
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

    /// Why the next credential is needed. `replaces`: this life is to replace one that works.
    #[must_use]
    pub fn reason(&self, replaces: bool) -> FetchReason {
        match &self.held {
            Some(held) if held.rejected => FetchReason::Rejected(held.credential.fingerprint),
            Some(_) => FetchReason::Renewal,
            None if replaces => FetchReason::Canary,
            None => FetchReason::First,
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
