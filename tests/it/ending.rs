//! Endings while a call waits: the caller gives up, or the daemon stops.

#[path = "../alone/abuse/frames.rs"]
#[expect(dead_code, reason = "floods are sent elsewhere")]
mod frames;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokend_issuer::faults::{Fault, Times};
use tokio::sync::Semaphore;
use tonic::Request;

use self::frames::{ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, WINDOW_UPDATE, frame};
use crate::harness::ask::{connect, exchange, get};
use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{PATIENCE, block, eventually, runtime};

#[test]
fn a_callers_deadline_ends_its_wait_and_not_the_attempt() {
    let (issuer, place, config) = idp::one(LAZY);
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"");
    let hold = Arc::new(Semaphore::new(0));
    issuer.script(Fault::Hold(hold.clone()), Times::Next(1));
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let start = Instant::now();
    let mut request = Request::new(get("it"));
    request.set_timeout(Duration::from_millis(300));
    let why = block(grpc.clone().asking(request)).err().expect("too late");
    let took = start.elapsed();
    // The client's own timer and the daemon's answer race each other.
    assert!(
        ["DEADLINE_EXCEEDED", "CANCELLED"].contains(&why.code.as_str()),
        "{why:?}"
    );
    assert!(
        took >= Duration::from_millis(290) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_eq!(issuer.count("/token"), 1);
    hold.add_permits(1);
    grpc.token("it").expect("what the first call began");
    assert_eq!(issuer.count("/token"), 1);
}

#[test]
fn a_clean_shutdown_answers_who_waits() {
    let (issuer, place, config) = idp::one(LAZY);
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"");
    let hold = Arc::new(Semaphore::new(0));
    issuer.script(Fault::Hold(hold.clone()), Times::Always);
    let mut daemon = place.serve(&config);
    let waiting = runtime().spawn(daemon.grpc().asking(Request::new(get("it"))));
    eventually(PATIENCE, || (issuer.count("/token") == 1).then_some(()));
    daemon.signal(Signal::TERM);
    eventually(PATIENCE, || daemon.log().contains("stopping").then_some(()));
    hold.add_permits(1);
    block(waiting)
        .expect("no panic")
        .expect("the token that it waited for");
    assert_eq!(daemon.ended(), Some(0));
}

#[test]
fn a_clean_shutdown_does_not_wait_for_ever() {
    let (issuer, place, config) = idp::one(LAZY);
    // Each call has its own profile, so that the provider can tell when both have asked.
    place.secret("other.secret", SECRET);
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"")
        + &idp::profile("other", "it", LAZY);
    issuer.script(Fault::Hang, Times::Always);
    let mut daemon = place.serve(&config);
    let waiting = runtime().spawn(daemon.grpc().asking(Request::new(get("it"))));
    let socket = daemon.socket();
    let over_http = std::thread::spawn(move || {
        let request = "GET /v1/profiles/other/token HTTP/1.1\r\nHost: tokend\r\n\r\n";
        exchange(&socket, None, request.as_bytes())
    });
    eventually(PATIENCE, || (issuer.count("/token") == 2).then_some(()));
    let start = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(6),
        "{:?}",
        start.elapsed()
    );
    let why = block(waiting)
        .expect("no panic")
        .err()
        .expect("nothing came");
    assert_eq!(why.code, "UNAVAILABLE", "{why:?}");
    let answer = over_http.join().expect("no panic").expect("an answer");
    let answer = String::from_utf8(answer).expect("text");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
}

#[test]
fn a_second_signal_does_not_wait_for_callers() {
    let (issuer, place, config) = idp::one(LAZY);
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"");
    issuer.script(Fault::Hang, Times::Always);
    let mut daemon = place.serve(&config);
    let waiting = runtime().spawn(daemon.grpc().asking(Request::new(get("it"))));
    eventually(PATIENCE, || (issuer.count("/token") == 1).then_some(()));
    daemon.signal(Signal::TERM);
    eventually(PATIENCE, || daemon.log().contains("stopping").then_some(()));
    let start = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
    assert!(block(waiting).expect("no panic").is_err());
}

