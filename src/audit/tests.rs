//! Tests what a sink that hangs or fails does to callers, and what is recorded of a caller who
//! takes much. There is no writing thread: the test itself writes or does not.

use tokio::net::UnixStream;

use std::sync::atomic::{AtomicBool, Ordering};

use super::record::RecordedCaller;
use super::*;
use crate::caller::Callers;
use crate::core::credential::{Credential, Fingerprinter, Scheme, Variant};
use crate::core::profile::ProfileName;
use crate::core::secret::Secret;
use crate::core::time::{BootTime, Stamp};

/// An audit whose commands are kept and never executed.
fn hanging(deny: bool) -> (Audit, mpsc::Receiver<WriterCommand>) {
    let (commands, inbox) = mpsc::channel(QUEUE);
    let stamp = Stamp {
        boot: BootTime(Duration::from_secs(1000)),
        wall: WallTime(Duration::from_secs(1000)),
    };
    let start = tokio::time::Instant::now();
    let clock = Clock::given(move || stamp.plus(start.elapsed()));
    let condition = Arc::new(Condition::new(clock.clone(), deny));
    (Audit::new(clock, commands, condition), inbox)
}

/// An audit whose sink works until it is told not to, and what the sink has written.
fn working(deny: bool) -> (Arc<Audit>, Arc<Mutex<Vec<Draft>>>, Arc<AtomicBool>) {
    let (audit, mut inbox) = hanging(deny);
    let audit = Arc::new(audit);
    let written = Arc::new(Mutex::new(Vec::new()));
    let works = Arc::new(AtomicBool::new(true));
    let (sink, working, condition) = (written.clone(), works.clone(), audit.condition.clone());
    tokio::spawn(async move {
        while let Some(command) = inbox.recv().await {
            let WriterCommand::Write(drafts, who) = command else {
                continue;
            };
            let works = working.load(Ordering::Relaxed);
            condition.outcome(if works { Ok(()) } else { Err("full".into()) });
            let done = if works { drafts.len() } else { 0 };
            lock(&sink).extend(drafts.into_iter().take(done));
            who.map(|who| who.send(done));
        }
    });
    let flushing = audit.clone();
    tokio::spawn(async move { flushing.flush_for_ever().await });
    (audit, written, works)
}

fn total(written: &Mutex<Vec<Draft>>) -> u64 {
    lock(written).iter().map(|draft| draft.count).sum()
}

fn credential(token: &str) -> Credential {
    let token = Secret::new(token.into());
    let now = Stamp {
        boot: BootTime(Duration::ZERO),
        wall: WallTime(Duration::ZERO),
    };
    Credential {
        fingerprint: Fingerprinter::new(&[0; 32]).of(Scheme::Bearer, &token),
        token,
        scheme: Scheme::Bearer,
        scopes: Vec::new(),
        confirmation: None,
        generation: 1,
        obtained: now,
        expires: None,
        refresh_at: None,
        clock_skew: None,
    }
}

fn peer() -> Arc<Peer> {
    let (here, _there) = UnixStream::pair().expect("pair");
    Arc::new(Callers::default().of(&here).expect("known"))
}

/// The result of one grant, and how long it takes.
async fn grant(
    audit: &Audit,
    ledger: &Ledger,
    peer: &Arc<Peer>,
) -> (Result<Recorded, Unrecorded>, Duration) {
    grant_of(audit, ledger, peer, "p", "t").await
}

/// The result of granting this token of this profile, and how long it takes.
async fn grant_of(
    audit: &Audit,
    ledger: &Ledger,
    peer: &Arc<Peer>,
    profile: &str,
    token: &str,
) -> (Result<Recorded, Unrecorded>, Duration) {
    let (name, variant) = (
        ProfileName::parse(profile).expect("a name"),
        Variant::default(),
    );
    let given = GrantedCredential {
        profile: &name,
        variant: &variant,
        credential: &credential(token),
        decision: Decision::Default,
        action: Action::GetToken,
    };
    let start = tokio::time::Instant::now();
    let outcome = audit.granted(ledger, peer, given).await;
    (outcome, start.elapsed())
}

/// Broken by `write_now` without `hangs`: each new connection would wait for a second.
#[tokio::test(start_paused = true)]
async fn a_sink_that_hangs_is_waited_for_once() {
    let (audit, _inbox) = hanging(false);
    let peer = peer();
    let (outcome, took) = grant(&audit, &Ledger::default(), &peer).await;
    assert_eq!((outcome, took), (Ok(Recorded::Written), PATIENCE));
    let trouble = audit.trouble().expect("said");
    assert!(
        trouble.contains("credentials are handed out without"),
        "{trouble}"
    );
    let ledger = Ledger::default();
    for expected in [Recorded::Written, Recorded::Counted, Recorded::Counted] {
        let (outcome, took) = grant(&audit, &ledger, &peer).await;
        assert_eq!((outcome, took), (Ok(expected), Duration::ZERO));
    }
    let owed: u64 = lock(&audit.counted).iter().map(|line| line.take()).sum();
    assert_eq!(owed, 4, "nothing is forgotten");
}

