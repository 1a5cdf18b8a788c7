//! `tokend token` against a fake daemon: exact output and exit status.

use std::ffi::OsString;
use std::io;

use super::*;
use crate::cli::Command;
use crate::cli::tests::{Gone, parsed, to};
use crate::client::fake::{Fake, Reply, TOKEN, json, refusal};
use crate::clock::Clock;

/// Exit status, standard output, standard error of `tokend token`.
fn token_in(
    words: &[&str],
    client: Result<Client, ClientError>,
    environment: &[(&str, &str)],
) -> (u8, String, String) {
    let Ok(Command::Token(args)) = parsed(&[&["token"], words].concat()) else {
        panic!("{words:?} is not understood");
    };
    let environment = |name: &str| {
        let found = environment.iter().find(|(key, _)| *key == name);
        found.map(|(_, value)| OsString::from(value))
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = run(&args, client, &environment, &mut out, &mut err);
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(err).unwrap(),
    )
}

fn token(words: &[&str], fake: &Fake) -> (u8, String, String) {
    token_in(words, to(fake), &[])
}

fn good() -> Fake {
    Fake::new(|_, _| json(200, TOKEN))
}

fn done(out: &str) -> (u8, String, String) {
    (exit::DONE, out.to_owned(), String::new())
}

#[test]
fn every_format_is_exact() {
    let fake = good();
    assert_eq!(token(&["p"], &fake), done("tok.en\n"));
    assert_eq!(token(&["p", "--format", "token"], &fake), done("tok.en\n"));
    for words in [
        ["p", "--header", "--timeout", "9s"],
        ["p", "--format", "header", "--timeout=9s"],
    ] {
        assert_eq!(token(&words, &fake), done("Authorization: Bearer tok.en\n"));
    }
    assert_eq!(token(&["p", "--json"], &fake), done(&format!("{TOKEN}\n")));
    assert_eq!(
        token(&["p", "--format=json"], &fake),
        done(&format!("{TOKEN}\n"))
    );
    assert_eq!(
        token(&["p", "--format=curl"], &fake),
        done("header = \"Authorization: Bearer tok.en\"\n")
    );
    assert_eq!(
        token(&["p", "--format=k8s-exec"], &fake),
        done(
            "{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\
             \"status\":{\"token\":\"tok.en\",\"expirationTimestamp\":\"2030-01-02T03:04:05Z\"}}\n"
        )
    );
    assert_eq!(
        token(&["p", "--format=google-executable"], &fake),
        done(
            "{\"version\":1,\"success\":true,\"token_type\":\"urn:ietf:params:oauth:token-type:jwt\",\
             \"id_token\":\"tok.en\",\"expiration_time\":1893553445}\n"
        )
    );
}

#[test]
fn what_does_not_expire_says_nothing_about_it() {
    let fake = Fake::new(|_, _| {
        json(
            200,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t"}"#,
        )
    });
    let (_, k8s, _) = token(&["p", "--format=k8s-exec"], &fake);
    assert!(k8s.ends_with("\"status\":{\"token\":\"t\"}}\n"), "{k8s}");
    let (_, google, _) = token(&["p", "--format=google-executable"], &fake);
    assert!(google.ends_with("\"id_token\":\"t\"}\n"), "{google}");
}

#[test]
fn curl_is_quoted() {
    let fake = Fake::new(|_, _| {
        json(
            200,
            r#"{"token":"a\"b\\c","token_type":"Bearer","authorization":"Bearer a\"b\\c"}"#,
        )
    });
    let (_, out, _) = token(&["p", "--format=curl"], &fake);
    assert_eq!(out, "header = \"Authorization: Bearer a\\\"b\\\\c\"\n");
}

#[test]
fn k8s_exec_answers_in_the_version_that_is_asked_for() {
    let fake = good();
    let ask = |info: &str| {
        token_in(
            &["p", "--format=k8s-exec"],
            to(&fake),
            &[("KUBERNETES_EXEC_INFO", info)],
        )
    };
    let (code, out, _) = ask(
        r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1","spec":{}}"#,
    );
    assert_eq!(code, exit::DONE);
    assert!(
        out.starts_with("{\"apiVersion\":\"client.authentication.k8s.io/v1beta1\","),
        "{out}"
    );
    for info in [
        r#"{"apiVersion":"client.authentication.k8s.io/v1alpha1"}"#,
        "{}",
        "nonsense",
    ] {
        let (code, out, err) = ask(info);
        assert_eq!((code, out.as_str()), (exit::USAGE, ""));
        assert!(err.contains("KUBERNETES_EXEC_INFO"), "{err}");
    }
    assert_eq!(
        token_in(&["p"], to(&fake), &[("KUBERNETES_EXEC_INFO", "nonsense")]),
        done("tok.en\n")
    );
}

