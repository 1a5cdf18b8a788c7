//! Tells whether a connection is in use, which decides when a silent one is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one connection is doing.
#[derive(Debug, Default)]
pub struct Activity {
    requests: AtomicUsize,
    under_way: AtomicUsize,
}

/// A request or a stream that is under way; ends when dropped.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Activity {
    /// Notes that a request has come.
    pub fn request(self: &Arc<Self>) -> Busy {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.stream()
    }

    /// Notes that something has begun that outlives its request.
    pub fn stream(self: &Arc<Self>) -> Busy {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// The number of requests so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    pub fn is_busy(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}
