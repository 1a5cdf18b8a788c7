//! Rotations with providers that switch late, early, on one node after the other, and back. Two
//! lives of one profile run as the assembly runs them, and the tests check what has to hold for
//! both together.

use super::simulator::Dice;
use super::*;
use crate::core::lifecycle::rotation::Rotation;

/// The time between the moment when file and provider agree and the first attempt that can succeed.
const ONE_STEP: f64 = 60.0;
const MINUTE: f64 = 60.0;

/// What the provider accepts from a moment on: the share of its nodes that know the new secret, and
/// of those that know the old one.
#[derive(Clone, Debug)]
struct Switch {
    at: f64,
    new: u64,
    old: u64,
}

#[derive(Debug)]
struct Scenario {
    token_life: u64,
    /// When the file gets the new secret, and when it gets the old one back.
    file: f64,
    file_back: Option<f64>,
    /// The switches, in the order of time.
    provider: Vec<Switch>,
    lazy: bool,
}

impl Scenario {
    fn provider_at(&self, at: f64) -> (u64, u64) {
        let before = self.provider.iter().rev().find(|switch| switch.at <= at);
        before.map_or((0, 1000), |switch| (switch.new, switch.old))
    }

    fn file_at(&self, at: f64) -> bool {
        at >= self.file && self.file_back.is_none_or(|back| at < back)
    }

    /// The moment from which both agree for good.
    fn agreed(&self) -> f64 {
        let last = self.provider.last().map_or(0.0, |switch| switch.at);
        last.max(self.file_back.unwrap_or(self.file))
    }
}

/// One version of the profile.
struct Version {
    new: bool,
    life: Lifecycle,
    due: Option<(u64, f64)>,
}

struct World<'s> {
    scenario: &'s Scenario,
    dice: Dice,
    prints: Fingerprinter,
    live: Version,
    next: Option<Version>,
    rotation: Rotation,
    attempts: Vec<f64>,
    tokens: u64,
}

impl World<'_> {
    fn new(scenario: &Scenario, seed: u64) -> World<'_> {
        let mut dice = Dice::mixed(seed, 9);
        let rules = Refresh {
            eager: !scenario.lazy,
            ..Refresh::default()
        };
        World {
            scenario,
            live: Version {
                new: false,
                life: Lifecycle::new(rules, dice.roll()),
                due: None,
            },
            dice,
            prints: Fingerprinter::new(&[0; 32]),
            next: None,
            rotation: Rotation::default(),
            attempts: Vec::new(),
            tokens: 0,
        }
    }

    /// Gives an event to a version, and the answer of the provider after a while.
    fn put(&mut self, next: bool, now: f64, event: LifecycleEvent) {
        let Some(version) = version(&mut self.live, &mut self.next, next) else {
            return;
        };
        if let Some(attempt) = version.life.handle(at(now), event).fetch {
            version.due = Some((attempt, now + 0.1));
            self.attempts.push(now);
        }
    }

    fn answer(&mut self, next: bool, now: f64) {
        let (new, old) = self.scenario.provider_at(now);
        let Some(version) = version(&mut self.live, &mut self.next, next) else {
            return;
        };
        let Some((attempt, _)) = version.due.filter(|(_, at)| *at <= now) else {
            return;
        };
        version.due = None;
        let knows = self.dice.permille(if version.new { new } else { old });
        let event = if knows {
            self.tokens += 1;
            let life = Lifetime::For(Duration::from_secs(self.scenario.token_life));
            let issued = issued(&self.tokens.to_string(), at(now - 0.1), life);
            LifecycleEvent::Fetched {
                attempt,
                fingerprint: self.prints.of(issued.scheme, &issued.token),
                issued,
            }
        } else {
            LifecycleEvent::Failed {
                attempt,
                failure: Failure::permanent("no").with_oauth_error(Some("invalid_client".into())),
            }
        };
        self.put(next, now, event);
    }

    /// Acts like the assembly: tries what the file says beside what works, and lets it take over
    /// when it delivers or when nothing is left.
    fn assemble(&mut self, now: f64) {
        let wanted = self.scenario.file_at(now);
        if wanted == self.live.new {
            self.next = None;
        } else if self.next.is_none() {
            let rules = self.live.life.rules.clone();
            self.next = Some(Version {
                new: wanted,
                life: Lifecycle::new(rules, self.dice.roll()).replacing(),
                due: None,
            });
            self.rotation = Rotation::default();
            self.put(
                true,
                now,
                LifecycleEvent::Asked {
                    min_ttl: Duration::ZERO,
                },
            );
        }
        let Some(next) = &self.next else { return };
        let signs = (self.live.life.trouble(), next.life.trouble());
        if self.rotation.sign(at(now).boot, signs.0, signs.1) {
            self.put(true, now, LifecycleEvent::Again);
        }
        let delivers = |version: &Version| version.life.servable(at(now), Duration::ZERO).is_some();
        let left = delivers(&self.live) || self.live.life.state(at(now)) == LifecycleState::Asleep;
        if let Some(next) = self.next.take_if(|next| delivers(next) || !left) {
            self.live = next;
            self.put(false, now, LifecycleEvent::Again);
        }
    }

    /// Runs the scenario, and returns the moments when no caller could be served.
    fn run(&mut self, until: f64) -> Vec<f64> {
        let mut without = Vec::new();
        let mut tenth = 0;
        while f64::from(tenth) / 10.0 < until {
            let now = f64::from(tenth) / 10.0;
            for next in [false, true] {
                self.answer(next, now);
                self.put(next, now, LifecycleEvent::Tick);
            }
            self.assemble(now);
            // A caller comes each second.
            if tenth % 10 == 0 {
                self.put(
                    false,
                    now,
                    LifecycleEvent::Asked {
                        min_ttl: Duration::ZERO,
                    },
                );
                if self.live.life.servable(at(now), Duration::ZERO).is_none() {
                    without.push(now);
                }
            }
            tenth += 1;
        }
        without
    }
}

