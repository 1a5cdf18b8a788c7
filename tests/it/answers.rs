//! The answers over HTTP, byte by byte: names, order, omitted fields, numbers.

use tokend_issuer::client::RegisteredClient;

use crate::harness::ask::{Who, exchange};
use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually, is_root};

/// A daemon with four profiles: one has a credential, the issuer rejects one, one sends no
/// credential, and one cannot be used.
fn daemon() -> (impl Sized, Daemon) {
    let issuer = idp::issuer(vec![
        RegisteredClient::with_secret("one", SECRET),
        RegisteredClient::with_secret("two", SECRET),
    ]);
    let place = Place::new();
    place.open();
    place.secret("one.secret", SECRET);
    place.secret("two.secret", "a-wrong-secret");
    let config = "[server]\nsocket_mode = \"0666\"\n".to_owned()
        + &idp::idp(&issuer)
        + &idp::profile("one", "one", "target = \"https://api.example\"")
        + &idp::profile("two", "two", "")
        + "[profiles.none]\nmethod = \"none\"\naccess = [{ user = 65001 }, { group = 4 }]\n\
           [profiles.lost]\nmethod = \"static\"\ntoken = { file = \"lost\" }\n";
    let daemon = place.serve(&config);
    for (profile, state) in [("one", "fresh"), ("two", "rejected")] {
        eventually(PATIENCE, || {
            let answer = daemon.get(&format!("/v1/status?profile={profile}"));
            (answer.body["profiles"][0]["state"] == state).then_some(())
        });
    }
    (issuer, daemon)
}

/// The body, with everything replaced that differs from run to run: numbers by 0, the folder by its
/// name, fingerprints and units by a mark.
fn body(daemon: &Daemon, who: Option<&Who>, method: &str, path: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let answer = exchange(&daemon.socket(), who, request.as_bytes()).expect("an answer");
    let text = String::from_utf8(answer).expect("text");
    let (_, body) = text.split_once("\r\n\r\n").expect("a body");
    let folder = daemon.place.path("").display().to_string();
    let mut plain = body.replace(folder.trim_end_matches('/'), "FOLDER");
    for key in ["fingerprint", "unit"] {
        for rest in body.split(&format!("\"{key}\":\"")).skip(1) {
            let (value, _) = rest.split_once('"').expect("the end of a text");
            plain = plain.replace(&format!("\"{key}\":\"{value}\""), &format!("\"{key}\":…"));
        }
    }
    let mut shown = String::new();
    for c in plain.chars() {
        match c {
            '0'..='9' if shown.ends_with('0') => {}
            '0'..='9' => shown.push('0'),
            c => shown.push(c),
        }
    }
    // The two clocks may be read before and after a second begins.
    shown.replace("\"clock_skew\":-0", "\"clock_skew\":0")
}

const LIMITS: &str = concat!(
    r#""limits":[{"limit":"0","name":"connections","refused":0,"used":0},{"limit":"0","#,
    r#""name":"connections_per_user","refused":0,"used":0},{"limit":"0","#,
    r#""name":"streams_per_connection"},{"limit":"0","name":"streams","refused":0,"#,
    r#""used":0},{"limit":"0","name":"streams_per_user","refused":0,"used":0},{"limit":"0","#,
    r#""name":"waiting_per_user","refused":0,"used":0},{"limit":"0","#,
    r#""name":"requests_per_second","refused":0},{"limit":"0","name":"profiles_per_second","#,
    r#""refused":0},{"limit":"0","name":"forced_renewals_per_minute","refused":0},"#,
    r#"{"limit":"0","name":"control_frames_per_second"},{"limit":"0","#,
    r#""name":"message_size"},{"limit":"0","name":"half_sent_per_user","refused":0,"#,
    r#""used":0},{"limit":"0","name":"header_size"},{"limit":"0s","#,
    r#""name":"handshake_timeout"},{"limit":"0m","name":"idle_timeout"}]"#,
);
const LOST: &str = concat!(
    r#"{"available":false,"certificates":[],"fingerprint":…,"generation":0,"issuer":"","#,
    r#""last_error":{"failures":0,"message":"token: FOLDER/lost: does not exist: create it,"#,
    r#" or correct the path in the configuration","oauth_error":"","#,
    r#""reason":"PROFILE_INVALID","since":null},"method":"static","name":"lost","#,
    r#""reload":{"message":"token: FOLDER/lost: does not exist: create it, or correct the "#,
    r#"path in the configuration","outcome":"invalid","since":"0-0-0T0:0:0.0Z"},"#,
    r#""state":"invalid","target":"","warnings":[]}"#,
);
const NONE: &str = concat!(
    r#"{"available":true,"certificates":[],"fingerprint":…,"generation":0,"#,
    r#""issuer":"","method":"none","name":"none","reload":{"message":"","outcome":"added","#,
    r#""since":"0-0-0T0:0:0.0Z"},"state":"fresh","target":"","warnings":[]}"#,
);
const ONE: &str = concat!(
    r#"{"available":true,"certificates":[],"clock_skew":0,"expires_in":0.0,"#,
    r#""fingerprint":…,"generation":0,"issuer":"http://0.0.0.0:0/","#,
    r#""method":"oauth0","name":"one","next_attempt_in":0.0,"reload":{"message":"","#,
    r#""outcome":"added","since":"0-0-0T0:0:0.0Z"},"state":"fresh","#,
    r#""target":"https://api.example","warnings":[]}"#,
);
const TWO: &str = concat!(
    r#"{"available":false,"certificates":[],"fingerprint":…,"generation":0,"#,
    r#""issuer":"http://0.0.0.0:0/","last_error":{"failures":0,"#,
    r#""message":"http://0.0.0.0:0/token answered HTTP 0, error invalid_client: the "#,
    r#"identity provider does not accept client id or secret: check client_id, "#,
    r#"client_secret and client_auth","oauth_error":"invalid_client","#,
    r#""reason":"UPSTREAM_REJECTED","since":"0-0-0T0:0:0.0Z"},"method":"oauth0","#,
    r#""name":"two","next_attempt_in":0.0,"reload":{"message":"","outcome":"added","#,
    r#""since":"0-0-0T0:0:0.0Z"},"state":"rejected","target":"","warnings":[]}"#,
);

