//! An adversary for the lifecycle: years of virtual time in seconds, judged after every step.
//!
//! A *world* is a host and its identity providers: its clocks, its suspends, its pauses, its
//! wall-clock steps, and what each issuer is up to ([`world`]). A *driver* leads one profile
//! through it: an event queue of timers, answers, callers and reports ([`driver`]). The *oracle*
//! plays the broker's part around one `Lifecycle`, keeps its own books in true time, and says which
//! promise a step has broken ([`oracle`]). The *coverage* counts what was met ([`coverage`]).
//!
//! Everything comes from a seed, so a life that breaks a promise can be lived again; it is then cut
//! down to the few inputs that matter and printed as a script ([`script`]). Profiles of a world
//! share its clocks and issuers and nothing else, as in the daemon, so that they can be lived one
//! after another.
//!
//! It is pure, like the rest of the core. `simulation.rs` beside it runs it on threads and prints.

pub mod coverage;
pub mod driver;
pub mod oracle;
pub mod script;
pub mod world;

use std::time::Duration;

use crate::core::credential::Fingerprint;
use crate::core::time::{BootTime, Stamp, WallTime};

/// Nanoseconds. The simulator counts in plain numbers, so that its arithmetic shares nothing with
/// the code that it judges.
pub type Nanos = u64;

pub const MILLISECOND: Nanos = 1_000_000;
pub const SECOND: Nanos = 1_000_000_000;
pub const MINUTE: Nanos = 60 * SECOND;
pub const HOUR: Nanos = 60 * MINUTE;

/// One moment on three clocks. The daemon sees only two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The true time. It never stands still and never jumps.
    pub truth: Nanos,
    /// CLOCK_BOOTTIME: the true time, less the time for which the virtual machine was paused.
    pub boot: Nanos,
    /// CLOCK_REALTIME: the true time, plus all steps of the clock.
    pub wall: Nanos,
}

impl Moment {
    /// The two clocks that the daemon sees.
    pub fn stamp(self) -> Stamp {
        Stamp {
            boot: BootTime(Duration::from_nanos(self.boot)),
            wall: WallTime(Duration::from_nanos(self.wall)),
        }
    }
}

/// What an issuer says about the life of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    Unlimited,
    Unknown,
    For(Nanos),
}

/// Stands for the number of the attempt in flight, so that a script stays meaningful when parts of
/// it are left out.
pub const IN_FLIGHT: u64 = 0;

/// An input to a profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    Tick,
    /// A caller looks at what is published, and asks if that does not suffice.
    Read(Nanos),
    /// A caller asks without looking.
    Ask(Nanos),
    Grant {
        attempt: u64,
        token: u64,
        asked: Moment,
        said: Said,
    },
    Fail {
        attempt: u64,
        permanent: bool,
        retry_after: Option<Nanos>,
    },
    Report(u64),
    /// The other version of the profile is refused, or has ended.
    Again,
}

/// The kinds of events, by what they turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tick,
    /// A caller is answered from what is published.
    Read,
    Ask,
    /// A caller asks with a `min_ttl`.
    AskTtl,
    New,
    Repeated,
    /// An attempt brings a token whose life is over.
    Dead,
    Unlimited,
    Transient,
    RetryAfter,
    Permanent,
    /// The result of an attempt that is not the one in flight.
    Void,
    ReportHeld,
    ReportOther,
    /// A sign that a refused attempt may succeed now.
    Again,
}

/// Random numbers of the simulator: SplitMix64, not shared with the code that it judges.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Mixes two seeds.
    pub fn mixed(one: u64, other: u64) -> Dice {
        let mut dice = Dice(one.wrapping_mul(0xd605_1ba4_a24d_5e35) ^ other);
        dice.roll();
        dice
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but without, `end`; 0 if `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        if end == 0 {
            return 0;
        }
        let wide = u128::from(self.roll()) * u128::from(end);
        u64::try_from(wide >> 64).expect("less than end")
    }

    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// True `times` out of a thousand.
    pub fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    /// A number between both; each order of magnitude is as likely as the next.
    pub fn spread(&mut self, from: u64, to: u64) -> u64 {
        let (low, high) = ((from.max(1) as f64).ln(), (to.max(1) as f64).ln());
        let unit = (self.roll() >> 11) as f64 / (1u64 << 53) as f64;
        ((low + (high - low) * unit).exp() as u64).clamp(from, to.max(from))
    }

    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
}

/// A cheap fingerprint without HMAC. Tokens are numbers.
pub fn fingerprint(token: u64) -> Fingerprint {
    Fingerprint::parse(&format!("{token:032x}")).expect("32 hexadecimal digits")
}

pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).unwrap_or(Nanos::MAX)
}
