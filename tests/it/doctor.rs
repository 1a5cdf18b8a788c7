//! `tokend doctor` through the executable. Each test makes one thing wrong; the doctor must report
//! it with its cure, and nothing else.

mod providers;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;

use serde_json::Value;
use tokend_issuer::certificates::Authority;
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::clock::WallClock;
use tokend_issuer::{Issuer, IssuerTls, Settings};

use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, Ran, eventually, is_root, run};

const DISCOVERY: &str = "/.well-known/openid-configuration";

const PLAIN: &str = "[profiles.p]\nmethod = \"none\"\n";

/// Runs the doctor as this test's user, whichever user runs the daemon. Checks the promises that
/// hold for every answer.
fn doctor(place: &Place, arguments: &[&str]) -> Ran {
    let ran = run(&mut place.tokend_as(None, &[&["doctor"][..], arguments].concat()));
    place.secrets.assert_none_in(&ran.out, "tokend doctor");
    place.secrets.assert_none_in(&ran.err, "standard error");
    assert!(!ran.err.contains("panicked"), "{}", ran.err);
    ran
}

/// All findings, each as `severity: message; help`.
fn findings(place: &Place, arguments: &[&str]) -> Vec<String> {
    let ran = doctor(place, &[&["--json"][..], arguments].concat());
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    assert_eq!(
        ran.code,
        Some(i32::from(!findings.is_empty())),
        "{}",
        ran.out
    );
    findings
        .iter()
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().expect("text").to_owned();
            for key in ["line", "column"] {
                assert!(finding[key].is_u64(), "{finding}");
            }
            for key in ["path", "file"] {
                text(key);
            }
            // A finding with a place in a file may say everything in one line. Every other finding
            // has its cure apart.
            assert!(
                !text("help").is_empty() || finding["line"] != 0,
                "no cure: {finding}"
            );
            format!(
                "{}: {}; {}",
                text("severity"),
                text("message"),
                text("help")
            )
        })
        .collect()
}

/// Fails unless there is exactly one finding, and it contains all of these words.
fn assert_only(found: &[String], parts: &[&str]) {
    let [one] = found else {
        panic!("{found:#?}");
    };
    for part in parts {
        assert!(one.contains(part), "{part:?} is missing: {one}");
    }
}

/// An issuer on TLS. The clock of `authority` decides how old its certificate is.
fn on_tls(authority: &Authority) -> Issuer {
    idp::with(Settings {
        tls: Some(IssuerTls {
            server: authority.server(&["localhost"]).expect("certificate"),
            client_roots: vec![authority.certificate_pem().to_owned()],
        }),
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        ..Settings::default()
    })
}

fn trusting(issuer: &Issuer) -> String {
    idp::idp(issuer) + "tls = { ca = \"ca.pem\" }\n"
}

