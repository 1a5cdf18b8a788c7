//! Changes that no file event reports. The daemon finds them by polling, and at once when it is
//! told to look.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{Daemon, PATIENCE, Place, eventually, has, say_skipped};

const BASIC: &str =
    "[profiles.a]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"password\" }\n";

/// A daemon with `BASIC` in a user namespace of its own. Before it starts, root of that namespace
/// runs `before` with these paths. None where the kernel does not allow that.
fn inside(place: Place, namespaces: &[&str], before: &str, paths: &[&Path]) -> Option<Daemon> {
    if !has("unshare") {
        return None;
    }
    place.write("tokend.toml", BASIC);
    let serve = place.tokend(&["serve"]);
    let shell = |command: &str| {
        let mut shell = Command::new("unshare");
        shell.args(["--user", "--map-root-user"]).args(namespaces);
        shell.args(["sh", "-c", &format!("{before} && {command}")]);
        // The program is the `$0` of the shell.
        shell.arg(serve.get_program()).args(paths);
        shell
    };
    if !shell("true").status().is_ok_and(|status| status.success()) {
        say_skipped(&format!(
            "this kernel lets nobody do this in a user namespace: {before}"
        ));
        return None;
    }
    let mut command = shell("exec \"$0\" serve");
    for (name, value) in serve.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Some(Daemon::start_by(place, command))
}

/// A daemon whose file is a mount of another file. A write to the other file causes no event, and
/// nothing reports that.
fn behind_a_mount() -> Option<Daemon> {
    let place = Place::new();
    place.secret("password", "what-is-mounted-over");
    place.secret("elsewhere/password", "first-password");
    let (from, to) = (place.path("elsewhere/password"), place.path("password"));
    inside(
        place,
        &["--mount"],
        "mount --bind \"$1\" \"$2\"",
        &[&from, &to],
    )
}

/// Writes another password to `file`, runs `then`, and waits until the daemon serves the password.
/// Returns how long that took.
fn until_served(daemon: &Daemon, file: &str, within: Duration, then: impl FnOnce()) -> Duration {
    let fingerprint = || {
        let token = daemon.grpc().token("a").expect("served all the time");
        token.credential.fingerprint
    };
    let before = fingerprint();
    daemon.place.secret(file, "second-password");
    let since = Instant::now();
    then();
    eventually(within, || (fingerprint() != before).then_some(()));
    since.elapsed()
}

/// Broken by a daemon that relies on events, and by one that polls no more often without them.
#[test]
fn trap_8_where_there_are_no_events_changes_are_found_all_the_same() {
    let place = Place::new();
    place.secret("password", "first-password");
    let nobody_watches = "echo 0 >/proc/sys/user/max_inotify_watches";
    let Some(daemon) = inside(place, &[], nobody_watches, &[]) else {
        return;
    };
    let said = daemon.get("/v1/status").body["warnings"].to_string();
    assert!(said.contains("no file events"), "{said}");
    until_served(&daemon, "password", PATIENCE, || {});
}

/// Broken by a poll that is missing or late.
#[test]
fn trap_8_a_change_behind_a_bind_mount_is_found_within_65_seconds() {
    let Some(daemon) = behind_a_mount() else {
        return;
    };
    let took = until_served(
        &daemon,
        "elsewhere/password",
        Duration::from_secs(65),
        || {},
    );
    println!("found after {took:.1?}");
}

/// The daemon would look by itself only much later. Broken by a daemon that ignores SIGHUP.
#[test]
fn sighup_reloads_at_once() {
    let Some(daemon) = behind_a_mount() else {
        return;
    };
    until_served(&daemon, "elsewhere/password", PATIENCE, || {
        daemon.signal(rustix::process::Signal::HUP);
    });
}

/// The daemon would look by itself only much later. Broken by a reload that answers without
/// looking.
#[test]
fn a_reload_takes_over_what_nobody_has_noticed() {
    let Some(daemon) = behind_a_mount() else {
        return;
    };
    until_served(&daemon, "elsewhere/password", PATIENCE, || {
        let ran = daemon.place.run(&["reload"]);
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "a: changed\n"));
    });
}
