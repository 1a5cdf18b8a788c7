//! The exact tables.

use super::*;
use crate::cli::Command;
use crate::cli::tests::{Gone, parsed, to};
use crate::client::fake::{Fake, Reply, json, refusal};

const TWO: &str = r#"{"version":"0.1.0","pid":7,"profiles":[
 {"name":"billing","method":"oauth2","state":"backoff","available":false,"next_attempt_in":2.5,
  "last_error":{"reason":"UPSTREAM_REJECTED","oauth_error":"invalid_client","message":"wrong\u001b[2J secret",
   "since":"2030-01-02T03:00:00.000Z","failures":3}},
 {"name":"or\u009bders","method":"basic","state":"fresh","available":true,"expires_in":3192.4,"next_attempt_in":2400,
  "warnings":["slow\nserver"]}]}"#;

/// Exit status, standard output, standard error.
fn status(words: &[&str], fake: &Fake) -> (u8, String, String) {
    let Ok(Command::Status(args)) = parsed(&[&["status"], words].concat()) else {
        panic!("{words:?} is not understood");
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&args, to(fake), &mut out, &mut err);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

fn args(words: &[&str]) -> StatusArgs {
    match parsed(&[&["status"], words].concat()) {
        Ok(Command::Status(args)) => args,
        _ => panic!("{words:?} is not understood"),
    }
}

#[test]
fn the_table_is_aligned_and_troubles_follow() {
    let fake = Fake::new(|_, _| json(200, TWO));
    let shown = to(&fake)
        .unwrap()
        .status(None, Duration::from_secs(20))
        .unwrap();
    let now = humantime::parse_rfc3339("2030-01-02T03:04:10Z").unwrap();
    assert_eq!(
        render(&shown.message, now),
        "\
PROFILE       METHOD  STATE    EXPIRES-IN  NEXT  LAST-ERROR
billing       oauth2  backoff  -           2.5s  UPSTREAM_REJECTED invalid_client
or\\u{9b}ders  basic   fresh    53m 12s     40m   -

billing: wrong\\u{1b}[2J secret (3 failures since 2030-01-02T03:00:00.000Z, 4m 10s ago)
or\\u{9b}ders: warning: slow\\nserver
"
    );
}

#[test]
fn certificates_say_how_long_they_last_and_what_is_on_disk() {
    let fake = Fake::new(|_, _| {
        json(
            200,
            r#"{"version":"0.1.0","pid":7,"profiles":[
 {"name":"a","method":"oauth2","state":"fresh","available":true,"certificates":[
  {"role":"tls.certificate","place":"in_use","subject":"CN=a","thumbprint":"x","not_after":"2030-01-02T00:00:00.000Z"},
  {"role":"assertion.certificate","place":"in_use","subject":"CN=b","thumbprint":"y","not_after":"2030-01-01T00:00:00.000Z"},
  {"role":"tls.certificate","place":"on_disk","subject":"CN=a","thumbprint":"z","not_after":"2030-02-01T00:00:00.000Z"},
  {"role":"assertion.certificate","place":"on_disk","subject":"CN=b","thumbprint":"y","not_after":"2030-01-01T00:00:00.000Z"}]},
 {"name":"b","method":"oauth2","state":"fresh","available":true,"certificates":[
  {"role":"tls.keystore","place":"in_use","subject":"CN=c","thumbprint":"x","not_after":"2029-01-02T00:00:00.000Z"}]}]}"#,
        )
    });
    let shown = to(&fake)
        .unwrap()
        .status(None, Duration::from_secs(20))
        .unwrap();
    let now = humantime::parse_rfc3339("2030-01-01T00:00:00Z").unwrap();
    let text = render(&shown.message, now);
    let notes: Vec<&str> = text.lines().skip(4).collect();
    assert_eq!(
        notes,
        [
            "a: tls.certificate CN=a: in use until 2030-01-02T00:00:00.000Z, 1d; on disk until 2030-02-01T00:00:00.000Z, 31d",
            "a: assertion.certificate CN=b: in use until 2030-01-01T00:00:00.000Z, less than 0.1s",
            "b: tls.keystore CN=c: in use until 2029-01-02T00:00:00.000Z, which has passed; what is on disk cannot be used",
        ]
    );
}

