//! Wrong configuration, through the executable: tokend reports all mistakes at once, each with its
//! place, and a mistake in one profile costs only that profile.

use std::os::unix::fs::chown;
use std::process::Command;

use serde_json::Value;
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::faults::{Fault, Target, Times};

use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{PATIENCE, Place, TOKEND, eventually, is_root, run};

/// Six mistakes in six profiles.
const SIX: &str = r#"
[profiles.one]
method = "basic"
username = "a"
password = { file = "there" }
targt = "https://api.example"

[profiles.two]
method = "oauth"

[profiles.three]
method = "oauth2"
token_url = "https://idp.example/token"
client_id = "x"
client_secret = { file = "there" }
http = { timeout = 5 }

[profiles.four]
method = "basic"
password = { file = "there" }

[profiles.five]
method = "oauth2"
issuer = "http://idp.example"
client_id = "x"
client_secret = { file = "there" }

[profiles.six]
method = "oauth2"
token_url = "https://idp.example/token"
client_id = "x"
client_auth = "tls_client_auth"
"#;

const MISSING: &str = r#"
[profiles.seven]
method = "static"
token = { file = "missing" }
"#;

const FINE: &str = r#"
[profiles.fine]
method = "basic"
username = "a"
password = { file = "there" }
"#;

fn place() -> Place {
    let place = Place::new();
    place.secret("there", "a-secret-that-is-there");
    place
}

#[test]
fn seven_mistakes_are_seven_findings() {
    let place = place();
    for (config, code) in [
        // A mistake in one profile costs that profile.
        (SIX.to_owned() + MISSING + FINE, 1),
        // A mistake in the daemon's settings costs the whole configuration.
        ("[server]\nsocket_mode = 660\n".to_owned() + SIX + FINE, 78),
    ] {
        place.write("tokend.toml", &config);
        let ran = place.run(&["check", "--json"]);
        assert_eq!(ran.code, Some(code), "{}", ran.out);
        let report: Value = serde_json::from_str(&ran.out).expect("JSON");
        let findings = report["findings"].as_array().expect("findings");
        assert_eq!(findings.len(), 7, "{}", ran.out);
        for finding in findings {
            assert_eq!(finding["severity"], "error");
            assert_eq!(
                finding["file"],
                place.path("tokend.toml").to_str().expect("text")
            );
            for key in ["line", "column"] {
                assert!(
                    finding[key].as_u64().is_some_and(|number| number > 0),
                    "{finding}"
                );
            }
            for key in ["path", "message"] {
                assert!(
                    finding[key].as_str().is_some_and(|text| !text.is_empty()),
                    "{finding}"
                );
            }
            assert!(finding["help"].is_string());
        }
        let ran = place.run(&["check"]);
        assert_eq!(ran.code, Some(code));
        assert!(ran.out.contains("7 errors"), "{}", ran.out);
        assert!(ran.out.contains("did you mean `target`?"), "{}", ran.out);
        assert!(ran.out.contains("did you mean \"oauth2\"?"), "{}", ran.out);
        assert!(ran.out.contains('^'), "{}", ran.out);
        place.secrets.assert_none_in(&ran.out, "tokend check");
    }
}

#[test]
fn a_good_configuration_passes_and_a_warning_is_no_error() {
    let place = place();
    place.write("tokend.toml", FINE);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    let report: Value = serde_json::from_str(&place.run(&["check", "--json"]).out).expect("JSON");
    assert_eq!(report["findings"], serde_json::json!([]));
    place.mode("there", 0o644);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(
        ran.out.contains("1 warning") && ran.out.contains("chmod o-r"),
        "{}",
        ran.out
    );
}