/// The type of a GOAWAY frame. Its payload is the last stream and the reason.
const GOAWAY: u8 = 7;

fn next(mut stream: &UnixStream) -> (u8, u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).expect("a frame");
    let [a, b, c, kind, flags, ..] = head;
    let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
    stream.read_exact(&mut payload).expect("its payload");
    (kind, flags, payload)
}

/// Waits for the PING of a goodbye and returns the answer to it.
fn heard(stream: &UnixStream) -> Vec<u8> {
    loop {
        if let (PING, 0, payload) = next(stream) {
            return frame(PING, ACK, 0, &payload);
        }
    }
}

/// A client whose write fails does not read on. It loses the calls that the last GOAWAY would let
/// it send again on another connection. Broken by a connection that is closed as soon as the daemon
/// has said everything.
#[test]
fn a_call_that_crosses_the_end_can_be_written() {
    let (_issuer, place, config) = idp::one(LAZY);
    let mut daemon = place.serve(&config);
    let mut stream = connect(&daemon.socket(), None).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    stream.write_all(&frames::opening()).expect("written");
    daemon.signal(Signal::TERM);
    let heard = heard(&stream);
    stream.write_all(&heard).expect("written");
    stream.read_to_end(&mut Vec::new()).expect("the end");
    // The test repeats this, since closing would take a moment.
    for n in 0..50 {
        let call = frames::call(frames::stream(n), "it");
        stream.write_all(&call).expect("somebody listens");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(stream);
    assert_eq!(daemon.ended(), Some(0));
}

/// Such a client is a process that is stopped, or one that looks at its connections only when it
/// has something to ask. Broken by a drain that gives every connection as much time as a call.
#[test]
fn a_client_that_does_not_react_and_waits_for_nothing_holds_nobody_up() {
    let (_issuer, place, config) = idp::one(LAZY);
    let mut daemon = place.serve(&config);
    let mut stream = connect(&daemon.socket(), None).expect("connected");
    stream.write_all(&frames::opening()).expect("written");
    let start = Instant::now();
    assert_eq!(daemon.stop(), Some(0));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// gRPC's C core may begin a call after its answer to the PING of a goodbye, and then opens the
/// window of that call. h2 alone would end the connection for that, and every call on it would
/// fail. Broken by a scanner without its `heard_of`.
#[test]
fn a_call_that_is_begun_too_late_costs_no_other_its_answer() {
    let (issuer, place, config) = idp::one(LAZY);
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"");
    let hold = Arc::new(Semaphore::new(0));
    issuer.script(Fault::Hold(hold.clone()), Times::Always);
    let mut daemon = place.serve(&config);
    let mut stream = connect(&daemon.socket(), None).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("set");
    let begin = [frames::opening(), frames::call(1, "it")].concat();
    stream.write_all(&begin).expect("written");
    eventually(PATIENCE, || (issuer.count("/token") == 1).then_some(()));
    daemon.signal(Signal::TERM);
    let late = [
        heard(&stream),
        frame(HEADERS, END_HEADERS, 3, &frames::head()),
        frame(WINDOW_UPDATE, 0, 3, &5_u32.to_be_bytes()),
        frame(DATA, END_STREAM, 3, &frames::message("it")),
    ];
    stream.write_all(&late.concat()).expect("written");
    let goodbye = loop {
        if let (GOAWAY, _, payload) = next(&stream) {
            break payload;
        }
    };
    assert_eq!(
        goodbye,
        [0, 0, 0, 1, 0, 0, 0, 0],
        "the first call is the last one, and nothing is wrong"
    );
    hold.add_permits(1);
    let mut messages = 0;
    loop {
        let (kind, flags, payload) = next(&stream);
        assert_ne!(kind, GOAWAY, "{payload:?}");
        messages += u32::from(kind == DATA);
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            break;
        }
    }
    assert_eq!(messages, 1, "the token that it waited for");
    assert_eq!(daemon.ended(), Some(0));
}