#[tokio::test(start_paused = true)]
async fn with_deny_a_sink_that_hangs_lets_nothing_out_and_keeps_nobody_waiting() {
    let (audit, _inbox) = hanging(true);
    let (peer, ledger) = (peer(), Ledger::default());
    let (outcome, took) = grant(&audit, &ledger, &peer).await;
    assert_eq!((outcome, took), (Err(Unrecorded), PATIENCE));
    for _ in 0..3 {
        let (outcome, took) = grant(&audit, &ledger, &peer).await;
        assert_eq!((outcome, took), (Err(Unrecorded), Duration::ZERO));
    }
}

/// Broken by `owe` without OWED: an outage of the sink would cost memory without end.
#[tokio::test(start_paused = true)]
async fn what_is_owed_is_bounded_and_what_is_beyond_is_lost_aloud() {
    let (audit, inbox) = hanging(false);
    drop(inbox);
    let peer = peer();
    for n in 0..OWED + 10 {
        let name = format!("p-{n}");
        let (outcome, _) = grant_of(&audit, &Ledger::default(), &peer, &name, "t").await;
        assert!(outcome.is_ok());
    }
    audit.flush(Vec::new()).await;
    assert!(lock(&audit.counted).len() <= OWED);
    assert!(audit.counts().lost.load(Ordering::Relaxed) >= 10);
}

/// Broken by `accounts` that gives every connection a record of its own: a worker that opens a
/// connection for each call writes as many records as it makes calls.
#[tokio::test(start_paused = true)]
async fn a_connection_for_each_call_writes_a_few_records_and_one_with_the_number_of_the_others() {
    let (audit, written, _works) = working(false);
    let other = peer();
    for n in 0..3000 {
        let ledger = Ledger::default();
        let (outcome, _) = grant(&audit, &ledger, &peer()).await;
        let expected = if n < 8 {
            Recorded::Written
        } else {
            Recorded::Counted
        };
        assert_eq!(outcome, Ok(expected), "{n}");
        // Further grants on such a connection cost no record either.
        if n % 10 == 0 {
            assert_eq!(
                grant(&audit, &ledger, &other).await.0,
                Ok(Recorded::Counted)
            );
        }
    }
    // Another credential of the same profile is a different one: its record is there before the
    // answer.
    let (outcome, _) = grant_of(&audit, &Ledger::default(), &peer(), "p", "renewed").await;
    assert_eq!(outcome, Ok(Recorded::Written));
    assert_eq!(total(&written), 9, "before the answers");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(total(&written), 3301);
    let records = std::mem::take(&mut *lock(&written));
    assert_eq!(records.len(), 10);
    let counted = records.last().expect("some");
    let RecordedCaller::Several { uid, .. } = counted.who else {
        panic!("{counted:?}");
    };
    assert_eq!(uid, Some(peer().caller.uid));
    assert!(counted.since.is_some());
    let (grants, _) = audit.limited();
    assert_eq!((grants.count, grants.last), (2992, uid));
    // No connection has the credential any more, so recording starts anew.
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(
        grant(&audit, &Ledger::default(), &peer()).await.0,
        Ok(Recorded::Written)
    );
}

/// Broken by `enter` that does not check whether the entry is settled: grants would rely on a
/// record that was never written.
#[tokio::test(start_paused = true)]
async fn nobody_is_counted_before_the_first_record_is_written() {
    let (audit, inbox) = hanging(false);
    let audit = Arc::new(audit);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let audit = audit.clone();
            tokio::spawn(async move { grant(&audit, &Ledger::default(), &peer()).await })
        })
        .collect();
    tokio::time::sleep(PATIENCE / 2).await;
    assert_eq!(inbox.len(), 20, "each has its own");
    assert!(waiting.iter().all(|one| !one.is_finished()));
}