fn version<'v>(
    live: &'v mut Version,
    next: &'v mut Option<Version>,
    second: bool,
) -> Option<&'v mut Version> {
    if second { next.as_mut() } else { Some(live) }
}

fn scenario(dice: &mut Dice) -> Scenario {
    let file = 60.0;
    let token_life = dice.one_of(&[20, 40, 300, 3600]);
    let gap = |dice: &mut Dice| dice.below(300) as f64 + 0.05;
    let step = |at, new, old| Switch { at, new, old };
    let (mut provider, mut file_back) = (Vec::new(), None);
    match dice.below(5) {
        // The provider switches late.
        0 => provider.push(step(file + gap(dice), 1000, 0)),
        // The provider switches early, by less than what is left of a token, or by more.
        1 => provider.push(step(file - 50.0, 1000, 0)),
        // The provider knows neither for a while: it forgets the old one before it knows the new
        // one.
        2 => {
            let first = file + gap(dice) / 2.0;
            provider.push(step(first, 0, 0));
            provider.push(step(first + gap(dice) / 2.0, 1000, 0));
        }
        // The provider switches node by node.
        3 => {
            let first = file - 30.0 + gap(dice) / 2.0;
            let share = dice.between(200, 800);
            provider.push(step(first, share, 1000 - share));
            provider.push(step(first + gap(dice), 1000, 0));
        }
        // The provider switches back, once or for good.
        _ => {
            let first = file + gap(dice) / 3.0;
            let second = first + gap(dice) / 3.0;
            provider.push(step(first, 1000, 0));
            provider.push(step(second, 0, 1000));
            if dice.permille(500) {
                provider.push(step(second + gap(dice) / 3.0, 1000, 0));
            } else {
                file_back = Some(second + gap(dice) / 3.0);
            }
        }
    }
    Scenario {
        token_life,
        file,
        file_back,
        provider,
        lazy: dice.permille(300),
    }
}

/// Broken by a version that takes over with the sleep of its refusals, by refusals that are
/// followed by pauses of minutes at once, and by a staged version that is not tried when the live
/// one is refused.
#[test]
fn trap_39_file_and_provider_agree_and_a_credential_is_there_within_one_step() {
    for seed in 0..400 {
        let mut dice = Dice::mixed(seed, 3);
        let scenario = scenario(&mut dice);
        let agreed = scenario.agreed();
        let until = agreed + 15.0 * MINUTE;
        let mut world = World::new(&scenario, seed);
        let without = world.run(until);
        let late: Vec<&f64> = without
            .iter()
            .filter(|at| **at > agreed + ONE_STEP)
            .collect();
        assert!(late.is_empty(), "seed {seed}: {scenario:?}: {late:?}");
        // Each version has a life of its own, and none may ask in a hot loop.
        for first in &world.attempts {
            let window = *first..*first + 10.0 * MINUTE;
            let renewals = 10.0 * MINUTE / (scenario.token_life as f64 * 0.55);
            let many = world
                .attempts
                .iter()
                .filter(|at| window.contains(at))
                .count();
            assert!(
                many as f64 <= 80.0 + renewals,
                "seed {seed}: {many} attempts in ten minutes: {scenario:?}"
            );
        }
    }
}

