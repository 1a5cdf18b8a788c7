//! The socket as a file: the daemon makes it as configured, never takes it from another daemon, and
//! leaves nothing behind.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;

use rustix::process::Signal;

use crate::harness::{Daemon, PATIENCE, Place, eventually, exists, is_root, run};

const CONFIG: &str = "[profiles.p]\nmethod = \"none\"\n";

#[test]
fn mode_and_group_are_as_configured() {
    let group = if rustix::process::geteuid().is_root() {
        65010
    } else {
        rustix::process::getegid().as_raw()
    };
    for (mode, text) in [(0o660, "0660"), (0o600, "0600"), (0o666, "0666")] {
        let server = format!("[server]\nsocket_mode = \"{text}\"\nsocket_group = {group}\n");
        let mut daemon = Daemon::start(&(server + CONFIG));
        let found = fs::symlink_metadata(daemon.socket()).expect("there");
        assert_eq!((found.mode() & 0o7777, found.gid()), (mode, group));
        assert_eq!(daemon.stop(), Some(0));
        assert!(!exists(&daemon.socket()), "removed at SIGTERM");
        let left = fs::read_dir(daemon.place.path("")).expect("folder").count();
        assert_eq!(
            left, 2,
            "nothing but the configuration and the record is left"
        );
    }
}

/// Trap 22: each setting of the socket counts by itself, whatever else is set.
#[test]
fn trap_22_each_setting_of_the_socket_counts_alone() {
    if !is_root() {
        return;
    }
    let own = rustix::process::getegid().as_raw();
    for (settings, mode, group) in [
        ("", 0o660, own),
        ("socket_mode = \"0600\"\n", 0o600, own),
        ("socket_group = 65010\n", 0o660, 65010),
        (
            "socket_group = 65010\nsocket_mode = \"0666\"\n",
            0o666,
            65010,
        ),
    ] {
        let daemon = Daemon::start(&format!("[server]\n{settings}{CONFIG}"));
        let found = fs::symlink_metadata(daemon.socket()).expect("there");
        assert_eq!(
            (found.mode() & 0o7777, found.gid()),
            (mode, group),
            "{settings:?}"
        );
    }
}

#[test]
fn the_environment_wins_over_the_file() {
    let place = Place::new();
    let elsewhere = place.path("elsewhere.sock");
    let server = format!("[server]\nsocket = \"{}\"\n", elsewhere.display());
    let mut daemon = place.serve(&(server + CONFIG));
    assert!(!exists(&elsewhere), "TOKEND_SOCKET names another");
    assert_eq!(daemon.stop(), Some(0));
}

#[test]
fn a_second_daemon_is_told_who_has_the_socket() {
    let daemon = Daemon::start(CONFIG);
    let second = daemon.place.run(&["serve"]);
    assert_eq!(second.code, Some(1), "{}", second.err);
    assert!(
        second.err.contains(&format!("pid {}", daemon.pid())),
        "{}",
        second.err
    );
    assert_eq!(daemon.get("/healthz").status, 200);
}

#[test]
fn what_a_killed_daemon_left_behind_is_replaced() {
    let Daemons { killed, next } = killed_and_next();
    assert_eq!(next.get("/healthz").status, 200);
    assert_ne!(killed, next.pid());
}

struct Daemons {
    killed: u32,
    next: Daemon,
}

fn killed_and_next() -> Daemons {
    let place = Place::new();
    place.write("tokend.toml", CONFIG);
    let mut first = place.tokend(&["serve"]);
    let mut first = first
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("started");
    crate::harness::eventually(crate::harness::PATIENCE, || {
        crate::harness::ask::is_up(&place.socket()).then_some(())
    });
    first.kill().expect("killed");
    first.wait().expect("gone");
    assert!(exists(&place.socket()), "SIGKILL leaves the file");
    let client = place.run(&["token", "p"]);
    assert_eq!(client.code, Some(6));
    assert!(client.err.contains("start the daemon"), "{}", client.err);
    Daemons {
        killed: first.id(),
        next: Daemon::start_in(place),
    }
}

#[test]
fn a_socket_that_another_took_over_is_not_removed() {
    let mut daemon = Daemon::start(CONFIG);
    fs::remove_file(daemon.socket()).expect("removed");
    let _other = UnixListener::bind(daemon.socket()).expect("bound");
    assert_eq!(daemon.stop(), Some(0));
    assert!(exists(&daemon.socket()));
}

