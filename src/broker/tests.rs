//! Tests of the broker with a provider of its own, on paused time and without sockets.

mod crowd;
mod outage;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::core::credential::{Issued, Lifetime, Scheme};
use crate::core::failure::Failure;
use crate::core::lifecycle::{LifecycleState, RefusalKind};
use crate::core::secret::Secret;
use crate::core::time::{BootTime, Stamp, WallTime};
use crate::provider::Attempt;

fn clock() -> Clock {
    let start = tokio::time::Instant::now();
    Clock::given(move || {
        let since = start.elapsed();
        Stamp {
            boot: BootTime(Duration::from_secs(100) + since),
            wall: WallTime(Duration::from_secs(1_800_000_000) + since),
        }
    })
}

/// What the next attempts do; the last step is repeated.
#[derive(Clone)]
enum Step {
    Token(&'static str, u64),
    Numbered(u64),
    Fail(Failure),
    Panic,
    Hang,
}

struct Scripted {
    clock: Clock,
    delay: Duration,
    steps: Mutex<VecDeque<Step>>,
    calls: AtomicUsize,
    flying: AtomicUsize,
    most_flying: AtomicUsize,
    order: Arc<Mutex<Vec<String>>>,
    name: String,
}

impl Scripted {
    fn new(clock: &Clock, steps: &[Step]) -> Arc<Scripted> {
        Scripted::named(clock, steps, "p", Arc::default())
    }

    fn named(
        clock: &Clock,
        steps: &[Step],
        name: &str,
        order: Arc<Mutex<Vec<String>>>,
    ) -> Arc<Scripted> {
        Arc::new(Scripted {
            clock: clock.clone(),
            delay: Duration::from_millis(100),
            steps: Mutex::new(steps.iter().cloned().collect()),
            calls: AtomicUsize::new(0),
            flying: AtomicUsize::new(0),
            most_flying: AtomicUsize::new(0),
            order,
            name: name.to_owned(),
        })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Provider for Scripted {
    fn deadline(&self) -> Duration {
        Duration::from_secs(20)
    }

    fn fetch<'a>(&'a self, _variant: &'a Variant) -> Attempt<'a> {
        Box::pin(async move {
            let call = self.calls.fetch_add(1, Ordering::SeqCst);
            self.order.lock().expect("lock").push(self.name.clone());
            let flying = self.flying.fetch_add(1, Ordering::SeqCst) + 1;
            self.most_flying.fetch_max(flying, Ordering::SeqCst);
            let asked_at = self.clock.now();
            let step = {
                let mut steps = self.steps.lock().expect("lock");
                if steps.len() > 1 {
                    steps.pop_front()
                } else {
                    steps.front().cloned()
                }
            };
            tokio::time::sleep(self.delay).await;
            self.flying.fetch_sub(1, Ordering::SeqCst);
            let (token, life) = match step.expect("a step") {
                Step::Token(token, life) => (token.to_owned(), life),
                Step::Numbered(life) => (format!("token-{call}"), life),
                Step::Fail(failure) => return Err(failure),
                Step::Panic => panic!("on purpose"),
                Step::Hang => std::future::pending().await,
            };
            Ok(Issued {
                token: Secret::new(token),
                scheme: Scheme::Bearer,
                asked_at,
                lifetime: Lifetime::For(Duration::from_secs(life)),
                scopes: Vec::new(),
                confirmation: None,
                clock_skew: None,
            })
        })
    }
}

fn broker(clock: &Clock) -> Broker {
    let (broker, run) = Broker::new(Tools {
        clock: clock.clone(),
        fingerprints: Fingerprinter::new(&[0; 32]),
        published: std::sync::Arc::default(),
        encode: Arc::new(|credential, stale, _, _| {
            format!(
                "{}{}",
                credential.token.expose(),
                if stale { "~" } else { "" }
            )
            .into()
        }),
        host_seed: 1,
    });
    tokio::spawn(run);
    broker
}

fn spec(provider: Arc<dyn Provider>) -> Spec {
    Spec {
        name: ProfileName::parse("p").expect("name"),
        target: None,
        rules: Refresh::default(),
        provider,
        upstream: Some(IssuerBudget {
            name: "idp".into(),
            max_in_flight: 8,
            max_per_second: 1000,
        }),
        told_to_wait: None,
        replaces: false,
        keep: None,
        left: Vec::new(),
    }
}

fn text(answer: Result<Arc<Answer>, NoAnswer>) -> String {
    String::from_utf8(answer.expect("answer").encoded.to_vec()).expect("text")
}

async fn ask(broker: &Broker, handle: &ProfileHandle) -> Result<Arc<Answer>, NoAnswer> {
    broker
        .ask(handle, Variant::default(), Duration::ZERO, Asker::default())
        .await
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_of_a_missing_credential_cost_one_attempt() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(3600)]);
    let mut spec = spec(provider.clone());
    spec.rules.eager = false;
    let handle = broker.add_profile(spec).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..10_000 {
        let (broker, handle) = (broker.clone(), handle.clone());
        callers.spawn(async move { text(ask(&broker, &handle).await) });
    }
    while let Some(answer) = callers.join_next().await {
        assert_eq!(answer.expect("no panic"), "token-0");
    }
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_cancels_nothing() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(3600)]);
    let mut spec = spec(provider.clone());
    spec.rules.eager = false;
    let handle = broker.add_profile(spec).await;
    let first = tokio::time::timeout(Duration::from_millis(50), ask(&broker, &handle)).await;
    assert!(first.is_err(), "it gave up");
    assert_eq!(text(ask(&broker, &handle).await), "token-0");
    assert_eq!(provider.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_valid_is_published_renewed_before_its_end_and_never_gone() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(60)]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    ask(&broker, &handle).await.expect("first");
    for _ in 0..6000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let view = handle.own().view();
        assert!(view.servable(clock.now(), Duration::ZERO).is_some());
        assert_eq!(view.state(clock.now()), LifecycleState::Fresh);
    }
    assert!(
        (11..=17).contains(&provider.calls()),
        "{}",
        provider.calls()
    );
}