#[test]
fn it_succeeds_however_bad_the_state_is() {
    let fake = Fake::new(|_, _| json(200, TWO));
    let (code, out, err) = status(&[], &fake);
    assert_eq!((code, err.as_str()), (exit::DONE, ""));
    assert!(out.starts_with("PROFILE  "), "{out}");
    let (code, out, _) = status(&["billing"], &fake);
    assert_eq!(code, exit::DONE);
    assert!(out.contains("billing"), "{out}");
    assert!(fake.requests()[1].starts_with("GET /v1/status?profile=billing "));
}

#[test]
fn json_is_the_answer_on_one_line() {
    let fake = Fake::new(|_, _| json(200, TWO));
    let (code, out, _) = status(&["--json"], &fake);
    assert_eq!(code, exit::DONE);
    assert_eq!(out.matches('\n').count(), 1);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        value,
        serde_json::from_str::<serde_json::Value>(TWO).unwrap()
    );
}

#[test]
fn a_profile_that_is_not_there_is_3() {
    let empty = Fake::new(|_, _| json(200, r#"{"profiles":[]}"#));
    assert_eq!(status(&["x"], &empty).0, exit::NOT_FOUND);
    assert_eq!(status(&["x", "--json"], &empty).0, exit::NOT_FOUND);
    assert_eq!(status(&["x", "--watch"], &empty).0, exit::NOT_FOUND);
    let (code, out, _) = status(&[], &empty);
    assert_eq!(
        (code, out.as_str()),
        (exit::DONE, "no profile that this user may see\n")
    );
    let refusing = Fake::new(|_, _| refusal(404, "NOT_FOUND", "PROFILE_NOT_FOUND", "no"));
    assert_eq!(status(&["x"], &refusing).0, exit::NOT_FOUND);
    let cut = Fake::new(|_, _| Reply::Bytes(Vec::new()));
    assert_eq!(status(&[], &cut).0, exit::UNREACHABLE);
}

#[test]
fn strange_numbers_do_no_harm() {
    let shown = |seconds: &str| {
        let body = format!(r#"{{"expires_in":{seconds}}}"#);
        let profile: ProfileStatus = serde_json::from_str(&body).unwrap();
        time(profile.expires_in)
    };
    assert_eq!(shown("-3.0"), "now");
    assert_eq!(shown("7.3"), "7.3s");
    assert_eq!(
        shown("1e300"),
        human(Duration::from_secs(i64::MAX.unsigned_abs()))
    );
    assert_eq!(shown("null"), "");
}

/// A reader that takes this many screens and then goes away.
struct Pictures(Vec<String>, usize);

impl Write for Pictures {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() == self.1 {
            return Gone.write(bytes);
        }
        self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn watch_goes_on_while_the_daemon_is_away_and_ends_with_its_reader() {
    let fake = Fake::new(|number, _| match number {
        // There are two of these, since a cut connection is tried once more.
        1 | 2 => Reply::Bytes(Vec::new()),
        3 => refusal(429, "RESOURCE_EXHAUSTED", "CALLER_RATE_LIMITED", "slower"),
        _ => json(200, r#"{"profiles":[{"name":"a","state":"fresh"}]}"#),
    });
    let table = "PROFILE  METHOD  STATE  EXPIRES-IN  NEXT  LAST-ERROR\na        -       fresh  -           -     -\n";
    let client = to(&fake).unwrap();
    let mut out = Pictures(Vec::new(), 4);
    let code = watch(
        &args(&[]),
        &client,
        false,
        Duration::ZERO,
        &mut out,
        &mut Vec::new(),
    );
    assert_eq!(code, exit::DONE);
    assert_eq!(out.0[0], table);
    assert!(
        out.0[1].starts_with("\nthe daemon closed the connection"),
        "{:?}",
        out.0[1]
    );
    assert_eq!(out.0[2], "\nslower (CALLER_RATE_LIMITED)\n");
    assert_eq!(out.0[3], format!("\n{table}"));

    let mut out = Pictures(Vec::new(), 1);
    watch(
        &args(&[]),
        &client,
        true,
        Duration::ZERO,
        &mut out,
        &mut Vec::new(),
    );
    assert_eq!(out.0[0], format!("{CLEAR}{table}"));
}
