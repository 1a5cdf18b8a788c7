//! Each promise of the lifecycle in a few lines. The numbers are those of docs/traps.md.

mod found;
mod min_ttl;
mod rotation;
mod simulation;
mod simulator;
mod traps;

use super::*;
use crate::core::credential::{Fingerprinter, Lifetime, Scheme};
use crate::core::secret::Secret;
use crate::core::time::WallTime;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: f64) -> Stamp {
    let since = Duration::from_secs_f64(seconds);
    Stamp {
        boot: BootTime(Duration::from_secs(1000) + since),
        wall: WallTime(Duration::from_secs(1_800_000_000) + since),
    }
}

fn issued(token: &str, asked_at: Stamp, lifetime: Lifetime) -> Box<Issued> {
    Box::new(Issued {
        token: Secret::new(token.to_owned()),
        scheme: Scheme::Bearer,
        asked_at,
        lifetime,
        scopes: Vec::new(),
        confirmation: None,
        clock_skew: None,
    })
}

struct Life {
    machine: Lifecycle,
    prints: Fingerprinter,
}

impl Life {
    fn new(rules: Refresh) -> Life {
        Life {
            machine: Lifecycle::new(rules, 7),
            prints: Fingerprinter::new(&[0; 32]),
        }
    }

    fn tick(&mut self, now: Stamp) -> Option<u64> {
        self.machine.handle(now, LifecycleEvent::Tick).fetch
    }

    fn ask(&mut self, now: Stamp, min_ttl: Duration) -> Option<u64> {
        self.machine
            .handle(now, LifecycleEvent::Asked { min_ttl })
            .fetch
    }

    fn succeed(
        &mut self,
        attempt: u64,
        asked_at: Stamp,
        now: Stamp,
        token: &str,
        life: u64,
    ) -> Option<u64> {
        let issued = issued(token, asked_at, Lifetime::For(Duration::from_secs(life)));
        let fingerprint = self.prints.of(issued.scheme, &issued.token);
        self.machine
            .handle(
                now,
                LifecycleEvent::Fetched {
                    attempt,
                    issued,
                    fingerprint,
                },
            )
            .fetch
    }

    fn fail(&mut self, attempt: u64, now: Stamp, failure: Failure) -> Option<u64> {
        self.machine
            .handle(now, LifecycleEvent::Failed { attempt, failure })
            .fetch
    }

    fn served(&self, now: Stamp, min_ttl: Duration) -> Option<String> {
        match self.machine.verdict(now, min_ttl) {
            Verdict::Serve(credential) => Some(credential.token.expose().to_owned()),
            _ => None,
        }
    }

