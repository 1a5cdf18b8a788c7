//! The only reader of clocks.

use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::core::time::{BootTime, Stamp, WallTime};

/// Reads the clocks. Tests pass in their own.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Given(Arc<dyn Fn() -> Stamp + Send + Sync>),
}

impl Clock {
    /// The machine's clocks: CLOCK_BOOTTIME and CLOCK_REALTIME. Reading them takes no system call.
    #[must_use]
    pub fn system() -> Clock {
        Clock(Source::System)
    }

    /// A clock that returns what `now` returns.
    #[must_use]
    pub fn given(now: impl Fn() -> Stamp + Send + Sync + 'static) -> Clock {
        Clock(Source::Given(Arc::new(now)))
    }

    /// Reads both clocks.
    #[must_use]
    pub fn now(&self) -> Stamp {
        match &self.0 {
            Source::System => Stamp {
                boot: BootTime(read(ClockId::CLOCK_BOOTTIME)),
                wall: WallTime(read(ClockId::CLOCK_REALTIME)),
            },
            Source::Given(now) => now(),
        }
    }
}

/// A clock before its epoch reads as the epoch: such a machine has other trouble.
fn read(id: ClockId) -> Duration {
    // This goes through libc: rustix finds the vDSO by itself, which crashes under valgrind.
    let time = clock_gettime(id).expect("Linux has had both clocks since 2.6.39");
    Duration::new(
        u64::try_from(time.tv_sec()).unwrap_or(0),
        u32::try_from(time.tv_nsec()).unwrap_or(0),
    )
}
