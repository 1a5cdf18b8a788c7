//! Whether a connection is in use: what decides when a silent one is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of one connection.
#[derive(Debug, Default)]
pub struct Activity {
    requests: AtomicUsize,
    under_way: AtomicUsize,
}

/// A request or a stream that is under way; ends when dropped.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Activity {
    /// A request has come.
    pub fn request(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.stream()
    }

    /// Something that outlives its request has begun.
    pub fn stream(self: &Arc<Self>) -> Busy {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