    fn refusal(&self, now: Stamp) -> Refusal {
        match self.machine.verdict(now, Duration::ZERO) {
            Verdict::Refuse(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// A life with a credential "one" of 100 s, which a caller asked for and got at 0.
    fn with_one(rules: Refresh) -> Life {
        let mut life = Life::new(rules);
        let attempt = life.tick(at(0.0)).expect("eager");
        life.succeed(attempt, at(0.0), at(0.1), "one", 100);
        life
    }
}

#[test]
fn life_counts_from_before_the_request_and_loses_the_margin() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    life.succeed(attempt, at(0.0), at(20.0), "one", 100);
    assert_eq!(
        life.served(at(94.9), Duration::ZERO).as_deref(),
        Some("one")
    );
    assert_eq!(life.served(at(95.0), Duration::ZERO), None);
}

#[test]
fn the_margin_of_a_short_life_is_a_tenth_of_it() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    life.succeed(attempt, at(0.0), at(0.0), "one", 10);
    assert!(life.served(at(8.99), Duration::ZERO).is_some());
    assert!(life.served(at(9.0), Duration::ZERO).is_none());
}

#[test]
fn renewal_is_due_around_three_quarters_of_the_life() {
    for seed in 0..200 {
        let mut life = Life::new(Refresh::default());
        life.machine.draws = Draws::new(seed);
        let attempt = life.tick(at(1.0)).expect("eager");
        life.succeed(attempt, at(1.0), at(1.0), "one", 100);
        assert_eq!(life.ask(at(1.2), 200 * SECOND), None);
        let due = life
            .machine
            .wake_at(at(1.2))
            .expect("due")
            .since(at(1.0).boot);
        assert!((61.0..=81.0).contains(&due.as_secs_f64()), "{due:?}");
    }
}

#[test]
fn one_attempt_at_a_time_and_late_results_change_nothing() {
    let mut life = Life::new(Refresh::default());
    let first = life.tick(at(0.0)).expect("eager");
    assert_eq!(life.ask(at(0.5), Duration::ZERO), None);
    assert_eq!(life.tick(at(10.0)), None);
    life.fail(first, at(11.0), Failure::transient("gave up"));
    // The first pause is at most a second.
    let second = life.tick(at(12.0)).expect("tried again");
    life.succeed(first, at(0.0), at(12.5), "old", 100);
    assert_eq!(life.served(at(12.5), Duration::ZERO), None);
    life.succeed(second, at(12.0), at(13.0), "new", 100);
    assert_eq!(
        life.served(at(13.0), Duration::ZERO).as_deref(),
        Some("new")
    );
}

#[test]
fn a_failing_renewal_leaves_what_is_valid_until_its_end() {
    let mut life = Life::with_one(Refresh::default());
    let mut now = 0.1;
    while now < 94.0 {
        let wake = life.machine.wake_at(at(now)).expect("something is planned");
        now = (wake.0 - at(0.0).boot.0).as_secs_f64();
        if now >= 94.0 {
            break;
        }
        if let Some(attempt) = life.tick(at(now)) {
            life.fail(attempt, at(now), Failure::transient("down"));
            assert_eq!(life.machine.state(at(now)), LifecycleState::Stale);
        }
        assert_eq!(life.served(at(now), Duration::ZERO).as_deref(), Some("one"));
    }
    assert_eq!(life.served(at(95.0), Duration::ZERO), None);
    let refusal = life.refusal(at(95.0));
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(refusal.retry_after.is_some());
}

/// Broken by a verdict of `Wait` during back-off.
#[test]
fn trap_15_callers_in_back_off_are_refused_at_once_with_the_time() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    let failure = Failure::transient("down").with_retry_after(Some(30 * SECOND));
    life.fail(attempt, at(1.0), failure);
    assert_eq!(life.ask(at(2.0), Duration::ZERO), None);
    assert_eq!(life.refusal(at(2.0)).retry_after, Some(29 * SECOND));
    assert_eq!(life.tick(at(30.9)), None);
    assert!(life.tick(at(31.0)).is_some());
}

/// Broken by `failed` without `earliest.max(now + pause)`.
#[test]
fn trap_9_the_back_off_is_used_and_grows() {
    let mut life = Life::new(Refresh::default());
    let mut now = at(0.0);
    let mut attempts = 0;
    while now.boot < at(3600.0).boot {
        if let Some(attempt) = life.tick(now) {
            attempts += 1;
            life.fail(attempt, now, Failure::transient("down"));
        }
        now = now.plus(life.machine.wake_at(now).expect("planned").since(now.boot));
    }
    assert!((60..=250).contains(&attempts), "{attempts}");
}

#[test]
fn retry_after_is_obeyed_up_to_the_configured_maximum() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    let failure = Failure::transient("slow down").with_retry_after(Some(1_000_000 * SECOND));
    life.fail(attempt, at(0.0), failure);
    assert_eq!(life.machine.wake_at(at(0.0)), Some(at(3600.0).boot));
}