#[test]
fn sigint_is_as_good_as_sigterm_and_a_second_one_does_not_wait() {
    let mut daemon = Daemon::start(CONFIG);
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended(), Some(0));
    assert!(!exists(&daemon.socket()));
}

#[test]
fn a_place_that_cannot_be_trusted_is_refused_with_its_cure() {
    let place = Place::new();
    place.write("tokend.toml", CONFIG);
    fs::create_dir(place.path("run")).expect("folder");
    place.mode("run", 0o777);
    let socket = place.path("run/t.sock");
    let ran = run(place.tokend(&["serve"]).env("TOKEND_SOCKET", &socket));
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    let cure = format!("chmod go-w {}", place.path("run").display());
    assert!(ran.err.contains(&cure), "{}", ran.err);
    assert!(!exists(&socket));

    place.mode("run", 0o755);
    fs::write(&socket, "precious").expect("written");
    let ran = run(place.tokend(&["serve"]).env("TOKEND_SOCKET", &socket));
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("not a socket"), "{}", ran.err);
    assert_eq!(fs::read_to_string(&socket).expect("there"), "precious");

    let long = place.path(&"x".repeat(120));
    let ran = run(place.tokend(&["serve"]).env("TOKEND_SOCKET", long));
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("107"), "{}", ran.err);

    let group = "[server]\nsocket_group = \"no-such-group-here\"\n";
    place.write("tokend.toml", &(group.to_owned() + CONFIG));
    let ran = place.run(&["serve"]);
    assert_eq!(ran.code, Some(78), "{}", ran.err);
    assert!(ran.err.contains("no-such-group-here"), "{}", ran.err);
}

/// Broken by a daemon that never checks the name of its socket again: it would serve a socket that
/// no caller finds.
#[test]
fn a_socket_that_somebody_removed_is_made_again() {
    let daemon = Daemon::start(CONFIG);
    let before = daemon.grpc();
    let mode = || {
        fs::symlink_metadata(daemon.socket())
            .map(|found| found.mode() & 0o7777)
            .ok()
    };
    let was = mode();
    fs::remove_file(daemon.socket()).expect("removed");
    eventually(PATIENCE, || {
        crate::harness::ask::is_up(&daemon.socket()).then_some(())
    });
    assert_eq!(mode(), was);
    assert!(daemon.grpc().token("p").is_ok());
    assert!(before.token("p").is_ok(), "an open connection lives on");
    let said = "somebody had removed the socket";
    eventually(PATIENCE, || daemon.log().contains(said).then_some(()));
}

/// The daemon leaves a foreign socket alone, and reports it in the log and in the status. Broken by
/// a `look` that takes everything for missing.
/// everything for missing.
#[test]
fn a_socket_that_somebody_replaced_is_reported_and_made_again_when_the_name_is_free() {
    let mut daemon = Daemon::start(CONFIG);
    let inside = daemon.grpc();
    let status = |inside: &crate::harness::ask::Grpc| {
        let mut client =
            tokend::proto::admin_service_client::AdminServiceClient::new(inside.channel.clone());
        let request = tokend::proto::GetStatusRequest::default();
        let answer = crate::harness::block(async move { client.get_status(request).await });
        answer.expect("a status").into_inner().warnings
    };
    let elsewhere = daemon.place.path("other.sock");
    let other = UnixListener::bind(&elsewhere).expect("bound");
    fs::rename(&elsewhere, daemon.socket()).expect("in its place");
    eventually(PATIENCE, || {
        daemon
            .log()
            .contains("not this daemon's socket")
            .then_some(())
    });
    eventually(PATIENCE, || {
        status(&inside)
            .iter()
            .any(|line| line.contains("not this daemon's socket"))
            .then_some(())
    });
    drop(other);
    fs::remove_file(daemon.socket()).expect("the other's");
    eventually(PATIENCE, || {
        crate::harness::ask::is_up(&daemon.socket()).then_some(())
    });
    eventually(PATIENCE, || status(&inside).is_empty().then_some(()));
    assert_eq!(daemon.stop(), Some(0));
    assert!(!exists(&daemon.socket()), "the new one is removed too");
}
