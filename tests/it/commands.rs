//! The commands against a running daemon: what they print, and the exit codes that scripts rely on.

use serde_json::{Value, json};
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::faults::{Fault, Times};

use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually, run};

const LOCAL: &str = r#"
[profiles.fixed]
method = "static"
token = { file = "token" }
target = "https://api.example"

[profiles.none]
method = "none"

[profiles.invalid]
method = "static"
token = { file = "missing" }
"#;

fn local() -> Place {
    let place = Place::new();
    place.secret("token", "the-fixed-token");
    place
}

#[test]
fn token_prints_the_credential_in_every_form() {
    let daemon = local().serve(LOCAL);
    for (form, expected) in [
        (vec![], "the-fixed-token\n"),
        (vec!["--format", "token"], "the-fixed-token\n"),
        (vec!["--header"], "Authorization: Bearer the-fixed-token\n"),
        (
            vec!["--format", "curl"],
            "header = \"Authorization: Bearer the-fixed-token\"\n",
        ),
    ] {
        let ran = daemon
            .place
            .run(&[&["token", "fixed"], form.as_slice()].concat());
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.as_str()),
            (Some(0), expected, "")
        );
    }
    let parsed = |form: &str| {
        let ran = daemon.place.run(&["token", "fixed", "--format", form]);
        assert_eq!(ran.code, Some(0), "{form}: {}", ran.err);
        serde_json::from_str::<Value>(&ran.out).expect("JSON")
    };
    let body = parsed("json");
    assert_eq!(body["authorization"], "Bearer the-fixed-token");
    assert_eq!(body["target"], "https://api.example");
    let body = parsed("k8s-exec");
    assert_eq!(body["kind"], "ExecCredential");
    assert_eq!(body["status"]["token"], "the-fixed-token");
}

#[test]
fn token_tells_by_its_exit_code_why_there_is_none() {
    let (issuer, place, config) = idp::one(LAZY);
    place.secret("wrong.secret", "not the registered one");
    place.secret("token", "the-fixed-token");
    issuer.set_client(RegisteredClient::with_secret("wrong", SECRET));
    place.secret("slow.secret", SECRET);
    let config =
        config + &idp::profile("wrong", "wrong", LAZY) + &idp::profile("slow", "it", LAZY) + LOCAL;
    let mut daemon = place.serve(&config);
    let code = |arguments: &[&str], message: &str| {
        let ran = daemon.place.run(&[&["token"], arguments].concat());
        assert_eq!(ran.out, "", "{arguments:?}");
        assert!(ran.err.contains(message), "{arguments:?}: {}", ran.err);
        ran.code.expect("it ended by itself")
    };
    assert_eq!(code(&["none"], "no Authorization header"), 0);
    assert_eq!(code(&["fixed", "--min-ttl", "5"], "needs a unit"), 2);
    assert_eq!(code(&["fixed", "--format", "xml"], "possible values"), 2);
    assert_eq!(code(&["fixed", "--scope", "admin"], "request.scopes"), 2);
    assert_eq!(code(&["nobody"], "no profile \"nobody\""), 3);
    assert_eq!(code(&["wrong"], "invalid_client"), 5);
    assert_eq!(code(&["invalid"], "PROFILE_INVALID"), 5);
    idp::down(&issuer);
    assert_eq!(code(&["it"], "refused"), 4);
    idp::up(&issuer);
    let ran = eventually(PATIENCE, || {
        Some(daemon.place.run(&["token", "it"])).filter(|ran| ran.code == Some(0))
    });
    idp::claims(&issuer, None, ran.out.trim_end());
    assert_eq!(code(&["it", "--min-ttl", "1h"], "MIN_TTL_TOO_LONG"), 5);
    issuer.script(Fault::Hang, Times::Always);
    assert_eq!(
        code(&["slow", "--timeout", "200ms"], "no answer within 200ms"),
        4
    );
    assert_eq!(daemon.stop(), Some(0));
    let ran = daemon.place.run(&["token", "it"]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(6), ""));
    // The second cure is told where this machine has a daemon of its own.
    let cures = ["start the daemon", "the system's daemon listens at"];
    assert!(
        cures.iter().any(|cure| ran.err.contains(cure)),
        "{}",
        ran.err
    );
    assert_eq!(daemon.place.run(&["frobnicate"]).code, Some(2));
}