/// Broken by `failed` that takes `back_off` for a permanent failure, and by `again` that keeps
/// `earliest`.
#[test]
fn trap_14_a_refusal_gets_a_second_opinion_then_a_slow_probe_and_a_sign_re_arms() {
    let mut life = Life::new(Refresh::default());
    let mut now = at(0.0);
    let mut times = Vec::new();
    while times.len() < 5 {
        if let Some(attempt) = life.tick(now) {
            times.push(now.boot.since(at(0.0).boot).as_secs());
            life.fail(
                attempt,
                now,
                Failure::permanent("no").with_oauth_error(Some("invalid_client".into())),
            );
            assert_eq!(life.refusal(now).kind, RefusalKind::Rejected);
            assert_eq!(
                life.refusal(now).oauth_error.as_deref(),
                Some("invalid_client")
            );
        }
        now = now.plus(life.machine.wake_at(now).expect("planned").since(now.boot));
    }
    assert!(times[1] <= 3, "{times:?}");
    assert!((270..=340).contains(&(times[2] - times[1])), "{times:?}");
    assert!(times[3] - times[2] > 500, "{times:?}");
    let long_before_the_probe = at(times[4] as f64 + 10.0);
    let reaction = life
        .machine
        .handle(long_before_the_probe, LifecycleEvent::Again);
    assert!(reaction.fetch.is_some());
}

/// Broken by `fetched` that plans a repetition with `due_after`, or that takes its `end` instead of
/// the earlier one.
#[test]
fn trap_16_the_same_token_again_causes_no_storm_and_never_lives_longer() {
    let mut life = Life::with_one(Refresh::default());
    let mut now = at(0.1);
    let mut attempts = 0;
    while now.boot < at(95.0).boot {
        if let Some(attempt) = life.tick(now) {
            attempts += 1;
            // The issuer claims a full life every time.
            life.succeed(attempt, now, now, "one", 100);
        }
        now = now.plus(life.machine.wake_at(now).expect("planned").since(now.boot));
    }
    assert!(attempts <= 8, "{attempts}");
    assert_eq!(life.served(at(95.0), Duration::ZERO), None);
    let attempt = life.tick(at(97.0)).expect("due");
    life.succeed(attempt, at(97.0), at(97.0), "one", 100);
    assert_eq!(life.served(at(97.0), Duration::ZERO), None);
    assert_eq!(life.refusal(at(97.0)).kind, RefusalKind::Unavailable);
}

/// Broken by `Credential::ttl` that measures on the wall clock.
#[test]
fn trap_18_a_wall_clock_step_back_changes_nothing() {
    let mut life = Life::with_one(Refresh::default());
    let mut now = at(50.0);
    now.wall = WallTime(now.wall.0 - Duration::from_secs(86_400));
    assert_eq!(life.served(now, Duration::ZERO).as_deref(), Some("one"));
    assert_eq!(life.tick(now), None);
}

/// Broken by `servable` that ignores `doubted`.
#[test]
fn trap_17_a_boot_clock_that_stood_still_is_found_out() {
    let mut life = Life::with_one(Refresh::default());
    let mut now = at(50.0);
    now.wall = now.wall.plus(31 * SECOND);
    // The credential is doubted, so a renewal comes first.
    assert_eq!(life.served(now, Duration::ZERO), None);
    let attempt = life.ask(now, Duration::ZERO).expect("renewal");
    life.fail(attempt, now, Failure::transient("down"));
    // The renewal failed, and by the wall clock the token still lives: 81 s of 95.
    assert_eq!(life.served(now, Duration::ZERO).as_deref(), Some("one"));
    now.wall = now.wall.plus(14 * SECOND);
    assert_eq!(
        life.served(now, Duration::ZERO),
        None,
        "dead by the wall clock"
    );
}

#[test]
fn a_lazy_profile_is_fetched_on_first_use_and_falls_asleep() {
    let rules = Refresh {
        eager: false,
        ..Refresh::default()
    };
    let mut life = Life::new(rules);
    assert_eq!(life.tick(at(0.0)), None);
    assert_eq!(life.machine.state(at(0.0)), LifecycleState::Asleep);
    let attempt = life.ask(at(10.0), Duration::ZERO).expect("first use");
    life.succeed(attempt, at(10.0), at(10.0), "one", 3600);
    let due = life.machine.wake_at(at(10.0)).expect("renewal");
    let now = at(0.0).plus(due.since(at(0.0).boot));
    assert_eq!(
        life.tick(now),
        None,
        "nobody asked for a quarter of an hour"
    );
    assert_eq!(life.served(now, Duration::ZERO).as_deref(), Some("one"));
    assert!(life.ask(at(4000.0), Duration::ZERO).is_some());
}

