//! Repaired defects that the simulator found, or that came up while it was built, each in a few
//! lines.

use super::*;

fn lazy() -> Refresh {
    Refresh {
        eager: false,
        ..Refresh::default()
    }
}

fn paused(mut now: Stamp, by: Duration) -> Stamp {
    now.wall = now.wall.plus(by);
    now
}

fn fetch_first(life: &mut Life, lifetime: u64) {
    let attempt = life.ask(at(0.0), Duration::ZERO).expect("first use");
    life.succeed(attempt, at(0.0), at(0.0), "one", lifetime);
}

/// Reads of what is published make no event. A sleeping profile used to wake only at the end of its
/// credential. So a caller that came back before then later had to wait for the identity provider
/// in the middle of a request.
#[test]
fn a_sleeping_profile_is_looked_at_in_time_to_renew() {
    let mut life = Life::new(lazy());
    fetch_first(&mut life, 10_000);
    let asleep = at(2000.0);
    assert_eq!(life.tick(asleep), None);
    let due = life.machine.held().expect("held").refresh_at;
    assert_eq!(life.machine.wake_at(asleep), due);
    let due = at(0.0).plus(due.expect("it expires").since(at(0.0).boot));
    assert_eq!(life.tick(due), None, "nobody was there");
    let look = life.machine.wake_at(due).expect("another look");
    assert!(look < at(9995.0).boot, "before the end");
    life.machine.note_asked(look.minus(SECOND));
    let look = at(0.0).plus(look.since(at(0.0).boot));
    assert!(life.tick(look).is_some(), "somebody was there");
}

/// Found in the coverage table, which was full of ticks for sleeping profiles. The looks stop when
/// the credential ends: nothing is published that a caller could read.
#[test]
fn a_sleeping_profile_without_a_credential_is_left_alone() {
    let mut life = Life::new(lazy());
    fetch_first(&mut life, 100);
    assert_eq!(life.tick(at(2000.0)), None);
    assert_eq!(life.machine.wake_at(at(2000.0)), None);
    assert_eq!(life.machine.state(at(2000.0)), LifecycleState::Asleep);
}

/// Callers whose `min_ttl` the repeated token did not meet caused a request per minimum interval.
/// Broken by `wants_for` without `repeating`.
#[test]
fn trap_16_callers_cannot_make_an_issuer_repeat_itself() {
    let mut life = Life::with_one(Refresh::default());
    let first = life.ask(at(50.0), 60 * SECOND).expect("renewed early");
    life.succeed(first, at(50.0), at(50.0), "one", 45);
    let mut attempts = 0;
    for second in 51..70 {
        let now = at(f64::from(second));
        attempts += u32::from(life.ask(now, 60 * SECOND).is_some());
        let Verdict::Refuse(refusal) = life.machine.verdict(now, 60 * SECOND) else {
            panic!("refused at once")
        };
        let back = now.boot.plus(refusal.retry_after.expect("when"));
        assert_eq!(
            Some(back),
            life.machine.due(now),
            "when there may be another"
        );
    }
    assert_eq!(attempts, 0);
}

/// After a repetition whose end was near, the next attempt was planned for after that end.
/// Broken by `due_after_repeat` without `min(expires)`.
#[test]
fn trap_16_the_last_repetition_leaves_no_gap() {
    let rules = Refresh {
        min_interval: 10 * SECOND,
        ..Refresh::default()
    };
    let mut life = Life::with_one(rules);
    let attempt = life.ask(at(80.0), 50 * SECOND).expect("renewed early");
    life.succeed(attempt, at(80.0), at(89.0), "one", 15);
    assert_eq!(life.machine.due(at(89.0)), Some(at(93.5).boot));
}

/// A wall clock that was set back by an hour hid a pause of the machine of up to an hour, and an
/// expired token was served. Broken by `LifecycleEvent::Tick` without `wall_set_back`.
#[test]
fn trap_18_a_step_back_hides_no_later_pause() {
    let mut life = Life::with_one(Refresh::default());
    let set_back = |now: Stamp| Stamp {
        wall: WallTime(now.wall.0 - Duration::from_secs(3600)),
        ..now
    };
    assert_eq!(life.tick(set_back(at(10.0))), None, "harmless by itself");
    assert!(life.served(set_back(at(10.0)), Duration::ZERO).is_some());
    let now = paused(set_back(at(11.0)), 90 * SECOND);
    assert_eq!(life.served(now, Duration::ZERO), None, "doubted");
    let attempt = life.ask(now, Duration::ZERO).expect("renewal");
    life.fail(attempt, now, Failure::transient("down"));
    assert_eq!(
        life.served(now, Duration::ZERO),
        None,
        "101 s of 95, and no renewal"
    );
}

