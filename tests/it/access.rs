//! Which caller may use which profile: the kernel identifies the caller, access is denied by
//! default, and no answer tells a forbidden profile from one that does not exist. The tests act as
//! several users, so they need root.

use std::collections::BTreeSet;

use serde_json::Value;
use tokend::proto::GetStatusRequest;
use tokend::proto::admin_service_client::AdminServiceClient;

use crate::harness::ask::{Who, exchange};
use crate::harness::{Daemon, PATIENCE, Place, block, eventually, is_root, run};

const WORKER: u32 = 65001;
const OTHER: u32 = 65002;
const GROUP: u32 = 65010;

/// The overflow id: the kernel reports it for a user that has no number in this user namespace.
const OVERFLOW: u32 = 65534;

const PROFILES: &str = r#"
[server]
socket_mode = "0666"

[profiles.private]
method = "static"
token = { file = "token" }

[profiles.worker]
method = "static"
token = { file = "token" }
access = [{ user = 65001 }]

[profiles.ops]
method = "static"
token = { file = "token" }
access = [{ group = 65010 }]

[profiles.both]
method = "static"
token = { file = "token" }
access = [{ user = 65001, group = 65010 }]

[profiles.either]
method = "static"
token = { file = "token" }
access = [{ user = 65002 }, { group = 65010 }]

[profiles.by-unit]
method = "static"
token = { file = "token" }
access = [{ user = 65001, unit = "orders@*.service" }]

[profiles.named]
method = "static"
token = { file = "token" }
access = [{ user = "root" }, { user = "no-such-user-here" }, { group = "no-such-group-here" }]

[profiles.overflow]
method = "static"
token = { file = "token" }
access = [{ user = 65534 }, { group = 65534 }]

[profiles.broken]
method = "static"
token = { file = "missing" }
access = [{ user = 65001 }]
"#;

const ALL: [&str; 9] = [
    "private", "worker", "ops", "both", "either", "by-unit", "named", "overflow", "broken",
];

fn daemon() -> Daemon {
    let place = Place::new();
    place.open();
    place.secret("token", "the-token-of-access");
    place.serve(PROFILES)
}

fn with_group(uid: u32) -> Who {
    Who {
        groups: vec![4, GROUP],
        ..Who::user(uid)
    }
}

