//! A token bucket: it fills with time, up to a limit, and spending empties it. Spending more than
//! the bucket holds makes its content negative: the difference is owed.

use std::time::Duration;

use super::time::BootTime;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct SpentLimit {
    /// This much comes back in a second.
    pub per_second: f64,
    /// This much may be spent at once after a time without spending.
    pub burst: f64,
}

/// What is left of a limit. The limit is an argument of each call because it may change.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    level: f64,
    filled: BootTime,
}

impl TokenBucket {
    /// A bucket that is full under any limit.
    #[must_use]
    pub fn full() -> TokenBucket {
        TokenBucket {
            level: f64::INFINITY,
            filled: BootTime(Duration::ZERO),
        }
    }

    /// The time until one can be spent; zero if one can be spent now.
    pub fn wait(&mut self, limit: SpentLimit, now: BootTime) -> Duration {
        self.fill(limit, now);
        Duration::from_secs_f64(((1.0 - self.level) / limit.per_second).max(0.0))
    }

    /// Takes this amount out, even if the bucket holds less.
    pub fn spend(&mut self, limit: SpentLimit, amount: u64, now: BootTime) {
        self.fill(limit, now);
        self.level -= amount as f64;
    }

    /// Whether all that was spent has come back.
    pub fn is_full(&mut self, limit: SpentLimit, now: BootTime) -> bool {
        self.fill(limit, now);
        self.level >= limit.burst
    }

    fn fill(&mut self, limit: SpentLimit, now: BootTime) {
        let gained = now.since(self.filled).as_secs_f64() * limit.per_second;
        self.level = (self.level + gained).min(limit.burst);
        self.filled = now;
    }
}
