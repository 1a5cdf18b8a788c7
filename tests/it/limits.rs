//! `[server.limits]` through the executable: the daemon applies what is configured, and stops when
//! the cause is gone.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::harness::ask::{Answer, exchange};
use tokend::proto::GetTokenRequest;
use tokend_issuer::faults::{Fault, Times};

use crate::harness::{Daemon, PATIENCE, Place, block, eventually, resident};

const NONE: &str = "[profiles.a]\nmethod = \"none\"\n";

fn with(limits: &str) -> Daemon {
    Place::new().serve(&format!("[server.limits]\n{limits}\n{NONE}"))
}

/// Whether the daemon has closed this connection. Fails if it says nothing for too long.
fn is_closed(mut stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).is_ok()
}

#[test]
fn a_connection_that_says_nothing_or_half_of_it_is_closed_and_costs_nobody_anything() {
    let daemon = with("handshake_timeout = \"1s\"");
    let connect = || UnixStream::connect(daemon.socket()).expect("connected");
    let silent = connect();
    let half: Vec<UnixStream> = [
        "G",
        "GET /v1/prof",
        "PRI * HTTP/2.0\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
    ]
    .iter()
    .map(|text| {
        let mut stream = connect();
        stream.write_all(text.as_bytes()).expect("written");
        stream
    })
    .collect();
    assert_eq!(
        daemon.http_token("a").status,
        200,
        "others are served meanwhile"
    );
    assert!(is_closed(&silent));
    for stream in &half {
        assert!(is_closed(stream), "{stream:?}");
    }
}

#[test]
fn an_idle_connection_is_closed_and_a_watching_one_is_not() {
    use tokend::proto::WatchTokenRequest;
    use tokend::proto::credential_service_client::CredentialServiceClient;

    let daemon = with("idle_timeout = \"1s\"");
    let mut idle = UnixStream::connect(daemon.socket()).expect("connected");
    let request = "GET /healthz HTTP/1.1\r\nHost: tokend\r\n\r\n";
    idle.write_all(request.as_bytes()).expect("written");
    let mut watching = CredentialServiceClient::new(daemon.grpc().channel);
    let mut stream = crate::harness::block(watching.watch_token(WatchTokenRequest {
        profile: "a".into(),
        ..WatchTokenRequest::default()
    }))
    .expect("watching")
    .into_inner();
    crate::harness::block(stream.message()).expect("the current one");
    assert!(is_closed(&idle));
    // Two idle periods after the only request of the connection, its stream is still open.
    let more = crate::harness::block(async {
        tokio::time::timeout(Duration::from_secs(3), stream.message()).await
    });
    assert!(more.is_err(), "{more:?}");
}

#[test]
fn connections_of_one_user_are_limited_and_come_back() {
    let daemon = with("connections_per_user = 3");
    let hold = |stream: &mut UnixStream| {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: tokend\r\n\r\n")
            .is_ok()
            && stream.read(&mut [0; 64]).is_ok_and(|read| read > 0)
    };
    let mut held = Vec::new();
    eventually(PATIENCE, || {
        let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
        if hold(&mut stream) {
            held.push(stream);
            None
        } else {
            // The daemon may still count the connection with which the test saw it come up.
            (held.len() >= 3).then_some(())
        }
    });
    assert_eq!(held.len(), 3);
    held.clear();
    eventually(PATIENCE, || {
        let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
        hold(&mut stream).then_some(())
    });
    // The log reaches the test by another way, which may take longer.
    eventually(PATIENCE, || {
        daemon.log().contains("connections_per_user").then_some(())
    });
}

/// Broken by a line that is repeated as soon as there was room: a caller that keeps all places but
/// one could fill the log.
#[test]
fn connections_closed_for_want_of_room_are_one_line_in_the_log() {
    let daemon = with("connections_per_user = 2");
    let ask = |mut stream: &UnixStream| {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: tokend\r\n\r\n")
            .is_ok()
            && stream.read(&mut [0; 64]).is_ok_and(|read| read > 0)
    };
    let connect = || UnixStream::connect(daemon.socket()).expect("connected");
    let held = eventually(PATIENCE, || {
        let stream = connect();
        ask(&stream).then_some(stream)
    });
    for _ in 0..20 {
        // There is room, then there is none, and then there is room again.
        let other = eventually(PATIENCE, || {
            let stream = connect();
            ask(&stream).then_some(stream)
        });
        assert!(!ask(&connect()));
        drop(other);
    }
    assert!(ask(&held));
    daemon.signal(rustix::process::Signal::TERM);
    eventually(PATIENCE, || daemon.log().contains("stopping").then_some(()));
    let log = daemon.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("connections_per_user"));
    assert_eq!(lines.count(), 1, "{log}");
}