fn names(list: &Value) -> BTreeSet<String> {
    let list = list.as_array().expect("a list");
    list.iter()
        .map(|entry| entry["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// The callers and what each may have; None is the administrator.
fn callers() -> [(Option<Who>, &'static [&'static str]); 7] {
    [
        (None, &["private", "named"]),
        (Some(Who::user(WORKER)), &["worker", "broken"]),
        (Some(Who::user(OTHER)), &["either"]),
        (Some(Who::user(65003)), &[]),
        // The overflow group stands for all groups of another user namespace. It matches no rule.
        (
            Some(Who {
                groups: vec![OVERFLOW],
                ..Who::user(65003)
            }),
            &[],
        ),
        // A supplementary group counts as much as the primary one.
        (
            Some(with_group(WORKER)),
            &["worker", "ops", "both", "either", "broken"],
        ),
        (
            Some(Who {
                uid: 65003,
                gid: GROUP,
                groups: Vec::new(),
            }),
            &["ops", "either"],
        ),
    ]
}

#[test]
fn each_caller_gets_its_own_profiles_and_sees_no_others() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    for (who, permitted) in &callers() {
        let grpc = daemon.grpc_as(who.as_ref());
        let expected: BTreeSet<String> = permitted.iter().map(ToString::to_string).collect();
        assert_eq!(
            grpc.profiles().into_iter().collect::<BTreeSet<_>>(),
            expected,
            "{who:?}"
        );
        let listed = daemon.get_as(who.as_ref(), "/v1/profiles");
        assert_eq!(names(&listed.body["profiles"]), expected, "{who:?}");
        let unknown = grpc.token("no-such-profile").err().expect("unknown");
        assert_eq!(
            (unknown.code.as_str(), unknown.reason.as_str()),
            ("NOT_FOUND", "PROFILE_NOT_FOUND")
        );
        for name in ALL {
            let token = grpc.token(name);
            let path = format!("/v1/profiles/{name}/token");
            let http = daemon.get_as(who.as_ref(), &path);
            let health = grpc.health(name);
            if !permitted.contains(&name) {
                let mut why = token.err().unwrap_or_else(|| panic!("{who:?} has {name}"));
                assert_eq!(http.status, 404, "{who:?} {name}");
                assert_eq!(http.refusal(), why);
                assert_eq!(health, "NOT_FOUND", "{who:?} {name}");
                // Root is an administrator, and is told.
                if who.is_none() {
                    assert!(why.message.contains("exists"), "{why:?}");
                    why.message.clone_from(&unknown.message);
                }
                why.message = why.message.replace(name, "no-such-profile");
                assert_eq!(why, unknown, "denied and unknown look the same");
            } else if name == "broken" {
                assert_eq!(token.err().expect("invalid").reason, "PROFILE_INVALID");
                assert_eq!((http.status, health.as_str()), (424, "NOT_SERVING"));
            } else {
                assert_eq!(
                    token.expect("permitted").credential.token,
                    "the-token-of-access"
                );
                assert_eq!((http.status, health.as_str()), (200, "SERVING"));
            }
        }
        let ready = daemon.get_as(who.as_ref(), "/readyz");
        if permitted.contains(&"broken") {
            assert_eq!(ready.status, 503, "{who:?}");
            assert_eq!(
                names(&ready.body["profiles"]),
                BTreeSet::from(["broken".to_owned()])
            );
        } else {
            assert_eq!(ready.status, 200, "{who:?}: {ready:?}");
        }
        if who.is_some() {
            let status = daemon.get_as(who.as_ref(), "/v1/status");
            assert_eq!(names(&status.body["profiles"]), expected, "{who:?}");
            let hidden = daemon.get_as(who.as_ref(), "/v1/status?profile=private");
            assert_eq!(hidden.status, 404);
        }
    }
    let everything = daemon.get("/v1/status");
    assert_eq!(
        names(&everything.body["profiles"]).len(),
        ALL.len(),
        "an administrator sees all"
    );
}

#[test]
fn reports_and_watches_need_access_too() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let other = Who::user(OTHER);
    let body = "{\"fingerprint\": \"00000000000000000000000000000000\"}";
    let head = format!(
        "POST /v1/profiles/worker/rejected HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&daemon.socket(), Some(&other), head.as_bytes()).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 404 "));
    let request = tokend::proto::WatchTokenRequest {
        profile: "worker".into(),
        ..Default::default()
    };
    let grpc = daemon.grpc_as(Some(&other));
    let channel = grpc.channel.clone();
    let mut client =
        tokend::proto::credential_service_client::CredentialServiceClient::new(channel);
    let status = block(client.watch_token(request)).expect_err("denied");
    assert_eq!(grpc.refusal(&status).code, "NOT_FOUND");
}

#[test]
fn only_administrators_see_the_status_of_all() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.open();
    place.secret("token", "the-token-of-access");
    let admins = "[server]\nadmins = [{ user = 65002 }, { group = 65010, user = 65003 }]";
    let daemon = place.serve(&PROFILES.replace("[server]", admins));
    let ask = |who: Option<Who>| {
        let grpc = daemon.grpc_as(who.as_ref());
        let mut client = AdminServiceClient::new(grpc.channel.clone());
        match block(client.get_status(GetStatusRequest::default())) {
            Ok(status) => Ok(status.into_inner().profiles.len()),
            Err(status) => Err(grpc.refusal(&status)),
        }
    };
    assert_eq!(ask(None), Ok(ALL.len()));
    assert_eq!(ask(Some(Who::user(OTHER))), Ok(ALL.len()));
    assert_eq!(ask(Some(with_group(65003))), Ok(ALL.len()));
    for who in [Who::user(WORKER), Who::user(65003), with_group(WORKER)] {
        let why = ask(Some(who)).expect_err("no administrator");
        assert_eq!(
            (why.code.as_str(), why.reason.as_str()),
            ("PERMISSION_DENIED", "NOT_ADMIN")
        );
    }
}

#[test]
fn a_caller_whose_id_has_no_number_here_is_not_served() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let group = Who {
        gid: OVERFLOW,
        ..Who::user(WORKER)
    };
    for who in [Who::user(OVERFLOW), group] {
        let request = b"GET /healthz HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n";
        // The daemon closes the connection or resets it before it reads the request. Either way
        // there is no answer.
        let answer = exchange(&daemon.socket(), Some(&who), request);
        assert!(
            answer.is_err() || answer.is_ok_and(|answer| answer.is_empty()),
            "{who:?}"
        );
    }
    assert_eq!(daemon.get("/healthz").status, 200);
}

