//! Leads one profile through a world: timers, attempts and their answers, callers, reports and reloads.

use std::time::Duration;

use super::coverage::{Coverage, Weather};
use super::oracle::Oracle;
use super::script::Script;
use super::world::{Change, Changes, Clocks, ISSUERS, Mode, Repetition};
use super::{Dice, HOUR, IN_FLIGHT, Input, MILLISECOND, MINUTE, Moment, Nanos, SECOND, Said};
use crate::core::profile::Refresh;

/// One attempt is given up by the broker after this.
const DEADLINE: Nanos = 20 * SECOND;

/// As in the broker: all lifecycles get a tick when the wall clock has run ahead by this much…
const DRIFT_NOTICED: i128 = 5 * SECOND as i128;
/// …which it looks at this often.
const LONGEST_SLEEP: Nanos = 10 * SECOND;

/// A life that broke a promise.
pub struct Broken {
    pub promise: String,
    pub script: Script,
}

/// What a life came to.
#[derive(Clone, Copy, Default)]
pub struct Lived {
    pub events: u64,
    pub time: Nanos,
    pub attempts: u64,
    /// Tokens that live this long, in the mean.
    pub scale: Nanos,
}

/// An attempt: waiting for its turn, or sent.
struct Attempt {
    number: u64,
    at: Nanos,
    /// What the issuer was up to when it was asked.
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
    /// Answers to attempts that were given up and come all the same.
    late: Vec<(Nanos, Mode, Input)>,
    call: Nanos,
    /// Somebody will repair what the issuer refuses.
    repair: Option<Nanos>,
    drift_tick: Option<Nanos>,
    drift_from: Moment,
    /// The token that the issuer would hand out again: its number, when it was made, its life.
    minted: Option<(u64, Nanos, Nanos)>,
    tokens: u64,
    /// Events per renewal that its callers make.
    rate: u64,
    script: Option<Script>,
    lived: Lived,
}

