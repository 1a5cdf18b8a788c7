//! Trap 39: file and identity provider do not get a new secret at the same moment. Whichever is
//! first, a credential is there within seconds after they agree. Until then no status says that all
//! is right.

use std::time::Duration;

use tokend_issuer::client::RegisteredClient;
use tokend_issuer::{Issuer, Settings};

use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually};

const NEXT: &str = "the-secret-that-follows";

/// One client and its profile `it`, with tokens of four seconds.
fn short() -> (Issuer, Place, String) {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        token_lifetime: Duration::from_secs(4),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    place.secrets.add(NEXT);
    let config = idp::idp(&issuer) + &idp::profile("it", "it", "");
    (issuer, place, config)
}

fn switch(issuer: &Issuer, secret: &str) {
    issuer.set_client_secret("it", secret);
}

/// Waits for two renewals of the version in force. By then a refused version beside it has had its
/// second opinion.
fn renewed_twice(daemon: &Daemon) {
    let generation = |daemon: &Daemon| {
        let token = daemon.grpc().token("it").expect("served all the time");
        token.credential.generation
    };
    let first = generation(daemon);
    eventually(PATIENCE, || (generation(daemon) >= first + 2).then_some(()));
}

fn warnings(daemon: &Daemon) -> String {
    daemon.get("/v1/status").body["profiles"][0]["warnings"].to_string()
}

const ALL_RIGHT: &str = "nothing is wrong with the profile any more";

/// Broken by a staged version that sleeps in its probe when the live one is refused, and by one
/// that still sleeps when it takes over.
#[test]
fn trap_39_a_provider_that_switches_late_costs_seconds() {
    let (issuer, place, config) = short();
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("a token");
    daemon.place.secret("it.secret", NEXT);
    eventually(PATIENCE, || {
        warnings(&daemon).contains("invalid_client").then_some(())
    });
    renewed_twice(&daemon);
    switch(&issuer, NEXT);
    eventually(PATIENCE, || {
        let right = daemon.log().contains(ALL_RIGHT);
        let (served, said) = (daemon.grpc().token("it").is_ok(), warnings(&daemon));
        assert!(!right || served, "called right without a credential");
        (served && !said.contains("not in force")).then_some(())
    });
    eventually(PATIENCE, || daemon.log().contains(ALL_RIGHT).then_some(()));
}

/// Broken by a probe pause of minutes after the second refusal of a secret that has worked until
/// then.
#[test]
fn a_provider_that_switches_and_back_costs_seconds() {
    let (issuer, place, config) = short();
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("a token");
    switch(&issuer, NEXT);
    eventually(PATIENCE, || daemon.grpc().token("it").err());
    // The provider has refused it more than twice by now.
    let before = issuer.count("/token");
    eventually(PATIENCE, || (issuer.count("/token") > before).then_some(()));
    switch(&issuer, SECRET);
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
}

#[test]
fn nothing_is_called_right_while_there_is_no_credential() {
    let (issuer, place, config) = short();
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("a token");
    // The file and the provider get two different new secrets.
    daemon
        .place
        .secret("it.secret", "a-secret-that-nobody-knows");
    switch(&issuer, NEXT);
    eventually(PATIENCE, || daemon.grpc().token("it").err());
    eventually(PATIENCE, || {
        warnings(&daemon)
            .contains("has taken over from what has ended, and has no credential yet")
            .then_some(())
    });
    let ran = daemon.place.run(&["reload"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("rejected"), "{}", ran.out);
    assert!(!daemon.log().contains(ALL_RIGHT));
    assert!(!daemon.log().contains("definition in force"));
    switch(&issuer, "a-secret-that-nobody-knows");
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    eventually(PATIENCE, || daemon.log().contains(ALL_RIGHT).then_some(()));
    eventually(PATIENCE, || (warnings(&daemon) == "[]").then_some(()));
}

#[test]
fn an_ordinary_rotation_warns_of_nothing() {
    let (issuer, place, config) = idp::one("");
    place.secrets.add(NEXT);
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("a token");
    let first = daemon.grpc().token("it").expect("served").credential;
    switch(&issuer, NEXT);
    daemon.place.secret("it.secret", NEXT);
    eventually(PATIENCE, || {
        let now = daemon.grpc().token("it").expect("served all the time");
        (now.credential.fingerprint != first.fingerprint).then_some(())
    });
    eventually(PATIENCE, || {
        daemon.log().contains("definition in force").then_some(())
    });
    let log = daemon.log();
    // Its first credential promotes the version, and not another look at the files.
    let trial = log.split("is being tried").nth(1).expect("tried");
    let trial = trial.split("definition in force").next().expect("promoted");
    let looks = trial
        .lines()
        .filter(|line| line.contains("profiles complete="));
    assert_eq!(looks.count(), 1, "{trial}");
    let loud: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}