/// Broken by `enter` without LINES_PER_PRINCIPAL: a caller with many permissions would take memory
/// for as many credentials as there ever are.
#[tokio::test(start_paused = true)]
async fn what_is_remembered_of_a_principal_is_bounded_and_names_the_profile() {
    let (audit, written, _works) = working(false);
    let peer = peer();
    for n in 0..2000 {
        let token = format!("token-{n}");
        let (outcome, _) = grant_of(&audit, &Ledger::default(), &peer, "many", &token).await;
        assert!(outcome.is_ok());
    }
    let before = lock(&written).len();
    assert!(before <= 512 + 256, "{before}");
    let (outcome, _) = grant_of(&audit, &Ledger::default(), &peer, "other", "t").await;
    assert_eq!(outcome, Ok(Recorded::Written));
    let last = lock(&written).pop().expect("written");
    assert_eq!(last.profile, "other");
    assert!(last.credential.is_some());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(total(&written), 2000);
    assert!(lock(&written).iter().all(|record| record.profile == "many"));
    // All of it is forgotten once it is not given any more.
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(lock(&audit.accounts).remembered(), 0);
}

/// Broken by `may_count` that only checks whether the sink fails, together with `flush_for_ever`
/// that waits for FLUSH: the failure is unknown until then.
#[tokio::test(start_paused = true)]
async fn with_deny_at_most_a_second_of_grants_is_without_a_record_when_the_sink_begins_to_fail() {
    let (audit, written, works) = working(true);
    let (peer, ledger) = (peer(), Ledger::default());
    let mut given = 0;
    let mut call = async |expected: bool| {
        let (outcome, took) = grant(&audit, &ledger, &peer).await;
        given += u64::from(outcome.is_ok());
        assert!(outcome.is_ok() || !expected);
        tokio::time::sleep(Duration::from_millis(1)).await;
        (outcome.is_ok(), took)
    };
    for _ in 0..3000 {
        call(true).await;
    }
    works.store(false, Ordering::Relaxed);
    let failed = tokio::time::Instant::now();
    let mut after = 0;
    while call(false).await.0 {
        after += 1;
        assert!(failed.elapsed() < UNRECORDED, "{after} grants");
    }
    // Not one more grant goes, however long it takes.
    for _ in 0..5000 {
        assert!(!call(false).await.0);
    }
    works.store(true, Ordering::Relaxed);
    assert!(call(true).await.0, "it works again");
    tokio::time::sleep(UNRECORDED).await;
    assert_eq!(total(&written), given, "none is forgotten");
}

/// Broken by `may_count` without UNRECORDED: the flush hangs with what it has taken, and nothing
/// reports that.
#[tokio::test(start_paused = true)]
async fn with_deny_a_sink_that_begins_to_hang_is_noticed_within_a_second() {
    let (audit, mut inbox) = hanging(true);
    let audit = Arc::new(audit);
    let flushing = audit.clone();
    tokio::spawn(async move { flushing.flush_for_ever().await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let (peer, ledger) = (peer(), Ledger::default());
    let first = tokio::spawn({
        let audit = audit.clone();
        async move {
            grant(&audit, &ledger, &peer)
                .await
                .0
                .map(|_| (ledger, peer))
        }
    });
    let Some(WriterCommand::Write(_, Some(who))) = inbox.recv().await else {
        panic!("the first is written");
    };
    who.send(1).expect("waited for");
    let (ledger, peer) = first.await.expect("ended").expect("given");
    let hangs = tokio::time::Instant::now();
    loop {
        let asked = hangs.elapsed();
        let (outcome, took) = grant(&audit, &ledger, &peer).await;
        if outcome.is_err() {
            assert!(
                asked <= UNRECORDED && took <= PATIENCE,
                "{asked:?} {took:?}"
            );
            break;
        }
        assert!(asked <= UNRECORDED, "{asked:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (outcome, took) = grant(&audit, &ledger, &peer).await;
    assert_eq!(
        (outcome, took),
        (Err(Unrecorded), Duration::ZERO),
        "nobody waits again"
    );
}

/// Broken by `fail` that logs each new beginning: a caller that fills a disk and lets it empty
/// again would fill the log.
#[tokio::test(start_paused = true)]
async fn a_sink_that_fails_and_works_by_turns_is_said_once_in_a_minute() {
    let (audit, _inbox) = hanging(false);
    let condition = &audit.condition;
    let mut said = 0;
    for _ in 0..1000 {
        condition.outcome(Err("full".to_owned()));
        said += u32::from(condition.said().is_some());
        assert!(condition.trouble().is_some(), "whoever asks is told");
        condition.outcome(Ok(()));
        assert_eq!((condition.said(), condition.trouble()), (None, None));
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    assert_eq!(said, 1);
    // The trouble that goes on is logged when the limit allows it.
    for _ in 0..60 {
        condition.outcome(Err("full".to_owned()));
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(condition.said().as_deref(), Some("full"));
}
