//! A start with an unusable configuration. The daemon serves what the last good one defined. If
//! there was none, it tells every caller the reason until the files are repaired.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::harness::ask::Who;
use crate::harness::{audited, is_root};

/// Waits until the store has the configuration with this text.
fn kept(manager: &Manager, text: &str) {
    eventually(PATIENCE, || memory(manager).contains(text).then_some(()));
}

fn last_status(manager: &Manager) -> String {
    let messages = manager.messages();
    let statuses = messages.iter().flat_map(|message| message.lines());
    let mut statuses = statuses.filter_map(|line| line.strip_prefix("STATUS="));
    statuses.next_back().unwrap_or_default().to_owned()
}

/// Makes the whole configuration unusable in one of several ways. Returns words of the message.
fn break_it(place: &Place, kind: &str, good: &str) -> &'static str {
    let path = place.path("tokend.toml");
    match kind {
        "syntax" => place.write("tokend.toml", &format!("{good}\n[server\n")),
        "unknown key" => place.write("tokend.toml", &format!("{good}\n[server]\nnonsense = 1\n")),
        "nothing left" => place.write("tokend.toml", "it was a mistake\n"),
        "not there" => fs::remove_file(path).expect("removed"),
        "a folder" => {
            fs::remove_file(&path).expect("removed");
            fs::create_dir(&path).expect("made");
        }
        "writable for all" => place.mode("tokend.toml", 0o666),
        other => panic!("{other}"),
    }
    match kind {
        "unknown key" => "unknown key `nonsense`",
        "not there" => "cannot read",
        "a folder" => "is a folder",
        "writable for all" => "tokend.toml",
        _ => "tokend.toml:",
    }
}

fn repair(place: &Place, good: &str) {
    let path = place.path("tokend.toml");
    if path.is_dir() {
        fs::remove_dir(&path).expect("removed");
    }
    // The file is replaced in one step, as editors do.
    place.write("tokend.toml.new", good);
    fs::rename(place.path("tokend.toml.new"), path).expect("renamed");
}

/// Broken by a start that reads only the files: it ended with status 78.
#[test]
fn a_restart_with_files_that_cannot_be_used_serves_what_the_last_ones_defined() {
    let (issuer, place, config) = stage(3600, "");
    let good = audited(&config);
    let manager = Manager::new(&place);
    let mut daemon = manager.start(place);
    let first = eventually(PATIENCE, || daemon.grpc().token("it").ok());
    kept(&manager, "tokend.toml");
    eventually(PATIENCE, || {
        memory(&manager)
            .contains("\"profile\":\"it\"")
            .then_some(())
    });
    idp::down(&issuer);
    let kinds = [
        "syntax",
        "unknown key",
        "nothing left",
        "not there",
        "a folder",
        "writable for all",
    ];
    for kind in kinds {
        let place = end(daemon, kind == "not there");
        let said = break_it(&place, kind, &good);
        daemon = manager.start(place);
        let again = daemon.grpc().token("it").expect(kind).credential;
        assert_eq!(again.token, first.credential.token, "{kind}");
        let log = daemon.log();
        let told = log
            .lines()
            .filter(|line| line.contains("ERROR") && line.contains(said));
        assert!(told.count() > 0, "{kind}: {log}");
        eventually(PATIENCE, || {
            last_status(&manager)
                .contains("tokend.toml cannot be used")
                .then_some(())
        });
        let status = daemon.get("/v1/status").body;
        assert!(
            status["refused"].to_string().contains(said),
            "{kind}: {status}"
        );
        assert!(
            daemon.page("/metrics").contains("tokend_config_refused 1"),
            "{kind}"
        );
        let reload = daemon.place.run(&["reload"]);
        assert_eq!(reload.code, Some(1), "{kind}: {reload:?}");
        assert!(reload.out.contains(said), "{kind}: {reload:?}");
        let log = daemon.log();
        let said_once = log
            .matches("what it defined before tokend was restarted")
            .count();
        assert_eq!(said_once, 1, "{kind}");
        assert!(
            !log.contains("the one in force is kept"),
            "{kind}: said twice"
        );
        repair(&daemon.place, &good);
        eventually(PATIENCE, || {
            daemon
                .page("/metrics")
                .contains("tokend_config_refused 0")
                .then_some(())
        });
        assert_eq!(daemon.place.run(&["reload"]).code, Some(0), "{kind}");
    }
    idp::up(&issuer);
}

