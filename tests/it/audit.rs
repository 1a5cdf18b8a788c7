//! The record of who was given what: there before the answer, complete, readable for nobody else, and what happens when it
//! cannot be written.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokend::proto::credential_service_client::CredentialServiceClient;
use tokend::proto::{GetTokenRequest, WatchTokenRequest};

use crate::harness::ask::Who;
use crate::harness::idp::{self, SECRET};
use crate::harness::{AUDIT, Daemon, PATIENCE, Place, block, eventually, exists, is_root};

const OTHER: u32 = 65002;

const CONFIG: &str = r#"
[server]
socket_mode = "0666"

[profiles.a]
method = "static"
token = { file = "token" }

[profiles.theirs]
method = "static"
token = { file = "token" }
access = [{ user = 65009 }, { user = 65002 }]
"#;

fn place() -> Place {
    let place = Place::new();
    place.open();
    place.secret("token", "the-token-of-audit");
    place
}

fn daemon() -> Daemon {
    place().serve(CONFIG)
}

/// What stands in the file now: whole lines, each an object.
fn records_in(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text:?}");
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}")))
        .collect()
}

fn records(daemon: &Daemon) -> Vec<Value> {
    records_in(&daemon.place.path(AUDIT))
}

/// Those of an event and a profile.
fn of(records: Vec<Value>, event: &str, profile: &str) -> Vec<Value> {
    let mut records = records;
    records.retain(|one| one["event"] == event && one["profile"] == profile);
    records
}

fn total(records: &[Value]) -> u64 {
    records
        .iter()
        .map(|record| record["count"].as_u64().expect("a count"))
        .sum()
}

