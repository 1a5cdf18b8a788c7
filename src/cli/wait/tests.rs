//! How long the command waits, and when it gives up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::cli::Command;
use crate::cli::tests::{parsed, to};
use crate::client::fake::{Fake, Reply, TOKEN, json, refusal};
use crate::clock::Clock;

/// The exit status and standard error.
fn wait(words: &[&str], client: Result<Client, ClientError>) -> (u8, String) {
    let Ok(Command::Wait(args)) = parsed(&[&["wait"], words].concat()) else {
        panic!("{words:?} is not understood");
    };
    let mut err = Vec::new();
    let code = run(&args, client, &mut err);
    (code, String::from_utf8(err).unwrap())
}

fn soon(code: &str) -> Reply {
    json(
        503,
        &format!(r#"{{"code":"{code}","message":"not yet","retry_after":0}}"#),
    )
}

#[test]
fn it_is_over_when_all_are_usable() {
    let fake = Fake::new(|_, _| json(200, TOKEN));
    assert_eq!(wait(&["a"], to(&fake)), (exit::DONE, String::new()));
    assert_eq!(
        wait(&["a", "b", "c", "a"], to(&fake)),
        (exit::DONE, String::new())
    );
    assert_eq!(fake.requests().len(), 4, "each once");
}

#[test]
fn it_asks_again_after_every_error_that_may_pass() {
    let fake = Fake::new(|number, _| match number {
        0 => soon("UNAVAILABLE"),
        1 => soon("FAILED_PRECONDITION"),
        2 => soon("INTERNAL"),
        3 => soon("RESOURCE_EXHAUSTED"),
        4 => Reply::Bytes(b"nonsense\r\n".to_vec()),
        _ => json(200, TOKEN),
    });
    assert_eq!(wait(&["a", "--timeout", "30s"], to(&fake)).0, exit::DONE);
    assert_eq!(fake.requests().len(), 6);
}

#[test]
fn it_says_what_it_waits_for_whenever_that_changes() {
    let fake = Fake::new(|number, _| match number {
        0..3 => soon("UNAVAILABLE"),
        3..6 => soon("FAILED_PRECONDITION"),
        6 => soon("UNAVAILABLE"),
        _ => json(200, TOKEN),
    });
    assert_eq!(
        wait(&["a", "--timeout", "30s"], to(&fake)),
        (
            exit::DONE,
            "tokend: a: waiting: not yet (UNAVAILABLE)\n\
             tokend: a: waiting: not yet (FAILED_PRECONDITION)\n\
             tokend: a: waiting: not yet (UNAVAILABLE)\n"
                .to_owned()
        )
    );
}

#[test]
fn an_unknown_profile_ends_it_at_once_whatever_the_others_do() {
    let fake = Fake::new(|_, target| match target {
        "/v1/profiles/slow/token" => Reply::Hang(Vec::new()),
        _ => refusal(404, "NOT_FOUND", "PROFILE_NOT_FOUND", "no such profile"),
    });
    let clock = Clock::system();
    let before = clock.now().boot;
    let (code, err) = wait(&["slow", "unknown", "--timeout", "60s"], to(&fake));
    assert_eq!(code, exit::NOT_FOUND);
    assert!(err.starts_with("tokend: unknown: no such profile"), "{err}");
    assert!(clock.now().boot.since(before) < Duration::from_secs(30));
}

#[test]
fn a_daemon_that_starts_meanwhile_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("tokend.sock");
    let client = Client::new(socket.clone(), Clock::system());
    // With its fourth look at the clock the client begins its first connection. The daemon starts
    // after the sixth look, which belongs to the second attempt, so it is sure to be missed once.
    let (looked, starts) = mpsc::channel();
    let system = Clock::system();
    let watched = Clock::given(move || {
        let _ = looked.send(());
        system.now()
    });
    let late = thread::spawn(move || {
        for _ in 0..6 {
            starts.recv().unwrap();
        }
        Fake::at(socket, dir, |_, _| json(200, TOKEN))
    });
    let client = Client::new(client.socket().to_owned(), watched);
    let (code, err) = wait(&["a", "--timeout", "30s"], Ok(client));
    assert_eq!(code, exit::DONE);
    assert!(
        err.starts_with("tokend: a: waiting: daemon not reachable"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "once: {err}");
    drop(late.join().unwrap());
}

/// A daemon, and a client whose time is up when the daemon gets question number `last`, from 0. The
/// answer to that question is too long to be read in no time.
fn until_question(last: usize, code: &'static str) -> (Fake, Client) {
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let fake = Fake::new(move |number, _| {
        if number < last {
            return soon(code);
        }
        ends.store(true, Ordering::SeqCst);
        let endless = "x".repeat(2_000_000);
        Reply::Hang(
            format!("HTTP/1.1 200 OK\r\ncontent-length: 4000000\r\n\r\n{endless}").into_bytes(),
        )
    });
    let system = Clock::system();
    let clock = Clock::given(move || match over.load(Ordering::SeqCst) {
        true => system.now().plus(Duration::from_secs(3600)),
        false => system.now(),
    });
    let client = Client::new(fake.socket().to_owned(), clock);
    (fake, client)
}

#[test]
fn when_time_is_up_the_last_no_is_told_rather_than_our_own_deadline() {
    for (code, expected) in [
        ("UNAVAILABLE", exit::UNAVAILABLE),
        ("INTERNAL", exit::UNAVAILABLE),
        ("FAILED_PRECONDITION", exit::REJECTED),
    ] {
        let (fake, client) = until_question(2, code);
        let (exit, err) = wait(&["a", "--timeout", "30s"], Ok(client));
        assert_eq!(exit, expected, "{code}");
        let no = format!("not yet ({code})");
        let (waiting, end) = err.split_once('\n').expect("lines");
        assert_eq!(waiting, format!("tokend: a: waiting: {no}"));
        assert!(end.starts_with(&format!("tokend: a: {no}\n")), "{err}");
        let asked = fake.requests();
        let asked = asked.iter().filter(|head| head.contains("/a/token"));
        assert_eq!(asked.count(), 3);
    }
    let (_fake, client) = until_question(0, "");
    let (code, err) = wait(&["a", "--timeout", "30s"], Ok(client));
    assert_eq!(code, exit::UNAVAILABLE);
    assert!(err.starts_with("tokend: a: no answer within"), "{err}");
}

#[test]
fn a_daemon_that_never_came_is_6() {
    let client = Client::new("/nonexistent/tokend.sock".into(), Clock::system());
    let (code, err) = wait(&["a", "b", "--timeout", "200ms"], Ok(client));
    assert_eq!(code, exit::UNREACHABLE);
    for name in ["a", "b"] {
        assert!(
            err.contains(&format!("tokend: {name}: daemon not reachable")),
            "{err}"
        );
    }
}

#[test]
fn a_daemon_that_left_meanwhile_is_4_and_not_6() {
    let refusal = ClientError::Refused(crate::client::ServerRefusal {
        code: "UNAVAILABLE".into(),
        reason: String::new(),
        message: String::new(),
        retry_after: None,
    });
    let gone = || ClientError::Closed("/x".into());
    assert_eq!(unusable(gone(), Some(refusal)).exit, exit::UNAVAILABLE);
    assert_eq!(unusable(gone(), None).exit, exit::UNREACHABLE);
}

#[test]
fn zero_asks_once() {
    let fake = Fake::new(|_, _| soon("UNAVAILABLE"));
    let (code, _) = wait(&["a", "--timeout", "0"], to(&fake));
    assert_eq!((code, fake.requests().len()), (exit::UNAVAILABLE, 1));
    let client = Client::new("/nonexistent/tokend.sock".into(), Clock::system());
    assert_eq!(
        wait(&["a", "--timeout", "0s"], Ok(client)).0,
        exit::UNREACHABLE
    );
}

#[test]
fn several_failures_are_told_in_order_and_repairs_outrank_time() {
    let fake = Fake::new(|_, target| match target {
        "/v1/profiles/z/token" => soon("UNAVAILABLE"),
        "/v1/profiles/m/token" => json(200, TOKEN),
        _ => soon("FAILED_PRECONDITION"),
    });
    let (code, err) = wait(&["z", "m", "a", "--timeout", "0"], to(&fake));
    assert_eq!(code, exit::REJECTED);
    let heads: Vec<&str> = err
        .lines()
        .filter(|line| line.starts_with("tokend: "))
        .collect();
    assert_eq!(
        heads,
        [
            "tokend: z: not yet (UNAVAILABLE)",
            "tokend: a: not yet (FAILED_PRECONDITION)"
        ]
    );
}

#[test]
fn pauses_obey_the_daemon_within_bounds() {
    let refused = |retry_after| {
        pause_after(&ClientError::Refused(crate::client::ServerRefusal {
            code: "UNAVAILABLE".into(),
            reason: String::new(),
            message: String::new(),
            retry_after,
        }))
    };
    assert_eq!(refused(None), PAUSE_LONGEST);
    assert_eq!(refused(Some(Duration::ZERO)), PAUSE_SHORTEST);
    assert_eq!(
        refused(Some(Duration::from_millis(300))),
        Duration::from_millis(300)
    );
    assert_eq!(refused(Some(Duration::from_secs(3600))), PAUSE_LONGEST);
}
