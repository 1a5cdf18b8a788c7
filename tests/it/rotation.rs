//! Promise 4 of docs/promises.md, as far as it is kept today: the daemon takes over changed files
//! by itself, and unusable ones replace nothing.

use std::fs;
use std::os::unix::fs::symlink;

use tokend_issuer::certificates::{Authority, ClientOptions, Pair};
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::clock::WallClock;
use tokend_issuer::{Issuer, Settings};

use crate::harness::ask::Who;
use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually, is_root};

fn write_pair(place: &Place, folder: &str, pair: &Pair) {
    place.write(&format!("{folder}/tls.crt"), &pair.certificate_pem);
    place.write(&format!("{folder}/tls.key"), pair.key_pem());
}

/// An issuer that binds tokens, and a daemon. The daemon's certificate lies behind a link as
/// Kubernetes mounts it.
fn bound() -> (Issuer, Authority, Daemon, Pair) {
    let clock = WallClock::system();
    let authority = Authority::new("root", &clock).expect("authority");
    let first = authority
        .client("it", &ClientOptions::default())
        .expect("certificate");
    let issuer = idp::binding(&authority, Settings::default().token_lifetime);
    let place = Place::new();
    place.write("ca.pem", authority.certificate_pem());
    write_pair(&place, "tls/..1", &first);
    symlink("..1", place.path("tls/..data")).expect("linked");
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), place.path(&format!("tls/{name}"))).expect("linked");
    }
    let config = format!(
        "[profiles.it]\nmethod = \"oauth2\"\nissuer = \"{}\"\nclient_id = \"it\"\nclient_auth = \"tls_client_auth\"\n\
         tls = {{ ca = \"ca.pem\", certificate = \"tls/tls.crt\", key = \"tls/tls.key\" }}\n",
        issuer.url()
    );
    let daemon = place.serve(&config);
    (issuer, authority, daemon, first)
}

fn confirmation(daemon: &Daemon) -> String {
    daemon
        .grpc()
        .token("it")
        .expect("a token")
        .credential
        .confirmation
}

#[test]
fn trap_6_a_swapped_certificate_is_used_for_the_next_token() {
    let (issuer, authority, daemon, first) = bound();
    assert_eq!(confirmation(&daemon), first.thumbprint);
    for round in 2..5 {
        // Each rotation uses another kind of key (trap 4).
        let key = [
            tokend_issuer::certificates::GeneratedKeyKind::Rsa,
            tokend_issuer::certificates::GeneratedKeyKind::Ed25519,
            tokend_issuer::certificates::GeneratedKeyKind::Ec,
        ][round % 3];
        let options = ClientOptions {
            key,
            ..ClientOptions::default()
        };
        let pair = authority.client("it", &options).expect("certificate");
        write_pair(&daemon.place, &format!("tls/..{round}"), &pair);
        symlink(format!("..{round}"), daemon.place.path("tls/..tmp")).expect("linked");
        fs::rename(
            daemon.place.path("tls/..tmp"),
            daemon.place.path("tls/..data"),
        )
        .expect("swapped");
        eventually(PATIENCE, || {
            (confirmation(&daemon) == pair.thumbprint).then_some(())
        });
        let last = issuer.requests().pop().expect("a request");
        assert_eq!(last.certificate.as_deref(), Some(pair.thumbprint.as_str()));
    }
}

#[test]
fn trap_3_a_torn_pair_replaces_nothing_and_its_other_half_makes_it_whole() {
    let (issuer, authority, daemon, first) = bound();
    assert_eq!(confirmation(&daemon), first.thumbprint);
    let second = authority
        .client("it", &ClientOptions::default())
        .expect("certificate");
    daemon
        .place
        .write("tls/..1/tls.crt", &second.certificate_pem);
    eventually(PATIENCE, || {
        daemon
            .log()
            .contains("last good state is kept")
            .then_some(())
    });
    assert_eq!(confirmation(&daemon), first.thumbprint);
    assert_eq!(daemon.grpc().health("it"), "SERVING");
    assert_eq!(
        issuer.count("/mtls/token"),
        1,
        "the torn pair was never shown to anyone"
    );
    let status = daemon.get("/v1/status").body;
    let warnings = status["profiles"][0]["warnings"].to_string();
    assert!(warnings.contains("last good state is kept"), "{warnings}");
    daemon.place.write("tls/..1/tls.key", second.key_pem());
    eventually(PATIENCE, || {
        (confirmation(&daemon) == second.thumbprint).then_some(())
    });
}

