//! How often one user may ask for what is not in memory: a token bucket per uid that holds a second's worth.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::core::time::BootTime;

/// Users that are remembered before those whose bucket is full again are forgotten.
const REMEMBERED: usize = 1024;

/// Buckets of all users.
#[derive(Debug)]
pub struct Pace {
    per_second: f64,
    refused: AtomicU64,
    buckets: Mutex<HashMap<u32, Bucket>>,
}

#[derive(Debug)]
struct Bucket {
    level: f64,
    filled: BootTime,
}

impl Pace {
    /// So many per second for each user.
    pub fn new(per_second: u32) -> Pace {
        Pace {
            per_second: f64::from(per_second.max(1)),
            refused: AtomicU64::new(0),
            buckets: Mutex::default(),
        }
    }

    /// Requests that came too fast.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes one out of the user's bucket, or says when there will be one.
    pub fn admit(&self, uid: u32, now: BootTime) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= REMEMBERED {
            // A bucket that has had a second is full, which is what a new one is.
            buckets.retain(|_, bucket| now.since(bucket.filled) < Duration::from_secs(1));
        }
        let bucket = buckets.entry(uid).or_insert(Bucket {
            level: self.per_second,
            filled: now,
        });
        let gained = now.since(bucket.filled).as_secs_f64() * self.per_second;
        bucket.level = (bucket.level + gained).min(self.per_second);
        bucket.filled = now;
        if bucket.level < 1.0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Duration::from_secs_f64(
                (1.0 - bucket.level) / self.per_second,
            ));
        }
        bucket.level -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_seconds_worth_and_no_more() {
        let pace = Pace::new(10);
        let at = |millis| BootTime(Duration::from_millis(millis));
        let admitted = |uid, millis| {
            (0..100)
                .filter(|_| pace.admit(uid, at(millis)).is_ok())
                .count()
        };
        assert_eq!(admitted(1, 0), 10);
        assert_eq!(admitted(2, 0), 10);
        assert_eq!(admitted(1, 500), 5);
        assert_eq!(admitted(1, 10_000), 10);
        assert_eq!(pace.admit(1, at(10_000)), Err(Duration::from_millis(100)));
    }

    #[test]
    fn users_are_not_remembered_for_ever() {
        let pace = Pace::new(10);
        for uid in 0..10_000 {
            let _ = pace.admit(uid, BootTime(Duration::from_secs(2 * u64::from(uid))));
        }
        assert!(pace.buckets.lock().expect("lock").len() <= REMEMBERED);
    }
}