/// Broken by a check with a false alarm, such as one that wants a million descriptors. The doctor
/// also reports what is well, so that the reader can believe it.
#[test]
fn a_healthy_daemon_gives_no_finding_and_every_check_a_line() {
    let authority = Authority::new("ca", &WallClock::system()).expect("authority");
    let issuer = on_tls(&authority);
    let place = Place::new();
    place.secret("it.secret", SECRET);
    place.write("ca.pem", authority.certificate_pem());
    let daemon = place.serve(&(trusting(&issuer) + &idp::profile("it", "it", "")));
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    let asked = issuer.count("/token");
    let ran = doctor(&daemon.place, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    for line in [
        "ok       configuration: ",
        "ok       daemon: ",
        "ok       socket: ",
        "ok       callers: ",
        "ok       files: ",
        "ok       certificates: the next to end is tls.ca of it, CN=ca",
        "ok       file watching: ",
        "ok       limits: ",
        "ok       identity providers: ",
        "ok       clock: within 0 s",
        "nothing found",
    ] {
        assert!(ran.out.contains(line), "{line:?} is missing:\n{}", ran.out);
    }
    for step in [
        "DNS ",
        "TCP ",
        "TLS ",
        "discovery ",
        "certificate of CN=localhost until",
    ] {
        assert!(ran.out.contains(step), "{step:?} is missing:\n{}", ran.out);
    }
    assert_eq!(findings(&daemon.place, &[]), [""; 0]);
    assert_eq!(issuer.count("/token"), asked, "no token request");
    let connections = issuer.count(DISCOVERY);
    let ran = doctor(&daemon.place, &["--offline"]);
    assert!(ran.out.contains("not looked at: --offline"), "{}", ran.out);
    assert_eq!(issuer.count(DISCOVERY), connections);
}

/// A missing daemon is a finding like others. Broken by leaving it to the other checks.
#[test]
fn no_daemon_and_a_socket_that_was_left_behind_are_told_apart() {
    let place = Place::new();
    place.write("tokend.toml", PLAIN);
    assert_only(
        &findings(&place, &[]),
        &["error: ", "there is no such socket", "start the daemon"],
    );
    drop(UnixListener::bind(place.socket()).expect("bound"));
    place.mode("tokend.sock", 0o660);
    assert_only(
        &findings(&place, &[]),
        &[
            "left behind by a daemon that has ended",
            "it replaces the socket",
        ],
    );
    fs::remove_file(place.socket()).expect("removed");
    fs::write(place.socket(), "").expect("written");
    let found = findings(&place, &[]);
    assert!(
        found.iter().any(|line| line.contains("is not a socket")),
        "{found:#?}"
    );
    let long = format!("/{}", "x".repeat(120));
    let found = findings(&place, &["--socket", &long]);
    assert!(found.iter().any(|line| line.contains("107")), "{found:#?}");
}

/// Broken by a deadline that passes without a check of which side let it pass.
#[test]
fn a_daemon_that_is_stopped_is_not_reachable_for_every_command() {
    let daemon = Place::new().serve(PLAIN);
    let pid = daemon.pid();
    daemon.signal(rustix::process::Signal::STOP);
    let said = format!("the daemon, process {pid}, is stopped (SIGSTOP or a debugger)");
    let cure = format!("`kill -CONT {pid}`");
    for command in [
        &["status", "--timeout", "300ms"][..],
        &["token", "p", "--timeout", "300ms"],
        &["explain", "p", "--timeout", "300ms"],
        &["wait", "p", "--timeout", "300ms"],
        &["watch", "p"],
    ] {
        let ran = daemon.place.run(command);
        assert_eq!(ran.code, Some(6), "{command:?}: {}", ran.err);
        assert!(
            ran.err.contains(&said) && ran.err.contains(&cure),
            "{command:?}: {}",
            ran.err
        );
        assert!(
            !ran.err.contains(&format!("`tokend {}", command[0])),
            "{command:?}: {}",
            ran.err
        );
    }
    let found = findings(&daemon.place, &["--offline", "--timeout", "300ms"]);
    assert!(
        found
            .iter()
            .any(|line| line.contains(&said) && line.contains(&cure)),
        "{found:#?}"
    );
    daemon.signal(rustix::process::Signal::CONT);
    eventually(PATIENCE, || {
        (daemon.place.run(&["status"]).code == Some(0)).then_some(())
    });
}

/// Broken by not checking the folder: the daemon would report it only at its next start.
#[test]
fn a_folder_in_which_others_could_put_their_own_socket_is_an_error() {
    let place = Place::new();
    fs::create_dir(place.path("open")).expect("folder");
    place.secret("open/token", "a-token-in-an-open-folder");
    let daemon =
        place.serve("[profiles.p]\nmethod = \"static\"\ntoken = { file = \"open/token\" }\n");
    let open = daemon.place.path("open");
    daemon.place.mode("open", 0o777);
    let socket = open.join("tokend.sock").display().to_string();
    let found = findings(&daemon.place, &["--socket", &socket]);
    let cure = format!("chmod go-w {}", open.display());
    assert!(
        found
            .iter()
            .any(|line| line.contains("who could put something else") && line.contains(&cure)),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|line| line.contains("can replace files in")),
        "a secret is there too: {found:#?}"
    );
}

#[test]
fn a_socket_that_is_not_as_configured_is_told() {
    let daemon = Daemon::start(PLAIN);
    daemon.place.mode("tokend.sock", 0o666);
    assert_only(
        &findings(&daemon.place, &[]),
        &[
            "warning: ",
            "mode 0666",
            "`socket_mode` says 0660",
            "chmod 0660",
        ],
    );
    daemon.place.mode("tokend.sock", 0o660);
    if !is_root() {
        return;
    }
    chown(daemon.socket(), None, Some(65_010)).expect("chown");
    let group = rustix::process::getegid().as_raw();
    let config = format!("[server]\nsocket_group = {group}\n{PLAIN}");
    daemon.place.write("tokend.toml", &config);
    let found = findings(&daemon.place, &[]);
    assert!(
        found
            .iter()
            .any(|line| line.contains("belongs to group 65010") && line.contains("chgrp")),
        "{found:#?}"
    );
    let config = format!("[server]\nsocket_group = \"no-such-group-here\"\n{PLAIN}");
    daemon.place.write("tokend.toml", &config);
    let found = findings(&daemon.place, &[]);
    assert!(
        found
            .iter()
            .any(|line| line.contains("groupadd --system no-such-group-here")),
        "{found:#?}"
    );
}

