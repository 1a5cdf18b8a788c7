//! The traps of docs/traps.md that lie in the pure core and are not in the parent module. Each test
//! names the one broken line that turns it red.

use super::*;

/// Broken by `LifecycleEvent::Asked` that sets `earliest` to now: after a failure every waiting
/// caller asks again in turn.
#[test]
fn trap_11_waiters_do_not_ask_again_in_turn_after_a_failure() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    let failure = Failure::transient("slow down").with_retry_after(Some(20 * SECOND));
    life.fail(attempt, at(1.0), failure);
    for caller in 0..1000 {
        let now = at(1.0 + f64::from(caller) / 1000.0);
        assert_eq!(life.ask(now, Duration::ZERO), None);
        assert_eq!(life.refusal(now).kind, RefusalKind::Unavailable);
    }
}

/// Broken by `start` without `doing = Some(…)`: each caller that meets a slow request starts
/// another.
#[test]
fn trap_12_a_slow_request_holds_up_nobody_who_can_be_served() {
    let mut life = Life::with_one(Refresh::default());
    let due = life.machine.due(at(1.0)).expect("planned");
    let now = at(0.0).plus(due.since(at(0.0).boot));
    assert!(life.tick(now).is_some());
    for second in 0..10 {
        let now = now.plus(second * SECOND);
        assert_eq!(life.served(now, Duration::ZERO).as_deref(), Some("one"));
        assert_eq!(life.ask(now, Duration::ZERO), None);
    }
}

/// Broken by `due_after` without the draw: profiles that started together are renewed together for
/// ever.
#[test]
fn trap_29_profiles_of_one_moment_drift_apart() {
    let dues: std::collections::BTreeSet<_> = (0..100)
        .map(|seed| {
            let mut life = Life::new(Refresh::default());
            life.machine = Lifecycle::new(Refresh::default(), seed);
            let attempt = life.tick(at(0.0)).expect("eager");
            life.succeed(attempt, at(0.0), at(0.0), "one", 3600);
            life.machine.due(at(0.0)).expect("planned").0.as_secs()
        })
        .collect();
    let (first, last) = (dues.first(), dues.last());
    assert!(dues.len() > 80, "{} different seconds", dues.len());
    assert!(last > first.map(|due| due + 600).as_ref());
}

/// Broken by a `due` that draws again: a plan comes true early if it is looked at often enough.
#[test]
fn trap_29_what_was_drawn_stays() {
    let mut life = Life::with_one(Refresh::default());
    let due = life.machine.due(at(1.0));
    for tenth in 10..600 {
        let now = at(f64::from(tenth) / 10.0);
        assert_eq!(life.tick(now), None);
        assert_eq!(life.machine.due(now), due);
    }
}

/// Broken by a verdict of `Wait` where `refusal` is returned. (The code cannot express serving
/// without a credential.)
#[test]
fn trap_31_a_failure_is_an_answer_and_never_an_empty_credential() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    life.fail(attempt, at(0.5), Failure::permanent("wrong secret"));
    let refusal = life.refusal(at(0.6));
    assert_eq!(refusal.kind, RefusalKind::Rejected);
    assert_eq!(refusal.message, "wrong secret");
    assert!(life.machine.held().is_none());
}

/// Broken by `failed` that sets `earliest` to `BootTime::NEVER`: an identity provider that was down
/// at the start is never asked again.
#[test]
fn trap_34_who_was_down_at_the_start_is_asked_again_and_served_within_a_step() {
    let mut life = Life::new(Refresh::default());
    let mut now = at(0.0);
    while now.boot < at(3600.0).boot {
        if let Some(attempt) = life.tick(now) {
            life.fail(attempt, now, Failure::transient("connection refused"));
        }
        now = now.plus(life.machine.wake_at(now).expect("planned").since(now.boot));
    }
    let back = now;
    let attempt = life.tick(now).expect("due");
    life.succeed(attempt, now, now, "one", 100);
    assert!(now.boot.since(at(3600.0).boot) <= 60 * SECOND);
    assert_eq!(life.served(back, Duration::ZERO).as_deref(), Some("one"));
    assert_eq!(life.machine.state(back), LifecycleState::Fresh);
}
