//! The time by which the issuer dates what it makes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Tells the time since 1970-01-01T00:00:00Z; tests hand in their own.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl WallClock {
    /// The machine's. A clock before 1970 reads as 1970.
    #[must_use]
    #[expect(
        clippy::disallowed_methods,
        reason = "the issuer is somebody else's server, with a clock of its own"
    )]
    pub fn system() -> WallClock {
        WallClock::given(|| {
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default()
        })
    }

    /// Whatever `now` says.
    #[must_use]
    pub fn given(now: impl Fn() -> Duration + Send + Sync + 'static) -> WallClock {
        WallClock(Arc::new(now))
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}
