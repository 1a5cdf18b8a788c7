//! The held credential as the oracle knows it: the true time when it was asked for, and the stated
//! life.

use crate::core::credential::WALL_DRIFT_TOLERATED;
use crate::core::lifecycle::tests::simulator::{Moment, Nanos, nanos};
use crate::core::profile::Refresh;

pub struct Held {
    pub token: u64,
    pub generation: u64,
    /// The end of service, on the boot clock. For one token it only ever comes nearer.
    pub end: Option<Nanos>,
    /// The statement that measures the true life: when it was asked for, and the stated life. None:
    /// unlimited.
    pub statement: Option<(Moment, Nanos)>,
    /// The `refresh_at` of the credential.
    pub planned: Option<Nanos>,
    pub reported: bool,
    pub repeats: u32,
    /// How many repetitions the same-token guard may still cause.
    pub allowance: i64,
    pub was_doubted: bool,
    /// The life that was left when it came.
    pub arrived_with: Nanos,
}

impl Held {
    /// Whether the daemon may believe that the boot clock stood still.
    pub fn doubted(&self, now: Moment) -> bool {
        self.end.is_some()
            && self.statement.is_some_and(|(asked, _)| {
                let (boot, wall) = elapsed(asked, now);
                wall > boot + i128::from(nanos(WALL_DRIFT_TOLERATED))
            })
    }

    /// Whether it lives for `min_ttl` by the wall clock, with its margin.
    pub fn lives_by_wall(&self, now: Moment) -> bool {
        match (self.end, self.statement) {
            (Some(end), Some((asked, _))) => {
                let (_, wall) = elapsed(asked, now);
                wall < i128::from(end.saturating_sub(asked.boot))
            }
            _ => true,
        }
    }
}

/// How often a life can be halved before the minimum interval is reached.
pub fn halvings(life: Nanos, rules: &Refresh) -> i64 {
    let intervals = (life / nanos(rules.min_interval).max(1)).max(1);
    i64::from(intervals.ilog2())
}

fn elapsed(from: Moment, to: Moment) -> (i128, i128) {
    (
        i128::from(to.boot) - i128::from(from.boot),
        i128::from(to.wall) - i128::from(from.wall),
    )
}

/// How long a daemon that sees two clocks may be deceived about the time since `asked`: not at all
/// as long as the boot clock counts. A pause that the wall clock shows counts fully once it is
/// beyond the tolerance. A pause that the wall clock hides, because it was set back before the
/// daemon looked, cannot be seen.
pub fn tolerated(asked: Moment, now: Moment) -> Nanos {
    let (boot, wall) = elapsed(asked, now);
    let truth = i128::from(now.truth - asked.truth);
    let (paused, stepped) = (truth - boot, wall - truth);
    let hidden = if paused + stepped <= i128::from(nanos(WALL_DRIFT_TOLERATED)) {
        paused
    } else {
        (-stepped).max(0)
    };
    Nanos::try_from(hidden).unwrap_or(Nanos::MAX)
}