#[test]
fn wait_returns_when_every_profile_is_usable() {
    let (issuer, place, config) = idp::one("");
    place.secret("token", "the-fixed-token");
    idp::down(&issuer);
    place.write("tokend.toml", &(config + LOCAL));
    // The command starts before there is a daemon.
    let mut waiting = place
        .tokend(&["wait", "it", "fixed", "none", "--timeout", "30s"])
        .spawn()
        .expect("started");
    let daemon = Daemon::start_in(place);
    let short = daemon
        .place
        .run(&["wait", "it", "fixed", "--timeout", "300ms"]);
    assert_eq!(short.code, Some(4), "{}", short.err);
    assert!(
        short.err.contains("it:") && !short.err.contains("fixed:"),
        "{}",
        short.err
    );
    assert_eq!(daemon.place.run(&["wait", "fixed"]).code, Some(0));
    assert_eq!(daemon.place.run(&["wait", "it", "nobody"]).code, Some(3));
    assert_eq!(
        daemon
            .place
            .run(&["wait", "invalid", "--timeout", "0"])
            .code,
        Some(5)
    );
    let repair = daemon.place.run(&["wait", "invalid", "--timeout", "300ms"]);
    assert_eq!(repair.code, Some(5), "{}", repair.err);
    assert!(
        repair.err.starts_with("tokend: invalid: waiting: "),
        "{}",
        repair.err
    );
    assert_eq!(
        waiting.try_wait().expect("waited"),
        None,
        "it is still down"
    );
    idp::up(&issuer);
    let status = eventually(PATIENCE, || waiting.try_wait().expect("waited"));
    assert_eq!(status.code(), Some(0));
    assert!(daemon.grpc().token("it").is_ok());
}

#[test]
fn status_shows_every_profile_and_what_is_wrong() {
    let (issuer, place, config) = idp::one("");
    place.secret("token", "the-fixed-token");
    issuer.script(Fault::oauth_error("invalid_client"), Times::Always);
    let daemon = place.serve(&(config + LOCAL));
    assert!(daemon.grpc().token("it").is_err());
    let ran = daemon.place.run(&["status", "--json"]);
    assert_eq!(ran.code, Some(0), "{}", ran.err);
    let status: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(status["pid"], json!(daemon.pid()));
    let states: Vec<_> = status["profiles"]
        .as_array()
        .expect("profiles")
        .iter()
        .map(|profile| (profile["name"].as_str(), profile["state"].as_str()))
        .map(|(name, state)| (name.expect("name"), state.expect("state")))
        .collect();
    let expected = [
        ("fixed", "fresh"),
        ("invalid", "invalid"),
        ("it", "rejected"),
        ("none", "fresh"),
    ];
    assert_eq!(states, expected);
    let it = daemon.place.run(&["status", "it"]);
    assert_eq!(it.code, Some(0));
    assert!(
        it.out.contains("rejected") && it.out.contains("invalid_client"),
        "{}",
        it.out
    );
    assert!(!it.out.contains("fixed"), "{}", it.out);
    assert_eq!(daemon.place.run(&["status", "nobody"]).code, Some(3));
    let all = daemon.place.run(&["status"]).out;
    assert!(all.contains("missing"), "{all}");
    daemon.place.secrets.assert_none_in(&all, "tokend status");
}

#[test]
fn every_command_explains_itself() {
    let place = Place::new();
    let help = place.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    for command in ["serve", "dev", "check", "token", "wait", "status"] {
        assert!(help.out.contains(&format!("  {command} ")), "{}", help.out);
        let ran = place.run(&[command, "--help"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{command}");
    }
    let version = place.run(&["--version"]).out;
    assert_eq!(version, format!("tokend {}\n", env!("CARGO_PKG_VERSION")));
    let log = run(place.tokend(&["serve"]).env("TOKEND_LOG", "no=such=level"));
    assert_eq!(log.code, Some(2), "{}", log.err);
    assert!(log.err.contains("TOKEND_LOG=debug"), "{}", log.err);
}
