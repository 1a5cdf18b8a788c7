//! Counts how requests for a credential ended. The metrics show these counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// How requests for a credential ended, in both protocols.
#[derive(Debug, Default)]
pub struct Answered {
    /// Answered from memory.
    pub memory: AtomicU64,
    /// Answered after an attempt.
    pub waited: AtomicU64,
    /// Refused, by reason.
    pub refused: Mutex<BTreeMap<&'static str, u64>>,
}

impl Answered {
    /// Counts a request that was answered with a credential from memory.
    pub fn from_memory(&self) {
        self.memory.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that had to wait for its credential.
    pub fn after_waiting(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that was refused.
    pub fn refused(&self, reason: &'static str) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused.entry(reason).or_default() += 1;
    }
}