#[test]
fn a_file_that_cannot_be_used_ends_serve_and_check_with_78() {
    let place = Place::new();
    for command in ["serve", "check"] {
        let ran = place.run(&[command]);
        assert_eq!(ran.code, Some(78), "{command}: {}{}", ran.out, ran.err);
        let said = ran.out + &ran.err;
        let path = place.path("tokend.toml").display().to_string();
        assert!(said.contains(&path) && said.contains("--config"), "{said}");
    }
    place.write("tokend.toml", "[server]\nsocket = \n");
    for command in ["serve", "check"] {
        let ran = place.run(&[command]);
        assert_eq!(ran.code, Some(78), "{command}: {}{}", ran.out, ran.err);
        let said = ran.out + &ran.err;
        let spot = format!("{}:2:", place.path("tokend.toml").display());
        assert!(said.contains(&spot) && said.contains("not TOML"), "{said}");
    }
    place.write("tokend.toml", FINE);
    place.mode("tokend.toml", 0o666);
    let ran = place.run(&["serve"]);
    assert_eq!(ran.code, Some(78));
    assert!(ran.err.contains("chmod go-w"), "{}", ran.err);
}

#[test]
fn check_says_nothing_to_whoever_has_gone_and_fails_where_nothing_can_be_written() {
    let place = place();
    place.write("tokend.toml", &(SIX.to_owned() + FINE));
    for form in [&["check"][..], &["check", "--json"]] {
        let (reader, writer) = std::io::pipe().expect("pipe");
        drop(reader);
        let ran = run(place.tokend(form).stdout(writer));
        assert_eq!((ran.code, ran.err.as_str()), (Some(1), ""), "{form:?}");
    }
    place.write("tokend.toml", FINE);
    let full = std::fs::File::options().write(true).open("/dev/full");
    let ran = run(place.tokend(&["check"]).stdout(full.expect("open")));
    assert_eq!(ran.code, Some(1), "{}", ran.err);
    assert!(ran.err.contains("cannot write"), "{}", ran.err);
}

#[test]
fn check_reads_a_large_configuration_once_however_much_it_has_to_say() {
    let place = place();
    place.mode("there", 0o644);
    let many: String = (0..500)
        .map(|number| FINE.replace("fine", &format!("fine{number}")))
        .collect();
    place.write("tokend.toml", &many);
    let start = std::time::Instant::now();
    let ran = place.run(&["check"]);
    let took = start.elapsed();
    assert!(ran.out.contains("500 warnings"), "{}", ran.out);
    // One parse takes a tenth of a second even in a debug build. One parse for each warning would
    // take most of a minute.
    assert!(took.as_secs() < 10, "{took:?}");
}

#[test]
fn check_online_asks_several_at_once_and_reports_in_order() {
    let names = ["a", "b", "c", "d"];
    let issuer = idp::issuer(
        names
            .map(|name| RegisteredClient::with_secret(name, SECRET))
            .to_vec(),
    );
    issuer.script(Fault::Hang, Times::Always);
    let place = Place::new();
    let mut config = idp::idp(&issuer);
    for name in names {
        place.secret(&format!("{name}.secret"), SECRET);
        config += &idp::profile(name, name, LAZY);
    }
    place.write("tokend.toml", &config);
    let start = std::time::Instant::now();
    let ran = place.run(&["check", "--online"]);
    let took = start.elapsed();
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    let at = names.map(|name| ran.out.find(&format!("profiles.{name}")).expect(name));
    assert!(at.is_sorted(), "{}", ran.out);
    assert!(took.as_millis() < 3500, "one after another: {took:?}");
}