#[tokio::test(start_paused = true)]
async fn an_identity_provider_that_is_down_leaves_the_valid_one_and_marks_it_stale() {
    let clock = clock();
    let broker = broker(&clock);
    let down = Step::Fail(Failure::transient("down"));
    let provider = Scripted::new(&clock, &[Step::Numbered(60), down]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    assert_eq!(text(ask(&broker, &handle).await), "token-0");
    tokio::time::sleep(seconds(53)).await;
    let view = handle.own().view();
    assert_eq!(view.state(clock.now()), LifecycleState::Stale);
    assert_eq!(
        view.servable(clock.now(), Duration::ZERO)
            .expect("valid")
            .encoded,
        "token-0~"
    );
    drop(view);
    tokio::time::sleep(seconds(3)).await;
    let started = clock.now();
    let Err(NoAnswer::Refused(refusal)) = ask(&broker, &handle).await else {
        panic!("refused")
    };
    assert_eq!(refusal.kind, RefusalKind::Unavailable);
    assert!(refusal.retry_after.is_some());
    assert!(clock.now().boot.since(started.boot) < seconds(1), "at once");
    assert_eq!(
        handle.own().view().state(clock.now()),
        LifecycleState::Backoff
    );
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_one_deadline_and_a_defect_is_a_failure() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(
        &clock,
        &[Step::Hang, Step::Panic, Step::Token("late", 3600)],
    );
    let handle = broker.add_profile(spec(provider)).await;
    let Err(NoAnswer::Refused(refusal)) = ask(&broker, &handle).await else {
        panic!("refused")
    };
    assert!(
        refusal.message.contains("within 20 s"),
        "{}",
        refusal.message
    );
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(text(ask(&broker, &handle).await), "late");
}

#[tokio::test(start_paused = true)]
async fn a_removed_profile_answers_nobody_and_closes_its_watchers() {
    let clock = clock();
    let broker = broker(&clock);
    let handle = broker
        .add_profile(spec(Scripted::new(&clock, &[Step::Hang])))
        .await;
    let mut watch = handle.own().watch();
    let waiting = {
        let (broker, handle) = (broker.clone(), handle.clone());
        tokio::spawn(async move { ask(&broker, &handle).await })
    };
    tokio::time::sleep(seconds(1)).await;
    broker.remove(&handle).await;
    assert_eq!(
        waiting.await.expect("no panic").unwrap_err(),
        NoAnswer::Gone
    );
    watch.wait_for(|view| view.closed).await.expect("told");
    assert_eq!(ask(&broker, &handle).await.unwrap_err(), NoAnswer::Gone);
}

#[tokio::test(start_paused = true)]
async fn profiles_of_one_issuer_share_its_budget_and_are_served_in_order() {
    let clock = clock();
    let broker = broker(&clock);
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut providers = Vec::new();
    let mut handles = Vec::new();
    for number in 0..200 {
        let name = format!("p{number}");
        let provider = Scripted::named(&clock, &[Step::Numbered(3600)], &name, order.clone());
        providers.push(provider.clone());
        let mut spec = spec(provider);
        spec.name = ProfileName::parse(&name).expect("name");
        handles.push(broker.add_profile(spec).await);
    }
    // This attempt is the last in the queue, but a caller waits for it.
    ask(&broker, &handles[199]).await.expect("answer");
    let place = order
        .lock()
        .expect("lock")
        .iter()
        .position(|name| name == "p199");
    assert!(place.expect("asked") < 30, "{place:?}");
    for handle in &handles {
        ask(&broker, handle).await.expect("answer");
    }
    let mut order = order.lock().expect("lock").clone();
    order.retain(|name| name != "p199");
    let queued: Vec<String> = (0..199).map(|number| format!("p{number}")).collect();
    assert_eq!(order, queued, "once each, as they came");
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_eight_is_never_exceeded() {
    let clock = clock();
    let broker = broker(&clock);
    let shared = Scripted::new(&clock, &[Step::Numbered(3600)]);
    let mut handles = Vec::new();
    for number in 0..100 {
        let mut spec = spec(shared.clone());
        spec.name = ProfileName::parse(&format!("p{number}")).expect("name");
        handles.push(broker.add_profile(spec).await);
    }
    for handle in &handles {
        ask(&broker, handle).await.expect("answer");
    }
    assert_eq!(shared.most_flying.load(Ordering::SeqCst), 8);
}

/// Broken by `Actor::done` that sends its event to every life, not to that of the attempt.
#[tokio::test(start_paused = true)]
async fn trap_10_one_broken_profile_does_not_hurt_another() {
    let clock = clock();
    let broker = broker(&clock);
    let broken = broker
        .add_profile(spec(Scripted::new(
            &clock,
            &[Step::Fail(Failure::permanent("no"))],
        )))
        .await;
    let good = Scripted::new(&clock, &[Step::Numbered(60)]);
    let handle = broker.add_profile(spec(good.clone())).await;
    for _ in 0..300 {
        tokio::time::sleep(seconds(1)).await;
        assert!(ask(&broker, &broken).await.is_err());
        ask(&broker, &handle).await.expect("served");
    }
    assert!((5..=9).contains(&good.calls()), "{}", good.calls());
}

/// Broken by `Lifecycle::rejected` that does not look at `held.rejected`.
#[tokio::test(start_paused = true)]
async fn trap_13_a_thousand_reports_cost_one_attempt() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(3600)]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    let first = ask(&broker, &handle)
        .await
        .expect("answer")
        .credential
        .fingerprint;
    tokio::time::sleep(seconds(2)).await;
    for _ in 0..1000 {
        assert!(
            !broker
                .report(&handle, first, Asker::default())
                .await
                .expect("seated")
                .replaced
        );
    }
    tokio::time::sleep(seconds(2)).await;
    assert_eq!(provider.calls(), 2);
    assert!(
        broker
            .report(&handle, first, Asker::default())
            .await
            .expect("seated")
            .replaced
    );
    assert_eq!(provider.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn variants_live_apart_and_are_bounded() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(3600)]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    let variant = |n: usize| Variant {
        scopes: vec![format!("s{n}")],
        audience: None,
    };
    let own = text(ask(&broker, &handle).await);
    let other = text(
        broker
            .ask(&handle, variant(0), Duration::ZERO, Asker::default())
            .await,
    );
    assert_ne!(own, other);
    assert_eq!(
        text(
            broker
                .ask(&handle, variant(0), Duration::ZERO, Asker::default())
                .await
        ),
        other
    );
    for n in 1..VARIANTS_PER_PROFILE {
        broker
            .ask(&handle, variant(n), Duration::ZERO, Asker::default())
            .await
            .expect("answer");
    }
    let more = broker
        .ask(&handle, variant(1000), Duration::ZERO, Asker::default())
        .await;
    assert_eq!(more.unwrap_err(), NoAnswer::TooManyVariants);
    // An hour later no caller has asked for these variants: they made room.
    tokio::time::sleep(seconds(4000)).await;
    broker
        .ask(&handle, variant(1000), Duration::ZERO, Asker::default())
        .await
        .expect("answer");
}