/// Broken by a line for each variant: a caller that may ask for scopes could fill the log with
/// refusals of the identity provider.
#[test]
fn variants_that_are_refused_are_one_line_of_their_profile_in_the_log() {
    let scopes = "request = { scopes = [\"a\", \"b\", \"c\", \"d\"] }";
    let (issuer, place, config) = crate::harness::idp::one(scopes);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    grpc.token("it").expect("served");
    issuer.script(Fault::oauth_error("invalid_scope"), Times::Always);
    for n in 1..16 {
        let scopes = ["a", "b", "c", "d"].into_iter().enumerate();
        let scopes = scopes.filter(|(bit, _)| n >> bit & 1 == 1);
        let refused = grpc.ask(GetTokenRequest {
            profile: "it".into(),
            scopes: scopes.map(|(_, scope)| scope.to_owned()).collect(),
            ..GetTokenRequest::default()
        });
        assert_eq!(refused.err().expect("refused").reason, "UPSTREAM_REJECTED");
    }
    daemon.signal(rustix::process::Signal::TERM);
    eventually(PATIENCE, || daemon.log().contains("stopping").then_some(()));
    let log = daemon.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("cannot get a credential"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn asking_too_often_for_what_is_not_in_memory_is_refused_and_memory_is_not() {
    let (issuer, place, config) = crate::harness::idp::one("");
    crate::harness::idp::down(&issuer);
    let config = format!("[server.limits]\nrequests_per_second = 5\n{config}{NONE}");
    let daemon = place.serve(&config);
    let limited = eventually(PATIENCE, || {
        let answer = daemon.http_token("it");
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(limited.refusal().reason, "CALLER_RATE_LIMITED");
    assert!(limited.header("retry-after").is_some());
    for _ in 0..50 {
        assert_eq!(daemon.http_token("a").status, 200);
    }
}

#[test]
fn half_a_request_is_given_up() {
    let daemon = with("handshake_timeout = \"1s\"");
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream
        .write_all(b"POST /v1/profiles/a/rejected HTTP/1.1\r\nHost: tokend\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{\"finger")
        .expect("written");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[test]
fn the_strangest_lifetimes_are_told_from_good_ones_and_long_texts_are_cut() {
    let daemon = with("");
    for (seconds, nanos) in [(-1, 0), (0, -1), (i64::MIN, i32::MIN), (1, 1_000_000_000)] {
        let request = GetTokenRequest {
            profile: "a".into(),
            min_ttl: Some(prost_types::Duration { seconds, nanos }),
            ..GetTokenRequest::default()
        };
        let why = daemon.grpc().ask(request).err().expect("refused");
        assert_eq!(why.code, "INVALID_ARGUMENT", "{seconds} {nanos}: {why:?}");
    }
    let request = GetTokenRequest {
        profile: "a".into(),
        audience: "é".repeat(25_000),
        ..GetTokenRequest::default()
    };
    let why = daemon.grpc().ask(request).err().expect("refused");
    assert_eq!(why.code, "INVALID_ARGUMENT");
    assert!(why.message.len() < 1000);
    let name = daemon.get("/v1/profiles/%ff/token");
    assert_eq!(
        (name.status, name.refusal().reason.as_str()),
        (404, "PROFILE_NOT_FOUND")
    );
}

/// Trap 33. Broken without `server::connection::tidy_up`: glibc keeps most of the memory that those
/// callers have used.
#[test]
fn trap_33_memory_of_callers_who_have_left_is_given_back() {
    let daemon = with("connections_per_user = 1000");
    let ask = |n: usize| -> Vec<_> {
        (0..n)
            .map(|_| {
                let caller = daemon.grpc();
                caller.token("a").expect("served");
                caller
            })
            .collect()
    };
    drop(ask(1));
    let before = resident(&daemon);
    let many = ask(400);
    let with_many = resident(&daemon);
    assert!(
        with_many > before + 4096,
        "{before} → {with_many} kB: too little to see anything"
    );
    drop(many);
    eventually(PATIENCE, || {
        (resident(&daemon) < before + (with_many - before) / 4).then_some(())
    });
}

/// The answer used to be INTERNAL. Broken by a `Codec` with tonic's own decoder.
#[test]
fn a_message_that_cannot_be_read_is_the_callers_mistake() {
    use tokend::proto::{GetStatusResponse, GetTokenResponse};

    async fn send<T: prost::Message + std::fmt::Debug + Default + 'static>(
        channel: tonic::transport::Channel,
        path: &'static str,
    ) -> tonic::Status {
        let mut client = tonic::client::Grpc::new(channel);
        client.ready().await.expect("connected");
        let codec = tonic_prost::ProstCodec::<i64, T>::default();
        // The message has a number where the first field is text.
        let answer = client.unary(tonic::Request::new(7), path.parse().expect("path"), codec);
        answer.await.expect_err("refused")
    }
    let daemon = with("");
    let grpc = daemon.grpc();
    let token = "/tokend.v1.CredentialService/GetToken";
    let status = "/tokend.v1.AdminService/GetStatus";
    for status in [
        block(send::<GetTokenResponse>(grpc.channel.clone(), token)),
        block(send::<GetStatusResponse>(grpc.channel.clone(), status)),
    ] {
        let why = grpc.refusal(&status);
        assert_eq!(
            (why.code.as_str(), why.reason.as_str()),
            ("INVALID_ARGUMENT", "INVALID_REQUEST"),
            "{why:?}"
        );
    }
}

/// Broken by an `ApiService::slot` that counts: a watcher paid for every rotation, and a quick one
/// cut it off.
#[test]
fn a_rotation_is_not_counted_as_requests_of_those_who_watch() {
    use tokend::proto::WatchTokenRequest;
    use tokend::proto::credential_service_client::CredentialServiceClient;
    use tokend::proto::watch_token_response::Event;

    let place = Place::new();
    place.secret("password", "the-first-password");
    let daemon = place.serve(
        "[server.limits]\nrequests_per_second = 5\n\
         [profiles.a]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"password\" }\n",
    );
    let mut streams: Vec<_> = (0..5)
        .map(|_| {
            let mut client = CredentialServiceClient::new(daemon.grpc().channel);
            let request = WatchTokenRequest {
                profile: "a".into(),
                ..WatchTokenRequest::default()
            };
            block(client.watch_token(request))
                .expect("watching")
                .into_inner()
        })
        .collect();
    let mut next = || -> Vec<u64> {
        let next = streams.iter_mut().map(|stream| {
            match block(stream.message())
                .expect("not cut off")
                .expect("more")
                .event
            {
                Some(Event::Credential(credential)) => credential.generation,
                other => panic!("{other:?}"),
            }
        });
        next.collect()
    };
    assert_eq!(next(), [1; 5]);
    for (generation, password) in [(2, "the-second-password"), (3, "the-third-password")] {
        daemon.place.secret("password", password);
        assert_eq!(next(), [generation; 5]);
    }
}

/// Broken by renewals that cost their caller nothing. With an empty account a caller forces no
/// renewal, but still gets credentials.
#[test]
fn renewals_that_a_caller_forces_come_out_of_its_account() {
    let (_issuer, place, config) = crate::harness::idp::one("");
    let daemon = place.serve(&format!(
        "[server.limits]\nforced_renewals_per_minute = 1\n{config}"
    ));
    let reject = |fingerprint: &str| {
        let body = format!("{{\"fingerprint\": \"{fingerprint}\"}}");
        let request = format!(
            "POST /v1/profiles/it/rejected HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let bytes = exchange(&daemon.socket(), None, request.as_bytes()).expect("an answer");
        Answer::read(&bytes)
    };
    let first = eventually(PATIENCE, || {
        let answer = daemon.http_token("it");
        (answer.status == 200).then(|| answer.text("fingerprint").to_owned())
    });
    assert_eq!(reject(&first).status, 200);
    let second = eventually(PATIENCE, || {
        let answer = daemon.http_token("it");
        (answer.text("fingerprint") != first).then(|| answer.text("fingerprint").to_owned())
    });
    let refused = reject(&second);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(
        refused
            .refusal()
            .message
            .contains("forced_renewals_per_minute"),
        "{refused:?}"
    );
    let late = reject(&first);
    assert_eq!(
        (late.status, late.body["replaced"].as_bool()),
        (200, Some(true)),
        "what was replaced long ago forces nothing"
    );
    assert_eq!(daemon.http_token("it").status, 200);
}

/// Broken by waiting calls that are not counted, and by a charge that stays when the wait is over.
#[test]
fn calls_that_wait_are_counted_and_so_is_their_end() {
    let (issuer, place, config) = crate::harness::idp::one("");
    issuer.script(Fault::Hang, Times::Always);
    let daemon = place.serve(&format!(
        "[server.limits]\nwaiting_per_user = 4\n{config}{NONE}"
    ));
    let request = b"GET /v1/profiles/it/token HTTP/1.1\r\nHost: tokend\r\n\r\n";
    let wait = || {
        let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
        stream.write_all(request).expect("written");
        stream
    };
    let waiting: Vec<UnixStream> = (0..4).map(|_| wait()).collect();
    let refused = eventually(PATIENCE, || {
        let answer = daemon.http_token("it");
        (answer.status == 429).then_some(answer)
    });
    assert!(
        refused.refusal().message.contains("waiting_per_user"),
        "{refused:?}"
    );
    assert_eq!(daemon.http_token("a").status, 200, "who need not wait");
    drop(waiting);
    issuer.clear_script();
    eventually(Duration::from_secs(60), || {
        (daemon.http_token("it").status == 200).then_some(())
    });
}
