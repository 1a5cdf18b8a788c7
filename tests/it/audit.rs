//! The audit record: which caller was given what. The record is written before the answer, it is
//! complete, and no other user can read it. `failure` is about a record that cannot be written.

mod failure;

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

/// The records in the file now: whole lines, each a JSON object.
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

/// The records of one event and one profile.
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

fn with_audit(settings: &str) -> String {
    format!("[audit]\nsink = \"file\"\npath = \"logs/audit.jsonl\"\n{settings}\n{CONFIG}")
}

/// Broken by a `granted` that counts without writing first.
#[test]
fn a_grant_is_recorded_before_the_answer_with_everything_about_it() {
    let daemon = daemon();
    let token = daemon.grpc().token("a").expect("served");
    // The test does not wait: the record was written before the answer.
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

/// Broken by an `Accounts::enter` that gives every connection a record of its own.
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
    // Eight connections in ten seconds have their own records. The daemon writes the counted ones
    // every five seconds.
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

/// The number of records that are about one grant of one process.
fn own(records: &[Value]) -> usize {
    let own = records.iter().filter(|one| one["pid"].is_number());
    own.count()
}

/// Broken by a `Ledger::count` that never counts (it would write each call), and by a `flush`
/// without its task (it would write nothing).
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

/// Broken by a `denied` without DENIALS_PER_USER: a caller that asks for everything fills the disk.
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
    // The loop may take several seconds on a slow machine, and each second has its own limit.
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

/// Broken by a file that stays open for ever, and by a file that is opened only once.
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
    // The daemon makes the file again without the signal, too: a reader would not look for records
    // in a removed file.
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

/// Trap 26: other users can read nothing that the daemon writes, and it never writes a credential.
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
