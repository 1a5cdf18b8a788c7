//! Which other users can read a secret. The tools report it if another user can, and refuse the
//! secret if a user who may connect to the socket can.

use std::os::unix::fs::chown;

use crate::harness::{Daemon, PATIENCE, Place, eventually, is_root, run};

const TOKEN: &str = "a-token-that-is-there";

/// The group of the socket. No user of this machine is in it, as with a group that units get by
/// `SupplementaryGroups=`.
const CLIENTS: u32 = 65_010;

/// A group that is in every database; it is the primary group of the user `daemon`.
const DAEMON: u32 = 1;

const PROFILE: &str = "[profiles.p]\nmethod = \"static\"\ntoken = { file = \"token\" }\n";
const OTHER: &str = "[profiles.other]\nmethod = \"none\"\n";

/// A folder that every user can enter, with a secret in it.
fn place() -> Place {
    let place = Place::new();
    place.open();
    place.secret("token", TOKEN);
    place
}

fn with_group(config: &str) -> String {
    format!("[server]\nsocket_group = {CLIENTS}\n{config}")
}

fn give(place: &Place, name: &str, group: u32, mode: u32) {
    chown(place.path(name), Some(0), Some(group)).expect("chown");
    place.mode(name, mode);
}

fn status(daemon: &Daemon) -> String {
    daemon.place.run(&["status", "p"]).out
}

/// Broken by taking a group for private, and by a check of only its listed members.
#[test]
fn who_is_in_the_group_of_a_secret_is_named_by_check_doctor_and_start() {
    if !is_root() {
        return;
    }
    let place = place();
    give(&place, "token", DAEMON, 0o640);
    place.write("tokend.toml", PROFILE);
    let told = "can be read by daemon (by the group daemon)";
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(
        ran.out.contains("1 warning") && ran.out.contains(told),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("chmod 600"), "{}", ran.out);
    let daemon = place.serve(PROFILE);
    assert!(daemon.grpc().token("p").is_ok());
    eventually(PATIENCE, || daemon.log().contains(told).then_some(()));
    assert!(status(&daemon).contains(told), "{}", status(&daemon));
    let ran = run(&mut daemon.place.tokend(&["doctor", "--offline"]));
    assert!(ran.out.contains(told), "{}", ran.out);
    // A group without other members changes nothing.
    give(&daemon.place, "token", 0, 0o640);
    let ran = daemon.place.run(&["check"]);
    assert!(ran.out.contains("0 warnings"), "{}", ran.out);
    // Any user may be in a group that this machine does not know.
    give(&daemon.place, "token", CLIENTS, 0o640);
    let ran = daemon.place.run(&["check"]);
    assert!(
        ran.out
            .contains("the group 65010, whose members are not known"),
        "{}",
        ran.out
    );
    // A folder that no other user can enter protects the files in it.
    daemon.place.mode("", 0o700);
    let ran = daemon.place.run(&["check"]);
    assert!(ran.out.contains("0 warnings"), "{}", ran.out);
}

/// Broken by a mere warning: a user that may ask for a token could take the secret itself.
#[test]
fn a_secret_that_the_sockets_group_can_read_is_refused_and_the_rest_is_served() {
    if !is_root() {
        return;
    }
    let place = place();
    let config = with_group(PROFILE) + OTHER;
    place.write("tokend.toml", &config);
    let told = "can be read by the group 65010, and so by whoever may connect to the socket";
    give(&place, "token", CLIENTS, 0o640);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(
        ran.out.contains(told) && ran.out.contains("1 error"),
        "{}",
        ran.out
    );
    let daemon = place.serve(&config);
    let why = daemon.grpc().token("p").err().expect("refused");
    assert_eq!(why.reason, "PROFILE_INVALID");
    assert!(why.message.contains(told), "{}", why.message);
    assert!(daemon.grpc().token("other").is_ok());
    let ran = run(&mut daemon.place.tokend(&["doctor", "--offline"]));
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains(told), "{}", ran.out);
    // If every user can read the file, those who may connect can, too.
    give(&daemon.place, "token", 0, 0o644);
    let ran = daemon.place.run(&["check"]);
    assert!(
        ran.out
            .contains("by everybody on this machine, and so by whoever may connect"),
        "{}",
        ran.out
    );
    give(&daemon.place, "token", 0, 0o400);
    assert_eq!(daemon.place.run(&["check"]).code, Some(0));
    assert_eq!(daemon.place.run(&["reload"]).code, Some(0));
    assert!(daemon.grpc().token("p").is_ok());
    // In a running daemon this is no reason to fail callers, but a reason to report it.
    give(&daemon.place, "token", CLIENTS, 0o440);
    let ran = daemon.place.run(&["reload"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains(told), "{}", ran.out);
    assert!(daemon.grpc().token("p").is_ok());
    assert!(status(&daemon).contains(told), "{}", status(&daemon));
}

/// Broken by taking the daemon's own group for private whoever is in it.
#[test]
fn a_literal_secret_is_refused_in_a_file_that_members_of_its_group_can_read() {
    if !is_root() {
        return;
    }
    let place = place();
    let literal = format!("[profiles.p]\nmethod = \"static\"\ntoken = \"{TOKEN}\"\n");
    let code_of = |config: &str, group, mode| {
        place.write("tokend.toml", config);
        give(&place, "tokend.toml", group, mode);
        let ran = place.run(&["check"]);
        place.secrets.assert_none_in(&ran.out, "tokend check");
        (ran.code, ran.out)
    };
    assert_eq!(code_of(&literal, 0, 0o640).0, Some(0), "nobody else's");
    let (code, said) = code_of(&literal, DAEMON, 0o640);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("it can be read by daemon (by the group daemon)"),
        "{said}"
    );
    let (code, said) = code_of(&with_group(&literal), CLIENTS, 0o640);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("by whoever may connect to the socket"),
        "{said}"
    );
    let mut own = self::place();
    own.give_to(DAEMON);
    own.write("tokend.toml", &literal);
    own.mode("tokend.toml", 0o640);
    let ran = own.run(&["check"]);
    assert_eq!(ran.code, Some(0), "its own group: {}", ran.out);
}

/// Root checks for the user who will read the files, and not for itself.
#[test]
fn root_checks_for_the_user_of_the_sockets_folder() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.open();
    place.give_to(65_001);
    place.secret("token", TOKEN);
    place.mode("token", 0o400);
    place.write("tokend.toml", PROFILE);
    let ran = run(&mut place.tokend_as(None, &["check"]));
    assert!(ran.out.contains("0 warnings"), "{}", ran.out);
    chown(place.path("token"), Some(65_002), None).expect("chown");
    let ran = run(&mut place.tokend_as(None, &["check"]));
    assert!(ran.out.contains("permission denied"), "{}", ran.out);
    place.mode("token", 0o404);
    let ran = run(&mut place.tokend_as(None, &["check"]));
    assert!(ran.out.contains("can be read by everybody"), "{}", ran.out);
    assert!(ran.out.contains("chown 65001:root"), "{}", ran.out);
}