/// A very common mistake. Broken by a check of `access` alone.
#[test]
fn whom_access_names_and_the_socket_shuts_out_is_told_which_group_to_join() {
    let place = Place::new();
    place.open();
    let group = rustix::process::getegid().as_raw();
    let daemon = place.serve(&format!("{PLAIN}access = [{{ user = \"nobody\" }}]\n"));
    let found = findings(&daemon.place, &[]);
    assert_only(
        &found,
        &[
            "profiles.p.access permits the user nobody",
            "mode 0660",
            "usermod -aG ",
            " nobody",
            "SupplementaryGroups=",
        ],
    );
    daemon.place.mode("", 0o700);
    let found = findings(&daemon.place, &[]);
    assert_only(&found, &["the user nobody, whom the folder", "chmod o+x"]);
    daemon.place.write(
        "tokend.toml",
        &format!("{PLAIN}access = [{{ group = {group} }}, {{ user = \"ghost-nobody-has\" }}]\n"),
    );
    daemon.place.mode("", 0o755);
    let found = findings(&daemon.place, &[]);
    assert_only(&found, &["ghost-nobody-has", "correct the entry"]);
}

/// Broken by a check with the rights of the user who runs the doctor: root reads everything.
#[test]
fn a_secret_that_the_daemons_user_cannot_read_is_an_error_for_root_too() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.give_to(65_001);
    place.secret("token", "a-token-that-is-there");
    let config = "[profiles.p]\nmethod = \"static\"\ntoken = { file = \"token\" }\n";
    let daemon = place.serve(config);
    assert_eq!(findings(&daemon.place, &[]), [""; 0]);
    chown(daemon.place.path("token"), Some(0), Some(0)).expect("chown");
    let found = findings(&daemon.place, &[]);
    let path = daemon.place.path("token").display().to_string();
    assert!(
        found.iter().any(|line| {
            line.starts_with("error: the daemon's user 65001 cannot read")
                && line.contains(&path)
                && line.contains("chown 65001:root")
        }),
        "{found:#?}"
    );
    chown(daemon.place.path("token"), Some(65_002), Some(65_001)).expect("chown");
    daemon.place.mode("token", 0o646);
    let found = findings(&daemon.place, &[]);
    for part in [
        "belongs to user 65002",
        "can be read by everybody",
        "everybody on this machine can change",
    ] {
        assert!(
            found.iter().any(|line| line.contains(part)),
            "{part}: {found:#?}"
        );
    }
}

#[test]
fn what_the_daemon_says_of_itself_is_told() {
    let (issuer, place, config) = idp::one("");
    place.secret("it.secret", "not-the-registered-one");
    let daemon = place.serve(&config);
    eventually(PATIENCE, || {
        let found = findings(&daemon.place, &["--offline"]);
        found
            .iter()
            .any(|line| {
                line.contains("profile it has no credential (rejected)")
                    && line.contains("invalid_client")
                    && line.contains("repair its secret")
            })
            .then_some(())
    });
    daemon.place.secret("it.secret", SECRET);
    eventually(PATIENCE, || {
        findings(&daemon.place, &["--offline"])
            .is_empty()
            .then_some(())
    });
    daemon
        .place
        .write("tokend.toml", "[server]\nsocket_mod = 1\n");
    eventually(PATIENCE, || {
        let ran = doctor(&daemon.place, &["--offline"]);
        assert_eq!(ran.code, Some(78), "{}", ran.out);
        (ran.out.contains("tokend.toml is not in force")
            && ran.out.contains("did you mean `socket_mode`?"))
        .then_some(())
    });
    drop(issuer);
}

/// Broken by reporting an unusable configuration like any other finding.
#[test]
fn mistakes_on_the_command_line_and_in_the_file_have_their_own_exit_codes() {
    let place = Place::new();
    assert_eq!(doctor(&place, &[]).code, Some(78), "no file");
    assert_eq!(doctor(&place, &["--timeout", "5"]).code, Some(2));
    assert_eq!(doctor(&place, &["--timeout", "0s"]).code, Some(2));
    place.write("tokend.toml", &(PLAIN.to_owned() + "targt = \"x\"\n"));
    let ran = doctor(&place, &[]);
    assert_eq!(
        ran.code,
        Some(1),
        "one profile is not the whole: {}",
        ran.out
    );
    assert!(ran.out.contains("did you mean `target`?"), "{}", ran.out);
}