#[test]
fn a_changed_configuration_is_taken_over_and_a_broken_one_is_not() {
    let place = Place::new();
    place.secret("one", "password-number-one");
    let basic =
        "[profiles.a]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"one\" }\n";
    let daemon = place.serve(basic);
    let first = daemon.grpc().token("a").expect("a credential").credential;
    daemon
        .place
        .write("profiles.d/b.toml", "[profiles.b]\nmethod = \"none\"\n");
    eventually(PATIENCE, || daemon.grpc().token("b").ok());
    daemon
        .place
        .write("tokend.toml", "[profiles.a]\nmethod = [");
    eventually(PATIENCE, || {
        daemon
            .log()
            .contains("the one in force is kept")
            .then_some(())
    });
    assert_eq!(
        daemon
            .grpc()
            .token("a")
            .expect("kept")
            .credential
            .fingerprint,
        first.fingerprint
    );
    daemon.place.secret("one", "password-number-two");
    daemon.place.write("tokend.toml", basic);
    let second = eventually(PATIENCE, || {
        daemon
            .grpc()
            .token("a")
            .ok()
            .filter(|token| token.credential.fingerprint != first.fingerprint)
    });
    assert_eq!(second.credential.generation, first.generation + 1);
    fs::remove_file(daemon.place.path("profiles.d/b.toml")).expect("removed");
    eventually(PATIENCE, || {
        daemon
            .grpc()
            .token("b")
            .err()
            .filter(|why| why.code == "NOT_FOUND")
    });
}

