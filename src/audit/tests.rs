//! What a sink that hangs does to those who are served: the thread that writes is not there, so nothing is ever written.

use tokio::net::UnixStream;

use super::*;
use crate::caller::Callers;
use crate::core::credential::{Credential, Fingerprinter, Scheme, Variant};
use crate::core::profile::ProfileName;
use crate::core::secret::Secret;
use crate::core::time::{BootTime, Stamp};

/// With nobody who writes, but somebody who keeps what is sent.
fn hanging(deny: bool) -> (Audit, mpsc::Receiver<Command>) {
    let (commands, inbox) = mpsc::channel(QUEUE);
    let stamp = Stamp {
        boot: BootTime(Duration::from_secs(1)),
        wall: WallTime(Duration::from_secs(1)),
    };
    let audit = Audit {
        clock: Clock::given(move || stamp),
        commands,
        condition: Arc::new(Condition::new(deny)),
        counted: Mutex::default(),
        denied: Mutex::default(),
    };
    (audit, inbox)
}

fn credential() -> Credential {
    let token = Secret::new("t".into());
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
    Arc::new(Callers::new().of(&here).expect("known"))
}

/// How one grant ends, and how long it takes.
async fn grant(
    audit: &Audit,
    ledger: &Ledger,
    peer: &Arc<Peer>,
) -> (Result<Recorded, Unrecorded>, Duration) {
    let (name, variant) = (ProfileName::parse("p").expect("a name"), Variant::default());
    let given = Given {
        profile: &name,
        variant: &variant,
        credential: &credential(),
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
    for _ in 0..OWED + 10 {
        let (outcome, _) = grant(&audit, &Ledger::default(), &peer).await;
        assert!(outcome.is_ok());
    }
    audit.flush().await;
    assert!(lock(&audit.counted).len() <= OWED);
    assert!(
        audit
            .counts()
            .lost
            .load(std::sync::atomic::Ordering::Relaxed)
            >= 10
    );
}
