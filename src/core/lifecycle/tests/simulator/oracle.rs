//! Plays the broker around one lifecycle, keeps its own books, and says which promise a step has
//! broken.
//!
//! The books are kept in true time and in plain numbers. Where the rules leave no choice the oracle
//! knows the exact answer; where they draw a random number it knows the limits.

mod books;
mod judge;

use std::sync::Arc;
use std::time::Duration;

use self::books::{Books, Outcome};
use super::{IN_FLIGHT, Input, Kind, Moment, Nanos, Said, fingerprint, nanos};
use crate::core::credential::{Credential, Issued, Lifetime, Scheme};
use crate::core::failure::Failure;
use crate::core::lifecycle::{Lifecycle, LifecycleEvent, LifecycleState, Verdict};
use crate::core::profile::Refresh;
use crate::core::secret::Secret;
use crate::core::time::BootTime;

/// What a step shows to the driver.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The state before the step, and whether an attempt was under way.
    pub before: (LifecycleState, bool),
    pub kind: Kind,
    /// The attempt to start.
    pub fetch: Option<u64>,
}

pub struct Oracle {
    life: Lifecycle,
    rules: Refresh,
    books: Books,
    /// What the broker has published, for readers.
    view: Option<Arc<Credential>>,
    /// When a reader was last answered from the view. The broker tells the lifecycle before the
    /// next event.
    view_asked: Option<Nanos>,
    waiters: Vec<Waiter>,
    fetch: Option<u64>,
}

#[derive(Clone, Copy)]
struct Waiter {
    min_ttl: Nanos,
}

/// At most this many callers wait at once; more would show nothing new.
const WAITERS: usize = 4;

impl Oracle {
    pub fn new(rules: Refresh, seed: u64) -> Oracle {
        Oracle {
            life: Lifecycle::new(rules.clone(), seed),
            rules,
            books: Books::default(),
            view: None,
            view_asked: None,
            waiters: Vec::new(),
            fetch: None,
        }
    }

    /// When the broker would send a tick, on the boot clock.
    pub fn wake_at(&self, now: Moment) -> Option<Nanos> {
        self.life.wake_at(now.stamp()).map(|at| nanos(at.0))
    }

    /// The moments at which something changes, on the boot clock.
    pub fn borders(&self) -> [Option<Nanos>; 3] {
        [
            self.books.end(),
            self.books.planned(),
            self.books.not_before(),
        ]
    }

    pub fn rules(&self) -> &Refresh {
        &self.rules
    }

    /// The token that callers have, for reports.
    pub fn held(&self) -> Option<u64> {
        self.books.token()
    }

    pub fn unlimited(&self) -> bool {
        self.books.unlimited()
    }

    pub fn state(&self, now: Moment) -> LifecycleState {
        self.life.state(now.stamp())
    }

    /// Whether the last attempt failed.
    pub fn fails(&self) -> bool {
        self.life.trouble().is_some()
    }

    pub fn doubted(&self, now: Moment) -> bool {
        self.books.doubted(now)
    }

    /// Makes one step.
    ///
    /// # Errors
    /// The promise that the step broke.
    pub fn step(&mut self, now: Moment, input: &Input) -> Result<Step, String> {
        let stamp = now.stamp();
        if let Some(asked) = self.view_asked {
            self.life.note_asked(BootTime(Duration::from_nanos(asked)));
        }
        let before = (self.life.state(stamp), self.books.in_flight.is_some());
        self.fetch = None;
        let kind = match input {
            Input::Tick => {
                self.books.wall_set_back(now);
                self.handle(now, LifecycleEvent::Tick)?;
                Kind::Tick
            }
            Input::Read(min_ttl) => {
                if let Some(credential) = self.view.clone()
                    && credential.servable(stamp, Duration::from_nanos(*min_ttl))
                {
                    self.books.served(&credential, now, *min_ttl)?;
                    self.books.seen(now);
                    self.view_asked = Some(now.boot);
                    return Ok(Step {
                        before,
                        kind: Kind::Read,
                        fetch: None,
                    });
                }
                self.ask(now, *min_ttl)?
            }
            Input::Ask(min_ttl) => self.ask(now, *min_ttl)?,
            Input::Grant {
                attempt,
                token,
                asked,
                said,
            } => {
                let attempt = self.number(*attempt);
                self.grant(now, attempt, *token, *asked, *said)?
            }
            Input::Fail {
                attempt,
                permanent,
                retry_after,
            } => {
                let attempt = self.number(*attempt);
                self.fail(now, attempt, *permanent, *retry_after)?
            }
            Input::Report(token) => {
                let held = self.books.reported(now, *token);
                self.handle(
                    now,
                    LifecycleEvent::Rejected {
                        fingerprint: fingerprint(*token),
                    },
                )?;
                if held {
                    Kind::ReportHeld
                } else {
                    Kind::ReportOther
                }
            }
            Input::Again => {
                self.books.again(now, &self.rules);
                self.handle(now, LifecycleEvent::Again)?;
                Kind::Again
            }
        };
        self.ask_for_waiters(now)?;
        self.judge(now, kind, input)?;
        Ok(Step {
            before,
            kind,
            fetch: self.fetch,
        })
    }

    /// The number of the attempt that an input means.
    fn number(&self, attempt: u64) -> u64 {
        if attempt == IN_FLIGHT {
            self.books.in_flight.unwrap_or(IN_FLIGHT)
        } else {
            attempt
        }
    }

    pub fn in_flight(&self) -> Option<u64> {
        self.books.in_flight
    }

