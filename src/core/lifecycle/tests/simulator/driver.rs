//! Leads one profile through a world: timers, attempts and their answers, callers and reports.

mod issuer;

use std::time::Duration;

use super::coverage::{Coverage, Weather};
use super::oracle::Oracle;
use super::script::Script;
use super::world::{Change, Changes, Clocks, ISSUERS, Mode, Repetition};
use super::{Dice, HOUR, IN_FLIGHT, Input, MILLISECOND, MINUTE, Moment, Nanos, SECOND};
use crate::core::lifecycle::LifecycleState;
use crate::core::profile::Refresh;

/// The broker gives up an attempt after this time.
const DEADLINE: Nanos = 20 * SECOND;

/// As in the broker: all lifecycles get a tick when the wall clock has run ahead by this much…
const DRIFT_NOTICED: i128 = 5 * SECOND as i128;
/// …or was set back by more than this…
const STEP_BACK_NOTICED: i128 = SECOND as i128;
/// …which it looks at this often.
const LONGEST_SLEEP: Nanos = 10 * SECOND;

/// A life that broke a promise.
pub struct Broken {
    pub promise: String,
    pub script: Box<Script>,
}

/// The result of a life.
#[derive(Clone, Copy, Default)]
pub struct Lived {
    pub events: u64,
    pub time: Nanos,
    pub attempts: u64,
    /// The mean life of the tokens.
    pub scale: Nanos,
}

/// An attempt that waits for its turn, or that was sent.
struct Attempt {
    number: u64,
    at: Nanos,
    /// The mode in which the issuer was when it was asked.
    mode: Mode,
    answer: Option<Input>,
}

pub struct Driver {
    dice: Dice,
    changes: Changes,
    clocks: Clocks,
    mode: Mode,
    repetition: Repetition,
    oracle: Oracle,
    nominal: Nanos,
    attempt: Option<Attempt>,
    call: Nanos,
    /// When an operator repairs what the issuer refuses. The other version of the profile ends
    /// then.
    repair: Option<Nanos>,
    drift_tick: Option<Nanos>,
    drift_from: Moment,
    /// The token that the issuer would hand out again: its number, the time when it was made, and
    /// its life.
    minted: Option<(u64, Nanos, Nanos)>,
    tokens: u64,
    /// The events that its callers make per renewal.
    rate: u64,
    script: Option<Script>,
    lived: Lived,
}

/// Lives `events` events of profile `profile` of world `world`.
///
/// # Errors
/// The first promise that was broken, and the inputs that led there if `record` was set.
pub fn live(
    world: u64,
    profile: u64,
    events: u64,
    coverage: &mut Coverage,
    record: bool,
) -> Result<Lived, Broken> {
    let mut driver = Driver::new(world, profile, record);
    let result = driver.run(events, coverage);
    match result {
        Ok(()) => {
            driver.lived.time = driver.clocks.truth - 1000 * SECOND;
            Ok(driver.lived)
        }
        Err(promise) => Err(Broken {
            promise,
            script: Box::new(driver.script.unwrap_or_default()),
        }),
    }
}

impl Driver {
    fn new(world: u64, profile: u64, record: bool) -> Driver {
        let mut dice = Dice::mixed(world, 1_000_000 + profile);
        let changes = Changes::new(world, profile % ISSUERS);
        let scale = changes.scale();
        let nominal = dice
            .spread(scale / 4, scale * 4)
            .clamp(10 * SECOND, 24 * HOUR);
        let rules = rules(&mut dice, nominal);
        let seed = dice.roll();
        let clocks = Clocks::new();
        let script = record.then(|| Script::new(seed, rules.clone()));
        Driver {
            call: clocks.truth + dice.below(nominal),
            rate: dice.one_of(&[3, 10, 30]),
            drift_from: clocks.now(),
            dice,
            changes,
            clocks,
            mode: Mode::Healthy,
            repetition: Repetition::Full,
            oracle: Oracle::new(rules, seed),
            nominal,
            attempt: None,
            repair: None,
            drift_tick: None,
            minted: None,
            tokens: 0,
            script,
            lived: Lived {
                scale,
                ..Lived::default()
            },
        }
    }

