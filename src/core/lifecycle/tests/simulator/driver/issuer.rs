//! The answers of an issuer to one profile, by the issuer's mode.

use super::{DEADLINE, Driver};
use crate::core::lifecycle::tests::simulator::world::{Mode, Repetition};
use crate::core::lifecycle::tests::simulator::{HOUR, Input, MILLISECOND, Nanos, SECOND, Said};

impl Driver {
    /// The issuer's answer, and the time until it comes.
    pub(super) fn issuer(&mut self, attempt: u64) -> (Nanos, Input) {
        let dice = &mut self.dice;
        let quick = dice.spread(MILLISECOND, 500 * MILLISECOND);
        let fail = |permanent, retry_after| Input::Fail {
            attempt,
            permanent,
            retry_after,
        };
        let life = self.nominal / 10 * dice.between(8, 12);
        if self.minting() && self.dice.permille(90) {
            // The token's life is over before it arrives.
            return (2 * SECOND + quick, self.mint(attempt, SECOND));
        }
        let troubled = self.minting() && self.mode != Mode::Healthy;
        if troubled && self.dice.permille(100) {
            // A node that has lost its database answers invalid_client.
            return (quick, fail(true, None));
        }
        let in_doubt = self.fresh_in_doubt(self.clocks.now());
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
            // This state is rare, so all answers are about equally often: an answer that also comes
            // elsewhere, above or in another mode, has half the share of an answer that comes only
            // here.
            Mode::Repeating if in_doubt => match dice.below(12) {
                0 => (quick, fail(true, None)),
                1 => (2 * SECOND + quick, self.mint(attempt, SECOND)),
                2 => (quick, self.mint(attempt, life)),
                3..5 => (quick, fail(false, None)),
                5..7 => (quick, fail(false, Some(dice.between(1, 90) * SECOND))),
                7..9 => (quick, self.mint_as(attempt, Said::Unlimited)),
                _ => (quick, self.repeat(attempt, life)),
            },
            Mode::Repeating => match dice.below(100) {
                0..10 => (quick, fail(false, None)),
                10..15 => (quick, fail(false, Some(dice.between(1, 90) * SECOND))),
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
        // Issuers state lifetimes in seconds.
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
}
