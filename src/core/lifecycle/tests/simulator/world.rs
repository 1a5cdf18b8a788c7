//! Events of a host and its identity providers that do not depend on its profiles.

use super::{Dice, HOUR, MILLISECOND, MINUTE, Moment, Nanos, SECOND};

/// The number of identity providers in a world. Profile `p` uses issuer `p % ISSUERS`.
pub const ISSUERS: u64 = 8;

/// The behaviour of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Healthy,
    /// The issuer refuses connections, or lets them hang.
    Down,
    /// The issuer answers late, or not before the deadline.
    Slow,
    /// The issuer answers 429, with Retry-After: none, seconds, minutes, weeks.
    Limiting,
    /// The issuer hands out the token that it has.
    Repeating,
    /// The lifetimes are a millisecond or a century, unknown, unlimited, or over on arrival.
    Odd,
    /// The issuer answers invalid_client.
    Refusing,
    /// The issuer is healthy, but the API refuses its tokens.
    Revoking,
}

impl Mode {
    pub const ALL: [Mode; 8] = [
        Mode::Healthy,
        Mode::Down,
        Mode::Slow,
        Mode::Limiting,
        Mode::Repeating,
        Mode::Odd,
        Mode::Refusing,
        Mode::Revoking,
    ];
}

/// What a repeating issuer says about the token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It states the full life every time, like a cached answer.
    Full,
    /// It states the life that is left.
    CountingDown,
    /// It states less than the life that is left.
    Shrinking,
}

#[derive(Clone, Copy, Debug)]
pub enum Change {
    Mode(Mode, Repetition),
    /// Everything stands still but the clocks.
    Suspend(Nanos),
    /// Everything stands still, and the boot clock too.
    Pause(Nanos),
    /// Everything stands still, and both clocks too. This cannot be seen until the wall clock is
    /// set right.
    Freeze(Nanos),
    /// The wall clock is set.
    Step(i64),
}

/// The clocks of a host.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    pub truth: Nanos,
    paused: Nanos,
    step: i64,
}

impl Clocks {
    pub fn new() -> Clocks {
        Clocks {
            truth: 1000 * SECOND,
            paused: 0,
            step: 0,
        }
    }

    pub fn now(&self) -> Moment {
        const YEAR_2027: Nanos = 1_800_000_000 * SECOND;
        Moment {
            truth: self.truth,
            boot: self.truth - self.paused,
            wall: (YEAR_2027 + self.truth).saturating_add_signed(self.step),
        }
    }

    /// The true time at which the boot clock will show `boot`, if it does not stand still.
    pub fn truth_of(&self, boot: Nanos) -> Nanos {
        boot.saturating_add(self.paused)
    }

    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Mode(..) => {}
            Change::Suspend(by) => self.truth += by,
            Change::Pause(by) => {
                self.truth += by;
                self.paused += by;
            }
            Change::Freeze(by) => {
                self.apply(Change::Pause(by));
                self.apply(Change::Step(-i64::try_from(by).expect("hours")));
            }
            // The limits keep the sum of many steps within the type of the machine.
            Change::Step(by) => {
                const MOST: i64 = 20 * 365 * 24 * 3600 * 1_000_000_000;
                self.step = self.step.saturating_add(by).clamp(-MOST, MOST);
            }
        }
    }
}

/// The changes that one profile lives through, in order: those of its host and those of its issuer.
pub struct Changes {
    scale: Nanos,
    host: Dice,
    issuer: Dice,
    calm: bool,
    /// How often the clocks of the world change for each life of a token.
    storms: Nanos,
    /// Whether the issuers of the world cache tokens.
    caches: bool,
    next_host: Nanos,
    next_issuer: Nanos,
    /// The amount by which the wall clock, stopped with the machine, will be set right.
    owed: Option<Nanos>,
    mode: Mode,
}

impl Changes {
    pub fn new(world: u64, issuer: u64) -> Changes {
        let mut host = Dice::mixed(world, 1);
        let scale = host.spread(10 * SECOND, 24 * HOUR);
        Changes {
            scale,
            // A quarter of the worlds have honest clocks. There the oracle grants no tolerance at
            // all.
            calm: host.permille(250),
            caches: host.permille(300),
            storms: host.one_of(&[1, 1, 30, 300, 1000]),
            next_host: 1000 * SECOND + host.spread(SECOND, 4 * scale),
            next_issuer: 1000 * SECOND,
            host,
            issuer: Dice::mixed(world, 100 + issuer),
            owed: None,
            mode: Mode::Refusing,
        }
    }

    /// The tokens of this world live about this long.
    pub fn scale(&self) -> Nanos {
        self.scale
    }

    pub fn next_at(&self) -> Nanos {
        self.next_host.min(self.next_issuer)
    }

    pub fn take(&mut self) -> Change {
        if self.next_issuer <= self.next_host {
            return self.issuer_change();
        }
        let change = self.host_change();
        if let Change::Suspend(by) | Change::Pause(by) | Change::Freeze(by) = change {
            self.next_host += by;
        }
        change
    }

    fn issuer_change(&mut self) -> Change {
        let dice = &mut self.issuer;
        let longest = (3 * self.scale).max(30 * MINUTE);
        self.mode = match self.mode {
            // After refusals anything may come. Mostly nothing does, and then few profiles would
            // meet it while rejected.
            Mode::Refusing if self.caches && dice.permille(600) => Mode::Repeating,
            Mode::Refusing => dice.one_of(&Mode::ALL),
            _ if self.caches && dice.permille(400) => Mode::Repeating,
            Mode::Healthy => dice.one_of(&Mode::ALL[1..]),
            _ if dice.permille(550) => Mode::Healthy,
            _ => dice.one_of(&Mode::ALL[1..]),
        };
        self.next_issuer += if self.mode == Mode::Healthy {
            dice.spread(SECOND, 6 * self.scale)
        } else {
            dice.spread(SECOND, longest)
        };
        let repetition = dice.one_of(&[
            Repetition::Full,
            Repetition::CountingDown,
            Repetition::Shrinking,
        ]);
        Change::Mode(self.mode, repetition)
    }

    fn host_change(&mut self) -> Change {
        let dice = &mut self.host;
        self.next_host += dice.spread(
            self.scale / 100 / self.storms + 1,
            8 * self.scale / self.storms,
        );
        let long = self.scale.max(2 * MINUTE);
        if let Some(owed) = self.owed.take() {
            return Change::Step(i64::try_from(owed).expect("hours"));
        }
        if self.calm {
            return Change::Suspend(dice.spread(MILLISECOND, long));
        }
        let signed = |dice: &mut Dice, most: Nanos| {
            let by = i64::try_from(dice.spread(MILLISECOND, most)).expect("years");
            if dice.permille(500) { by } else { -by }
        };
        match dice.below(100) {
            0..30 => Change::Suspend(dice.spread(MILLISECOND, long)),
            30..55 => Change::Pause(dice.spread(MILLISECOND, long)),
            55..60 => {
                // A hypervisor stops both clocks, and the time service sets the wall clock right
                // later.
                let by = dice.spread(SECOND, long);
                self.owed = Some(by);
                Change::Freeze(by)
            }
            60..80 => Change::Step(signed(dice, 40 * SECOND)),
            80..95 => Change::Step(signed(dice, long)),
            _ => Change::Step(signed(dice, 2 * 365 * 24 * HOUR)),
        }
    }
}
