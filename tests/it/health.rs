//! Answers for supervisors and tools: health, readiness, reflection.

use tokend_issuer::faults::{Fault, Times};
use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::{v1, v1alpha};

use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{Daemon, PATIENCE, block, eventually};

/// Broken by a `State::available` that returns true for `Backoff`.
#[test]
fn trap_19_health_follows_the_profile_and_the_daemon_is_its_own() {
    let (issuer, place, config) = idp::one("");
    place.secret("lazy.secret", SECRET);
    let config = config + &idp::profile("lazy", "it", LAZY);
    idp::down(&issuer);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    for service in ["", "tokend.v1.CredentialService", "tokend.v1.AdminService"] {
        assert_eq!(
            grpc.health(service),
            "SERVING",
            "{service:?} does not wait for anybody"
        );
    }
    assert_eq!(daemon.get("/healthz").status, 200);
    assert_eq!(grpc.health("it"), "NOT_SERVING");
    assert_eq!(grpc.health("lazy"), "SERVING", "asleep is not ill");
    assert_eq!(grpc.health("nobody"), "NOT_FOUND");
    let ready = daemon.get("/readyz");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.body["profiles"][0]["name"], "it");
    assert_eq!(issuer.count("/token"), 0);

    idp::up(&issuer);
    eventually(PATIENCE, || (grpc.health("it") == "SERVING").then_some(()));
    assert_eq!(daemon.get("/readyz").status, 200);
}

#[test]
fn a_watched_profile_tells_its_recovery_and_an_unknown_one_stays_open() {
    let (issuer, place, config) = idp::one("");
    issuer.script(Fault::Html200, Times::Next(1));
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    assert!(grpc.token("it").is_err());
    let mut client = HealthClient::new(grpc.channel.clone());
    let mut watch = |service: &str| {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        block(client.watch(request)).expect("watched").into_inner()
    };
    let (mut it, mut nobody) = (watch("it"), watch("nobody"));
    let seen = block(async {
        let mut seen = Vec::new();
        while seen.last() != Some(&"SERVING") {
            let answer = tokio::time::timeout(PATIENCE, it.next()).await;
            let answer = answer.expect("in time").expect("open").expect("a status");
            seen.push(answer.status().as_str_name());
        }
        seen
    });
    assert!(
        seen == ["NOT_SERVING", "SERVING"] || seen == ["SERVING"],
        "{seen:?}"
    );
    let answer = block(nobody.next()).expect("open").expect("a status");
    assert_eq!(answer.status().as_str_name(), "SERVICE_UNKNOWN");
}

#[test]
fn reflection_lists_the_services_in_both_versions() {
    const SERVICES: [&str; 3] = [
        "grpc.health.v1.Health",
        "tokend.v1.AdminService",
        "tokend.v1.CredentialService",
    ];
    let daemon = Daemon::start("[profiles.p]\nmethod = \"none\"\n");
    let channel = daemon.grpc().channel;
    let (new, old) = block(async {
        use v1::server_reflection_request::MessageRequest as Ask;
        use v1::server_reflection_response::MessageResponse as Told;
        use v1alpha::server_reflection_request::MessageRequest as OldAsk;
        use v1alpha::server_reflection_response::MessageResponse as OldTold;
        let request = v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(Ask::ListServices(String::new())),
        };
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
        let answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await;
        let answer = answers.expect("v1").into_inner().next().await;
        let new = match answer.expect("one").expect("no error").message_response {
            Some(Told::ListServicesResponse(list)) => {
                list.service.into_iter().map(|it| it.name).collect()
            }
            other => panic!("{other:?}"),
        };
        let request = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(OldAsk::ListServices(String::new())),
        };
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(channel);
        let answers = client
            .server_reflection_info(tokio_stream::once(request))
            .await;
        let answer = answers.expect("v1alpha").into_inner().next().await;
        let old = match answer.expect("one").expect("no error").message_response {
            Some(OldTold::ListServicesResponse(list)) => {
                list.service.into_iter().map(|it| it.name).collect()
            }
            other => panic!("{other:?}"),
        };
        (new, old)
    });
    for list in [new, old] {
        let list: Vec<String> = list;
        for service in SERVICES {
            assert!(
                list.iter().any(|name| name == service),
                "{service}: {list:?}"
            );
        }
    }
}

#[test]
fn what_is_not_served_is_unimplemented() {
    let daemon = Daemon::start("[profiles.p]\nmethod = \"none\"\n");
    let grpc = daemon.grpc();
    let status = block(async {
        let mut client = tonic::client::Grpc::new(grpc.channel.clone());
        client.ready().await.expect("ready");
        let path = "/tokend.v1.CredentialService/NoSuchMethod";
        let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckRequest>::default();
        let request = tonic::Request::new(HealthCheckRequest::default());
        client
            .unary(request, http::uri::PathAndQuery::from_static(path), codec)
            .await
            .expect_err("unknown")
    });
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
}
