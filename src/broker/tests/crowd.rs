//! Many profiles and callers at once: cancellation, order, fairness between profiles of one
//! identity provider, and its budget.

use std::collections::HashSet;

use super::*;

const PROFILES: usize = 1000;

/// Profiles of one identity provider. Each has a scripted provider of its own that records when its
/// turn came.
struct Crowd {
    order: Arc<Mutex<Vec<String>>>,
    flying: Arc<Flying>,
    handles: Vec<Arc<ProfileHandle>>,
}

#[derive(Default)]
struct Flying {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// Counts the attempts at the same time, over all profiles.
struct Counted {
    inner: Arc<Scripted>,
    flying: Arc<Flying>,
}

/// Counts down when an attempt ends, even one that was given up.
struct Landing<'a>(&'a Flying);

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Provider for Counted {
    fn deadline(&self) -> Duration {
        self.inner.deadline()
    }

    fn fetch<'a>(&'a self, variant: &'a Variant) -> Attempt<'a> {
        Box::pin(async move {
            let now = self.flying.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.flying.most.fetch_max(now, Ordering::SeqCst);
            let _landing = Landing(&self.flying);
            self.inner.fetch(variant).await
        })
    }
}

impl Crowd {
    fn new() -> Crowd {
        Crowd {
            order: Arc::default(),
            flying: Arc::default(),
            handles: Vec::new(),
        }
    }

    async fn join(&mut self, broker: &Broker, clock: &Clock, steps: &[Step], max_in_flight: u32) {
        let name = format!("p{}", self.handles.len());
        let inner = Scripted::named(clock, steps, &name, self.order.clone());
        let flying = self.flying.clone();
        let mut spec = spec(Arc::new(Counted { inner, flying }));
        spec.name = ProfileName::parse(&name).expect("name");
        if let Some(upstream) = &mut spec.upstream {
            upstream.max_in_flight = max_in_flight;
        }
        self.handles.push(broker.add_profile(spec).await);
    }

    fn order(&self) -> Vec<String> {
        self.order.lock().expect("lock").clone()
    }

    fn most_flying(&self) -> usize {
        self.flying.most.load(Ordering::SeqCst)
    }
}

/// Fair: no profile is asked for a second time before every profile has been asked once, however
/// short the lives are of those that had their turn. Broken by a budget whose queue is a stack
/// (`push_front`).
#[tokio::test(start_paused = true)]
async fn a_thousand_profiles_at_the_start_within_the_budget_all_served_and_in_fair_order() {
    let clock = clock();
    let broker = broker(&clock);
    let mut crowd = Crowd::new();
    for _ in 0..PROFILES {
        // At 8 in flight of 100 ms each the first round takes 12.5 s: the first renewals are due
        // long before its end.
        crowd.join(&broker, &clock, &[Step::Numbered(10)], 8).await;
    }
    while crowd.order().len() < PROFILES + 200 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(crowd.most_flying(), 8);
    let order = crowd.order();
    let first: HashSet<&String> = order[..PROFILES].iter().collect();
    assert_eq!(
        first.len(),
        PROFILES,
        "a second time before everybody's first"
    );
    for (number, name) in order[..PROFILES].iter().enumerate() {
        assert_eq!(*name, format!("p{number}"), "in the order of their coming");
    }
}

/// Broken by `carry_out` that queues without looking at waiters, and by `promote` that does
/// nothing.
#[tokio::test(start_paused = true)]
async fn waiting_callers_go_before_background_renewals() {
    let clock = clock();
    let broker = broker(&clock);
    let mut crowd = Crowd::new();
    for _ in 0..200 {
        crowd
            .join(&broker, &clock, &[Step::Numbered(3600)], 2)
            .await;
    }
    // All attempts are queued. Ten callers come for the last ten attempts, which go before the 190
    // that no caller waits for.
    let mut callers = tokio::task::JoinSet::new();
    for handle in &crowd.handles[190..] {
        let (broker, handle) = (broker.clone(), handle.clone());
        callers.spawn(async move { ask(&broker, &handle).await.map(drop) });
    }
    while let Some(answer) = callers.join_next().await {
        answer.expect("no panic").expect("served");
    }
    let order = crowd.order();
    assert!(
        order.len() <= 2 + 10 + 2,
        "{} were asked first",
        order.len()
    );
    assert_eq!(crowd.most_flying(), 2);
}

