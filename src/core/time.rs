//! Two clocks and why there are two.
//!
//! A credential's life is measured on the *boot clock* (CLOCK_BOOTTIME): it never jumps and goes on
//! counting while the machine sleeps. The *wall clock* is what people and other machines use. It
//! can be wrong and can step, so it only tells the time, and is a witness that the boot clock stood
//! still (a paused or restored virtual machine). This module reads no clock: `crate::clock` is the
//! only reader.

use std::fmt;
use std::time::Duration;

/// A moment on the boot clock: time since the machine started, suspend included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// A moment that never comes, later than all others.
    pub const NEVER: BootTime = BootTime(Duration::MAX);

    /// The moment `by` later; saturates at [`BootTime::NEVER`].
    #[must_use]
    pub fn plus(self, by: Duration) -> BootTime {
        BootTime(self.0.saturating_add(by))
    }

    /// The moment `by` earlier; saturates at the machine's start.
    #[must_use]
    pub fn minus(self, by: Duration) -> BootTime {
        BootTime(self.0.saturating_sub(by))
    }

    /// Time from `earlier` to here; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: BootTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A moment on the wall clock: time since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub Duration);

impl WallTime {
    /// The moment `by` later; saturates.
    #[must_use]
    pub fn plus(self, by: Duration) -> WallTime {
        WallTime(self.0.saturating_add(by))
    }

    /// Time from `earlier` to here; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: WallTime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A length of time for people, in whole seconds. It is rounded down, but never to nothing: "in 0s"
/// would say that it is over.
#[must_use]
pub fn in_seconds(length: Duration) -> String {
    match length.as_secs() {
        0 => "less than a second".to_owned(),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

/// 9999-12-31T23:59:59Z, the last second of google.protobuf.Timestamp and of RFC 3339.
pub const END_OF_TIME: Duration = Duration::from_secs(253_402_300_799);

/// RFC 3339 with milliseconds.
impl fmt::Display for WallTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0.min(END_OF_TIME);
        let at = Duration::from_millis(u64::try_from(at.as_millis()).unwrap_or(0));
        humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + at).fmt(f)
    }
}

/// A wall clock that has fallen behind the boot clock by more than this was set back. Earlier
/// moments are then restated on the clock as it is now. Otherwise the time by which it was set back
/// would hide as much of a later pause of the machine. A leap second is within this.
pub const STEP_BACK_NOTICED: Duration = Duration::from_secs(1);

/// One moment on both clocks, read together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Decides which credentials are still valid.
    pub boot: BootTime,
    /// Tells people the time, and bears witness against the boot clock.
    pub wall: WallTime,
}

impl Stamp {
    /// How far the wall clock has run ahead of the boot clock since `earlier`; zero if it has not.
    #[must_use]
    pub fn wall_ahead_since(self, earlier: Stamp) -> Duration {
        self.wall
            .since(earlier.wall)
            .saturating_sub(self.boot.since(earlier.boot))
    }

    /// How far the wall clock has fallen behind the boot clock since `earlier`, because it was set
    /// back. Zero if it has not.
    #[must_use]
    pub fn wall_behind_since(&self, earlier: Stamp) -> Duration {
        let even = earlier.wall.plus(self.boot.since(earlier.boot));
        even.since(self.wall)
    }

    /// The wall-clock time of a moment on the boot clock, as seen from here.
    #[must_use]
    pub fn wall_of(self, at: BootTime) -> WallTime {
        if at >= self.boot {
            self.wall.plus(at.since(self.boot))
        } else {
            WallTime(self.wall.0.saturating_sub(self.boot.since(at)))
        }
    }

    /// Both clocks moved on by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Stamp {
        Stamp {
            boot: self.boot.plus(by),
            wall: self.wall.plus(by),
        }
    }
}