/// Broken by `granted` that counts without writing first.
#[test]
fn a_grant_is_recorded_before_the_answer_with_everything_about_it() {
    let daemon = daemon();
    let token = daemon.grpc().token("a").expect("served");
    // Not eventually: it was there before the answer.
    let found = of(records(&daemon), "grant", "a");
    let [record] = found.as_slice() else {
        panic!("{found:?}");
    };
    let me = rustix::process::geteuid().as_raw();
    for (name, expected) in [
        ("decision", json!("grant")),
        ("action", json!("GetToken")),
        ("uid", json!(me)),
        ("gid", json!(rustix::process::getegid().as_raw())),
        ("pid", json!(std::process::id())),
        ("rule", json!("default")),
        ("scopes", json!([])),
        ("audience", json!(null)),
        ("fingerprint", json!(token.credential.fingerprint)),
        ("generation", json!(token.credential.generation)),
        ("count", json!(1)),
    ] {
        assert_eq!(record[name], expected, "{name}: {record}");
    }
    assert!(record.get("unit").is_some(), "known or null: {record}");
    let time = record["time"].as_str().expect("a time");
    humantime::parse_rfc3339(time).expect("RFC 3339");
    assert_eq!(daemon.http_token("a").status, 200);
    let found = of(records(&daemon), "grant", "a");
    assert_eq!(found.len(), 2, "another connection is another grant");
    let mode = fs::metadata(daemon.place.path(AUDIT))
        .expect("there")
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// Broken by `Accounts::enter` that gives every connection a record of its own.
#[test]
fn a_connection_for_each_call_does_not_write_a_record_for_each_call() {
    let daemon = daemon();
    let start = Instant::now();
    for _ in 0..600 {
        assert_eq!(daemon.http_token("a").status, 200);
    }
    let all = eventually(Duration::from_secs(10), || {
        let found = of(records(&daemon), "grant", "a");
        (total(&found) == 600).then_some(found)
    });
    // Eight in ten seconds have their own, and what is counted is written every five.
    let tens = start.elapsed().as_secs() / 10 + 1;
    let most = usize::try_from(tens * 8 + tens * 2 + 2).expect("few");
    assert!(all.len() <= most, "{} records, not {most}", all.len());
    let several = all.iter().filter(|one| one["pid"].is_null());
    assert_eq!(several.clone().count(), all.len() - own(&all));
    for record in several {
        assert_eq!(record["uid"], all[0]["uid"], "{record}");
        assert_eq!(record["fingerprint"], all[0]["fingerprint"], "{record}");
        assert_eq!(record["rule"], "default", "{record}");
        assert!(record["since"].as_str() <= record["time"].as_str());
    }
    let page = daemon.page("/metrics");
    let limited = format!(
        "\ntokend_audit_limited_total{{event=\"grant\"}} {}\n",
        600 - own(&all)
    );
    assert!(page.contains(&limited), "{limited}{page}");
}

/// Those that are about one grant of one process.
fn own(records: &[Value]) -> usize {
    let own = records.iter().filter(|one| one["pid"].is_number());
    own.count()
}

/// Broken by `Ledger::count` that never counts (each call would write), and by `flush` without its task (nothing comes).
#[test]
fn repetitions_are_counted_and_written_within_ten_seconds() {
    let daemon = daemon();
    let grpc = daemon.grpc();
    for _ in 0..500 {
        grpc.token("a").expect("served");
    }
    let at_once = of(records(&daemon), "grant", "a");
    assert!(at_once.len() <= 3, "{} records", at_once.len());
    let all = eventually(Duration::from_secs(10), || {
        let found = of(records(&daemon), "grant", "a");
        (total(&found) == 500).then_some(found)
    });
    assert!(all.len() <= 4, "{all:?}");
    let counted = all.last().expect("some");
    assert!(counted["since"].as_str() <= counted["time"].as_str());
}

#[test]
fn what_was_counted_is_written_when_the_daemon_ends_and_no_number_is_missing() {
    let mut daemon = daemon();
    let grpc = daemon.grpc();
    for _ in 0..50 {
        grpc.token("a").expect("served");
    }
    assert_eq!(daemon.stop(), Some(0));
    let all = records(&daemon);
    assert_eq!(total(&of(all.clone(), "grant", "a")), 50);
    let numbers: Vec<u64> = all
        .iter()
        .map(|record| record["seq"].as_u64().expect("a number"))
        .collect();
    assert_eq!(numbers, (1..=all.len() as u64).collect::<Vec<_>>());
    assert_eq!(all[0]["event"], "start");
    assert_eq!(all.last().expect("some")["event"], "stop");
}

#[test]
fn a_stream_is_recorded_for_each_credential_that_it_brings() {
    let place = place();
    let daemon = place.serve(CONFIG);
    let mut client = CredentialServiceClient::new(daemon.grpc().channel);
    let request = WatchTokenRequest {
        profile: "a".into(),
        ..WatchTokenRequest::default()
    };
    let mut stream = block(client.watch_token(request))
        .expect("watching")
        .into_inner();
    for (generation, token) in [(1, ""), (2, "the-second-token-of-audit")] {
        if !token.is_empty() {
            daemon.place.secret("token", token);
        }
        block(stream.message()).expect("open").expect("more");
        let found = of(records(&daemon), "grant", "a");
        assert_eq!(found.len(), generation);
        let last = found.last().expect("some");
        assert_eq!(last["generation"], generation);
        assert_eq!(last["action"], "WatchToken");
    }
}

#[test]
fn scopes_and_rules_are_recorded_and_a_refused_scope_is_a_denial() {
    let me = rustix::process::geteuid().as_raw();
    let more = format!(
        "request = {{ scopes = [\"read\", \"write\"], audiences = [\"api\"] }}\naccess = [{{ user = 65009 }}, {{ user = {me} }}]"
    );
    let (_issuer, place, config) = idp::one(&more);
    let daemon = place.serve(&config);
    let ask = |scope: &str, audience: &str| {
        daemon.grpc().ask(GetTokenRequest {
            profile: "it".into(),
            scopes: vec![scope.into()],
            audience: audience.into(),
            ..GetTokenRequest::default()
        })
    };
    ask("read", "api").expect("served");
    let found = of(records(&daemon), "grant", "it");
    let [record] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(record["scopes"], json!(["read"]));
    assert_eq!(record["audience"], "api");
    assert_eq!(record["rule"], "access[1]");
    let refused = ask("admin", "").err().expect("refused");
    assert_eq!(refused.code, "INVALID_ARGUMENT");
    let denials = eventually(PATIENCE, || {
        let denials = of(records(&daemon), "deny", "it");
        (!denials.is_empty()).then_some(denials)
    });
    assert_eq!(denials[0]["rule"], "none");
    assert_eq!(denials[0]["fingerprint"], json!(null));
}

#[test]
fn denials_are_recorded_the_same_for_what_is_there_and_what_is_not() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let who = Who::user(65003);
    let names = ["theirs", "no-such-profile", "x\ny\",\"event\":\"grant"];
    for name in names {
        for _ in 0..10 {
            assert!(daemon.grpc_as(Some(&who)).token(name).is_err());
        }
    }
    let found = |name: &str| of(records(&daemon), "deny", name);
    for name in names {
        let found = eventually(Duration::from_secs(10), || {
            let found = found(name);
            (total(&found) == 10).then_some(found)
        });
        assert!(found.len() <= 4, "{found:?}");
        for record in &found {
            assert_eq!(record["uid"], 65003, "{record}");
            assert_eq!(record["decision"], "deny", "{record}");
            assert_eq!(record["rule"], "none", "{record}");
        }
    }
    assert_eq!(of(records(&daemon), "grant", "theirs").len(), 0);
}