/// Broken by `rejected` that ignores the fingerprint.
#[test]
fn trap_13_reports_of_one_credential_cost_one_renewal() {
    let mut life = Life::with_one(Refresh::default());
    let one = life.machine.held().expect("held").fingerprint;
    let mut attempts = 0;
    for _ in 0..1000 {
        let reaction = life
            .machine
            .handle(at(5.0), LifecycleEvent::Rejected { fingerprint: one });
        attempts += u32::from(reaction.fetch.is_some());
    }
    assert_eq!(attempts, 1);
    assert!(!life.machine.replaced(at(5.0), one));
    let soon = Duration::from_millis(100);
    assert_eq!(life.machine.ask_again_in(at(5.0)), soon, "it is under way");
    life.succeed(2, at(5.0), at(5.5), "two", 100);
    assert!(life.machine.replaced(at(5.5), one));
    let reaction = life
        .machine
        .handle(at(20.0), LifecycleEvent::Rejected { fingerprint: one });
    assert_eq!(
        reaction,
        Reaction::default(),
        "an old fingerprint costs nothing"
    );
}

/// Broken by `rejected` that ignores `held.rejected`.
#[test]
fn trap_13_reports_of_a_token_that_the_issuer_repeats_cost_nothing_more() {
    let mut life = Life::with_one(Refresh::default());
    let fingerprint = life.machine.held().expect("held").fingerprint;
    let report = |life: &mut Life, now| {
        life.machine
            .handle(now, LifecycleEvent::Rejected { fingerprint })
            .fetch
    };
    let attempt = report(&mut life, at(5.0)).expect("the first");
    life.succeed(attempt, at(5.0), at(5.0), "one", 95);
    for second in 6..40 {
        assert_eq!(report(&mut life, at(f64::from(second))), None);
    }
}

#[test]
fn an_api_that_rejects_everything_is_bounded() {
    let mut life = Life::with_one(Refresh::default());
    let mut attempts = 0;
    let mut now = at(1.0);
    while now.boot < at(601.0).boot {
        let held = life.machine.held().expect("held").fingerprint;
        let fetch = life
            .machine
            .handle(now, LifecycleEvent::Rejected { fingerprint: held })
            .fetch
            .or_else(|| life.tick(now));
        if let Some(attempt) = fetch {
            attempts += 1;
            life.succeed(attempt, now, now, &format!("token-{attempt}"), 1000);
        }
        now = now.plus(Duration::from_millis(500));
    }
    assert!((5..=25).contains(&attempts), "{attempts}");
}

#[test]
fn a_credential_that_does_not_expire_is_never_renewed_by_itself() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    let issued = issued("fixed", at(0.0), Lifetime::Unlimited);
    let fingerprint = life.prints.of(issued.scheme, &issued.token);
    let _ = life.machine.handle(
        at(0.0),
        LifecycleEvent::Fetched {
            attempt,
            issued,
            fingerprint,
        },
    );
    assert_eq!(life.machine.wake_at(at(0.0)), None);
    assert_eq!(
        life.served(at(1e9), 1_000_000 * SECOND).as_deref(),
        Some("fixed")
    );
    let reaction = life
        .machine
        .handle(at(2.0), LifecycleEvent::Rejected { fingerprint });
    assert!(reaction.fetch.is_some());
    assert_eq!(
        life.served(at(2.0), Duration::ZERO).as_deref(),
        Some("fixed")
    );
}

#[test]
fn an_unknown_lifetime_is_the_default_one() {
    let mut life = Life::new(Refresh::default());
    let attempt = life.tick(at(0.0)).expect("eager");
    let issued = issued("opaque", at(0.0), Lifetime::Unknown);
    let fingerprint = life.prints.of(issued.scheme, &issued.token);
    let _ = life.machine.handle(
        at(0.0),
        LifecycleEvent::Fetched {
            attempt,
            issued,
            fingerprint,
        },
    );
    assert!(life.served(at(294.9), Duration::ZERO).is_some());
    assert!(life.served(at(295.0), Duration::ZERO).is_none());
}