#[test]
fn google_executable_answers_with_the_type_that_is_asked_for() {
    let fake = good();
    let name = "GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE";
    let ask = |wanted: &str| {
        token_in(
            &["p", "--format=google-executable"],
            to(&fake),
            &[(name, wanted)],
        )
    };
    let (code, out, _) = ask("urn:ietf:params:oauth:token-type:id_token");
    assert_eq!(code, exit::DONE);
    assert!(
        out.contains("\"token_type\":\"urn:ietf:params:oauth:token-type:id_token\""),
        "{out}"
    );
    let (code, out, _) = ask("urn:ietf:params:oauth:token-type:saml2");
    assert_eq!(code, exit::USAGE);
    assert!(
        out.starts_with("{\"version\":1,\"success\":false,"),
        "{out}"
    );
}

#[test]
fn google_executable_tells_failures_on_standard_output_too() {
    let fake =
        Fake::new(|_, _| refusal(503, "UNAVAILABLE", "UPSTREAM_UNAVAILABLE", "no \"route\""));
    let (code, out, err) = token(&["p", "--format=google-executable"], &fake);
    assert_eq!(code, exit::UNAVAILABLE);
    assert_eq!(
        out,
        "{\"version\":1,\"success\":false,\"code\":\"UNAVAILABLE\",\
         \"message\":\"no \\\"route\\\" (UPSTREAM_UNAVAILABLE)\"}\n"
    );
    assert!(
        err.starts_with("tokend: p: no \"route\" (UPSTREAM_UNAVAILABLE)\n  help: "),
        "{err}"
    );
    let nowhere = Err(ClientError::Unreachable {
        socket: None,
        cause: "x".into(),
        cure: "y".into(),
    });
    let (code, out, _) = token_in(&["p", "--format=google-executable"], nowhere, &[]);
    assert_eq!(code, exit::UNREACHABLE);
    assert!(out.contains("\"code\":\"DAEMON_UNREACHABLE\""), "{out}");
}

#[test]
fn method_none_prints_nothing_where_that_can_be_and_fails_elsewhere() {
    let fake = Fake::new(|_, _| {
        json(
            200,
            r#"{"token":"","token_type":"","authorization":"","generation":1}"#,
        )
    });
    for form in ["token", "header", "curl"] {
        let (code, out, err) = token(&["p", "--format", form], &fake);
        assert_eq!((code, out.as_str()), (exit::DONE, ""), "{form}");
        assert!(err.contains("sends no Authorization header"), "{err}");
    }
    for form in ["k8s-exec", "google-executable"] {
        let (code, out, err) = token(&["p", "--format", form], &fake);
        assert_eq!(code, exit::REJECTED);
        assert!(
            !out.contains("\"success\":true") && !out.contains("ExecCredential"),
            "{out}"
        );
        assert!(err.contains("method none"), "{err}");
    }
    assert_eq!(token(&["p", "--json"], &fake).0, exit::DONE);
}

#[test]
fn basic_is_no_bearer_token() {
    let fake = Fake::new(|_, _| {
        json(
            200,
            r#"{"token":"ZDpk","token_type":"Basic","authorization":"Basic ZDpk"}"#,
        )
    });
    assert_eq!(token(&["p"], &fake), done("ZDpk\n"));
    assert_eq!(
        token(&["p", "--header"], &fake),
        done("Authorization: Basic ZDpk\n")
    );
    for form in ["k8s-exec", "google-executable"] {
        let (code, out, _) = token(&["p", "--format", form], &fake);
        assert_eq!(code, exit::REJECTED);
        assert!(!out.contains("ZDpk"), "{out}");
    }
}

