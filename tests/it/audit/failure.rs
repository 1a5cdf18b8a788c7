//! The daemon's behaviour when it cannot write the record.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{OTHER, of, place, records_in, total, with_audit};
use crate::harness::ask::Who;
use crate::harness::disk::SmallDisk;
use crate::harness::{Daemon, PATIENCE, eventually};

/// Broken by a `denies_now` that is always false: the second call would be counted, and answered
/// with a credential.
#[test]
fn with_deny_nothing_is_given_without_its_record() {
    let daemon = place().serve(&with_audit("on_failure = \"deny\""));
    let grpc = daemon.grpc();
    let refused = grpc.token("a").err().expect("refused");
    assert_eq!(
        (refused.code.as_str(), refused.reason.as_str()),
        ("UNAVAILABLE", "AUDIT_UNAVAILABLE")
    );
    assert!(refused.retry_after.is_some());
    let http = daemon.http_token("a");
    assert_eq!(
        (http.status, http.refusal().reason.as_str()),
        (503, "AUDIT_UNAVAILABLE")
    );
    let trouble = |daemon: &Daemon| daemon.get("/v1/status").body["audit"]["trouble"].to_string();
    assert!(trouble(&daemon).contains("nobody is given a credential"));
    assert!(daemon.log().contains("audit.on_failure"));

    let folder = daemon.place.path("logs");
    fs::create_dir(&folder).expect("folder");
    grpc.token("a").expect("recorded");
    assert_eq!(
        of(records_in(&folder.join("audit.jsonl")), "grant", "a").len(),
        1
    );
    grpc.token("a").expect("counted");
    assert_eq!(trouble(&daemon), "\"\"");

    // The sink fails after the connection was given its credential. That grant does not allow the
    // daemon to count the next ones.
    let away = daemon.place.path("away");
    fs::rename(&folder, &away).expect("moved");
    assert!(daemon.grpc().token("a").is_err(), "a new connection");
    assert!(grpc.token("a").is_err(), "an old one");
    fs::rename(&away, &folder).expect("moved back");
    grpc.token("a").expect("recorded again");
}

fn doctor_says(daemon: &Daemon, cause: &str) {
    let doctor: Value =
        serde_json::from_str(&daemon.place.run(&["doctor", "--offline", "--json"]).out)
            .expect("JSON");
    let findings = doctor["findings"].as_array().expect("findings");
    let of_daemon: Vec<&Value> = findings
        .iter()
        .filter(|it| {
            it["path"]
                .as_str()
                .is_some_and(|path| path == "audit" || path.starts_with("profiles."))
        })
        .collect();
    let [finding] = of_daemon.as_slice() else {
        panic!("{findings:#?}")
    };
    assert_eq!(finding["severity"], "error");
    assert!(
        finding["message"].as_str().expect("text").contains(cause),
        "{finding}"
    );
    assert!(
        finding["help"]
            .as_str()
            .expect("text")
            .contains("make the folder"),
        "{finding}"
    );
}

/// Broken by an `available` that does not ask the audit, and by a daemon that needs the next caller
/// to find out that it can write again.
#[test]
fn trap_50_with_deny_a_sink_that_fails_makes_every_profile_unavailable_and_says_so() {
    let daemon = place().serve(&with_audit("on_failure = \"deny\""));
    let grpc = daemon.grpc();
    let ready = eventually(PATIENCE, || {
        let ready = daemon.get("/readyz");
        (ready.status == 503).then_some(ready)
    });
    assert_eq!(ready.body["profiles"][0]["state"], "fresh");
    assert!(
        ready
            .body
            .to_string()
            .contains("no audit record can be written")
    );
    assert_eq!(
        (grpc.health("").as_str(), grpc.health("a").as_str()),
        ("SERVING", "NOT_SERVING")
    );
    let gauge = |value: u8| {
        format!("tokend_profile_available{{profile=\"a\",method=\"static\"}} {value}\n")
    };
    assert!(daemon.page("/metrics").contains(&gauge(0)));
    assert_eq!(
        daemon.get("/v1/profiles").body["profiles"][0]["available"],
        false
    );
    let cause = "audit.jsonl cannot be written: No such file or directory";
    let refused = "callers are refused: no audit record can be written";
    let status = daemon.place.run(&["status"]);
    assert!(
        status.out.contains(cause) && status.out.contains(&format!("a: warning: {refused}")),
        "{}",
        status.out
    );
    let explained = daemon.place.run(&["explain", "a"]).out;
    assert!(
        explained.contains("Callers are refused all the same: ") && explained.contains(cause),
        "{explained}"
    );
    // A caller that is no administrator is told no path.
    let theirs = daemon
        .get_as(Some(&Who::user(OTHER)), "/v1/profiles/theirs/explain")
        .body;
    assert!(
        theirs.to_string().contains(refused) && !theirs.to_string().contains("audit.jsonl"),
        "{theirs}"
    );
    doctor_says(&daemon, cause);

    // No caller asks for a credential here.
    let folder = daemon.place.path("logs");
    fs::create_dir(&folder).expect("folder");
    eventually(PATIENCE, || {
        (daemon.get("/readyz").status == 200).then_some(())
    });
    assert_eq!(grpc.health("a"), "SERVING");
    assert!(daemon.page("/metrics").contains(&gauge(1)));
    let events: Vec<Value> = records_in(&folder.join("audit.jsonl"))
        .into_iter()
        .map(|it| it["event"].clone())
        .collect();
    assert_eq!(events.first(), Some(&json!("resume")), "{events:?}");
    assert_eq!(events.iter().filter(|event| **event == "resume").count(), 1);
}

