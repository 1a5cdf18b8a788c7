//! Trap 35: administrators can ask for the result of a reload, profile by profile. It is repeated
//! until the files have been repaired.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::faults::{Fault, Target, Times};
use tokend_issuer::{Issuer, Settings};

use crate::harness::ask::{self, Who};
use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually, is_root};

/// Runs `tokend reload --json`; returns the exit code and the report.
fn reload(daemon: &Daemon) -> (Option<i32>, Value) {
    let ran = daemon.place.run(&["reload", "--json"]);
    let report = serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("no report: {ran:?}"));
    (ran.code, report)
}

fn of<'a>(report: &'a Value, profile: &str) -> &'a Value {
    report["profiles"]
        .as_array()
        .expect("profiles")
        .iter()
        .find(|line| line["profile"] == profile)
        .unwrap_or_else(|| panic!("nothing of {profile}: {report}"))
}

/// Every profile as `name=outcome`. The daemon may have noticed a change by itself before it was
/// told to look, so new and old are alike here once they are in force.
fn outcomes(report: &Value) -> Vec<String> {
    report["profiles"]
        .as_array()
        .expect("profiles")
        .iter()
        .filter_map(|line| {
            let outcome = match line["outcome"].as_str().expect("text") {
                "removed" => return None,
                "added" | "changed" | "unchanged" => "served",
                other => other,
            };
            Some(format!(
                "{}={outcome}",
                line["profile"].as_str().expect("text")
            ))
        })
        .collect()
}

/// The last change of a profile in the status.
fn in_status(daemon: &Daemon, profile: &str) -> Value {
    let status = daemon.get("/v1/status").body;
    let lines = status["profiles"].as_array().expect("profiles");
    let line = lines.iter().find(|line| line["name"] == profile);
    line.unwrap_or_else(|| panic!("nothing of {profile}: {status}"))["reload"].clone()
}

/// Two clients with a profile for each, and one profile that asks no provider.
fn three() -> (Issuer, Place, String) {
    let issuer = idp::with(Settings {
        clients: vec![
            RegisteredClient::with_secret("one", SECRET),
            RegisteredClient::with_secret("two", SECRET),
        ],
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("one.secret", SECRET);
    place.secret("two.secret", SECRET);
    place.secret("password", "first-password");
    let config = idp::idp(&issuer)
        + &idp::profile("one", "one", "")
        + &idp::profile("two", "two", "")
        + "\n[profiles.basic]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"password\" }\n";
    (issuer, place, config)
}

/// Waits until both profiles have their first credential.
fn served(daemon: &Daemon) {
    for profile in ["one", "two", "basic"] {
        eventually(PATIENCE, || daemon.grpc().token(profile).ok());
    }
}

#[test]
fn trap_35_every_profile_is_told_what_became_of_it() {
    let (issuer, place, config) = three();
    let daemon = place.serve(&config);
    served(&daemon);
    let asked = issuer.count("/token");

    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(report["complete"], true);
    for profile in ["basic", "one", "two"] {
        assert_eq!(of(&report, profile)["outcome"], "unchanged");
        assert_eq!(in_status(&daemon, profile)["outcome"], "added");
    }
    assert_eq!(
        issuer.count("/token"),
        asked,
        "unchanged profiles cost nothing"
    );

    // One profile is changed and sound, one is changed and rejected, and one cannot even be read.
    issuer.set_client_secret("one", "the-next-one");
    daemon.place.secret("one.secret", "the-next-one");
    daemon.place.secret("two.secret", "a-wrong-secret");
    fs::remove_file(daemon.place.path("password")).expect("removed");
    let before = daemon.grpc().token("one").expect("served").credential;
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["complete"], false);
    assert_eq!(
        outcomes(&report),
        ["basic=kept", "one=served", "two=rejected"]
    );
    assert_eq!(in_status(&daemon, "one")["outcome"], "changed");
    assert!(
        of(&report, "basic")["message"]
            .as_str()
            .expect("why")
            .contains("password")
    );
    assert!(
        of(&report, "two")["message"]
            .as_str()
            .expect("why")
            .contains("invalid_client")
    );
    let since = of(&report, "two")["since"].clone();
    // The result holds at once, and all profiles are still served.
    let after = daemon.grpc().token("one").expect("served").credential;
    assert_ne!(after.fingerprint, before.fingerprint);
    served(&daemon);

    // The result is not forgotten: status has it, and the next reload reports it again with the
    // same start time.
    let two = in_status(&daemon, "two");
    assert_eq!(
        (&two["outcome"], &two["since"]),
        (&"rejected".into(), &since)
    );
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(1));
    assert_eq!(
        outcomes(&report),
        ["basic=kept", "one=served", "two=rejected"]
    );
    assert_eq!(of(&report, "two")["since"], since);

    // The profile is repaired. This time the test reads the report as text.
    daemon.place.secret("two.secret", SECRET);
    daemon.place.secret("password", "second-password");
    let ran = daemon.place.run(&["reload"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("unchanged"), "{}", ran.out);
    assert_eq!(in_status(&daemon, "basic")["outcome"], "changed");
}

#[test]
fn a_reload_waits_for_what_it_tries() {
    let (issuer, place, config) = three();
    let daemon = place.serve(&config);
    served(&daemon);
    issuer.script_for(
        Target::Client("one".into()),
        Fault::SlowHeaders(Duration::from_millis(600)),
        Times::Next(1),
    );
    issuer.set_client_secret("one", "the-next-one");
    daemon.place.secret("one.secret", "the-next-one");
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(in_status(&daemon, "one")["outcome"], "changed");
}

#[test]
fn an_identity_provider_that_is_down_leaves_what_is_new_staged() {
    let (issuer, place, config) = three();
    let daemon = place.serve(&config);
    served(&daemon);
    idp::down(&issuer);
    daemon.place.secret("one.secret", "the-next-one");
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(1));
    assert_eq!(
        outcomes(&report),
        ["basic=served", "one=staged", "two=served"]
    );
    served(&daemon);
    // The new version takes over by itself when it can be tried.
    issuer.set_client_secret("one", "the-next-one");
    idp::up(&issuer);
    eventually(PATIENCE, || {
        let (code, _) = reload(&daemon);
        (code == Some(0)).then_some(())
    });
}