/// An issuer with two clients and tokens of four seconds, and a place with the profile `it` for the
/// first client.
fn two_clients() -> (Issuer, Place, String) {
    let issuer = idp::with(Settings {
        clients: vec![
            RegisteredClient::with_secret("it", SECRET),
            RegisteredClient::with_secret("other", SECRET),
        ],
        token_lifetime: std::time::Duration::from_secs(4),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let config = idp::idp(&issuer) + &idp::profile("it", "it", "");
    (issuer, place, config)
}

fn warnings(daemon: &Daemon) -> String {
    daemon.get("/v1/status").body["profiles"][0]["warnings"].to_string()
}

#[test]
fn a_secret_that_the_identity_provider_rejects_replaces_nothing() {
    let (issuer, place, config) = two_clients();
    let daemon = place.serve(&config);
    let first = daemon.grpc().token("it").expect("a token").credential;
    daemon.place.secret("it.secret", "not-the-right-one");
    eventually(PATIENCE, || {
        warnings(&daemon).contains("invalid_client").then_some(())
    });
    // The daemon renews the live version with the secret that works, whatever happens to the new
    // one.
    let later = eventually(PATIENCE, || {
        let token = daemon
            .grpc()
            .token("it")
            .expect("served all the time")
            .credential;
        assert!(!token.stale, "the live one is not hurt");
        (token.generation >= first.generation + 2).then_some(token)
    });
    assert_eq!(daemon.grpc().health("it"), "SERVING");
    issuer.set_client_secret("it", "the-next-one");
    daemon.place.secret("it.secret", "the-next-one");
    eventually(PATIENCE, || {
        daemon.grpc().token("it").expect("served all the time");
        (!warnings(&daemon).contains("not in force")).then_some(())
    });
    let newest = daemon.grpc().token("it").expect("served").credential;
    assert!(newest.generation > later.generation);
}

#[test]
fn new_material_waits_for_an_identity_provider_that_is_down_and_takes_over_when_nothing_is_left() {
    let (issuer, place, config) = two_clients();
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("a token");
    idp::down(&issuer);
    issuer.set_client_secret("it", "the-next-one");
    daemon.place.secret("it.secret", "the-next-one");
    eventually(PATIENCE, || {
        warnings(&daemon).contains("not in force yet").then_some(())
    });
    daemon.grpc().token("it").expect("the old one lives");
    eventually(PATIENCE, || daemon.grpc().token("it").err());
    idp::up(&issuer);
    eventually(PATIENCE * 2, || daemon.grpc().token("it").ok());
}

/// Broken by a `same_identity` that does not look at `client_id`.
#[test]
fn trap_25_another_client_under_the_same_name_never_shares_a_token() {
    if !is_root() {
        return;
    }
    let (issuer, place, config) = two_clients();
    place.open();
    let permit = |client: &str, user: u32| {
        config.replace("client_id = \"it\"", &format!("client_id = \"{client}\""))
            + &format!("access = [{{ user = {user} }}]\n")
    };
    let (first, second) = (Who::user(65001), Who::user(65002));
    let daemon =
        place.serve(&("[server]\nsocket_mode = \"0666\"\n".to_owned() + &permit("it", 65001)));
    let held = daemon
        .grpc_as(Some(&first))
        .token("it")
        .expect("permitted")
        .credential;
    issuer.script_for(
        tokend_issuer::faults::Target::Client("other".into()),
        tokend_issuer::faults::Fault::RetryAfter(503, std::time::Duration::from_secs(2)),
        tokend_issuer::faults::Times::Next(1),
    );
    daemon.place.write(
        "tokend.toml",
        &("[server]\nsocket_mode = \"0666\"\n".to_owned() + &permit("other", 65002)),
    );
    let given = eventually(PATIENCE, || {
        match daemon.grpc_as(Some(&second)).token("it") {
            Ok(token) => Some(token.credential),
            Err(why) => {
                assert!(
                    ["NOT_FOUND", "UNAVAILABLE"].contains(&why.code.as_str()),
                    "{why:?}"
                );
                None
            }
        }
    });
    assert_eq!(
        idp::claims(&issuer, None, &given.token)["client_id"],
        "other"
    );
    assert_ne!(given.fingerprint, held.fingerprint);
    assert_eq!(
        daemon
            .grpc_as(Some(&first))
            .token("it")
            .err()
            .map(|why| why.code)
            .as_deref(),
        Some("NOT_FOUND")
    );
}

#[test]
fn a_changed_file_is_no_reason_to_disregard_a_retry_after() {
    let (issuer, place, config) = two_clients();
    issuer.script(
        tokend_issuer::faults::Fault::RetryAfter(429, std::time::Duration::from_secs(600)),
        tokend_issuer::faults::Times::Always,
    );
    let daemon = place.serve(&config);
    eventually(PATIENCE, || {
        daemon
            .grpc()
            .token("it")
            .err()
            .filter(|why| why.retry_after > Some(std::time::Duration::from_secs(500)))
    });
    for round in 0..3 {
        let before = daemon.get("/v1/status").body["config_generation"].as_u64();
        daemon
            .place
            .secret("it.secret", &format!("another-secret-{round}"));
        eventually(PATIENCE, || {
            (daemon.get("/v1/status").body["config_generation"].as_u64() > before).then_some(())
        });
        let refusal = eventually(PATIENCE, || daemon.grpc().token("it").err());
        assert_eq!(refusal.code, "UNAVAILABLE");
    }
    assert_eq!(issuer.count("/token"), 1);
}

/// Thumbprint and end of a certificate of the profile `it`, at this place in the status.
fn certificate(daemon: &Daemon, place: &str) -> Option<(String, String)> {
    let status = daemon.get("/v1/status").body;
    let all = status["profiles"][0]["certificates"]
        .as_array()
        .expect("certificates");
    let found = all.iter().find(|one| one["place"] == place)?;
    assert_eq!(found["role"], "tls.certificate");
    assert_eq!(found["subject"], "CN=it");
    let text = |key: &str| found[key].as_str().expect("text").to_owned();
    Some((text("thumbprint"), text("not_after")))
}

fn metric(daemon: &Daemon, place: &str) -> String {
    let line = format!(
        "tokend_certificate_expiry_timestamp_seconds{{profile=\"it\",role=\"tls.certificate\",place=\"{place}\"}} "
    );
    let page = daemon.page("/metrics");
    let found = page.lines().find_map(|one| one.strip_prefix(&line));
    found.unwrap_or_default().to_owned()
}

#[test]
fn certificates_in_use_and_on_disk_are_shown_and_their_end_is_announced() {
    let (issuer, authority, daemon, first) = bound();
    confirmation(&daemon);
    let shown = certificate(&daemon, "in_use").expect("in use");
    assert_eq!(shown.0, first.thumbprint);
    assert_eq!(certificate(&daemon, "on_disk"), Some(shown.clone()));
    assert!(
        !warnings(&daemon).contains("expires on"),
        "{}",
        warnings(&daemon)
    );
    let end = humantime::parse_rfc3339(&shown.1).expect("a time");
    let end = end
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    assert_eq!(metric(&daemon, "in_use"), end.as_secs().to_string());

    // This certificate is in the last part of its life.
    let late = authority
        .client(
            "it",
            &ClientOptions {
                not_before: -3600,
                lifetime: std::time::Duration::from_secs(600),
                ..ClientOptions::default()
            },
        )
        .expect("certificate");
    write_pair(&daemon.place, "tls/..1", &late);
    eventually(PATIENCE, || {
        (certificate(&daemon, "in_use")?.0 == late.thumbprint).then_some(())
    });
    let said = warnings(&daemon);
    assert!(
        said.contains("tls.certificate: the certificate of CN=it expires on "),
        "{said}"
    );
    assert_eq!(said.matches("expires on").count(), 1, "{said}");
    let ran = daemon.place.run(&["check"]);
    assert!(ran.out.contains("a third of its lifetime"), "{}", ran.out);

    // While the identity provider is down, the certificate on disk is not the one in use.
    idp::down(&issuer);
    let next = authority
        .client("it", &ClientOptions::default())
        .expect("certificate");
    write_pair(&daemon.place, "tls/..1", &next);
    eventually(PATIENCE, || {
        (certificate(&daemon, "on_disk")?.0 == next.thumbprint).then_some(())
    });
    assert_eq!(
        certificate(&daemon, "in_use").expect("in use").0,
        late.thumbprint
    );
    assert_ne!(metric(&daemon, "in_use"), metric(&daemon, "on_disk"));
    let ran = daemon.place.run(&["status"]);
    assert!(ran.out.contains("; on disk until "), "{}", ran.out);
}

/// Broken by a check of modification times, and by one that accepts only a later time as a change.
#[test]
fn trap_5_a_file_that_is_older_than_the_one_before_is_taken_over() {
    let place = Place::new();
    place.secret("password", "first-password");
    let daemon = place.serve(BASIC);
    let age = |name: &str, seconds: i64| {
        let time = rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        let times = rustix::fs::Timestamps {
            last_access: time,
            last_modification: time,
        };
        let path = daemon.place.path(name);
        rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::empty())
            .expect("aged");
    };
    let mut before = daemon.grpc().token("a").expect("served").credential;
    // The first file is restored from an archive. The second has the same age and length.
    for (text, time) in [
        ("older-password", 1_000_000_000),
        ("other-password", 1_000_000_000),
    ] {
        daemon.place.secret("password.new", text);
        age("password.new", time);
        fs::rename(
            daemon.place.path("password.new"),
            daemon.place.path("password"),
        )
        .expect("renamed");
        before = eventually(PATIENCE, || {
            let now = daemon
                .grpc()
                .token("a")
                .expect("served all the time")
                .credential;
            (now.fingerprint != before.fingerprint).then_some(now)
        });
    }
}

const BASIC: &str =
    "[profiles.a]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"password\" }\n";

/// Broken by a daemon that does not look again after it found a file that cannot be used.
#[test]
fn trap_7_a_file_that_is_missing_for_a_while_is_read_when_it_is_back() {
    let (_issuer, authority, daemon, first) = bound();
    assert_eq!(confirmation(&daemon), first.thumbprint);
    let next = authority
        .client("it", &ClientOptions::default())
        .expect("certificate");
    fs::remove_dir_all(daemon.place.path("tls")).expect("removed");
    eventually(PATIENCE, || {
        warnings(&daemon).contains("last good state").then_some(())
    });
    assert_eq!(confirmation(&daemon), first.thumbprint);
    write_pair(&daemon.place, "tls", &next);
    eventually(PATIENCE, || {
        (confirmation(&daemon) == next.thumbprint).then_some(())
    });
}