/// Broken by a `may_count` without UNRECORDED, together with a `flush_for_ever` that always waits
/// five seconds.
#[test]
fn with_deny_at_most_a_second_of_a_flood_is_without_a_record_when_the_disk_fails() {
    let place = place();
    let folder = place.path("logs");
    fs::create_dir(&folder).expect("folder");
    let daemon = place.serve(&with_audit("on_failure = \"deny\""));
    let grpc = daemon.grpc();
    let mut given = 0;
    let mut call = || {
        let asked = Instant::now();
        let outcome = grpc.token("a");
        given += u64::from(outcome.is_ok());
        (asked, outcome.is_ok())
    };
    let flood = Instant::now();
    while flood.elapsed() < Duration::from_secs(2) {
        assert!(call().1, "while records can be written");
    }
    let away = daemon.place.path("away");
    fs::rename(&folder, &away).expect("moved");
    let failed = Instant::now();
    while failed.elapsed() < Duration::from_secs(4) {
        let (asked, served) = call();
        let late = asked.duration_since(failed);
        assert!(!served || late <= Duration::from_secs(1), "{late:?}");
    }
    assert!(!call().1);
    fs::rename(&away, &folder).expect("moved back");
    assert!(call().1, "it can be written again");
    let path = folder.join("audit.jsonl");
    eventually(Duration::from_secs(5), || {
        (total(&of(records_in(&path), "grant", "a")) == given).then_some(())
    });
}

/// Broken by a `granted_first` that forgets what it could not write.
#[test]
fn with_continue_everybody_is_served_and_what_is_owed_is_written_later() {
    let daemon = place().serve(&with_audit(""));
    let grpc = daemon.grpc();
    for _ in 0..7 {
        grpc.token("a").expect("served");
    }
    for _ in 0..5 {
        assert_eq!(daemon.http_token("a").status, 200);
    }
    let status = daemon.get("/v1/status");
    let warnings = status.body["warnings"].to_string();
    assert!(warnings.contains("records are not written"), "{warnings}");
    assert!(daemon.log().contains("records are not written"));
    assert!(
        daemon
            .page("/metrics")
            .contains("\ntokend_audit_failing 1\n")
    );

    let path = daemon.place.path("logs/audit.jsonl");
    fs::create_dir(daemon.place.path("logs")).expect("folder");
    eventually(Duration::from_secs(12), || {
        (total(&of(records_in(&path), "grant", "a")) == 12).then_some(())
    });
    assert!(daemon.log().contains("records are written again"));
    let page = daemon.page("/metrics");
    assert!(page.contains("\ntokend_audit_failing 0\n"));
    assert!(page.contains("tokend_audit_records_total{result=\"lost\"} 0\n"));
}

/// The disk has a few kilobytes. Broken by `append` without `set_len`: half a line would stay.
#[test]
fn a_full_disk_leaves_whole_lines_and_nobody_without_a_credential() {
    let place = place();
    let logs = place.path("logs");
    let Some(_disk) = SmallDisk::mount(&logs) else {
        return;
    };
    let daemon = place.serve(&with_audit(""));
    let path = logs.join("audit.jsonl");
    let full = (0..200).find(|n| {
        assert_eq!(daemon.http_token("a").status, 200);
        // The grants of one user take a few records. Each unknown name takes a record of its own.
        assert_eq!(daemon.http_token(&format!("guess-{n}")).status, 404);
        daemon.get("/v1/status").body["audit"]["trouble"] != ""
    });
    assert!(full.is_some(), "it never was full");
    let before = records_in(&path).len();
    assert!(before > 5, "{before}");
    // This makes room on the disk.
    fs::rename(&path, daemon.place.path("saved")).unwrap_or_else(|_| {
        fs::copy(&path, daemon.place.path("saved")).expect("copied");
        fs::remove_file(&path).expect("removed");
    });
    assert_eq!(daemon.http_token("a").status, 200);
    eventually(Duration::from_secs(12), || {
        (!records_in(&path).is_empty()).then_some(())
    });
    assert_eq!(daemon.get("/v1/status").body["audit"]["trouble"], "");
}
