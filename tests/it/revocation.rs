//! Revocation always wins. A user whom `access` on disk no longer names is not served, whatever
//! else is wrong with the files, as long as that is on disk. The tests act as several users, so
//! they need root.

use std::fs;
use std::time::Duration;

use tokend::proto::WatchTokenRequest;
use tokend::proto::credential_service_client::CredentialServiceClient;
use tokend_issuer::client::RegisteredClient;

use crate::harness::ask::Who;
use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, block, eventually, is_root};

const KEPT: u32 = 65001;
const REVOKED: u32 = 65002;
const SERVER: &str = "[server]\nsocket_mode = \"0666\"\n";
const BOTH: &str = "[{ user = 65001 }, { user = 65002 }]";
const ONE: &str = "[{ user = 65001 }]";

fn profile(access: &str, more: &str) -> String {
    format!(
        "[profiles.p]\nmethod = \"basic\"\nusername = \"u\"\npassword = {{ file = \"../password\" }}\naccess = {access}\n{more}"
    )
}

/// A daemon with `p` for both users in a file of its own, and `other` beside it.
fn daemon() -> Daemon {
    let place = Place::new();
    place.open();
    place.secret("password", "the-password-of-revocation");
    place.write("profiles.d/p.toml", &profile(BOTH, ""));
    place.serve(SERVER)
}

fn served(daemon: &Daemon, user: u32) -> bool {
    match daemon.grpc_as(Some(&Who::user(user))).token("p") {
        Ok(_) => true,
        Err(why) => {
            assert_eq!(why.code, "NOT_FOUND", "{why:?}");
            false
        }
    }
}

fn reload(daemon: &Daemon) {
    daemon.place.run(&["reload"]);
}

#[track_caller]
fn only_the_kept_one(daemon: &Daemon, what: &str) {
    reload(daemon);
    assert!(!served(daemon, REVOKED), "{what}");
    assert!(served(daemon, KEPT), "{what}");
}

fn says_what_holds(daemon: &Daemon) {
    let status = daemon.get("/v1/status?profile=p").body.to_string();
    assert!(
        status.contains("what its files say of access holds"),
        "{status}"
    );
    let ran = daemon.place.run(&["explain", "p"]);
    assert!(
        ran.out
            .contains("{ user = 65001 }; they do not permit this caller"),
        "{}",
        ran.out
    );
}

#[test]
fn narrowed_access_holds_together_with_any_other_mistake() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let main = crate::harness::audited(SERVER);
    let restore = || {
        daemon
            .place
            .secret("password", "the-password-of-revocation");
        daemon.place.write("tokend.toml", &main);
        let _ = fs::remove_file(daemon.place.path("profiles.d/q.toml"));
        daemon.place.write("profiles.d/p.toml", &profile(BOTH, ""));
        reload(&daemon);
        assert!(
            served(&daemon, REVOKED) && served(&daemon, KEPT),
            "restored"
        );
    };
    let write = |text: &str| daemon.place.write("profiles.d/p.toml", text);

    fs::remove_file(daemon.place.path("password")).expect("removed");
    write(&profile(ONE, ""));
    only_the_kept_one(&daemon, "a missing secret");
    // The revocation holds as long as it is on disk, and no longer.
    write(&profile(BOTH, ""));
    reload(&daemon);
    assert!(served(&daemon, REVOKED), "permitted again");

    for (what, more) in [
        ("an unknown key", "unknown = 1\n"),
        ("a typo in the profile", "target = \"\n"),
        ("a typo in another profile", "[profiles.q]\nmethod = none\n"),
        ("a text without end", "[profiles.q]\ntarget = \"\"\"\n"),
        ("a table for the other file", "[server]\n"),
    ] {
        restore();
        write(&profile(ONE, more));
        only_the_kept_one(&daemon, what);
    }
    restore();
    write(&format!(
        "[profiles.q]\ntarget = \"\"\"\n{}",
        profile(ONE, "")
    ));
    only_the_kept_one(&daemon, "a text without end before it");
    restore();
    write(&profile(ONE, ""));
    daemon.place.write(
        "tokend.toml",
        &(main.clone() + "[server.limits]\nunknown = 1\n"),
    );
    only_the_kept_one(&daemon, "a mistake in [server]");
    says_what_holds(&daemon);
    daemon
        .place
        .write("tokend.toml", &(main.clone() + "[server\n"));
    only_the_kept_one(&daemon, "tokend.toml that is not TOML");
    restore();
    write(&profile(ONE, "unknown = 1\n"));
    only_the_kept_one(&daemon, "an unknown key");
    fs::write(daemon.place.path("profiles.d/p.toml"), [0xff]).expect("written");
    only_the_kept_one(&daemon, "and then a file that is no text");
    restore();
    let latin = [&b"# f\xfcr\n"[..], profile(ONE, "").as_bytes()].concat();
    fs::write(daemon.place.path("profiles.d/p.toml"), latin).expect("written");
    only_the_kept_one(&daemon, "a byte that is not UTF-8");
    restore();
    write(&profile(BOTH, ""));
    daemon.place.write("profiles.d/q.toml", &profile(ONE, ""));
    only_the_kept_one(&daemon, "moved to another file by a copy");
}

