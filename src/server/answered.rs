//! Counts of how requests for a credential ended, which the metrics tell.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How requests for a credential ended, in both protocols.
#[derive(Debug, Default)]
pub struct Answered {
    /// From memory.
    pub memory: AtomicU64,
    /// After an attempt.
    pub waited: AtomicU64,
    /// With a refusal, by its reason.
    pub refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Answered {
    /// With a credential that was there.
    pub fn from_memory(&self) {
        self.memory.fetch_add(1, Ordering::Relaxed);
    }

    /// With a credential that had to come first.
    pub fn after_waiting(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }

    /// With a reason why not.
    pub fn refused(&self, reason: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(reason).or_default() += 1;
    }
}
