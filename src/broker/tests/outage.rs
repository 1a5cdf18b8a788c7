//! What the log says while callers are refused.

use std::io::Write;

use super::*;

/// The log, one line for each entry.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("lock").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn start() -> (Log, tracing::subscriber::DefaultGuard) {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// The lines since the last call.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().expect("lock"));
        let text = String::from_utf8(bytes).expect("text");
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}

fn down() -> Step {
    Step::Fail(Failure::transient("the identity provider is down"))
}

/// Broken by a loss that is logged like any other failed attempt.
#[tokio::test(start_paused = true)]
async fn losing_the_last_credential_is_an_error_once_then_reminded_of_and_its_end_is_told() {
    let (log, _guard) = Log::start();
    let clock = clock();
    let broker = broker(&clock);
    let provider = Scripted::new(&clock, &[Step::Numbered(60), down()]);
    let handle = broker.add_profile(spec(provider.clone())).await;
    ask(&broker, &handle).await.expect("answer");
    tokio::time::sleep(seconds(52)).await;
    let lines = log.lines();
    assert!(
        lines.iter().all(|line| !line.starts_with("ERROR")),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|line| line.starts_with("WARN")),
        "the failed renewal: {lines:#?}"
    );

    tokio::time::sleep(seconds(60)).await;
    let lines = log.lines();
    let [lost] = lines.as_slice() else {
        panic!("{lines:#?}")
    };
    assert!(
        lost.starts_with("ERROR") && lost.contains("the last one has ended: all callers"),
        "{lost}"
    );
    for fact in [
        "profile=p",
        "the identity provider is down",
        "failing_since=2027-01-15T",
    ] {
        assert!(lost.contains(fact), "{fact}: {lost}");
    }

    tokio::time::sleep(seconds(1200)).await;
    let lines = log.lines();
    assert_eq!(lines.len(), 4, "every five minutes: {lines:#?}");
    for line in &lines {
        assert!(
            line.starts_with("WARN") && line.contains("all callers of this profile are refused"),
            "{line}"
        );
        assert!(
            line.contains("the identity provider is down") && line.contains("profile=p"),
            "{line}"
        );
    }
    assert!(lines[0].contains("outage=\"5m"), "{}", lines[0]);

    *provider.steps.lock().expect("lock") = VecDeque::from([Step::Numbered(3600)]);
    tokio::time::sleep(seconds(600)).await;
    let lines = log.lines();
    let end = lines.last().expect("told");
    assert!(
        end.starts_with("INFO") && end.contains("callers are served"),
        "{lines:#?}"
    );
    assert!(end.contains("outage=\"2"), "its length: {end}");
    tokio::time::sleep(seconds(600)).await;
    assert_eq!(log.lines(), Vec::<String>::new());
}

/// Broken by outages that belong to a handle: a repaired profile has another handle.
#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_the_seat_that_repairs_it_and_one_that_is_tried_refuses_nobody() {
    let (log, _guard) = Log::start();
    let clock = clock();
    let broker = broker(&clock);
    let dead = broker
        .add_profile(spec(Scripted::new(
            &clock,
            &[Step::Fail(Failure::permanent("the client is unknown"))],
        )))
        .await;
    tokio::time::sleep(seconds(5)).await;
    let lines = log.lines();
    let [lost] = lines.as_slice() else {
        panic!("{lines:#?}")
    };
    assert!(
        lost.starts_with("ERROR") && lost.contains("there has been none yet"),
        "{lost}"
    );

    let mut tried = spec(Scripted::new(&clock, &[down()]));
    tried.replaces = true;
    let tried = broker.add_profile(tried).await;
    tokio::time::sleep(seconds(5)).await;
    assert!(log.lines().iter().all(|line| !line.starts_with("ERROR")));
    broker.remove(&tried).await;

    let mut repaired = spec(Scripted::new(&clock, &[Step::Numbered(3600)]));
    repaired.replaces = true;
    let repaired = broker.add_profile(repaired).await;
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(log.lines(), Vec::<String>::new());
    broker.take_over_from(&repaired, 0).await;
    broker.remove(&dead).await;
    tokio::time::sleep(seconds(1)).await;
    let lines = log.lines();
    let [end] = lines.as_slice() else {
        panic!("{lines:#?}")
    };
    assert!(
        end.starts_with("INFO") && end.contains("outage=\"1"),
        "{end}"
    );
}
