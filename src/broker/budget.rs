//! What one identity provider may be asked: so many at a time, so many per second; callers that wait go first, and within
//! each group it is first come, first served.

use std::collections::VecDeque;
use std::time::Duration;

use crate::core::time::BootTime;

/// The budget of one identity provider and who queues for it.
#[derive(Debug)]
pub struct Budget<T> {
    max_in_flight: u32,
    in_flight: u32,
    bucket: Bucket,
    urgent: VecDeque<T>,
    background: VecDeque<T>,
}

/// A token bucket: holds a second's worth.
#[derive(Debug)]
struct Bucket {
    per_second: f64,
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
    /// An unused budget.
    pub fn new(max_in_flight: u32, max_per_second: u32, now: BootTime) -> Budget<T> {
        let per_second = f64::from(max_per_second.max(1));
        Budget {
            max_in_flight: max_in_flight.max(1),
            in_flight: 0,
            bucket: Bucket {
                per_second,
                level: per_second,
                filled: now,
            },
            urgent: VecDeque::new(),
            background: VecDeque::new(),
        }
    }

    /// Other limits, from now on.
    pub fn set_limits(&mut self, max_in_flight: u32, max_per_second: u32) {
        self.max_in_flight = max_in_flight.max(1);
        self.bucket.per_second = f64::from(max_per_second.max(1));
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
        if self.in_flight >= self.max_in_flight
            || (self.urgent.is_empty() && self.background.is_empty())
        {
            return Next::Nothing;
        }
        if let Err(at) = self.bucket.take(now) {
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
    fn take(&mut self, now: BootTime) -> Result<(), BootTime> {
        let gained = now.since(self.filled).as_secs_f64() * self.per_second;
        self.level = (self.level + gained).min(self.per_second);
        self.filled = now;
        if self.level >= 1.0 {
            self.level -= 1.0;
            return Ok(());
        }
        let missing = (1.0 - self.level) / self.per_second;
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

    #[test]
    fn no_more_at_a_time_than_allowed_and_waiting_callers_first() {
        let mut budget = Budget::new(2, 1000, at(0.0));
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
        let mut budget = Budget::new(1000, 10, at(0.0));
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
