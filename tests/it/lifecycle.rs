//! Promises 1 to 3 of docs/promises.md end to end: three lifetimes without an identity provider,
//! waits that the daemon obeys, repairs that it notices, streams, reports, and a thousand profiles
//! that start at once.

use std::time::{Duration, Instant};

use tokend::proto::credential_service_client::CredentialServiceClient;
use tokend::proto::watch_token_response::Event;
use tokend::proto::{Credential, WatchTokenRequest};
use tokend_issuer::Settings;
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::faults::{Fault, Target, Times};
use tonic::Streaming;

use crate::harness::ask::{Grpc, exchange};
use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, block, eventually};

fn short_lived(seconds: u64) -> (tokend_issuer::Issuer, Place, String) {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        token_lifetime: Duration::from_secs(seconds),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let config = idp::idp(&issuer) + &idp::profile("it", "it", "");
    (issuer, place, config)
}

#[test]
fn promises_1_and_2_down_for_three_lifetimes_served_to_the_true_end_and_back_within_one_step() {
    const LIFE: u64 = 4;
    let (issuer, place, config) = short_lived(LIFE);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let first = grpc.token("it").expect("a token");
    idp::down(&issuer);
    let down = Instant::now();
    let mut served_until = Duration::ZERO;
    let mut stale = false;
    let mut refused = None;
    while down.elapsed() < Duration::from_secs(3 * LIFE) {
        let asked = Instant::now();
        match grpc.token("it") {
            Ok(token) => {
                assert!(refused.is_none(), "dead, and then served again");
                let left = token.expires_in.expect("it expires");
                assert!(left > 0.0, "expired");
                assert!(asked.elapsed() < Duration::from_secs(1), "delayed");
                served_until = down.elapsed();
                stale |= token.credential.stale;
            }
            Err(why) => {
                assert_eq!(
                    (why.code.as_str(), why.reason.as_str()),
                    ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
                );
                assert!(why.retry_after.is_some(), "{why:?}");
                refused = Some(why);
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // The token was served for its whole life but for the margin, which is a tenth of so short a
    // life, and for the part that had passed when the provider went down.
    let said = Duration::from_secs_f64(first.expires_in.expect("it expires"));
    assert!(
        served_until + Duration::from_millis(600) > said,
        "served for {served_until:?} of {said:?}"
    );
    assert!(stale, "the failed renewal was not told");
    assert!(refused.is_some(), "refused in the end");
    idp::up(&issuer);
    let back = Instant::now();
    // A caller that asks now is told to wait for the rest of the back-off step. At its end the
    // provider is there again.
    if let Err(why) = grpc.token("it") {
        let step = why.retry_after.expect("told");
        eventually(step + PATIENCE, || grpc.token("it").ok());
        assert!(
            back.elapsed() < step + Duration::from_secs(1),
            "{:?} after its return, {step:?} was told",
            back.elapsed()
        );
    }
}

#[test]
fn a_429_is_obeyed_to_the_second() {
    let (issuer, place, config) = short_lived(300);
    let wait = Duration::from_secs(3);
    issuer.script(Fault::RetryAfter(429, wait), Times::Next(1));
    let daemon = place.serve(&config);
    let refusal = eventually(PATIENCE, || daemon.grpc().token("it").err());
    assert_eq!(refusal.reason, "UPSTREAM_UNAVAILABLE");
    assert!(refusal.retry_after.expect("told") <= wait);
    let http = daemon.http_token("it");
    assert_eq!(http.status, 503);
    let header: u64 = http
        .header("retry-after")
        .expect("told")
        .parse()
        .expect("seconds");
    assert!((1..=3).contains(&header));
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    let requests = issuer.requests();
    let [first, second] = requests.as_slice() else {
        panic!("{} requests", requests.len())
    };
    let gap = second.arrived.duration_since(first.arrived);
    assert!(
        gap >= wait && gap < wait + Duration::from_secs(1),
        "{gap:?}"
    );
}

/// Broken by a `told_to_wait` that is set for every failure and not only for a `Retry-After`: the
/// repaired secret would wait for the probe, which is minutes away.
#[test]
fn trap_14_a_repaired_secret_re_arms_a_refused_profile_at_once() {
    let (issuer, place, config) = short_lived(300);
    place.secret("it.secret", "not-the-right-one");
    let daemon = place.serve(&config);
    // After the second opinion, the next attempt is minutes away.
    eventually(PATIENCE, || (issuer.count("/token") == 2).then_some(()));
    let refusal = eventually(PATIENCE, || {
        daemon
            .grpc()
            .token("it")
            .err()
            .filter(|why| why.retry_after > Some(Duration::from_secs(60)))
    });
    assert_eq!(
        (refusal.code.as_str(), refusal.reason.as_str()),
        ("FAILED_PRECONDITION", "UPSTREAM_REJECTED")
    );
    assert_eq!(refusal.oauth_error.as_deref(), Some("invalid_client"));
    assert_eq!(daemon.grpc().health("it"), "NOT_SERVING");
    daemon.place.secret("it.secret", SECRET);
    let repaired = Instant::now();
    eventually(PATIENCE, || daemon.grpc().token("it").ok());
    assert!(
        repaired.elapsed() < Duration::from_secs(4),
        "{:?}",
        repaired.elapsed()
    );
    assert_eq!(daemon.grpc().health("it"), "SERVING");
}

#[test]
fn a_thousand_profiles_start_within_the_budget_and_are_all_served() {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        ..Settings::default()
    });
    issuer.script(Fault::SlowHeaders(Duration::from_millis(5)), Times::Always);
    let place = Place::new();
    place.secret("all.secret", SECRET);
    let mut config = idp::idp(&issuer).replace("max_in_flight = 200", "max_in_flight = 4");
    for number in 0..1000 {
        config += &idp::profile(&format!("p{number}"), "it", "")
            .replace(&format!("p{number}.secret"), "all.secret");
    }
    let daemon = place.serve(&config);
    eventually(Duration::from_secs(60), || {
        (daemon.get("/readyz").status == 200).then_some(())
    });
    assert_eq!(issuer.count("/token"), 1000);
    assert!(
        issuer.max_in_flight_seen() <= 4,
        "{}",
        issuer.max_in_flight_seen()
    );
    assert_eq!(
        issuer.count("/.well-known/openid-configuration"),
        1,
        "one discovery for all"
    );
}

/// A stream of one profile.
fn watch(grpc: &Grpc, profile: &str) -> Streaming<tokend::proto::WatchTokenResponse> {
    let request = WatchTokenRequest {
        profile: profile.to_owned(),
        ..WatchTokenRequest::default()
    };
    let mut client = CredentialServiceClient::new(grpc.channel.clone());
    block(client.watch_token(request))
        .expect("watching")
        .into_inner()
}

fn next(stream: &mut Streaming<tokend::proto::WatchTokenResponse>) -> Result<Event, tonic::Status> {
    block(async {
        tokio::time::timeout(PATIENCE, stream.message())
            .await
            .expect("something in time")
            .map(|message| message.expect("not the end").event.expect("an event"))
    })
}

fn credential(event: Event) -> Credential {
    match event {
        Event::Credential(credential) => credential,
        Event::Unavailable(why) => panic!("{why:?}"),
    }
}

#[test]
fn a_stream_brings_the_current_credential_and_each_replacement_before_it_expires() {
    let (issuer, place, config) = short_lived(4);
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("a token");
    let mut stream = watch(&daemon.grpc(), "it");
    let mut before = credential(next(&mut stream).expect("the current one"));
    for _ in 0..2 {
        let now = credential(next(&mut stream).expect("a replacement"));
        assert_eq!(now.generation, before.generation + 1);
        assert_ne!(now.token, before.token);
        let expired = before.expires_at.expect("it expires");
        let at = std::time::SystemTime::now();
        assert!(
            at < std::time::SystemTime::try_from(expired).expect("a time"),
            "too late"
        );
        before = now;
    }
    // The provider is down until the credential is dead. The stream reports that, stays open and
    // brings the next credential.
    idp::down(&issuer);
    loop {
        match next(&mut stream).expect("the stream lives") {
            Event::Credential(credential) => {
                assert!(credential.stale || credential.generation > before.generation)
            }
            Event::Unavailable(why) => {
                assert_eq!(why.reason, "UPSTREAM_UNAVAILABLE");
                break;
            }
        }
    }
    idp::up(&issuer);
    let after = credential(next(&mut stream).expect("it is back"));
    assert!(after.generation > before.generation);
    // A profile that is removed ends its streams.
    let config = config
        .split("\n[profiles.it]")
        .next()
        .expect("a part")
        .to_owned();
    daemon.place.write("tokend.toml", &config);
    let end = loop {
        match next(&mut stream) {
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), tonic::Code::NotFound);
}

/// Less than the time after which a stream checks by itself.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Broken by a registry that is swapped without `ProfileHandle::wake_watchers`: the stream would
/// end only when it checks by itself.
#[test]
fn a_rule_that_no_longer_permits_ends_streams_and_calls_of_open_connections() {
    let (_issuer, place, config) = short_lived(300);
    let us = rustix::process::geteuid().as_raw();
    let permit = |uid: u32| config.clone() + &format!("access = [{{ user = {uid} }}]\n");
    let daemon = place.serve(&permit(us));
    let grpc = daemon.grpc();
    let first = grpc.token("it").expect("permitted");
    let mut stream = watch(&grpc, "it");
    next(&mut stream).expect("permitted");
    daemon.place.write("tokend.toml", &permit(us + 1));
    let refusal = eventually(PATIENCE, || grpc.token("it").err());
    let changed = Instant::now();
    assert_eq!(refusal.code, "NOT_FOUND");
    assert_eq!(
        next(&mut stream).expect_err("ended").code(),
        tonic::Code::NotFound
    );
    assert!(changed.elapsed() < AT_ONCE, "{:?}", changed.elapsed());
    daemon.place.write("tokend.toml", &permit(us));
    let again = eventually(PATIENCE, || grpc.token("it").ok());
    assert_eq!(
        again.credential.fingerprint, first.credential.fingerprint,
        "a rule costs no request"
    );
}

/// Broken by a stream that checks only whether the profile is permitted: scopes and audiences are
/// part of the rule.
#[test]
fn a_scope_that_is_no_longer_allowed_ends_its_streams_and_no_others() {
    let (_issuer, place, config) = short_lived(300);
    let allow = |scopes: &str| config.clone() + &format!("request = {{ scopes = [{scopes}] }}\n");
    let daemon = place.serve(&allow("\"read\", \"write\""));
    let mut client = CredentialServiceClient::new(daemon.grpc().channel);
    let mut watch = |scopes: &[&str]| {
        let request = WatchTokenRequest {
            profile: "it".into(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            ..WatchTokenRequest::default()
        };
        let mut stream = block(client.watch_token(request))
            .expect("watching")
            .into_inner();
        next(&mut stream).expect("permitted");
        stream
    };
    let (mut own, mut read, mut write) = (watch(&[]), watch(&["read"]), watch(&["write"]));
    daemon.place.write("tokend.toml", &allow("\"read\""));
    assert_eq!(daemon.place.run(&["reload"]).code, Some(0));
    let changed = Instant::now();
    assert_eq!(
        next(&mut write).expect_err("ended").code(),
        tonic::Code::InvalidArgument
    );
    assert!(changed.elapsed() < AT_ONCE, "{:?}", changed.elapsed());
    for stream in [&mut own, &mut read] {
        let more = block(async { tokio::time::timeout(AT_ONCE, stream.message()).await });
        assert!(more.is_err(), "{more:?}");
    }
}

fn report(daemon: &Daemon, fingerprint: &str) -> serde_json::Value {
    let body = format!("{{\"fingerprint\":\"{fingerprint}\"}}");
    let request = format!(
        "POST /v1/profiles/it/rejected HTTP/1.1\r\nHost: tokend\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    let bytes = exchange(&daemon.socket(), None, request.as_bytes()).expect("an answer");
    let answer = crate::harness::ask::Answer::read(&bytes);
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.body
}

/// Broken by a `rejected` that does not look at the fingerprint.
#[test]
fn trap_13_a_thousand_reports_of_one_credential_cost_one_request() {
    let (issuer, place, config) = short_lived(300);
    let daemon = place.serve(&config);
    let first = daemon.grpc().token("it").expect("a token").credential;
    let mut replaced = 0;
    for _ in 0..1000 {
        replaced += usize::from(report(&daemon, &first.fingerprint)["replaced"] == true);
    }
    eventually(PATIENCE, || {
        daemon
            .grpc()
            .token("it")
            .ok()
            .filter(|token| token.credential.fingerprint != first.fingerprint)
    });
    assert_eq!(report(&daemon, &first.fingerprint)["replaced"], true);
    assert_eq!(issuer.count("/token"), 2);
    assert!(
        replaced < 1000,
        "the first reports came before the replacement"
    );
}

/// Broken by a second `send` after an error on a new connection, and by a third: the daemon cannot
/// know whether a request was carried out. It may send a client credentials request once more if a
/// kept connection was closed.
#[test]
fn trap_27_what_may_have_been_carried_out_is_not_sent_again_by_the_transport() {
    let (issuer, place, config) = short_lived(300);
    let daemon = place.serve(&config);
    let first = daemon.grpc().token("it").expect("a token").credential;
    // The issuer closes a connection that is already open, after it has read the request.
    issuer.script(Fault::CloseConnection, Times::Next(2));
    report(&daemon, &first.fingerprint);
    eventually(PATIENCE, || {
        daemon
            .grpc()
            .token("it")
            .ok()
            .filter(|token| token.credential.fingerprint != first.fingerprint)
    });
    let requests = issuer.requests();
    let [_, lost, repeated, again] = requests.as_slice() else {
        panic!("{} requests", requests.len())
    };
    let pause = repeated.arrived.duration_since(lost.arrived);
    assert!(pause < Duration::from_secs(1), "at once: {pause:?}");
    let pause = again.arrived.duration_since(repeated.arrived);
    assert!(
        pause >= Duration::from_secs(1),
        "the lifecycle's next attempt, not the transport's: {pause:?}"
    );
}

/// Broken by a `deadline` of one `http.timeout`: discovery and token request, each within its own
/// timeout, would never succeed.
#[test]
fn trap_28_one_deadline_has_room_for_every_timeout_inside() {
    let (issuer, place, config) = short_lived(300);
    // Each of the two has a timeout of a second.
    issuer.script_for(
        Target::Path("/.well-known/openid-configuration".into()),
        Fault::SlowHeaders(Duration::from_millis(700)),
        Times::Always,
    );
    issuer.script(
        Fault::SlowHeaders(Duration::from_millis(700)),
        Times::Always,
    );
    let daemon = place.serve(&config);
    let asked = Instant::now();
    let token = daemon.grpc().token("it");
    assert!(token.is_ok(), "{:?}", token.err());
    assert!(
        asked.elapsed() > Duration::from_millis(1200),
        "both were slow"
    );
    assert_eq!(issuer.count("/token"), 1, "and the first attempt did it");
}

/// Broken by a stream with a queue: it would bring replaced credentials, one after the other.
#[test]
fn a_reader_that_falls_behind_gets_the_newest() {
    let (_issuer, place, config) = short_lived(4);
    let quick = "refresh = { at = 0.1, jitter = 0.0, min_interval = \"100ms\" }\n";
    let daemon = place.serve(&(config + quick));
    daemon.grpc().token("it").expect("a token");
    // The window is so small that the next message does not fit before the reader has read the one
    // before.
    let mut stream = watch(&daemon.grpc_with_window(64), "it");
    let first = credential(next(&mut stream).expect("the current one"));
    let newest = || daemon.grpc().token("it").map(|token| token.credential);
    // The stream is not read for ten generations.
    let long_after = eventually(PATIENCE, || {
        newest()
            .ok()
            .filter(|token| token.generation >= first.generation + 10)
    });
    let mut seen = Vec::new();
    while seen.last() < Some(&long_after.generation) {
        seen.push(credential(next(&mut stream).expect("it goes on")).generation);
    }
    // Two messages were already on their way: one in the connection, one in the stream. Now and
    // then h2 takes a third (in one run of fifty with both processors taken away for half a second
    // at a time). The message after those is the newest.
    assert!(seen.len() <= 4, "{seen:?} after {}", first.generation);
}
