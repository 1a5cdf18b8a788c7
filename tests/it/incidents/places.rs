//! The places where people look, and what they find there.

use std::fs;
use std::time::{Duration, Instant};

use super::sentences;
use crate::harness::{AUDIT, Daemon, PATIENCE, run};

/// A place where somebody may look first.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Where {
    /// The answer to the program that wants the credential, and the words of `tokend token`.
    Caller,
    Status,
    Explain,
    Doctor,
    /// `tokend check --online`.
    Check,
    Log,
    /// `/readyz`
    Ready,
    Metrics,
}

use Where::{Caller, Check, Doctor, Explain, Log, Metrics, Ready, Status};

const ALL: [Where; 8] = [Caller, Status, Explain, Doctor, Check, Log, Ready, Metrics];

/// Fails unless each place says all its fragments before long, and nothing that cannot be true.
/// Each place has at least one line.
pub fn tells(daemon: &Daemon, table: &[(Where, &str)]) {
    for place in ALL {
        let lines = table.iter().filter(|(at, _)| *at == place);
        let parts: Vec<&str> = lines.map(|(_, part)| *part).collect();
        assert!(!parts.is_empty(), "no line for {place:?}");
        let start = Instant::now();
        loop {
            let text = said(daemon, place);
            sentences::assert_possible(&text, place);
            let mut missing = parts.iter().filter(|part| !text.contains(**part));
            let Some(first) = missing.next() else {
                break;
            };
            let late = start.elapsed() > PATIENCE;
            assert!(!late, "{place:?} does not say {first:?}:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a place says now about the profile `it`. Commands run as the daemon's user.
fn said(daemon: &Daemon, place: Where) -> String {
    let command = |arguments: &[&str]| {
        let ran = run(&mut daemon.place.tokend(arguments));
        let text = ran.out + &ran.err;
        daemon.place.secrets.assert_none_in(&text, arguments[0]);
        text
    };
    match place {
        Caller => {
            let refused = daemon.grpc().token("it").err();
            let refused = refused.map_or(String::new(), |refused| refused.message + "\n");
            // The output may be the token, so it is left out.
            refused + &run(&mut daemon.place.tokend(&["token", "it"])).err
        }
        Status => command(&["status"]),
        Explain => command(&["explain", "it"]),
        Doctor => command(&["doctor"]),
        Check => command(&["check", "--online"]),
        Log => {
            // The harness logs at trace level, and operators do not.
            let levels = [" ERROR ", " WARN ", " INFO "];
            let log = daemon.log();
            let loud = |line: &&str| levels.iter().any(|level| line.contains(level));
            let lines: Vec<&str> = log.lines().filter(loud).collect();
            // The journal has both. Some incidents have another file for the record.
            let record = fs::read_to_string(daemon.place.path(AUDIT)).unwrap_or_default();
            lines.join("\n") + "\n" + &record
        }
        Ready => daemon.get("/readyz").body.to_string(),
        Metrics => daemon.page("/metrics"),
    }
}