/// Broken by `denied` without DENIALS_PER_USER: whoever asks for everything fills the disk.
#[test]
fn somebody_who_asks_for_everything_does_not_fill_the_record() {
    let daemon = daemon();
    let grpc = daemon.grpc();
    for n in 0..2000 {
        assert!(grpc.token(&format!("guess-{n}")).is_err());
    }
    let denials = eventually(Duration::from_secs(12), || {
        let mut all = records(&daemon);
        all.retain(|record| record["event"] == "deny");
        (total(&all) == 2000).then_some(all)
    });
    // Over so many seconds as the loop may take on a slow machine.
    assert!(denials.len() <= 4 * 260, "{}", denials.len());
    let others = denials
        .iter()
        .filter(|record| record["profile"] == "(others)");
    assert!(others.count() > 0);
}

#[test]
fn an_administrators_calls_by_somebody_else_are_denials_too() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let who = Who::user(OTHER);
    assert_eq!(daemon.get_as(Some(&who), "/metrics").status, 403);
    let denials = eventually(PATIENCE, || {
        let denials = of(records(&daemon), "deny", "");
        (!denials.is_empty()).then_some(denials)
    });
    assert_eq!(denials[0]["action"], "Metrics");
    assert_eq!(denials[0]["uid"], OTHER);
}

fn with_audit(settings: &str) -> String {
    format!("[audit]\nsink = \"file\"\npath = \"logs/audit.jsonl\"\n{settings}\n{CONFIG}")
}

/// Broken by `denies_now` that is always false: the second call would be counted, and given.
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

    // Lost while a connection has what it was given: that does not make it counted from then on.
    let away = daemon.place.path("away");
    fs::rename(&folder, &away).expect("moved");
    assert!(daemon.grpc().token("a").is_err(), "a new connection");
    assert!(grpc.token("a").is_err(), "an old one");
    fs::rename(&away, &folder).expect("moved back");
    grpc.token("a").expect("recorded again");
}

/// Broken by `available` that does not ask the audit, and by a daemon that finds out only from the next caller that it can write again.
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
    // Who is no administrator is told no path.
    let theirs = daemon
        .get_as(Some(&Who::user(OTHER)), "/v1/profiles/theirs/explain")
        .body;
    assert!(
        theirs.to_string().contains(refused) && !theirs.to_string().contains("audit.jsonl"),
        "{theirs}"
    );
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

    // Nobody asks for a credential.
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

/// Broken by `may_count` without UNRECORDED with `flush_for_ever` that waits for five seconds whatever happens.
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

/// Broken by `granted_first` that forgets what it could not write.
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

/// Broken by a file that is kept open for ever, and by one that is opened only once.
#[test]
fn a_file_that_was_moved_away_is_made_again() {
    let daemon = daemon();
    let grpc = daemon.grpc();
    let (now, old) = (daemon.place.path(AUDIT), daemon.place.path("audit.1"));
    daemon.http_token("a");
    fs::rename(&now, &old).expect("moved");
    daemon.signal(rustix::process::Signal::HUP);
    grpc.token("a").expect("served");
    assert_eq!(of(records_in(&now), "grant", "a").len(), 1);
    assert_eq!(of(records_in(&old), "grant", "a").len(), 1);
    // Without the signal too: nobody would look for records in a file that is gone.
    fs::remove_file(&now).expect("removed");
    daemon.http_token("a");
    assert_eq!(of(records_in(&now), "grant", "a").len(), 1);
}