/// Lives `events` events of profile `profile` of world `world`.
///
/// # Errors
/// The first promise that was broken, with what led there if `record` was set.
#[expect(
    clippy::result_large_err,
    reason = "it happens once, and then the test ends"
)]
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
            script: driver.script.unwrap_or_default(),
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
            late: Vec::new(),
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
            let late = self.late.iter().map(|(at, ..)| *at).min();
            let attempt = self.attempt.as_ref().map(|attempt| attempt.at);
            let change = self.changes.next_at();
            let never = Nanos::MAX;
            let next = [
                Some(change),
                timer,
                attempt,
                late,
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
                    let first = self.late.iter().position(|(other, ..)| *other == at);
                    if let Some(first) = first {
                        let (_, mode, input) = self.late.swap_remove(first);
                        self.step_in(mode, input, coverage, weather)?;
                    }
                }
                4 => {
                    self.repair = None;
                    self.reload(coverage, weather)?;
                }
                5 => {
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

    /// Results count for what the issuer was up to when it was asked.
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
            // The one before was given up, and its answer may be on its way already.
            self.give_up();
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

    fn give_up(&mut self) {
        if let Some(Attempt {
            at,
            mode,
            answer: Some(answer),
            ..
        }) = self.attempt.take()
            && self.late.len() < 4
        {
            self.late.push((at, mode, answer));
        }
    }

    fn change(&mut self) {
        let change = self.changes.take();
        let was = self.mode;
        self.clocks.apply(change);
        if let Change::Mode(mode, repetition) = change {
            self.mode = mode;
            self.repetition = repetition;
            if was == Mode::Refusing && self.dice.permille(500) {
                self.repair = Some(self.clocks.truth + self.dice.spread(MILLISECOND, MINUTE));
            }
            return;
        }
        let now = self.clocks.now();
        let boot = i128::from(now.boot) - i128::from(self.drift_from.boot);
        let wall = i128::from(now.wall) - i128::from(self.drift_from.wall);
        if wall - boot > DRIFT_NOTICED {
            let late = if self.dice.permille(500) {
                0
            } else {
                self.dice.below(LONGEST_SLEEP)
            };
            self.drift_tick.get_or_insert(now.truth + late);
        } else if wall < 0 {
            self.drift_from = now;
        }
    }

    /// Its turn has come, or its answer.
    fn attempt_moves_on(
        &mut self,
        coverage: &mut Coverage,
        weather: Weather,
    ) -> Result<(), String> {
        let Some(attempt) = self.attempt.take() else {
            return Ok(());
        };
        if let Some(answer) = attempt.answer {
            return self.step_in(attempt.mode, answer, coverage, weather);
        }
        let (latency, answer) = self.issuer(attempt.number);
        self.attempt = Some(Attempt {
            at: self.clocks.truth + latency,
            mode: self.mode,
            answer: Some(answer),
            ..attempt
        });
        if self.dice.permille(140) {
            // The daemon is starved, or stopped, and finds the answer later.
            self.clocks.truth += self.dice.spread(latency + 1, 2 * MINUTE);
        }
        Ok(())
    }

    /// What the issuer answers, and how soon.
    fn issuer(&mut self, attempt: u64) -> (Nanos, Input) {
        let dice = &mut self.dice;
        let quick = dice.spread(MILLISECOND, 500 * MILLISECOND);
        let fail = |permanent, retry_after| Input::Fail {
            attempt,
            permanent,
            retry_after,
        };
        let life = self.nominal / 10 * dice.between(8, 12);
        if self.minting() && self.dice.permille(90) {
            // Over before it is there.
            return (2 * SECOND + quick, self.mint(attempt, SECOND));
        }
        let troubled = self.minting() && self.mode != Mode::Healthy;
        if troubled && self.dice.permille(100) {
            // A node that has lost its database answers invalid_client.
            return (quick, fail(true, None));
        }
        let dice = &mut self.dice;
        match self.mode {
            Mode::Healthy | Mode::Revoking => (quick, self.mint(attempt, life)),
            Mode::Down if dice.permille(300) => (DEADLINE, fail(false, None)),
            Mode::Down => (quick, fail(false, None)),
            Mode::Slow => {
                let latency = dice.spread(100 * MILLISECOND, 3 * DEADLINE);
                if latency >= DEADLINE {
                    (DEADLINE, fail(false, None))
                } else {
                    (latency, self.mint(attempt, life))
                }
            }
            Mode::Limiting => match dice.below(10) {
                0 => (quick, self.mint(attempt, life)),
                1 => (quick, fail(false, None)),
                _ => {
                    let after = match dice.below(10) {
                        0 => 0,
                        1..7 => dice.between(1, 90) * SECOND,
                        7..9 => dice.between(1, 900) * SECOND,
                        _ => 1_000_000 * SECOND,
                    };
                    (quick, fail(false, Some(after)))
                }
            },
            Mode::Refusing if dice.permille(100) => (quick, fail(false, None)),
            Mode::Refusing => (quick, fail(true, None)),
            Mode::Repeating => match dice.below(100) {
                0..15 => (quick, fail(false, None)),
                15..27 => (quick, self.mint_as(attempt, Said::Unlimited)),
                _ => (quick, self.repeat(attempt, life)),
            },
            Mode::Odd => match dice.below(16) {
                0 => (quick, self.mint_as(attempt, Said::For(MILLISECOND))),
                1..4 => (2 * SECOND + quick, self.mint_as(attempt, Said::For(SECOND))),
                4 => (
                    quick,
                    self.mint_as(attempt, Said::For(100 * 365 * 24 * HOUR)),
                ),
                5..8 => (quick, self.mint_as(attempt, Said::Unlimited)),
                8 => (quick, self.mint_as(attempt, Said::Unknown)),
                9..11 => (quick, self.mint(attempt, life * 50)),
                11..13 => (quick, self.mint(attempt, life / 50)),
                _ => (quick, self.mint(attempt, life)),
            },
        }
    }

    fn minting(&self) -> bool {
        !matches!(self.mode, Mode::Down | Mode::Refusing)
    }

    fn mint(&mut self, attempt: u64, life: Nanos) -> Input {
        // Issuers speak in seconds.
        let life = (life / SECOND).max(1) * SECOND;
        self.mint_as(attempt, Said::For(life))
    }

    fn mint_as(&mut self, attempt: u64, said: Said) -> Input {
        self.tokens += 1;
        let asked = self.clocks.now();
        let life = match said {
            Said::For(life) => life,
            Said::Unlimited => Nanos::MAX,
            Said::Unknown => self.nominal,
        };
        self.minted = Some((self.tokens, asked.truth, life));
        Input::Grant {
            attempt,
            token: self.tokens,
            asked,
            said,
        }
    }

    fn repeat(&mut self, attempt: u64, life: Nanos) -> Input {
        let Some((token, made, life_of_it)) = self.minted else {
            return self.mint(attempt, life);
        };
        let asked = self.clocks.now();
        let left = life_of_it.saturating_sub(asked.truth - made);
        let said = match self.repetition {
            Repetition::Full if left == 0 && self.dice.permille(300) => {
                return self.mint(attempt, life);
            }
            _ if life_of_it == Nanos::MAX && self.oracle.held() != Some(token) => {
                return self.mint(attempt, life);
            }
            Repetition::Full if life_of_it == Nanos::MAX => Said::Unlimited,
            Repetition::Full => Said::For(life_of_it),
            Repetition::CountingDown | Repetition::Shrinking if left < SECOND => {
                return self.mint(attempt, life);
            }
            Repetition::CountingDown => {
                Said::For(left.min(100 * 365 * 24 * HOUR) / SECOND * SECOND)
            }
            Repetition::Shrinking => Said::For(
                self.dice
                    .between(SECOND / 2, left.min(100 * 365 * 24 * HOUR)),
            ),
        };
        Input::Grant {
            attempt,
            token,
            asked,
            said,
        }
    }

    fn reload(&mut self, coverage: &mut Coverage, weather: Weather) -> Result<(), String> {
        let input = if self.dice.permille(300) {
            Input::Rules(rules(&mut self.dice, self.nominal))
        } else {
            Input::Change
        };
        // The broker gives an attempt up only when a newer one starts: till then its answer may come, and is void.
        self.step(input, coverage, weather)
    }

    fn min_ttl(&mut self) -> Nanos {
        match self.dice.below(4) {
            0 => self.dice.between(1, 60) * SECOND,
            1 => self.nominal / 100 * self.dice.between(80, 130),
            2 => self.nominal * 3,
            _ => self.nominal / 100 * self.dice.between(1, 80),
        }
    }

    /// What callers, reporters and reloads do. Rare states see a bit of everything, or they would stay unexplored.
    fn caller(&mut self, coverage: &mut Coverage, weather: Weather) -> Result<(), String> {
        let now = self.clocks.now();
        let explore = self.attempt.is_some() || self.oracle.asleep(now);
        let reports = if self.mode == Mode::Revoking { 400 } else { 40 };
        let reload = if self.oracle.unlimited() { 60 } else { 16 };
        match self.dice.below(1000) {
            roll if roll < if explore { 250 } else { reports } => {
                self.report(coverage, weather)?;
            }
            _ if self.dice.permille(if explore { 190 } else { reload }) => {
                self.reload(coverage, weather)?;
            }
            _ if self.dice.permille(if explore { 150 } else { 15 }) => {
                // Whoever ticks more often than planned changes nothing.
                self.step(Input::Tick, coverage, weather)?;
            }
            _ if self.dice.permille(if explore { 250 } else { 40 }) => {
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

    fn report(&mut self, coverage: &mut Coverage, weather: Weather) -> Result<(), String> {
        let token = match self.oracle.held() {
            Some(token) if self.dice.permille(650) => token,
            _ => self.dice.below(self.tokens + 2),
        };
        for _ in 0..self.dice.one_of(&[1, 1, 1, 2, 10]) {
            self.step(Input::Report(token), coverage, weather)?;
        }
        Ok(())
    }

    /// Callers come at their own rate, and at the moments at which something changes.
    fn plan_next_call(&mut self, now: Moment) {
        let wake = self.oracle.wake_at(now);
        let mean = wake.map_or(self.nominal, |wake| wake.saturating_sub(now.boot)) / self.rate;
        let mean = mean.clamp(MILLISECOND, HOUR);
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
