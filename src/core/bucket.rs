//! A token bucket: it fills with time, up to a limit, and spending empties it. What is spent beyond
//! its content is owed, and makes it negative.

use std::time::Duration;

use super::time::BootTime;

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub struct SpentLimit {
    /// So much comes back in a second.
    pub per_second: f64,
    /// So much may be spent at once after a time without spending.
    pub burst: f64,
}

/// What is left of a limit, which is handed in each time: it may change.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    level: f64,
    filled: BootTime,
}

impl TokenBucket {
    /// As full as it can be, whatever its limit will be.
    #[must_use]
    pub fn full() -> TokenBucket {
        TokenBucket {
            level: f64::INFINITY,
            filled: BootTime(Duration::ZERO),
        }
    }

    /// How long until there is one to spend; zero when there is.
    pub fn wait(&mut self, limit: SpentLimit, now: BootTime) -> Duration {
        self.fill(limit, now);
        Duration::from_secs_f64(((1.0 - self.level) / limit.per_second).max(0.0))
    }

    /// Takes so much out, there or not.
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