#[test]
fn another_file_and_another_answer_to_failure_need_no_restart() {
    let daemon = daemon();
    daemon.http_token("a");
    daemon
        .place
        .write("tokend.toml", &with_audit("on_failure = \"deny\""));
    assert_eq!(daemon.place.run(&["reload"]).code, Some(0));
    assert_eq!(daemon.http_token("a").status, 503);
    fs::create_dir(daemon.place.path("logs")).expect("folder");
    assert_eq!(daemon.http_token("a").status, 200);
    let found = records_in(&daemon.place.path("logs/audit.jsonl"));
    assert_eq!(of(found, "grant", "a").len(), 1);
    assert_eq!(of(records(&daemon), "grant", "a").len(), 1);
    let last = records(&daemon).pop().expect("some");
    assert_eq!(last["event"], "stop", "the file says where it ends");
}

#[test]
fn a_link_and_what_is_no_file_are_not_written_to() {
    let place = place();
    place.write("precious", "");
    std::os::unix::fs::symlink(place.path("precious"), place.path("link")).expect("linked");
    for path in ["link", "/dev/null"] {
        let place = self::place();
        std::os::unix::fs::symlink(place.path("token"), place.path("link")).expect("linked");
        let daemon = place.serve(&format!(
            "[audit]\nsink = \"file\"\npath = \"{path}\"\non_failure = \"deny\"\n{CONFIG}"
        ));
        assert_eq!(daemon.http_token("a").status, 503, "{path}");
    }
}

/// A disk of a few kilobytes. Broken by `append` without `set_len`: half a line would stay.
#[test]
fn a_full_disk_leaves_whole_lines_and_nobody_without_a_credential() {
    if !is_root() {
        return;
    }
    let place = place();
    fs::create_dir(place.path("logs")).expect("folder");
    let logs = place.path("logs");
    let mount = |arguments: &[&str]| {
        let done = std::process::Command::new("mount").args(arguments).status();
        done.is_ok_and(|status| status.success())
    };
    let there = logs.to_str().expect("text").to_owned();
    if !mount(&["-t", "tmpfs", "-o", "size=16k", "tmpfs", &there]) {
        crate::harness::say_skipped("a small file system cannot be mounted here");
        return;
    }
    let _mounted = Mounted(there);
    let daemon = place.serve(&with_audit(""));
    let path = logs.join("audit.jsonl");
    let full = (0..200).find(|n| {
        assert_eq!(daemon.http_token("a").status, 200);
        // Grants of one user are a few records; names that are not there are one each.
        assert_eq!(daemon.http_token(&format!("guess-{n}")).status, 404);
        daemon.get("/v1/status").body["audit"]["trouble"] != ""
    });
    assert!(full.is_some(), "it never was full");
    let before = records_in(&path).len();
    assert!(before > 5, "{before}");
    // Somebody makes room.
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

struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .args(["-l", &self.0])
            .status();
    }
}

/// Trap 26: nothing that the daemon writes can be read by others, and no credential is ever written.
#[test]
fn trap_26_the_daemon_writes_nothing_but_the_record() {
    let (_issuer, place, config) = idp::one("");
    let mut daemon = place.serve(&config);
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    let mut found = Vec::new();
    for entry in fs::read_dir(daemon.place.path("")).expect("folder") {
        let entry = entry.expect("readable");
        let mode = entry.metadata().expect("there").permissions().mode();
        let name = entry.file_name().into_string().expect("text");
        if name != "tokend.sock" {
            assert_eq!(mode & 0o077, 0, "{name}");
        }
        found.push(name);
    }
    found.sort_unstable();
    assert_eq!(
        found,
        [AUDIT, "it.secret", "tokend.sock", "tokend.toml"],
        "and no cache"
    );
    assert_eq!(daemon.stop(), Some(0));
    assert!(!exists(&daemon.socket()));
    let text = fs::read_to_string(daemon.place.path(AUDIT)).expect("there");
    assert!(!text.contains(SECRET));
}