/// The daemon reads each secret anew, and keeps none that is outside the configuration files.
#[test]
fn secrets_of_the_last_configuration_are_read_anew() {
    let place = Place::new();
    place.secret("password", "the-first-password-of-a-restart");
    let good = audited(
        "[profiles.it]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"password\" }\n",
    );
    place.write("tokend.toml", &good);
    let manager = Manager::new(&place);
    let daemon = manager.start(place);
    let first = daemon.grpc().token("it").expect("served").credential.token;
    kept(&manager, "username");
    assert!(!memory(&manager).contains("the-first-password"));
    let place = end(daemon, false);
    place.secret("password", "the-second-password-of-a-restart");
    place.write("tokend.toml", "[");
    let daemon = manager.start(place);
    assert_ne!(
        daemon.grpc().token("it").expect("served").credential.token,
        first
    );
    let place = end(daemon, false);
    // A file of another name is another configuration.
    fs::rename(place.path("tokend.toml"), place.path("other.toml")).expect("renamed");
    let config = place.path("other.toml");
    let environment = [("TOKEND_CONFIG", config.to_str().expect("text"))];
    let daemon = manager.start_with(place, &environment);
    let why = daemon
        .grpc()
        .token("it")
        .err()
        .expect("another configuration");
    assert_eq!(why.reason, "CONFIGURATION_UNUSABLE");
}

const KEPT: u32 = 65001;
const REVOKED: u32 = 65002;

fn served(daemon: &Daemon, user: u32) -> bool {
    daemon.grpc_as(Some(&Who::user(user))).token("it").is_ok()
}

/// Broken by a handover without the access rules of the files: the second restart served a user
/// again whom the files before had removed.
#[test]
fn whom_unusable_files_no_longer_name_is_not_served_after_a_restart_either() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.open();
    let profile = |users: &str| {
        format!(
            "[profiles.it]\nmethod = \"none\"\naccess = [{users}]\n[audit]\nsink = \"file\"\npath = \"audit.jsonl\"\n"
        )
    };
    let both = profile("{ user = 65001 }, { user = 65002 }");
    place.write("tokend.toml", &both);
    let manager = Manager::new(&place);
    place.mode("tokend.sock", 0o666);
    let daemon = manager.start(place);
    assert!(served(&daemon, KEPT) && served(&daemon, REVOKED));
    kept(&manager, "65002");
    let place = end(daemon, false);
    let one = profile("{ user = 65001 }");
    place.write("tokend.toml", &format!("{one}[server\n"));
    let daemon = manager.start(place);
    assert!(served(&daemon, KEPT));
    assert!(!served(&daemon, REVOKED), "after the first restart");
    // The store gets the access rules of the files, not their texts.
    eventually(PATIENCE, || {
        let kept = memory(&manager);
        (!kept.contains("\\\"Id\\\":65002")).then_some(())
    });
    let place = end(daemon, false);
    // From now on the file says nothing about access.
    place.write("tokend.toml", "[");
    let daemon = manager.start(place);
    assert!(served(&daemon, KEPT));
    assert!(!served(&daemon, REVOKED), "after the second restart");
    // Usable files permit more again.
    repair(&daemon.place, &both);
    eventually(PATIENCE, || served(&daemon, REVOKED).then_some(()));
}