#[test]
fn profiles_of_a_file_that_cannot_be_read_keep_their_last_good_state() {
    let place = Place::new();
    place.write("profiles.d/a.toml", "[profiles.a]\nmethod = \"none\"\n");
    place.write("profiles.d/b.toml", "[profiles.b]\nmethod = \"none\"\n");
    let daemon = place.serve("[profiles.main]\nmethod = \"none\"\n");
    daemon.place.write("profiles.d/a.toml", "[profiles.a\n");
    daemon
        .place
        .write("profiles.d/b.toml", "[profiles.c]\nmethod = \"none\"\n");
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(1));
    assert_eq!(outcomes(&report), ["a=kept", "c=served", "main=served"]);
    let why = of(&report, "a")["message"].as_str().expect("why");
    assert!(why.contains("a.toml:1:"), "{why}");
    daemon.grpc().token("a").expect("kept");
    assert_eq!(
        daemon.grpc().token("b").err().expect("gone").code,
        "NOT_FOUND"
    );
    // A file that is no text names no profile any more. That does not remove its profiles either.
    fs::write(daemon.place.path("profiles.d/a.toml"), [0xff, 0xfe]).expect("written");
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(1));
    assert_eq!(outcomes(&report), ["a=kept", "c=served", "main=served"]);
    let why = of(&report, "a")["message"].as_str().expect("why");
    assert!(why.contains("not UTF-8"), "{why}");
    daemon.grpc().token("a").expect("kept");
    // The removal of a file removes its profiles.
    fs::remove_file(daemon.place.path("profiles.d/a.toml")).expect("removed");
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(outcomes(&report), ["c=served", "main=served"]);
}

#[test]
fn a_refused_tokend_toml_changes_nothing_and_its_reason_can_be_asked() {
    let (_issuer, place, config) = three();
    let daemon = place.serve(&config);
    served(&daemon);
    daemon.place.write(
        "tokend.toml",
        &(config.clone() + "\n[server]\nadmin = []\n"),
    );
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(1));
    let refused = report["refused"].to_string();
    assert!(
        refused.contains("admin") && refused.contains("tokend.toml:"),
        "{refused}"
    );
    assert_eq!(
        outcomes(&report),
        ["basic=served", "one=served", "two=served"]
    );
    let status = daemon.get("/v1/status").body;
    assert_eq!(status["refused"], report["refused"]);
    let ran = daemon.place.run(&["status"]);
    assert!(ran.out.contains("not in force"), "{}", ran.out);
    served(&daemon);
    // The daemon still rotates material under the configuration that it keeps.
    let first = daemon.grpc().token("basic").expect("served").credential;
    daemon.place.secret("password", "second-password");
    reload(&daemon);
    assert_eq!(in_status(&daemon, "basic")["outcome"], "changed");
    let second = daemon.grpc().token("basic").expect("served").credential;
    assert_ne!(first.fingerprint, second.fingerprint);
    daemon.place.write("tokend.toml", &config);
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(0), "{report}");
    assert_eq!(
        daemon.get("/v1/status").body["refused"],
        Value::Array(Vec::new())
    );
}

#[test]
fn what_needs_a_restart_is_said() {
    let place = Place::new();
    let daemon = place.serve("[profiles.a]\nmethod = \"none\"\n");
    daemon.place.write(
        "tokend.toml",
        "[server]\nsocket_mode = \"0666\"\n[profiles.a]\nmethod = \"none\"\n",
    );
    let (code, _) = reload(&daemon);
    assert_eq!(code, Some(0));
    let warnings = daemon.get("/v1/status").body["warnings"].to_string();
    assert!(
        warnings.contains("socket_mode") && warnings.contains("restarted"),
        "{warnings}"
    );
}