/// Broken by a line for each connection: any caller that may connect could fill the log.
#[test]
fn callers_without_a_number_here_are_one_line_in_the_log() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let request = b"GET /healthz HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n";
    for _ in 0..100 {
        let _ = exchange(&daemon.socket(), Some(&Who::user(OVERFLOW)), request);
    }
    // When a later line is in the log, the earlier ones are, too.
    let stopped = |daemon: &Daemon| daemon.log().contains("stopping");
    daemon.signal(rustix::process::Signal::TERM);
    eventually(PATIENCE, || stopped(&daemon).then_some(()));
    let log = daemon.log();
    let lines = log.lines().filter(|line| line.contains("uid 65534"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn without_access_the_daemons_user_and_root_are_served_and_nobody_else() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.give_to(WORKER);
    place.open();
    place.secret("token", "the-token-of-access");
    let daemon = place.serve(PROFILES);
    for (who, served) in [
        (None, true),
        (Some(Who::user(WORKER)), true),
        (Some(Who::user(OTHER)), false),
        (Some(with_group(OTHER)), false),
    ] {
        let token = daemon.grpc_as(who.as_ref()).token("private");
        assert_eq!(token.is_ok(), served, "{who:?}");
    }
}

#[test]
fn the_command_line_tells_a_stranger_what_it_may_use() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let ask = |user, profile| run(&mut daemon.place.tokend_as(Some(user), &["token", profile]));
    let ran = ask(WORKER, "worker");
    assert_eq!(
        (ran.code, ran.out.trim_end()),
        (Some(0), "the-token-of-access")
    );
    let ran = ask(OTHER, "worker");
    assert_eq!((ran.code, ran.out.as_str()), (Some(3), ""));
    assert!(ran.err.contains("this user may use: either"), "{}", ran.err);
    let ran = ask(65003, "worker");
    assert_eq!(ran.code, Some(3));
    assert!(!ran.err.contains("either"), "{}", ran.err);
}

#[test]
fn a_socket_that_is_not_for_everybody_is_explained() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.open();
    place.secret("token", "the-token-of-access");
    let daemon = place.serve(&PROFILES.replace("0666", "0600"));
    let ran = run(&mut daemon.place.tokend_as(Some(WORKER), &["token", "worker"]));
    assert_eq!((ran.code, ran.out.as_str()), (Some(6), ""));
    assert!(
        ran.err.contains("permission") || ran.err.contains("may not"),
        "{}",
        ran.err
    );
}

/// An administrator whom no rule names is told what is so, also right after a change.
#[test]
fn an_administrator_is_told_why_there_is_no_such_profile() {
    let place = Place::new();
    place.secret("token", "the-fixed-token");
    let profile = |name: &str| {
        format!(
            "[profiles.{name}]\nmethod = \"static\"\ntoken = {{ file = \"token\" }}\n\
             access = [{{ user = \"nobody\" }}, {{ group = \"daemon\", unit = \"orders@*.service\" }}]\n"
        )
    };
    let daemon = place.serve(&profile("orders"));
    let why = |name: &str| {
        let ran = daemon.place.run(&["token", name]);
        assert_eq!(ran.code, Some(3), "{}", ran.err);
        assert!(ran.err.contains("PROFILE_NOT_FOUND"), "{}", ran.err);
        ran.err
    };
    let said = why("orders");
    for part in [
        "orders exists, and no rule",
        "{ user = \"nobody\" }",
        "unit = \"orders@*.service\"",
        "tokend explain orders",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let grpc = daemon.grpc().token("orders").err().expect("no credential");
    assert!(said.contains(&grpc.message), "{said}{grpc:?}");
    assert!(why("others").contains("`tokend status` lists"));

    daemon
        .place
        .write("tokend.toml", &(profile("orders") + &profile("others")));
    let pending = eventually(PATIENCE, || {
        let said = why("others");
        assert!(!said.contains("exists"), "it was taken over at once");
        said.contains("not taken over yet").then_some(said)
    });
    assert!(pending.contains("ask again"), "{pending}");
    eventually(PATIENCE, || {
        why("others").contains("others exists").then_some(())
    });
    daemon
        .place
        .write("tokend.toml", "[server]\nnonsense = 1\n");
    eventually(PATIENCE, || {
        why("third")
            .contains("`tokend status` says why")
            .then_some(())
    });
}
