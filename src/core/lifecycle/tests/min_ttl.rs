//! What a caller with a `min_ttl` gets, and what that costs the others.

use super::*;

#[test]
fn min_ttl_is_met_by_an_early_renewal_or_refused() {
    let mut life = Life::with_one(Refresh::default());
    assert_eq!(life.served(at(15.0), 80 * SECOND).as_deref(), Some("one"));
    assert_eq!(life.served(at(15.1), 80 * SECOND), None);
    let attempt = life.ask(at(15.1), 80 * SECOND).expect("renewed early");
    assert!(matches!(
        life.machine.verdict(at(15.1), 80 * SECOND),
        Verdict::Wait
    ));
    assert_eq!(
        life.served(at(15.1), Duration::ZERO).as_deref(),
        Some("one")
    );
    life.succeed(attempt, at(15.1), at(15.2), "two", 100);
    assert_eq!(life.served(at(15.2), 80 * SECOND).as_deref(), Some("two"));
    assert_eq!(
        life.ask(at(15.3), 96 * SECOND),
        None,
        "no request for what cannot be"
    );
    let Verdict::Refuse(refusal) = life.machine.verdict(at(15.3), 96 * SECOND) else {
        panic!("refused")
    };
    assert_eq!(refusal.kind, RefusalKind::MinTtlTooLong);
}

/// A `min_ttl` just below what is granted made every call a token request. Broken by `hurry`
/// without `from`, and by `verdict` without `too_young`.
#[test]
fn trap_44_min_ttl_replaces_no_credential_before_a_tenth_of_its_life_is_over() {
    // The life is 95 s after the margin.
    let mut life = Life::with_one(Refresh::default());
    let wanted = 94 * SECOND;
    assert!(life.served(at(1.0), wanted).is_some());
    for second in [1.1, 2.0, 5.0, 8.4] {
        let now = at(second);
        assert_eq!(life.ask(now, wanted), None, "{second}");
        let Verdict::Refuse(refusal) = life.machine.verdict(now, wanted) else {
            panic!("refused at once at {second}")
        };
        assert_eq!(refusal.kind, RefusalKind::Unavailable);
        assert!(refusal.message.contains("too new"), "{}", refusal.message);
        let back = now.boot.plus(refusal.retry_after.expect("when"));
        assert_eq!(back, at(9.5).boot);
        assert_eq!(life.served(now, Duration::ZERO).as_deref(), Some("one"));
    }
    // No caller came again, so nothing was renewed early.
    assert!(life.machine.due(at(8.4)).expect("planned") > at(60.0).boot);
    // A caller that comes again is served, and one that comes up to the minimum interval earlier
    // waits.
    assert_eq!(life.ask(at(8.6), wanted), None);
    assert!(matches!(
        life.machine.verdict(at(8.6), wanted),
        Verdict::Wait
    ));
    let attempt = life.tick(at(9.5)).expect("forced");
    life.succeed(attempt, at(9.5), at(9.6), "two", 100);
    assert_eq!(life.served(at(9.6), wanted).as_deref(), Some("two"));
}

#[test]
fn trap_44_callers_force_at_most_ten_renewals_in_a_life() {
    for (life_of, wanted) in [(60, 59), (3600, 3594), (7 * 86_400, 7 * 86_400 - 6)] {
        let mut life = Life::new(Refresh {
            margin: Duration::ZERO,
            ..Refresh::default()
        });
        let mut attempts = 0;
        let steps = 2000;
        for step in 0..steps {
            let now = at(f64::from(step) * life_of as f64 / f64::from(steps));
            if let Some(attempt) = life.ask(now, wanted * SECOND) {
                attempts += 1;
                life.succeed(attempt, now, now, &format!("t{attempt}"), life_of);
            }
        }
        // A token with a long life is renewed each day anyway.
        let most = 11 * life_of.div_ceil(86_400);
        assert!((5..=most).contains(&attempts), "{attempts} of {life_of} s");
    }
}

#[test]
fn min_ttl_within_the_minimum_interval_waits_for_the_next_attempt() {
    let rules = Refresh {
        min_interval: 10 * SECOND,
        ..Refresh::default()
    };
    let mut life = Life::with_one(rules);
    assert_eq!(life.ask(at(6.0), 90 * SECOND), None);
    assert!(matches!(
        life.machine.verdict(at(6.0), 90 * SECOND),
        Verdict::Wait
    ));
    assert_eq!(life.machine.wake_at(at(6.0)), Some(at(10.0).boot));
    assert!(life.tick(at(10.0)).is_some());
}

#[test]
fn min_ttl_that_the_way_eats_up_is_refused_and_not_fetched_for_ever() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.ask(at(0.0), 95 * SECOND).expect("first use");
    assert_eq!(life.succeed(attempt, at(0.0), at(0.1), "one", 100), None);
    // The life is 95 s after the margin and 94.9 s on arrival.
    let Verdict::Refuse(refusal) = life.machine.verdict(at(0.1), 95 * SECOND) else {
        panic!("refused")
    };
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(refusal.retry_after.is_some());
    let next = life
        .ask(at(9.5), 95 * SECOND)
        .expect("tried again when asked again");
    assert!(matches!(
        life.machine.verdict(at(9.5), 95 * SECOND),
        Verdict::Wait
    ));
    life.succeed(next, at(9.5), at(9.5), "two", 100);
    assert_eq!(life.served(at(9.5), 95 * SECOND).as_deref(), Some("two"));
}