/// Callers that wait are served in the order of their coming. Broken by `Budget::promote` with
/// `push_front`.
#[tokio::test(start_paused = true)]
async fn callers_are_served_in_the_order_of_their_coming() {
    let clock = clock();
    let broker = broker(&clock);
    let mut crowd = Crowd::new();
    for _ in 0..50 {
        crowd
            .join(&broker, &clock, &[Step::Numbered(3600)], 1)
            .await;
    }
    let mut waiting = Vec::new();
    for number in (10..50).rev() {
        let (broker, handle) = (broker.clone(), crowd.handles[number].clone());
        waiting.push(tokio::spawn(async move { ask(&broker, &handle).await }));
        tokio::task::yield_now().await;
    }
    for caller in waiting {
        caller.await.expect("no panic").expect("served");
    }
    let order = crowd.order();
    let asked: Vec<&str> = order
        .iter()
        .map(String::as_str)
        .filter(|name| name[1..].parse::<usize>().is_ok_and(|number| number >= 10))
        .take(40)
        .collect();
    let expected: Vec<String> = (10..50).rev().map(|number| format!("p{number}")).collect();
    assert_eq!(asked, expected);
}

/// A worker keeps asking one profile for more life than is left, in forty variants: fourteen token
/// requests a second are wanted where one is granted. Broken by a budget that is first come, first
/// served, or without renewals that are pressing.
#[tokio::test(start_paused = true)]
async fn trap_44_who_forces_renewals_starves_no_other_profile() {
    let clock = clock();
    let broker = broker(&clock);
    let handle = async |name: &str, life: u64, eager: bool| {
        let mut spec = spec(Scripted::new(&clock, &[Step::Numbered(life)]));
        spec.name = ProfileName::parse(name).expect("name");
        spec.rules.eager = eager;
        let upstream = spec.upstream.as_mut().expect("it asks somebody");
        upstream.max_per_second = 1;
        broker.add_profile(spec).await
    };
    let quiet = handle("quiet", 120, true).await;
    ask(&broker, &quiet).await.expect("the first");
    let greedy = handle("greedy", 30, true).await;
    for number in 0..40 {
        let (broker, greedy) = (broker.clone(), greedy.clone());
        let variant = Variant {
            scopes: vec![format!("s{number}")],
            audience: None,
        };
        tokio::spawn(async move {
            loop {
                let asked = broker.ask(&greedy, variant.clone(), seconds(26), Asker::default());
                let _ = tokio::time::timeout(seconds(5), asked).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    let calm = handle("calm", 120, false).await;
    for second in 0..600 {
        tokio::time::sleep(seconds(1)).await;
        let view = quiet.own().view();
        let lives = view.servable(clock.now(), Duration::ZERO).is_some();
        assert!(lives, "the quiet one was not renewed by second {second}");
        if second % 150 == 0 {
            let asked = clock.now().boot;
            ask(&broker, &calm).await.expect("served");
            let waited = clock.now().boot.since(asked);
            assert!(waited < seconds(4), "{waited:?}");
        }
    }
}

/// `min_ttl` just below what is granted made every call a token request: 54 a minute.
#[tokio::test(start_paused = true)]
async fn trap_44_min_ttl_just_below_what_is_granted_costs_ten_renewals_a_life() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(60)]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    ask(&broker, &handle).await.expect("the first");
    let (mut served, mut told) = (0, 0);
    while clock.now().boot < BootTime(seconds(100 + 60)) {
        match broker
            .ask(&handle, Variant::default(), seconds(54), Asker::default())
            .await
        {
            Ok(_) => served += 1,
            Err(NoAnswer::Refused(refusal)) => {
                assert_eq!(refusal.kind, RefusalKind::Unavailable);
                told += u32::from(refusal.retry_after.is_some());
            }
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(provider.calls() <= 12, "{}", provider.calls());
    assert!(served > 0 && told > 0, "{served} {told}");
}

/// Broken by an attempt that belongs to its caller: a `select!` that drops the attempt when the
/// caller's end of the channel is gone.
#[tokio::test(start_paused = true)]
async fn callers_that_go_away_cancel_nothing_and_leave_nothing_behind() {
    let clock = clock();
    let broker = broker(&clock);
    let mut crowd = Crowd::new();
    for _ in 0..100 {
        crowd
            .join(&broker, &clock, &[Step::Numbered(3600)], 4)
            .await;
    }
    for handle in &crowd.handles {
        for _ in 0..10 {
            let given_up =
                tokio::time::timeout(Duration::from_millis(1), ask(&broker, handle)).await;
            drop(given_up);
        }
    }
    tokio::time::sleep(seconds(10)).await;
    assert_eq!(crowd.order().len(), 100, "each was asked for exactly once");
    for handle in &crowd.handles {
        assert!(
            handle
                .own()
                .view()
                .servable(clock.now(), Duration::ZERO)
                .is_some()
        );
    }
}

/// Profiles that are gone give back what they had in flight, queued and limited. Broken by `remove`
/// without `leave_budget`: the limit of a removed profile would hold for ever.
#[tokio::test(start_paused = true)]
async fn the_strictest_limit_of_those_that_are_there_holds() {
    let clock = clock();
    let broker = broker(&clock);
    let mut crowd = Crowd::new();
    crowd
        .join(&broker, &clock, &[Step::Numbered(3600)], 1)
        .await;
    for _ in 0..40 {
        crowd
            .join(&broker, &clock, &[Step::Numbered(3600)], 8)
            .await;
    }
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(crowd.most_flying(), 1, "the strictest");
    broker.remove(&crowd.handles[0]).await;
    tokio::time::sleep(seconds(1)).await;
    assert_eq!(
        crowd.most_flying(),
        8,
        "the strictest of those that are left"
    );
    assert_eq!(crowd.order().len(), 41);
}

/// An attempt that hangs gives its place back when its profile is removed. Broken by
/// `drop_credential` that does not abort it: no other profile would get the place until the
/// deadline of 20 s.
#[tokio::test(start_paused = true)]
async fn a_profile_that_goes_gives_its_place_to_the_next() {
    let clock = clock();
    let broker = broker(&clock);
    let mut crowd = Crowd::new();
    crowd.join(&broker, &clock, &[Step::Hang], 1).await;
    crowd
        .join(&broker, &clock, &[Step::Numbered(3600)], 1)
        .await;
    tokio::time::sleep(seconds(1)).await;
    broker.remove(&crowd.handles[0]).await;
    let answer = tokio::time::timeout(seconds(2), ask(&broker, &crowd.handles[1])).await;
    answer.expect("at once").expect("served");
}

/// Broken by `Broker` that takes a missing reply for a profile that is gone (NOT_FOUND).
#[tokio::test(start_paused = true)]
async fn a_broker_that_is_gone_is_no_missing_profile() {
    let clock = clock();
    let running = broker(&clock);
    let handle = running
        .add_profile(spec(Scripted::new(&clock, &[Step::Hang])))
        .await;
    let (gone, actor) = Broker::new(Tools {
        clock: clock.clone(),
        fingerprints: Fingerprinter::new(&[0; 32]),
        published: std::sync::Arc::default(),
        encode: Arc::new(|_, _, _, _| bytes::Bytes::new()),
        host_seed: 1,
    });
    drop(actor);
    assert_eq!(ask(&gone, &handle).await.unwrap_err(), NoAnswer::Stopped);
    let slot = gone
        .slot(&handle, Variant::default(), Asker::default())
        .await;
    assert_eq!(slot.unwrap_err(), NoAnswer::Stopped);
    let print = Fingerprinter::new(&[0; 32]).of(Scheme::Bearer, &Secret::new("t".into()));
    assert_eq!(
        gone.report(&handle, print, Asker::default())
            .await
            .unwrap_err(),
        NoAnswer::Stopped
    );
}

/// Broken by variants that belong to no user: one user could take all that a profile may have.
#[tokio::test(start_paused = true)]
async fn one_user_has_only_a_share_of_a_profiles_variants() {
    let clock = clock();
    let broker = broker(&clock);
    let handle = broker
        .add_profile(spec(Scripted::new(&clock, &[Step::Numbered(3600)])))
        .await;
    let ask = async |uid, n: usize| {
        let variant = Variant {
            scopes: vec![format!("s{n}")],
            audience: None,
        };
        let by = Asker {
            uid: Some(uid),
            pays: None,
        };
        broker
            .ask(&handle, variant, Duration::ZERO, by)
            .await
            .map(|_| ())
    };
    for n in 0..VARIANTS_PER_PRINCIPAL {
        ask(1, n).await.expect("answer");
    }
    assert_eq!(ask(1, 1000).await, Err(NoAnswer::TooManyVariants));
    assert_eq!(ask(2, 1000).await, Ok(()), "another's share");
    assert_eq!(ask(1, 1000).await, Ok(()), "it is there");
}

/// Broken by charges for renewals that were due, and for those that have been forced already.
#[tokio::test(start_paused = true)]
async fn who_forces_a_renewal_pays_for_it_once() {
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(3600)]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    let paid = Arc::<AtomicUsize>::default();
    let by = || {
        let paid = paid.clone();
        Asker {
            uid: Some(1),
            pays: Some(Arc::new(move || {
                paid.fetch_add(1, Ordering::Relaxed);
            })),
        }
    };
    let ask = async |min_ttl| {
        broker
            .ask(&handle, Variant::default(), seconds(min_ttl), by())
            .await
    };
    let first = ask(0).await.expect("answer").credential.fingerprint;
    assert_eq!(paid.load(Ordering::Relaxed), 0, "there was none");
    tokio::time::sleep(seconds(1000)).await;
    ask(0).await.expect("answer");
    assert_eq!(paid.load(Ordering::Relaxed), 0, "nothing was forced");
    let second = ask(3000).await.expect("answer").credential.fingerprint;
    assert_ne!(first, second);
    assert_eq!(paid.load(Ordering::Relaxed), 1);
    for _ in 0..10 {
        let _ = broker.report(&handle, second, by()).await;
    }
    assert_eq!(
        paid.load(Ordering::Relaxed),
        2,
        "ten reports of one credential"
    );
}
