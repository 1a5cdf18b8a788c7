//! The time by which the issuer dates what it makes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Tells the time since 1970-01-01T00:00:00Z. Tests pass their own clock.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> Duration + Send + Sync>);

impl WallClock {
    /// The clock of the machine. A time before 1970 reads as 1970.
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

    /// A clock that returns what `now` returns.
    #[must_use]
    pub fn given(now: impl Fn() -> Duration + Send + Sync + 'static) -> WallClock {
        WallClock(Arc::new(now))
    }

    #[must_use]
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}
