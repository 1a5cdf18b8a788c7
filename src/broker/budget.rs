//! What one identity provider may be asked: so many at a time, so many per second; callers that wait go first, and within
//! each group it is first come, first served.
//!
//! Profiles may set different limits for the same provider. The strictest of those that use it now hold: a limit is there
//! because the provider bears no more, which it does not do for the profiles of others either.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::core::time::BootTime;

/// The budget of one identity provider and who queues for it.
#[derive(Debug)]
pub struct Budget<T> {
    /// How many profiles set each limit.
    max_in_flight: Limits,
    max_per_second: Limits,
    in_flight: u32,
    bucket: Bucket,
    urgent: VecDeque<T>,
    background: VecDeque<T>,
}

/// How many profiles set each limit.
type Limits = BTreeMap<u32, usize>;

/// The strictest limit. Without a profile nothing new is queued, and what is queued still goes out one by one.
fn strictest(limits: &Limits) -> u32 {
    limits.keys().next().copied().unwrap_or(1).max(1)
}

fn leave(limits: &mut Limits, limit: u32) {
    if let Some(count) = limits.get_mut(&limit) {
        *count -= 1;
        if *count == 0 {
            limits.remove(&limit);
        }
    }
}

/// A token bucket: holds a second's worth.
#[derive(Debug)]
struct Bucket {
    level: f64,
    filled: BootTime,
}

/// What [`Budget::next`] says.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<T> {
    /// Start this one; it counts as in flight.
    Start(T),
    /// Nothing before this moment.
    At(BootTime),
    /// Nothing until one is queued or one in flight is done.
    Nothing,
}

impl<T: PartialEq> Budget<T> {
    /// An unused budget that nobody has a share in.
    pub fn new(now: BootTime) -> Budget<T> {
        Budget {
            max_in_flight: Limits::new(),
            max_per_second: Limits::new(),
            in_flight: 0,
            bucket: Bucket {
                // As full as it can be, whatever that will be.
                level: f64::INFINITY,
                filled: now,
            },
            urgent: VecDeque::new(),
            background: VecDeque::new(),
        }
    }

    /// A profile shares in it from now on, with limits of its own.
    pub fn join(&mut self, max_in_flight: u32, max_per_second: u32) {
        *self.max_in_flight.entry(max_in_flight).or_default() += 1;
        *self.max_per_second.entry(max_per_second).or_default() += 1;
    }

    /// A profile that had joined with these limits is gone.
    pub fn leave(&mut self, max_in_flight: u32, max_per_second: u32) {
        leave(&mut self.max_in_flight, max_in_flight);
        leave(&mut self.max_per_second, max_per_second);
    }

    /// Whether nobody has a share in it and nothing is in flight: then it can be forgotten.
    pub fn is_over(&self) -> bool {
        self.max_in_flight.is_empty()
            && self.in_flight == 0
            && self.urgent.is_empty()
            && self.background.is_empty()
    }

    /// Queues one.
    pub fn queue(&mut self, item: T, urgent: bool) {
        if urgent {
            self.urgent.push_back(item);
        } else {
            self.background.push_back(item);
        }
    }

    /// A caller waits for it now: it goes to the end of the urgent ones, if it queues in the background.
    pub fn promote(&mut self, item: &T) {
        if let Some(place) = self.background.iter().position(|queued| queued == item)
            && let Some(item) = self.background.remove(place)
        {
            self.urgent.push_back(item);
        }
    }

    /// It is not wanted any more; whether it was still queued.
    pub fn withdraw(&mut self, item: &T) -> bool {
        let before = self.urgent.len() + self.background.len();
        self.urgent.retain(|queued| queued != item);
        self.background.retain(|queued| queued != item);
        before != self.urgent.len() + self.background.len()
    }

    /// One that was started is done.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whose turn it is.
    pub fn next(&mut self, now: BootTime) -> Next<T> {
        if self.in_flight >= strictest(&self.max_in_flight)
            || (self.urgent.is_empty() && self.background.is_empty())
        {
            return Next::Nothing;
        }
        if let Err(at) = self
            .bucket
            .take(now, f64::from(strictest(&self.max_per_second)))
        {
            return Next::At(at);
        }
        match self
            .urgent
            .pop_front()
            .or_else(|| self.background.pop_front())
        {
            Some(item) => {
                self.in_flight += 1;
                Next::Start(item)
            }
            None => Next::Nothing,
        }
    }
}

impl Bucket {
    fn take(&mut self, now: BootTime, per_second: f64) -> Result<(), BootTime> {
        let gained = now.since(self.filled).as_secs_f64() * per_second;
        self.level = (self.level + gained).min(per_second);
        self.filled = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        let missing = (1.0 - self.level) / per_second;
        // A millisecond more, so that rounding cannot make the caller come back too early for ever.
        Err(now.plus(Duration::from_secs_f64(missing) + Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> BootTime {
        BootTime(Duration::from_secs_f64(seconds))
    }

    fn budget<T: PartialEq>(max_in_flight: u32, max_per_second: u32) -> Budget<T> {
        let mut budget = Budget::new(at(0.0));
        budget.join(max_in_flight, max_per_second);
        budget
    }

    #[test]
    fn the_strictest_limits_hold_for_as_long_as_their_profile_is_there() {
        let mut budget = budget(8, 1000);
        budget.join(2, 1000);
        budget.join(4, 1000);
        for item in 0..20 {
            budget.queue(item, false);
        }
        let mut start = || {
            let started: Vec<i32> = std::iter::from_fn(|| match budget.next(at(0.0)) {
                Next::Start(item) => Some(item),
                Next::At(_) | Next::Nothing => None,
            })
            .collect();
            // The strictest leaves, then the next strictest.
            match budget.in_flight {
                2 => budget.leave(2, 1000),
                4 => budget.leave(4, 1000),
                _ => {}
            }
            started.len()
        };
        assert_eq!((start(), start(), start(), start()), (2, 2, 4, 0));
    }

    #[test]
    fn it_is_over_when_nobody_shares_in_it_and_all_is_done() {
        let mut budget = budget(8, 10);
        budget.join(8, 10);
        budget.queue(1, false);
        budget.leave(8, 10);
        assert!(!budget.is_over(), "somebody is left");
        assert_eq!(budget.next(at(0.0)), Next::Start(1));
        budget.leave(8, 10);
        assert!(!budget.is_over(), "one is in flight");
        budget.done();
        assert!(budget.is_over());
    }

    #[test]
    fn no_more_at_a_time_than_allowed_and_waiting_callers_first() {
        let mut budget = budget(2, 1000);
        for item in 0..4 {
            budget.queue(item, false);
        }
        budget.queue(9, true);
        budget.promote(&3);
        assert_eq!(budget.next(at(0.0)), Next::Start(9));
        assert_eq!(budget.next(at(0.0)), Next::Start(3));
        assert_eq!(budget.next(at(0.0)), Next::Nothing);
        budget.done();
        assert!(budget.withdraw(&0));
        assert_eq!(budget.next(at(0.0)), Next::Start(1));
    }

    #[test]
    fn no_more_per_second_than_allowed() {
        let mut budget = budget(1000, 10);
        for item in 0..100 {
            budget.queue(item, false);
        }
        let mut now = at(0.0);
        let mut started = 0;
        loop {
            match budget.next(now) {
                Next::Start(_) => started += 1,
                Next::At(then) => now = then,
                Next::Nothing => break,
            }
            if now > at(3.0) {
                break;
            }
        }
        assert!((38..=41).contains(&started), "{started}");
    }
}