/// The same happened when the clock was set back while the token was on its way. Broken by
/// `LifecycleEvent::Fetched` without `wall_set_back`.
#[test]
fn trap_18_a_step_back_during_an_attempt_hides_no_later_pause() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    let set_back = |now: Stamp| Stamp {
        wall: WallTime(now.wall.0 - Duration::from_secs(3600)),
        ..now
    };
    life.succeed(attempt, at(0.0), set_back(at(1.0)), "one", 100);
    let now = set_back(at(2.0));
    assert!(life.served(now, Duration::ZERO).is_some());
    assert_eq!(life.served(paused(now, 90 * SECOND), Duration::ZERO), None);
}

/// A step back ends a doubt that a step forward has caused: a clock that was set wrong and then
/// right costs little. Broken by `servable` that gives nothing where `doubt_tried`.
#[test]
fn trap_18_a_step_forward_that_is_taken_back_is_forgotten() {
    let mut life = Life::with_one(Refresh::default());
    let wrong = paused(at(10.0), Duration::from_secs(3600));
    let attempt = life.tick(wrong).expect("doubted");
    life.fail(attempt, wrong, Failure::transient("down"));
    assert_eq!(life.served(wrong, Duration::ZERO), None);
    assert_eq!(
        life.served(at(11.0), Duration::ZERO).as_deref(),
        Some("one")
    );
}

/// A repetition counted as a new statement. So the boot clock that had stood still was believed
/// again, and a token from an issuer's cache was served for as long as the machine had been paused.
/// Broken by `fetched` that takes `asked_at` of a repetition.
#[test]
fn trap_17_a_cached_answer_does_not_set_a_stopped_clock_right() {
    let mut life = Life::with_one(Refresh::default());
    let now = paused(at(10.0), 90 * SECOND);
    let attempt = life.tick(now).expect("doubted");
    life.succeed(attempt, now, now, "one", 100);
    assert_eq!(life.served(now, Duration::ZERO), None);
    assert_eq!(
        life.tick(now.plus(SECOND)),
        None,
        "and it is not asked on and on"
    );
}

/// An issuer that counts down has looked at its clock, so it was the daemon's clock that was set.
/// Broken by `counted_down_to` that says no.
#[test]
fn trap_18_an_issuer_that_counts_down_is_believed() {
    let mut life = Life::with_one(Refresh::default());
    let now = paused(at(10.0), Duration::from_secs(3600));
    let attempt = life.tick(now).expect("doubted");
    life.succeed(attempt, now, now, "one", 90);
    assert_eq!(life.served(now, Duration::ZERO).as_deref(), Some("one"));
    assert_eq!(life.served(now.plus(86 * SECOND), Duration::ZERO), None);
}

/// In doubt, `min_ttl` was measured on the clock that had stood still. Broken by `lives_by_wall`
/// that ignores `min_ttl`.
#[test]
fn trap_17_min_ttl_is_met_on_the_wall_clock_too() {
    let mut life = Life::with_one(Refresh::default());
    let now = paused(at(10.0), 60 * SECOND);
    let attempt = life.tick(now).expect("doubted");
    life.fail(attempt, now, Failure::transient("down"));
    assert!(life.served(now, 25 * SECOND).is_some());
    assert!(life.served(now, 26 * SECOND).is_none());
}

/// A caller waited through one attempt after the other when the answers had lost too much of their
/// life on the way.
#[test]
fn a_caller_is_refused_when_the_answer_comes_too_late_for_its_min_ttl() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.ask(at(0.0), 90 * SECOND).expect("first");
    life.succeed(attempt, at(0.0), at(10.0), "one", 100);
    let Verdict::Refuse(refusal) = life.machine.verdict(at(10.0), 90 * SECOND) else {
        panic!("refused")
    };
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(life.served(at(10.0), 85 * SECOND).is_some());
    assert!(
        life.ask(at(11.0), 90 * SECOND).is_some(),
        "the next caller may be luckier"
    );
}

/// Found by reading the code. A lazy profile whose last attempt had failed stayed in back-off for
/// ever: it was unhealthy, and in the way of other variants. Broken by `state` without its arm for
/// `idle`.
#[test]
fn trap_19_a_lazy_profile_falls_asleep_after_failures_too() {
    let mut life = Life::new(lazy());
    let attempt = life.ask(at(0.0), Duration::ZERO).expect("first use");
    life.fail(attempt, at(0.0), Failure::permanent("no"));
    assert_eq!(life.machine.state(at(1.0)), LifecycleState::Rejected);
    assert_eq!(life.machine.state(at(901.0)), LifecycleState::Asleep);
    assert!(life.ask(at(901.0), Duration::ZERO).is_some());
}
