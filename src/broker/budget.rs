//! Limits requests to one identity provider: so many at the same time, so many per second.
//!
//! Attempts that callers wait for go first. A background renewal whose credential is about to
//! expire still gets every second turn, however many callers wait. Within each group the profiles
//! take turns: the profile whose last turn is the longest ago goes first. So no caller holds up
//! other profiles by making one profile ask often, or in many variants. Within a profile, the first
//! to come is the first to go.
//!
//! Profiles may set different limits for the same provider. The strictest limit among the profiles
//! in use holds: it says what the provider bears, and the provider bears no more when other
//! profiles ask.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use crate::core::bucket::{SpentLimit, TokenBucket};
use crate::core::time::BootTime;

/// The budget of one identity provider and its queue: items `T` of profiles `P`.
#[derive(Debug)]
pub struct Budget<P, T> {
    /// How many profiles set each limit.
    max_in_flight: LimitCounts,
    max_per_second: LimitCounts,
    in_flight: u32,
    /// Holds what may be asked in one second.
    bucket: TokenBucket,
    queue: Vec<Queued<P, T>>,
    /// The number of each profile's last turn. Profiles without a turn so far are not in here.
    turns: HashMap<P, u64>,
    /// Counts turns and places in the queue.
    count: u64,
    /// In the last turn, an attempt that a caller waits for was started.
    after_waited: bool,
}

#[derive(Debug)]
struct Queued<P, T> {
    item: T,
    profile: P,
    /// A caller waits for this attempt.
    waited: bool,
    /// From this moment on the credential is about to expire.
    pressing_from: BootTime,
    /// The number of the profile's last turn. It is kept here too because at a start ten thousand
    /// items queue, and each turn looks at all of them.
    turn: Option<u64>,
    place: u64,
}

/// How many profiles set each limit.
type LimitCounts = BTreeMap<u32, usize>;

/// The strictest limit. Without a profile no new attempt is queued, and the queued ones still start
/// one by one.
fn strictest(limits: &LimitCounts) -> u32 {
    limits.keys().next().copied().unwrap_or(1).max(1)
}

fn leave(limits: &mut LimitCounts, limit: u32) {
    if let Some(count) = limits.get_mut(&limit) {
        *count -= 1;
        if *count == 0 {
            limits.remove(&limit);
        }
    }
}

/// The answer of [`Budget::next`].
#[derive(Debug, PartialEq, Eq)]
pub enum NextStart<T> {
    /// Start this attempt; it counts as in flight.
    Start(T),
    /// No attempt may start before this moment.
    At(BootTime),
    /// No attempt may start until one is queued or one in flight is done.
    Nothing,
}

impl<P: Copy + Eq + Hash, T: Copy + PartialEq> Budget<P, T> {
    /// An unused budget that no profile shares.
    pub fn new() -> Budget<P, T> {
        Budget {
            max_in_flight: LimitCounts::new(),
            max_per_second: LimitCounts::new(),
            in_flight: 0,
            bucket: TokenBucket::full(),
            queue: Vec::new(),
            turns: HashMap::new(),
            count: 0,
            after_waited: false,
        }
    }

    /// Lets a profile share the budget from now on, with limits of its own.
    pub fn join(&mut self, max_in_flight: u32, max_per_second: u32) {
        *self.max_in_flight.entry(max_in_flight).or_default() += 1;
        *self.max_per_second.entry(max_per_second).or_default() += 1;
    }

    /// Ends the share of a profile that had joined with these limits.
    pub fn leave(&mut self, profile: P, max_in_flight: u32, max_per_second: u32) {
        self.turns.remove(&profile);
        leave(&mut self.max_in_flight, max_in_flight);
        leave(&mut self.max_per_second, max_per_second);
    }

    /// Whether no profile shares the budget and no attempt is in flight. Then the budget can be
    /// forgotten.
    pub fn is_over(&self) -> bool {
        self.max_in_flight.is_empty() && self.in_flight == 0 && self.queue.is_empty()
    }

    /// Queues an attempt. From `pressing_from` on its credential is about to expire;
    /// [`BootTime::NEVER`] if there is no credential.
    pub fn queue(&mut self, profile: P, item: T, waited: bool, pressing_from: BootTime) {
        self.count += 1;
        self.queue.push(Queued {
            item,
            profile,
            waited,
            pressing_from,
            turn: self.turns.get(&profile).copied(),
            place: self.count,
        });
    }

    /// Notes that a caller waits for this attempt now. The attempt goes to the end of those that
    /// callers wait for.
    pub fn promote(&mut self, item: T) {
        let mut queue = self.queue.iter_mut();
        if let Some(queued) = queue.find(|queued| queued.item == item && !queued.waited) {
            self.count += 1;
            queued.place = self.count;
            queued.waited = true;
        }
    }

    /// Takes an attempt out of the queue. Returns whether it was still queued.
    pub fn withdraw(&mut self, item: T) -> bool {
        let before = self.queue.len();
        self.queue.retain(|queued| queued.item != item);
        before != self.queue.len()
    }

