//! What happens to a host and its identity providers, whatever its profiles do.

use super::{Dice, HOUR, MILLISECOND, MINUTE, Moment, Nanos, SECOND};

/// Identity providers of a world. Profile `p` uses issuer `p % ISSUERS`.
pub const ISSUERS: u64 = 8;

/// What an issuer is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Healthy,
    /// Refuses connections, or lets them hang.
    Down,
    /// Answers late, or not before the deadline.
    Slow,
    /// 429 with Retry-After: none, seconds, minutes, weeks.
    Limiting,
    /// Hands out the token that it has.
    Repeating,
    /// Lifetimes of a millisecond or a century, unknown, unlimited, over on arrival.
    Odd,
    /// invalid_client.
    Refusing,
    /// Healthy, but the API refuses its tokens.
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

/// How a repeating issuer speaks of the token's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// The full life every time: a cached answer.
    Full,
    /// What is left of it.
    CountingDown,
    /// Less than what is left of it.
    Shrinking,
}

#[derive(Clone, Copy, Debug)]
pub enum Change {
    Mode(Mode, Repetition),
    /// Everything stands still but the clocks.
    Suspend(Nanos),
    /// Everything stands still, the boot clock too.
    Pause(Nanos),
    /// Everything stands still, both clocks too: nobody can see it until the wall clock is set
    /// right.
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

    /// When the boot clock will show `boot`, if it does not stand still.
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
            // The limits keep the sum of many steps within what the machine's type can hold.
            Change::Step(by) => {
                const MOST: i64 = 20 * 365 * 24 * 3600 * 1_000_000_000;
                self.step = self.step.saturating_add(by).clamp(-MOST, MOST);
            }
        }
    }
}

/// The changes that one profile lives through: those of its host and those of its issuer, in order.
pub struct Changes {
    scale: Nanos,
    host: Dice,
    issuer: Dice,
    calm: bool,
    /// Its clocks change this often for each life of a token.
    storms: Nanos,
    /// Its issuers cache tokens.
    caches: bool,
    next_host: Nanos,
    next_issuer: Nanos,
    /// The wall clock was stopped with the machine and will be set right.
    owed: Option<Nanos>,
    mode: Mode,
}

impl Changes {
    pub fn new(world: u64, issuer: u64) -> Changes {
        let mut host = Dice::mixed(world, 1);
        let scale = host.spread(10 * SECOND, 24 * HOUR);
        Changes {
            scale,
            // A quarter of the worlds have honest clocks: there the oracle grants no tolerance at
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

    /// Around this long live the tokens of this world.
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
            // After refusals anything may come; mostly nothing does, and then few profiles would
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
                // A hypervisor that stops both clocks; the time service sets the wall clock right
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