/// Broken by a daemon that ends: each caller that waited at the socket made systemd start it again,
/// eight times a second.
#[test]
fn where_there_was_none_everybody_is_told_the_reason_until_the_files_are_repaired() {
    let (_issuer, place, config) = stage(3600, "");
    let good = audited(&format!("{config}[server.limits]\nconnections = 1234\n"));
    place.write(
        "tokend.toml",
        &format!("{good}[server]\nnonsense = \"x\"\n[profiles.it2]\n"),
    );
    let manager = Manager::new(&place);
    let mut daemon = manager.start_with(place, &[("WATCHDOG_USEC", "600000")]);
    let pid = daemon.pid();
    let reason = |text: &str| {
        assert!(
            text.contains("tokend.toml:") && text.contains("nonsense"),
            "{text}"
        );
        assert!(!text.contains("it2"), "{text}");
    };
    for name in ["it", "nobody-has-this"] {
        let why = daemon.grpc().token(name).err().expect("nothing is served");
        assert_eq!(
            (why.code.as_str(), why.reason.as_str()),
            ("UNAVAILABLE", "CONFIGURATION_UNUSABLE")
        );
        reason(&why.message);
        assert_eq!(daemon.grpc().health(name), "NOT_SERVING");
    }
    assert_eq!(daemon.grpc().health(""), "NOT_SERVING");
    for path in [
        "/v1/profiles/it/token",
        "/v1/profiles",
        "/readyz",
        "/v1/status?profile=it",
    ] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 503, "{path}");
        reason(answer.text("message"));
        assert!(answer.header("retry-after").is_some(), "{path}");
    }
    assert!(
        daemon.get("/v1/status").body["refused"]
            .to_string()
            .contains("nonsense")
    );
    assert!(daemon.page("/metrics").contains("tokend_config_refused 1"));
    assert_eq!(daemon.place.run(&["token", "it"]).code, Some(4));
    assert_eq!(daemon.place.run(&["reload"]).code, Some(1));
    assert_eq!(daemon.place.run(&["status"]).code, Some(0));
    let messages = manager.messages();
    let ready = messages.iter().find(|message| message.contains("READY=1"));
    reason(ready.expect("nobody starts it again"));
    eventually(PATIENCE, || {
        let messages = manager.messages();
        messages
            .iter()
            .any(|message| message.contains("WATCHDOG=1"))
            .then_some(())
    });
    assert_eq!(daemon.log().matches("unknown key `nonsense`").count(), 1);

    // If the file is broken in another way, the daemon reports that. If it is repaired, the same
    // process serves what the file defines.
    place_of(&daemon, "[server\n");
    eventually(PATIENCE, || {
        (!last_status(&manager).contains("nonsense")).then_some(())
    });
    repair(&daemon.place, &good);
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    assert_eq!(daemon.pid(), pid);
    let status = daemon.get("/v1/status").body.to_string();
    assert!(
        status.contains("1234") && !status.contains("restarted"),
        "{status}"
    );
    assert_eq!(daemon.grpc().health(""), "SERVING");
    assert_eq!(daemon.place.run(&["reload"]).code, Some(0));
    eventually(PATIENCE, || {
        last_status(&manager).starts_with("serving").then_some(())
    });
    assert_eq!(daemon.stop(), Some(0));
}

fn place_of(daemon: &Daemon, text: &str) {
    daemon.place.write("tokend.toml", text);
}

/// The daemon ends when it is told to stop. A reload succeeds if it finds the files repaired.
#[test]
fn a_daemon_without_a_configuration_obeys() {
    let (_issuer, place, config) = stage(3600, LAZY);
    fs::remove_file(place.path("tokend.toml")).expect("removed");
    let manager = Manager::new(&place);
    let mut daemon = manager.start(place);
    let why = daemon.grpc().token("it").err().expect("nothing is served");
    assert!(why.message.contains("cannot read"), "{why:?}");
    assert_eq!(daemon.stop(), Some(0));
    let daemon = manager.start(daemon.into_place());
    repair(&daemon.place, &audited(&config));
    let reload = daemon.place.run(&["reload"]);
    assert_eq!(reload.code, Some(0), "{reload:?}");
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    let mode = fs::metadata(daemon.socket())
        .expect("there")
        .permissions()
        .mode();
    assert_ne!(mode, 0, "the socket is the service manager's, and stays");
}

/// Broken by a reload that does not look up the group: the next start could not make its socket.
#[test]
fn what_a_start_could_not_use_is_not_taken_over() {
    let good = audited("[profiles.it]\nmethod = \"none\"\n");
    let place = Place::new();
    let daemon = place.serve(&good);
    let group = "[server]\nsocket_group = \"no-group-of-this-host\"\n";
    daemon.place.write("tokend.toml", &format!("{group}{good}"));
    let reload = daemon.place.run(&["reload"]);
    assert_eq!(reload.code, Some(1), "{reload:?}");
    assert!(reload.out.contains("does not know the group"), "{reload:?}");
    repair(&daemon.place, &good);
    assert_eq!(daemon.place.run(&["reload"]).code, Some(0));
}