    /// Notes that an attempt has ended.
    pub fn done(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Decides which attempt starts next.
    pub fn next(&mut self, now: BootTime) -> NextStart<T> {
        if self.in_flight >= strictest(&self.max_in_flight) || self.queue.is_empty() {
            return NextStart::Nothing;
        }
        let per_second = f64::from(strictest(&self.max_per_second));
        let limit = SpentLimit {
            per_second,
            burst: per_second,
        };
        let wait = self.bucket.wait(limit, now);
        if !wait.is_zero() {
            // One millisecond is added: without it, rounding could make the actor come back too
            // early for ever.
            return NextStart::At(now.plus(wait + Duration::from_millis(1)));
        }
        self.bucket.spend(limit, 1, now);
        let order = |queued: &Queued<P, T>| {
            let pressing = queued.pressing_from <= now;
            let group = match queued.waited {
                false if pressing && self.after_waited => 0,
                true => 1,
                // A profile that never had a turn goes before profiles that had one.
                false if pressing || queued.turn.is_none() => 2,
                false => 3,
            };
            (group, queued.turn, queued.place)
        };
        let places = 0..self.queue.len();
        let Some(first) = places.min_by_key(|place| order(&self.queue[*place])) else {
            return NextStart::Nothing;
        };
        let next = self.queue.swap_remove(first);
        self.count += 1;
        self.turns.insert(next.profile, self.count);
        let same = |queued: &&mut Queued<P, T>| queued.profile == next.profile;
        for queued in self.queue.iter_mut().filter(same) {
            queued.turn = Some(self.count);
        }
        self.after_waited = next.waited;
        self.in_flight += 1;
        NextStart::Start(next.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: f64) -> BootTime {
        BootTime(Duration::from_secs_f64(seconds))
    }

    const NEVER: BootTime = BootTime::NEVER;

    fn budget(max_in_flight: u32, max_per_second: u32) -> Budget<u8, i32> {
        let mut budget = Budget::new();
        budget.join(max_in_flight, max_per_second);
        budget
    }

    #[test]
    fn the_strictest_limits_hold_for_as_long_as_their_profile_is_there() {
        let mut budget = budget(8, 1000);
        budget.join(2, 1000);
        budget.join(4, 1000);
        for item in 0..20 {
            budget.queue(0, item, false, NEVER);
        }
        let mut start = || {
            let started: Vec<i32> = std::iter::from_fn(|| match budget.next(at(0.0)) {
                NextStart::Start(item) => Some(item),
                NextStart::At(_) | NextStart::Nothing => None,
            })
            .collect();
            // The profile with the strictest limit leaves, then the one with the next strictest.
            match budget.in_flight {
                2 => budget.leave(0, 2, 1000),
                4 => budget.leave(0, 4, 1000),
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
        budget.queue(0, 1, false, NEVER);
        budget.leave(0, 8, 10);
        assert!(!budget.is_over(), "somebody is left");
        assert_eq!(budget.next(at(0.0)), NextStart::Start(1));
        budget.leave(0, 8, 10);
        assert!(!budget.is_over(), "one is in flight");
        budget.done();
        assert!(budget.is_over());
    }

    #[test]
    fn no_more_at_a_time_than_allowed_and_waiting_callers_first() {
        let mut budget = budget(2, 1000);
        for item in 0..4 {
            budget.queue(0, item, false, NEVER);
        }
        budget.queue(0, 9, true, NEVER);
        budget.promote(3);
        assert_eq!(budget.next(at(0.0)), NextStart::Start(9));
        assert_eq!(budget.next(at(0.0)), NextStart::Start(3));
        assert_eq!(budget.next(at(0.0)), NextStart::Nothing);
        budget.done();
        assert!(budget.withdraw(0));
        assert_eq!(budget.next(at(0.0)), NextStart::Start(1));
    }

    #[test]
    fn no_more_per_second_than_allowed() {
        let mut budget = budget(1000, 10);
        for item in 0..100 {
            budget.queue(0, item, false, NEVER);
        }
        let mut now = at(0.0);
        let mut started = 0;
        loop {
            match budget.next(now) {
                NextStart::Start(_) => started += 1,
                NextStart::At(then) => now = then,
                NextStart::Nothing => break,
            }
            if now > at(3.0) {
                break;
            }
        }
        assert!((38..=41).contains(&started), "{started}");
    }

    fn started(budget: &mut Budget<u8, i32>, now: f64) -> Vec<i32> {
        std::iter::from_fn(|| match budget.next(at(now)) {
            NextStart::Start(item) => Some(item),
            NextStart::At(_) | NextStart::Nothing => None,
        })
        .collect()
    }

    /// Broken by an order without `turn`.
    #[test]
    fn trap_44_profiles_take_turns_however_much_one_of_them_asks() {
        let mut budget = budget(1000, 1000);
        // Callers wait for ten variants of the first profile, and it asks again as soon as an
        // attempt is done.
        for item in 0..10 {
            budget.queue(1, item, true, NEVER);
        }
        budget.queue(2, 20, true, NEVER);
        budget.queue(3, 30, true, NEVER);
        budget.queue(3, 31, true, NEVER);
        let order = started(&mut budget, 0.0);
        assert_eq!(order[..5], [0, 20, 30, 1, 31]);
        for item in 0..3 {
            budget.queue(1, item, true, NEVER);
        }
        budget.queue(4, 40, true, NEVER);
        budget.queue(2, 20, true, NEVER);
        assert_eq!(started(&mut budget, 0.0), [40, 20, 0, 1, 2]);
    }

    /// Broken by an order without `pressing`.
    #[test]
    fn trap_44_every_second_turn_is_for_a_renewal_that_is_about_to_be_too_late() {
        let mut budget = budget(1000, 1000);
        budget.queue(1, 10, false, at(50.0));
        budget.queue(2, 20, false, at(50.0));
        budget.queue(3, 30, false, NEVER);
        let waited = |budget: &mut Budget<u8, i32>| {
            for item in 40..44 {
                budget.queue(4, item, true, NEVER);
            }
        };
        waited(&mut budget);
        for item in 40..44 {
            assert_eq!(budget.next(at(49.0)), NextStart::Start(item));
        }
        waited(&mut budget);
        let order = started(&mut budget, 50.0);
        assert_eq!(order, [10, 40, 20, 41, 42, 43, 30]);
    }
}