#[test]
fn other_access_rules_hold_at_once_and_count_as_a_change() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.open();
    let config = |user: u32| {
        format!(
            "[server]\nsocket_mode = \"0666\"\n[profiles.a]\nmethod = \"none\"\naccess = [{{ user = {user} }}]\n"
        )
    };
    let daemon = place.serve(&config(65001));
    let first = daemon.grpc_as(Some(&Who::user(65001)));
    first.token("a").expect("permitted");
    daemon.place.write("tokend.toml", &config(65002));
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(0));
    assert_eq!(outcomes(&report), ["a=served"]);
    assert_eq!(in_status(&daemon, "a")["outcome"], "changed");
    // The connection is the one from before the reload.
    assert_eq!(first.token("a").err().expect("no more").code, "NOT_FOUND");
    daemon
        .grpc_as(Some(&Who::user(65002)))
        .token("a")
        .expect("permitted");
    // Only administrators may reload.
    let answer = daemon.http(
        Some(&Who::user(65002)),
        "POST",
        "/v1/reload",
        "Host: tokend\r\nContent-Length: 0\r\n",
    );
    assert_eq!(
        (answer.status, answer.text("code")),
        (403, "PERMISSION_DENIED")
    );
    let ran = crate::harness::run(&mut daemon.place.tokend_as(Some(65002), &["reload"]));
    assert_eq!(ran.code, Some(7), "{ran:?}");
}

#[test]
fn variants_in_use_are_there_before_the_old_ones_go() {
    let issuer = idp::issuer(vec![RegisteredClient::with_secret("it", SECRET)]);
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let config = idp::idp(&issuer) + &idp::profile("it", "it", "request = { scopes = [\"read\"] }");
    let daemon = place.serve(&config);
    let read = || tokend::proto::GetTokenRequest {
        scopes: vec!["read".into()],
        ..ask::get("it")
    };
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    let before = daemon.grpc().ask(read()).expect("permitted").credential;
    issuer.set_client_secret("it", "the-next-one");
    daemon.place.secret("it.secret", "the-next-one");
    let (code, report) = reload(&daemon);
    assert_eq!(code, Some(0), "{report}");
    // The provider cannot be asked any more, and need not be.
    idp::down(&issuer);
    let after = daemon.grpc().ask(read()).expect("from memory").credential;
    assert_ne!(after.fingerprint, before.fingerprint);
    daemon.grpc().token("it").expect("from memory");
}

#[test]
fn a_sleeping_profile_is_not_replaced_by_what_is_rejected() {
    let (issuer, place, config) = idp::one(idp::LAZY);
    let daemon = place.serve(&config);
    daemon.place.secret("it.secret", "a-wrong-secret");
    let (code, report) = reload(&daemon);
    assert_eq!(
        (code, outcomes(&report)),
        (Some(1), vec!["it=rejected".to_owned()])
    );
    assert_eq!(daemon.grpc().health("it"), "SERVING");
    // The sleeping profile gets its credential with the secret that works.
    daemon.grpc().token("it").expect("the last good secret");
    drop(issuer);
}

#[test]
fn grpc_says_the_same_and_takes_renamed_profiles_for_what_they_are() {
    use tokend::proto::ReloadRequest;
    use tokend::proto::admin_service_client::AdminServiceClient;

    let (_issuer, place, config) = three();
    let daemon = place.serve(&config);
    served(&daemon);
    let renamed = config.replace("[profiles.one]", "[profiles.uno]");
    daemon.place.write("tokend.toml", &renamed);
    let mut client = AdminServiceClient::new(daemon.grpc().channel);
    let request = ReloadRequest {
        wait: Some(prost_types::Duration {
            seconds: 10,
            nanos: 0,
        }),
    };
    let answer = crate::harness::block(client.reload(request))
        .expect("reloaded")
        .into_inner();
    assert!(answer.complete);
    assert_eq!(answer.config_generation, 2);
    let names: Vec<&str> = answer
        .profiles
        .iter()
        .map(|one| one.profile.as_str())
        .collect();
    assert!(names.contains(&"uno"), "{names:?}");
    assert!(answer.profiles.iter().all(|one| one.since.is_some()));
    assert_eq!(
        daemon.grpc().token("one").err().expect("gone").code,
        "NOT_FOUND"
    );
    eventually(PATIENCE, || daemon.grpc().token("uno").ok());
    let negative = ReloadRequest {
        wait: Some(prost_types::Duration {
            seconds: -1,
            nanos: 0,
        }),
    };
    let refused = crate::harness::block(client.reload(negative)).expect_err("refused");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}