/// Tokens live 40 s, the file has the new secret at once and the provider after 15 s: no caller
/// notices.
#[test]
fn trap_39_a_provider_that_is_a_little_late_costs_nothing() {
    let scenario = Scenario {
        token_life: 40,
        file: 60.0,
        file_back: None,
        provider: vec![Switch {
            at: 75.0,
            new: 1000,
            old: 0,
        }],
        lazy: false,
    };
    for seed in 0..50 {
        let without = World::new(&scenario, seed).run(600.0);
        assert!(without.iter().all(|at| *at < 1.0), "{seed}: {without:?}");
    }
}

/// Broken by `again` that forgets what the provider has asked for.
#[test]
fn trying_again_obeys_retry_after_and_begins_a_row_anew() {
    let mut life = Life::new(Refresh::default());
    life.machine = Lifecycle::new(Refresh::default(), 7).replacing();
    let attempt = life.tick(at(0.0)).expect("eager");
    let failure = Failure::transient("later").with_retry_after(Some(100 * SECOND));
    life.fail(attempt, at(0.0), failure);
    let again = |life: &mut Life, now| life.machine.handle(now, LifecycleEvent::Again).fetch;
    assert_eq!(again(&mut life, at(50.0)), None);
    assert_eq!(life.machine.due(at(50.0)), Some(at(100.0).boot));
    let mut now = at(100.0);
    let mut times = Vec::new();
    while times.len() < 14 {
        if let Some(attempt) = life.tick(now) {
            times.push(now.boot.since(at(100.0).boot).as_secs());
            life.fail(attempt, now, Failure::permanent("no"));
        }
        now = now.plus(life.machine.wake_at(now).expect("planned").since(now.boot));
    }
    assert!(
        times.windows(2).take(12).all(|two| two[1] - two[0] <= 60),
        "{times:?}"
    );
    assert!(times[13] - times[12] > 250, "then slowly: {times:?}");
    let now = now.plus(SECOND);
    let attempt = again(&mut life, now).expect("at once");
    life.fail(attempt, now, Failure::permanent("no"));
    let due = life.machine.due(now).expect("planned").since(now.boot);
    assert!(due <= 3 * SECOND, "{due:?}");
}

/// Broken by a sign that counts every time: nodes that answer in turn would make a hot loop.
#[test]
fn a_sign_is_a_refusal_that_is_new_and_counts_once_a_minute() {
    let trouble = |code: &str| {
        let mut life = Life::new(Refresh::default());
        let attempt = life.tick(at(0.0)).expect("eager");
        let failure = if code.is_empty() {
            Failure::transient("down")
        } else {
            Failure::permanent("no").with_oauth_error(Some(code.to_owned()))
        };
        life.fail(attempt, at(0.0), failure);
        life.machine.trouble().expect("failed").clone()
    };
    let (client, grant, down) = (
        trouble("invalid_client"),
        trouble("invalid_grant"),
        trouble(""),
    );
    let mut rotation = Rotation::default();
    let mut sign = |second, live: Option<&Trouble>, next: Option<&Trouble>| {
        rotation.sign(at(f64::from(second)).boot, live, next)
    };
    assert!(!sign(0, None, Some(&client)), "its own first refusal");
    assert!(!sign(1, Some(&down), Some(&client)));
    assert!(
        sign(2, Some(&client), Some(&client)),
        "the live one is refused"
    );
    assert!(!sign(3, Some(&client), Some(&client)));
    assert!(!sign(4, None, Some(&client)));
    assert!(!sign(5, Some(&client), Some(&client)), "too soon");
    assert!(!sign(70, Some(&client), Some(&down)));
    assert!(
        !sign(71, Some(&client), Some(&client)),
        "the same as before"
    );
    assert!(sign(72, Some(&client), Some(&grant)), "refused otherwise");
}
