//! What ends while somebody waits: the caller's patience, and the daemon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokend::dev::faults::{Fault, Times};
use tokio::sync::Semaphore;
use tonic::Request;

use crate::harness::ask::{exchange, get};
use crate::harness::idp::{self, LAZY};
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
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"");
    issuer.script(Fault::Hang, Times::Always);
    let mut daemon = place.serve(&config);
    let waiting = runtime().spawn(daemon.grpc().asking(Request::new(get("it"))));
    let socket = daemon.socket();
    let over_http = std::thread::spawn(move || {
        let request = "GET /v1/profiles/it/token HTTP/1.1\r\nHost: tokend\r\n\r\n";
        exchange(&socket, None, request.as_bytes())
    });
    eventually(PATIENCE, || (issuer.count("/token") == 1).then_some(()));
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