#[test]
fn check_online_finds_a_wrong_secret_and_a_missing_identity_provider() {
    let issuer = idp::issuer(vec![
        RegisteredClient::with_secret("right", SECRET),
        RegisteredClient::with_secret("wrong", SECRET),
    ]);
    let place = Place::new();
    place.secret("right.secret", SECRET);
    place.secret("wrong.secret", "something-else-entirely");
    let right = idp::idp(&issuer) + &idp::profile("right", "right", LAZY);
    place.write(
        "tokend.toml",
        &(right.clone() + &idp::profile("wrong", "wrong", "")),
    );
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(0), "offline it looks right: {}", ran.out);
    assert_eq!(issuer.count("/token"), 0);
    let ran = place.run(&["check", "--online"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(
        ran.out.contains("invalid_client") && ran.out.contains("1 error"),
        "{}",
        ran.out
    );
    assert!(
        ran.out.contains("profiles.wrong") && !ran.out.contains("profiles.right"),
        "{}",
        ran.out
    );
    place.secrets.assert_none_in(&ran.out, "tokend check");
    assert_eq!(issuer.count("/token"), 2, "one request per profile");

    place.write("tokend.toml", &right);
    assert_eq!(place.run(&["check", "--online"]).code, Some(0));
    idp::down(&issuer);
    let ran = place.run(&["check", "--online", "--json"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains("refused"), "{}", ran.out);
}

/// The clock of the identity provider is compared, whether or not it gives a token.
#[test]
fn check_online_tells_a_clock_that_differs() {
    let (issuer, place, config) = idp::one(LAZY);
    place.write("tokend.toml", &config);
    for (skew, code, part) in [
        (20, 0, ""),
        (
            -120,
            0,
            "warning: the identity provider's clock is 2m behind",
        ),
        (900, 1, "error: the identity provider's clock is 15m ahead"),
    ] {
        issuer.clear_script();
        issuer.script(Fault::Date(skew), Times::Always);
        let ran = place.run(&["check", "--online"]);
        assert_eq!(ran.code, Some(code), "{skew}: {}", ran.out);
        assert!(ran.out.contains(part), "{skew}: {}", ran.out);
        let told = ran.out.matches("the identity provider's clock is").count();
        assert_eq!(told, usize::from(!part.is_empty()), "{skew}: {}", ran.out);
    }
    place.secret("it.secret", "not the registered one");
    let ran = place.run(&["check", "--online"]);
    assert!(
        ran.out.contains("invalid_client") && ran.out.contains("15m ahead"),
        "{}",
        ran.out
    );
}

/// A mistake elsewhere hides no missing file: neither one in `[server]`, nor one in the profile.
#[test]
fn check_looks_at_the_files_of_profiles_that_cannot_be_used() {
    let place = place();
    let both = MISSING.replace("[profiles.seven]", "[profiles.seven]\ncolour = \"red\"") + FINE;
    for (text, code) in [
        (format!("[server]\nnonsense = 1\n{MISSING}{FINE}"), 78),
        (both, 1),
    ] {
        place.write("tokend.toml", &text);
        let ran = place.run(&["check"]);
        assert_eq!(ran.code, Some(code), "{}", ran.out);
        for part in [
            "unknown key",
            "(profiles.seven.token)",
            "does not exist",
            "2 errors",
        ] {
            assert!(ran.out.contains(part), "{part}: {}", ran.out);
        }
    }
}

#[test]
fn check_by_root_judges_as_the_daemons_user() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.give_to(65001);
    place.secret("there", "a-secret-that-is-there");
    place.secret("missing", "a-secret-of-roots");
    place.write("tokend.toml", &(MISSING.to_owned() + FINE));
    let check_as_root = || {
        let config = place.path("tokend.toml");
        run(Command::new(TOKEND)
            .args(["check", "--config"])
            .arg(config)
            .env("TOKEND_SOCKET", place.path("tokend.sock")))
    };
    assert_eq!(check_as_root().code, Some(0));
    chown(place.path("missing"), Some(0), Some(0)).expect("chown");
    let ran = check_as_root();
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    for part in [
        "(profiles.seven.token)",
        "permission denied",
        "1 error",
        "for the daemon's user 65001",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    place.secrets.assert_none_in(&ran.out, "tokend check");
}

#[test]
fn trap_48_check_online_shows_a_token_endpoint_elsewhere() {
    let (issuer, place, config) = idp::one(LAZY);
    let other = idp::issuer(vec![RegisteredClient::with_secret("it", SECRET)]);
    let there = serde_json::json!(format!("{}/token", other.url())).to_string();
    issuer.script_for(
        Target::Path("/.well-known/openid-configuration".into()),
        Fault::field("token_endpoint", Some(&there)),
        Times::Always,
    );
    place.write("tokend.toml", &config);
    let ran = place.run(&["check", "--online"]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    for part in [
        "1 warning",
        "another origin",
        other.url(),
        "profiles.it.issuer",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    assert_eq!(other.count("/token"), 1, "it is asked all the same");
    place.secrets.assert_none_in(&ran.out, "tokend check");
}

/// Fails unless the message helps: it must say which profile, what, why, and what to do.
fn assert_helps(text: &str, profile: &str, path: &str, cause: &str, cure: &str) {
    for part in [profile, path, cause, cure] {
        assert!(text.contains(part), "{part:?} is missing: {text}");
    }
}

#[test]
fn trap_2_a_missing_secret_costs_its_profile_alone() {
    let place = place();
    let daemon = place.serve(&(MISSING.to_owned() + FINE));
    let path = daemon.place.path("missing").display().to_string();
    let why = daemon.grpc().token("seven").err().expect("no secret");
    assert_eq!(
        (why.code.as_str(), why.reason.as_str()),
        ("FAILED_PRECONDITION", "PROFILE_INVALID")
    );
    assert_helps(&why.message, "seven", &path, "does not exist", "create it");
    let http = daemon.http_token("seven");
    assert_eq!(http.status, 424);
    assert_eq!(http.refusal(), why);
    assert!(daemon.grpc().token("fine").is_ok());
    let ready = daemon.get("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["profiles"][0]["name"], "seven");
    eventually(PATIENCE, || {
        daemon.log().contains("does not exist").then_some(())
    });
    assert_helps(&daemon.log(), "seven", &path, "does not exist", "create it");
    let check = daemon.place.run(&["check"]);
    assert_eq!(check.code, Some(1));
    assert_helps(
        &check.out,
        "profiles.seven",
        &path,
        "does not exist",
        "create it",
    );
}

#[test]
fn a_secret_that_the_daemon_may_not_read_is_told_as_such() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.give_to(65001);
    place.secret("there", "a-secret-that-is-there");
    place.secret("missing", "a-secret-of-roots");
    chown(place.path("missing"), Some(0), Some(0)).expect("chown");
    let daemon = place.serve(&(MISSING.to_owned() + FINE));
    let path = daemon.place.path("missing").display().to_string();
    let why = daemon.grpc().token("seven").err().expect("no secret");
    assert_eq!(why.reason, "PROFILE_INVALID");
    assert_helps(
        &why.message,
        "seven",
        &path,
        "permission denied",
        "let the daemon's user read it",
    );
    assert!(daemon.grpc().token("fine").is_ok());
}

#[test]
fn a_broken_file_in_profiles_d_fails_alone() {
    let place = place();
    place.write(
        "profiles.d/good.toml",
        &FINE.replace("there", "../there").replace("fine", "good"),
    );
    place.write("profiles.d/bad.toml", "[profiles.bad]\nmethod = \"none\nx");
    place.write("profiles.d/.hidden.toml", "nonsense");
    place.write("profiles.d/readme.txt", "nonsense");
    let daemon = place.serve(FINE);
    let grpc = daemon.grpc();
    assert!(grpc.token("fine").is_ok());
    assert!(grpc.token("good").is_ok());
    assert!(grpc.token("bad").is_err());
    let spot = format!("{}:2:", daemon.place.path("profiles.d/bad.toml").display());
    eventually(PATIENCE, || daemon.log().contains(&spot).then_some(()));
    let check = daemon.place.run(&["check"]);
    assert_eq!(check.code, Some(1), "{}", check.out);
    assert!(check.out.contains(&spot), "{}", check.out);
}

#[test]
fn a_secret_in_a_file_that_others_can_read_is_refused() {
    let place = Place::new();
    place.secrets.add("written-into-the-file");
    let config = "[profiles.p]\nmethod = \"static\"\ntoken = \"written-into-the-file\"\n";
    place.write("tokend.toml", config);
    assert_eq!(place.run(&["check"]).code, Some(0));
    place.mode("tokend.toml", 0o644);
    let ran = place.run(&["check"]);
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    assert!(ran.out.contains("chmod 600"), "{}", ran.out);
    place.secrets.assert_none_in(&ran.out, "tokend check");
}