    fn run(&mut self, events: u64, coverage: &mut Coverage) -> Result<(), String> {
        while self.lived.events < events {
            let now = self.clocks.now();
            let timer = self
                .oracle
                .wake_at(now)
                .map(|boot| self.clocks.truth_of(boot));
            let attempt = self.attempt.as_ref().map(|attempt| attempt.at);
            let change = self.changes.next_at();
            let never = Nanos::MAX;
            let next = [
                Some(change),
                timer,
                attempt,
                self.repair,
                self.drift_tick,
                Some(self.call),
            ]
            .map(|at| at.unwrap_or(never));
            let at = next.iter().copied().min().unwrap_or(never);
            let weather = if self.oracle.doubted(now) {
                Weather::Doubt
            } else if at < self.clocks.truth {
                Weather::Late
            } else {
                Weather::Steady
            };
            self.clocks.truth = self.clocks.truth.max(at);
            let which = next
                .iter()
                .position(|other| *other == at)
                .expect("the least of them");
            match which {
                0 => {
                    self.change();
                    continue;
                }
                1 => self.step(Input::Tick, coverage, weather)?,
                2 => self.attempt_moves_on(coverage, weather)?,
                3 => {
                    self.repair = None;
                    self.step(Input::Again, coverage, weather)?;
                }
                4 => {
                    self.drift_tick = None;
                    self.drift_from = self.clocks.now();
                    self.step(Input::Tick, coverage, weather)?;
                }
                _ => self.caller(coverage, weather)?,
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        input: Input,
        coverage: &mut Coverage,
        weather: Weather,
    ) -> Result<(), String> {
        self.step_in(self.mode, input, coverage, weather)
    }

    /// Makes a step in a weather and mode. Results count for the mode in which the issuer was when
    /// it was asked.
    fn step_in(
        &mut self,
        mode: Mode,
        input: Input,
        coverage: &mut Coverage,
        weather: Weather,
    ) -> Result<(), String> {
        let now = self.clocks.now();
        if let Some(script) = &mut self.script {
            script.push(now, input.clone(), self.oracle.in_flight());
        }
        self.lived.events += 1;
        let step = self.oracle.step(now, &input)?;
        coverage.count(&step, mode, weather);
        if let Some(number) = step.fetch {
            self.lived.attempts += 1;
            let queue = if self.dice.permille(200) {
                self.dice.spread(MILLISECOND, 60 * SECOND)
            } else {
                0
            };
            self.attempt = Some(Attempt {
                number,
                at: now.truth + queue,
                mode: self.mode,
                answer: None,
            });
        }
        Ok(())
    }

    fn change(&mut self) {
        let change = self.changes.take();
        let was = self.mode;
        self.clocks.apply(change);
        if let Change::Mode(mode, repetition) = change {
            self.mode = mode;
            self.repetition = repetition;
            if self.between(self.clocks.now()) {
                self.call = self.clocks.truth;
            }
            if was == Mode::Refusing && self.dice.permille(500) {
                self.repair = Some(self.clocks.truth + self.dice.spread(MILLISECOND, MINUTE));
            }
            return;
        }
        let now = self.clocks.now();
        let boot = i128::from(now.boot) - i128::from(self.drift_from.boot);
        let wall = i128::from(now.wall) - i128::from(self.drift_from.wall);
        if wall - boot > DRIFT_NOTICED || boot - wall > STEP_BACK_NOTICED {
            let late = if self.dice.permille(500) {
                0
            } else {
                self.dice.below(LONGEST_SLEEP)
            };
            self.drift_tick.get_or_insert(now.truth + late);
        }
    }

    /// Lets the attempt have its turn, or its answer.
    fn attempt_moves_on(
        &mut self,
        coverage: &mut Coverage,
        weather: Weather,
    ) -> Result<(), String> {
        let Some(attempt) = self.attempt.take() else {
            return Ok(());
        };
        if let Some(answer) = attempt.answer {
            self.step_in(attempt.mode, answer, coverage, weather)?;
            let now = self.clocks.now();
            if self.fresh_in_doubt(now) {
                self.call = now.truth + self.dice.below(SECOND);
            }
            return Ok(());
        }
        let (latency, answer) = self.issuer(attempt.number);
        self.attempt = Some(Attempt {
            at: self.clocks.truth + latency,
            mode: self.mode,
            answer: Some(answer),
            ..attempt
        });
        if self.dice.permille(140) {
            // The daemon is starved or stopped, and finds the answer later.
            self.clocks.truth += self.dice.spread(latency + 1, 2 * MINUTE);
        }
        Ok(())
    }

    fn min_ttl(&mut self) -> Nanos {
        match self.dice.below(4) {
            0 => self.dice.between(1, 60) * SECOND,
            1 => self.nominal / 100 * self.dice.between(80, 130),
            2 => self.nominal * 3,
            _ => self.nominal / 100 * self.dice.between(1, 80),
        }
    }

    /// Makes the events of callers, reporters and signs. Rare states see a bit of each, or they
    /// would stay unexplored.
    fn caller(&mut self, coverage: &mut Coverage, weather: Weather) -> Result<(), String> {
        let now = self.clocks.now();
        // A provider that refuses and is then down is rare, since a refused attempt is soon made
        // again.
        let state = self.oracle.state(now);
        let down = self.mode == Mode::Down && state == LifecycleState::Rejected;
        let between = self.between(now);
        let explore = self.attempt.is_some() || state == LifecycleState::Asleep || down || between;
        let in_doubt = self.attempt.is_none() && self.fresh_in_doubt(now);
        let reports = match self.mode {
            _ if in_doubt => 900,
            Mode::Revoking => 400,
            _ => 40,
        };
        let again = if self.oracle.unlimited() { 60 } else { 16 };
        match self.dice.below(1000) {
            roll if roll < if explore { 250 } else { reports } => {
                self.report(coverage, weather)?;
            }
            _ if self.dice.permille(if explore { 190 } else { again }) => {
                self.step(Input::Again, coverage, weather)?;
            }
            _ if self.dice.permille(if explore { 150 } else { 15 }) => {
                // A driver that ticks more often than planned changes nothing.
                self.step(Input::Tick, coverage, weather)?;
            }
            _ if self.dice.permille(match (down, explore) {
                (true, _) => 300,
                (false, true) => 250,
                // The many reports leave little room for other events.
                (false, false) if in_doubt => 150,
                (false, false) => 40,
            }) =>
            {
                let attempt = self.dice.below(self.lived.attempts + 3);
                if self.oracle.in_flight() != Some(attempt) && attempt != IN_FLIGHT {
                    let (_, input) = self.issuer(attempt);
                    self.step(input, coverage, weather)?;
                }
            }
            _ => {
                let min_ttl = if self.dice.permille(if explore { 400 } else { 250 }) {
                    self.min_ttl()
                } else {
                    0
                };
                let input = if self.dice.permille(if explore { 400 } else { 150 }) {
                    Input::Ask(min_ttl)
                } else {
                    Input::Read(min_ttl)
                };
                self.step(input, coverage, weather)?;
            }
        }
        self.plan_next_call(now);
        Ok(())
    }

    /// Whether there is nothing to serve, nothing has failed and no attempt is under way. That
    /// happens only within the minimum interval.
    fn between(&self, now: Moment) -> bool {
        self.attempt.is_none() && self.oracle.state(now) == LifecycleState::Fetching
    }

    /// Whether the issuer has repeated its token in doubt, so that no caller waits for the doubt to
    /// end. Then only a report of that token makes the next attempt come soon.
    pub(super) fn fresh_in_doubt(&self, now: Moment) -> bool {
        self.oracle.doubted(now) && self.oracle.state(now) == LifecycleState::Fresh
    }

    fn report(&mut self, coverage: &mut Coverage, weather: Weather) -> Result<(), String> {
        // A token that is reported now cannot be reported after it has been repeated.
        let doubted = weather == Weather::Doubt && !self.oracle.fails();
        let of_held = match (doubted, &self.attempt) {
            (true, Some(_)) => 20,
            (true, None) => 900,
            (false, _) if self.mode == Mode::Repeating => 300,
            (false, _) => 650,
        };
        let token = match self.oracle.held() {
            Some(token) if self.dice.permille(of_held) => token,
            _ => self.dice.below(self.tokens + 2),
        };
        for _ in 0..self.dice.one_of(&[1, 1, 1, 2, 10]) {
            self.step(Input::Report(token), coverage, weather)?;
        }
        Ok(())
    }

    /// Callers come at their own rate, and at the moments when something changes.
    fn plan_next_call(&mut self, now: Moment) {
        let wake = self.oracle.wake_at(now);
        let mean = wake.map_or(self.nominal, |wake| wake.saturating_sub(now.boot)) / self.rate;
        let mean = mean.clamp(MILLISECOND, HOUR);
        if let Some(wake) = wake
            && self.between(now)
        {
            let left = wake.saturating_sub(now.boot);
            self.call = now.truth + self.dice.below(left / 3 + 1) + 1;
            return;
        }
        let border = self.dice.one_of(&self.oracle.borders());
        if let Some(attempt) = &self.attempt
            && self
                .dice
                .permille(if self.oracle.fails() || self.oracle.doubted(now) {
                    900
                } else {
                    250
                })
        {
            self.call = now.truth + self.dice.below(attempt.at.saturating_sub(now.truth) + 1);
            return;
        }
        self.call = match border {
            Some(border) if border > now.boot && self.dice.permille(100) => {
                let border = self.clocks.truth_of(border);
                border - 1 + self.dice.below(3)
            }
            _ if !self.oracle.rules().eager && self.dice.permille(60) => {
                now.truth + self.dice.between(10 * MINUTE, 40 * MINUTE)
            }
            _ => now.truth + self.dice.below(2 * mean) + 1,
        };
    }
}

fn rules(dice: &mut Dice, nominal: Nanos) -> Refresh {
    let retry_after_max = if nominal < 10 * MINUTE {
        dice.one_of(&[10, 60, 600])
    } else {
        dice.one_of(&[60, 600, 3600])
    };
    Refresh {
        at: dice.one_of(&[0.1, 0.5, 0.75, 0.75, 0.75, 0.9, 0.95]),
        jitter: dice.one_of(&[0.0, 0.1, 0.1, 0.1, 0.3, 0.5]),
        margin: Duration::from_millis(dice.one_of(&[0, 1000, 5000, 5000, 30_000])),
        min_interval: Duration::from_millis(dice.one_of(&[100, 1000, 1000, 1000, 5000, 30_000])),
        retry_after_max: Duration::from_secs(retry_after_max),
        default_lifetime: Duration::from_nanos(nominal / 2),
        eager: dice.permille(600),
    }
}