    fn ask(&mut self, now: Moment, min_ttl: Nanos) -> Result<Kind, String> {
        self.books.asked(now, min_ttl);
        if self.waiters.len() < WAITERS {
            self.waiters.push(Waiter { min_ttl });
        }
        self.handle(
            now,
            LifecycleEvent::Asked {
                min_ttl: Duration::from_nanos(min_ttl),
            },
        )?;
        self.wait_is_bounded(now, min_ttl)?;
        Ok(if min_ttl == 0 {
            Kind::Ask
        } else {
            Kind::AskTtl
        })
    }

    fn grant(
        &mut self,
        now: Moment,
        attempt: u64,
        token: u64,
        asked: Moment,
        said: Said,
    ) -> Result<Kind, String> {
        let outcome = self
            .books
            .granted(now, &self.rules, attempt, token, asked, said);
        if let Outcome::Accepted(_) = outcome {
            self.books.wall_set_back(now);
        }
        let event = LifecycleEvent::Fetched {
            attempt,
            fingerprint: fingerprint(token),
            issued: Box::new(Issued {
                token: Secret::new(format!("{token:x}")),
                scheme: Scheme::Bearer,
                asked_at: asked.stamp(),
                lifetime: match said {
                    Said::Unlimited => Lifetime::Unlimited,
                    Said::Unknown => Lifetime::Unknown,
                    Said::For(life) => Lifetime::For(Duration::from_nanos(life)),
                },
                scopes: Vec::new(),
                confirmation: None,
                clock_skew: None,
            }),
        };
        self.outcome(now, event, outcome)
    }

    fn fail(
        &mut self,
        now: Moment,
        attempt: u64,
        permanent: bool,
        retry_after: Option<Nanos>,
    ) -> Result<Kind, String> {
        let outcome = self
            .books
            .failed(now, &self.rules, attempt, permanent, retry_after);
        let failure = if permanent {
            Failure::permanent("")
        } else {
            Failure::transient("")
        }
        .with_retry_after(retry_after.map(Duration::from_nanos));
        self.outcome(now, LifecycleEvent::Failed { attempt, failure }, outcome)
    }

    fn outcome(
        &mut self,
        now: Moment,
        event: LifecycleEvent,
        outcome: Outcome,
    ) -> Result<Kind, String> {
        let stamp = now.stamp();
        let shape = |life: &Lifecycle| {
            (
                life.state(stamp),
                life.due(stamp),
                life.held().map(Arc::as_ptr),
                life.trouble().map(|trouble| trouble.failures),
            )
        };
        let before = shape(&self.life);
        self.handle(now, event)?;
        match outcome {
            Outcome::Void if shape(&self.life) != before || self.fetch.is_some() => {
                Err("the result of an attempt that is void changed something".to_owned())
            }
            Outcome::Void => Ok(Kind::Void),
            Outcome::Accepted(kind) => {
                self.nobody_waits_on(now, kind)?;
                Ok(kind)
            }
        }
    }

    /// Checks that the end of an attempt, good or bad, answers all callers that wait. They may wait
    /// for the next attempt only where the clocks make the credential doubtful, or where it came
    /// too late for a `min_ttl`.
    fn nobody_waits_on(&self, now: Moment, kind: Kind) -> Result<(), String> {
        let may = |waiter: &Waiter| {
            kind == Kind::New
                && (self.books.doubted(now) || self.books.came_late_for(waiter.min_ttl))
        };
        match self.waiters.iter().find(|waiter| !may(waiter)) {
            Some(waiter) => Err(format!(
                "a caller who wants {} ns waits on although an attempt has ended",
                waiter.min_ttl
            )),
            None => Ok(()),
        }
    }

    /// Acts like `Actor::handle` and `Actor::carry_out`.
    fn handle(&mut self, now: Moment, event: LifecycleEvent) -> Result<(), String> {
        let stamp = now.stamp();
        let reaction = self.life.handle(stamp, event);
        if let (Some(held), Some(credential)) = (&mut self.books.held, self.life.held()) {
            held.planned = credential.refresh_at.map(|at| nanos(at.0));
        }
        if let Some(attempt) = reaction.fetch {
            self.books.started(now, &self.rules, attempt)?;
            self.fetch = Some(attempt);
        }
        if reaction.publish {
            self.view = self.life.held().cloned();
        }
        self.answer_waiters(now)
    }

    fn answer_waiters(&mut self, now: Moment) -> Result<(), String> {
        for waiter in std::mem::take(&mut self.waiters) {
            match self
                .life
                .verdict(now.stamp(), Duration::from_nanos(waiter.min_ttl))
            {
                Verdict::Serve(credential) => {
                    self.books.served(&credential, now, waiter.min_ttl)?;
                }
                Verdict::Refuse(_) => {}
                Verdict::Wait => self.waiters.push(waiter),
            }
        }
        Ok(())
    }

    /// Acts like the end of `Actor::handle`: the new credential may be too short-lived for a caller
    /// that waits.
    fn ask_for_waiters(&mut self, now: Moment) -> Result<(), String> {
        let longest = self.waiters.iter().map(|waiter| waiter.min_ttl).max();
        match longest {
            Some(min_ttl) if self.books.in_flight.is_none() => {
                self.books.asked(now, min_ttl);
                self.handle(
                    now,
                    LifecycleEvent::Asked {
                        min_ttl: Duration::from_nanos(min_ttl),
                    },
                )
            }
            _ => Ok(()),
        }
    }
}