#[tokio::test(start_paused = true)]
async fn a_successor_counts_on_from_its_predecessor() {
    let clock = clock();
    let broker = broker(&clock);
    let handle = broker
        .add_profile(spec(Scripted::new(&clock, &[Step::Numbered(60)])))
        .await;
    ask(&broker, &handle).await.expect("answer");
    assert_eq!(handle.generation(), 1);
    broker.take_over_from(&handle, 7).await;
    assert_eq!(
        handle.generation(),
        8,
        "what it holds is newer than what it replaces"
    );
    broker.take_over_from(&handle, 3).await;
    assert_eq!(handle.generation(), 8);
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(handle.generation(), 9);
}

/// Broken by `catch_up` that looks for a wall clock behind its last look only, or not at all.
#[tokio::test(start_paused = true)]
async fn trap_18_a_wall_clock_that_was_set_back_hides_no_later_pause() {
    let wall = Arc::new(AtomicU64::new(7200));
    let clock = {
        let (even, wall) = (clock(), wall.clone());
        Clock::given(move || {
            let mut now = even.now();
            now.wall = now.wall.plus(seconds(wall.load(Ordering::Relaxed)));
            now
        })
    };
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(36_000)]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    ask(&broker, &handle).await.expect("answer");
    tokio::time::sleep(seconds(4000)).await;
    // The wall clock is set back by an hour, which is less than has passed.
    wall.fetch_sub(3600, Ordering::Relaxed);
    tokio::time::sleep(seconds(11)).await;
    assert_eq!(provider.calls(), 1, "harmless by itself");
    // The machine pauses for a minute: only the wall clock shows it.
    wall.fetch_add(60, Ordering::Relaxed);
    assert!(
        handle
            .own()
            .view()
            .servable(clock.now(), Duration::ZERO)
            .is_none(),
        "readers see it at once"
    );
    tokio::time::sleep(seconds(11)).await;
    assert_eq!(provider.calls(), 2, "a renewal comes first");
}