/// Broken by a field that is renamed, reordered, omitted where it was not, or written in another
/// form.
#[test]
fn status_explain_and_reload_are_written_as_ever() {
    if !is_root() {
        return;
    }
    let (_issuer, daemon) = daemon();
    let all = body(&daemon, None, "GET", "/v1/status");
    let expected = [
        r#"{"audit":{"counted_together":[],"lost":0,"refuses":false,"trouble":"","#,
        r#""written":0},"config_generation":0,"#,
        LIMITS,
        r#","pid":0,"profiles":["#,
        LOST,
        r#","#,
        NONE,
        r#","#,
        ONE,
        r#","#,
        TWO,
        r#"],"refused":[],"started_at":"0-0-0T0:0:0.0Z","version":"0.0.0","warnings":[]}"#,
    ];
    assert_eq!(all, expected.concat());
    let own = body(&daemon, Some(&Who::user(65001)), "GET", "/v1/status");
    let expected = [
        r#"{"config_generation":0,"pid":0,"profiles":["#,
        NONE,
        r#"],"started_at":"0-0-0T0:0:0.0Z","version":"0.0.0"}"#,
    ];
    assert_eq!(own, expected.concat());
    let why = body(
        &daemon,
        Some(&Who::user(65001)),
        "GET",
        "/v1/profiles/none/explain",
    );
    let expected = [
        r#"{"caller":{"gid":0,"groups":[],"uid":0,"unit":…},"decided_by":"access[0]","#,
        r#""explanation":["There is a credential, and it does not expire."],"#,
        r#""permitted":true,"profile":"#,
        NONE,
        r#","rules":[{"holds":true,"rule":"{ user = 0 }","why_not":""},{"holds":false,"#,
        r#""rule":"{ group = 0 }","why_not":"the user is not in the group"}]}"#,
    ];
    assert_eq!(why, expected.concat());
    let listed = body(&daemon, None, "GET", "/v1/profiles");
    let expected = [
        r#"{"profiles":[{"available":false,"method":"static","name":"lost","target":""},"#,
        r#"{"available":true,"method":"oauth0","name":"one","#,
        r#""target":"https://api.example"},{"available":false,"method":"oauth0","#,
        r#""name":"two","target":""}]}"#,
    ];
    assert_eq!(listed, expected.concat());
    let reload = body(&daemon, None, "POST", "/v1/reload?wait=1s");
    let expected = [
        r#"{"complete":false,"config_generation":0,"profiles":[{"message":"token: "#,
        r#"FOLDER/lost: does not exist: create it, or correct the path in the "#,
        r#"configuration","outcome":"invalid","profile":"lost","since":"0-0-0T0:0:0.0Z"},"#,
        r#"{"message":"","outcome":"unchanged","profile":"none","since":"0-0-0T0:0:0.0Z"},"#,
        r#"{"message":"","outcome":"unchanged","profile":"one","since":"0-0-0T0:0:0.0Z"},"#,
        r#"{"message":"","outcome":"unchanged","profile":"two","since":"0-0-0T0:0:0.0Z"}],"#,
        r#""refused":[]}"#,
    ];
    assert_eq!(reload, expected.concat());
}