#[test]
fn each_error_has_its_exit_status_and_leaves_standard_output_empty() {
    for (status, code, expected) in [
        (400, "INVALID_ARGUMENT", exit::USAGE),
        (404, "NOT_FOUND", exit::NOT_FOUND),
        (503, "UNAVAILABLE", exit::UNAVAILABLE),
        (504, "DEADLINE_EXCEEDED", exit::UNAVAILABLE),
        (429, "RESOURCE_EXHAUSTED", exit::UNAVAILABLE),
        (424, "FAILED_PRECONDITION", exit::REJECTED),
        (400, "OUT_OF_RANGE", exit::REJECTED),
        (403, "PERMISSION_DENIED", exit::NOT_ADMIN),
        (500, "INTERNAL", exit::FINDINGS),
    ] {
        let fake = Fake::new(move |_, _| refusal(status, code, "WHY", "because\x1b[2J"));
        let (exit, out, err) = token(&["p"], &fake);
        assert_eq!((exit, out.as_str()), (expected, ""), "{code}");
        assert!(
            err.starts_with("tokend: p: because\\u{1b}[2J (WHY)\n"),
            "{err}"
        );
    }
    let garbage = Fake::new(|_, _| Reply::Bytes(b"220 mail.example ESMTP\r\n\r\n".to_vec()));
    assert_eq!(token(&["p"], &garbage).0, exit::UNREACHABLE);
    let cut = Fake::new(|_, _| Reply::Bytes(Vec::new()));
    assert_eq!(token(&["p"], &cut).0, exit::UNREACHABLE);
}

/// Broken by taking every silence for a slow daemon, or none.
#[test]
fn a_daemon_that_is_slow_and_one_that_does_not_answer_are_told_apart() {
    let slow = Fake::new(|_, target| match target {
        "/healthz" => json(200, "{}"),
        _ => Reply::Hang(Vec::new()),
    });
    let (code, _, err) = token(&["p", "--timeout", "200ms"], &slow);
    assert_eq!(code, exit::UNAVAILABLE);
    assert!(
        err.starts_with("tokend: p: no answer within 200ms\n"),
        "{err}"
    );
    assert!(err.contains("the daemon is there"), "{err}");
    let silent = Fake::new(|_, _| Reply::Hang(Vec::new()));
    let (code, _, err) = token(&["p", "--timeout", "200ms"], &silent);
    assert_eq!(code, exit::UNREACHABLE);
    let place = silent.socket().display();
    assert!(
        err.starts_with(&format!(
            "tokend: p: daemon not reachable at {place}: the daemon, process "
        )),
        "{err}"
    );
    assert!(
        err.contains("hangs or is overloaded") && err.contains("systemctl status tokend"),
        "{err}"
    );
}

#[test]
fn no_daemon_is_6_with_the_place_and_a_cure() {
    let client = Client::new("/nonexistent/tokend.sock".into(), Clock::system());
    let (code, out, err) = token_in(&["p"], Ok(client), &[]);
    assert_eq!((code, out.as_str()), (exit::UNREACHABLE, ""));
    assert!(
        err.starts_with(
            "tokend: p: daemon not reachable at /nonexistent/tokend.sock: there is no such socket\n  help: "
        ),
        "{err}"
    );
}

#[test]
fn an_unknown_profile_is_answered_with_those_that_exist() {
    let fake = Fake::new(|_, target| match target {
        "/v1/profiles" => json(
            200,
            r#"{"profiles":[{"name":"orders"},{"name":"x\u001b"}]}"#,
        ),
        _ => refusal(404, "NOT_FOUND", "PROFILE_NOT_FOUND", "no such profile"),
    });
    let (code, _, err) = token(&["order"], &fake);
    assert_eq!(code, exit::NOT_FOUND);
    assert_eq!(
        err,
        "tokend: order: no such profile (PROFILE_NOT_FOUND)\n  help: this user may use: orders, x\\u{1b}\n"
    );
}

#[test]
fn a_reader_that_went_away_ends_it_quietly_and_a_full_disk_does_not() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let fake = good();
    let Ok(Command::Token(args)) = parsed(&["token", "p"]) else {
        panic!("not understood");
    };
    let mut err = Vec::new();
    assert_eq!(
        run(&args, to(&fake), &|_| None, &mut Gone, &mut err),
        exit::DONE
    );
    assert!(err.is_empty());
    assert_eq!(
        run(&args, to(&fake), &|_| None, &mut Full, &mut err),
        exit::FINDINGS
    );
    assert!(!err.is_empty() && !String::from_utf8_lossy(&err).contains("tok.en"));
}

#[test]
fn options_reach_the_daemon() {
    let fake = good();
    let words = [
        "p",
        "--min-ttl",
        "5m",
        "--scope",
        "a",
        "--scope",
        "b",
        "--audience",
        "c",
    ];
    assert_eq!(token(&words, &fake).0, exit::DONE);
    let head = &fake.requests()[0];
    assert!(
        head.starts_with(
            "GET /v1/profiles/p/token?min_ttl=300s&scopes=a&scopes=b&audience=c HTTP/1.1\r\n"
        ),
        "{head}"
    );
}