#[test]
fn access_that_cannot_be_read_or_is_gone_is_nobodys_but_roots() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.give_to(KEPT);
    place.open();
    place.secret("password", "the-password-of-revocation");
    let all = "[{ user = 0 }, { user = 65001 }, { user = 65002 }]";
    place.write("profiles.d/p.toml", &profile(all, ""));
    let daemon = place.serve(SERVER);
    let main = crate::harness::audited(SERVER);
    for (what, text) in [
        ("another kind", profile("\"worker\"", "")),
        ("nothing that can be read", profile("[{ usr = 1 }]", "")),
        ("half a list", profile("[{ user = 65001 }, {", "")),
        (
            "a misspelled key",
            profile(all, "").replace("access", "acess"),
        ),
    ] {
        daemon.place.write("profiles.d/p.toml", &profile(all, ""));
        reload(&daemon);
        assert!(served(&daemon, 0) && served(&daemon, KEPT) && served(&daemon, REVOKED));
        daemon.place.write("profiles.d/p.toml", &text);
        reload(&daemon);
        assert!(served(&daemon, 0) && !served(&daemon, REVOKED), "{what}");
        // The daemon's own user is not served either, unless the default applies.
        assert_eq!(served(&daemon, KEPT), what == "a misspelled key", "{what}");
    }
    // The same edit removes the profile and breaks another part.
    daemon.place.write("profiles.d/p.toml", &profile(all, ""));
    reload(&daemon);
    assert!(served(&daemon, REVOKED));
    daemon
        .place
        .write("tokend.toml", &(main + "[server.limits]\nunknown = 1\n"));
    fs::remove_file(daemon.place.path("profiles.d/p.toml")).expect("removed");
    reload(&daemon);
    assert!(served(&daemon, 0) && !served(&daemon, REVOKED) && !served(&daemon, KEPT));
}

#[test]
fn widened_access_waits_until_it_is_in_force() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    daemon.place.write("profiles.d/p.toml", &profile(ONE, ""));
    reload(&daemon);
    daemon
        .place
        .write("profiles.d/p.toml", &profile(BOTH, "unknown = 1\n"));
    only_the_kept_one(&daemon, "widened with a mistake");
    daemon.place.write("profiles.d/p.toml", &profile(BOTH, ""));
    reload(&daemon);
    assert!(served(&daemon, REVOKED));
}

/// Broken when the secret's file vanished: the daemon served the revoked caller again.
#[test]
fn narrowed_access_outlives_a_rejected_secret_and_the_loss_of_its_file() {
    if !is_root() {
        return;
    }
    let issuer = idp::issuer(vec![RegisteredClient::with_secret("p", SECRET)]);
    let place = Place::new();
    place.open();
    place.secret("p.secret", SECRET);
    let config = |access: &str| {
        SERVER.to_owned()
            + &idp::idp(&issuer)
            + &idp::profile("p", "p", &format!("access = {access}"))
    };
    let daemon = place.serve(&config(BOTH));
    eventually(PATIENCE, || served(&daemon, REVOKED).then_some(()));
    daemon.place.secret("p.secret", "a-wrong-secret");
    daemon
        .place
        .write("tokend.toml", &crate::harness::audited(&config(ONE)));
    only_the_kept_one(&daemon, "a rejected secret");
    fs::remove_file(daemon.place.path("p.secret")).expect("removed");
    only_the_kept_one(&daemon, "and then its file is gone");
    daemon.place.secret("p.secret", SECRET);
    only_the_kept_one(&daemon, "in force");
}

#[test]
fn an_open_stream_of_a_revoked_caller_ends_although_the_rest_is_not_in_force() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let watch = |user| {
        let grpc = daemon.grpc_as(Some(&Who::user(user)));
        let mut client = CredentialServiceClient::new(grpc.channel);
        let request = WatchTokenRequest {
            profile: "p".into(),
            ..WatchTokenRequest::default()
        };
        let mut stream = block(client.watch_token(request))
            .expect("watched")
            .into_inner();
        block(stream.message())
            .expect("permitted")
            .expect("a credential");
        stream
    };
    let (mut kept, mut revoked) = (watch(KEPT), watch(REVOKED));
    let broken = crate::harness::audited(SERVER) + "[server.limits]\nunknown = 1\n";
    daemon.place.write("tokend.toml", &broken);
    daemon.place.write("profiles.d/p.toml", &profile(ONE, ""));
    let ended = block(revoked.message()).expect_err("it ends");
    assert_eq!(ended.code(), tonic::Code::NotFound);
    let more =
        block(async { tokio::time::timeout(Duration::from_millis(100), kept.message()).await });
    assert!(more.is_err(), "nothing has changed for the other: {more:?}");
}
