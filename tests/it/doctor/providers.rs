//! Findings of the doctor on the way to identity providers.

use std::time::{Duration, Instant};

use tokend_issuer::certificates::{Authority, ClientOptions};
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::clock::WallClock;
use tokend_issuer::faults::{Fault, Target, Times};

use super::{DISCOVERY, assert_only, doctor, findings, on_tls, trusting};
use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{PATIENCE, Place, eventually};

/// A clock that is behind by this many days.
fn behind(days: u64) -> WallClock {
    WallClock::given(move || WallClock::system().now() - Duration::from_secs(days * 86_400))
}

#[test]
fn an_issuer_that_is_down_is_told_with_the_profiles_that_need_it() {
    let (issuer, place, config) = idp::one(LAZY);
    let daemon = place.serve(&config);
    idp::down(&issuer);
    assert_only(
        &findings(&daemon.place, &[]),
        &[
            "error: ",
            issuer.url(),
            "was refused",
            "needed by profile it",
        ],
    );
}

/// Broken by a witness that accepts a certificate that the daemon's own verifier refuses.
#[test]
fn a_certificate_that_is_not_trusted_is_shown() {
    let authority = Authority::new("the right one", &WallClock::system()).expect("authority");
    let other = Authority::new("another one", &WallClock::system()).expect("authority");
    let issuer = on_tls(&authority);
    let place = Place::new();
    place.secret("it.secret", SECRET);
    place.write("ca.pem", other.certificate_pem());
    let daemon = place.serve(&(trusting(&issuer) + &idp::profile("it", "it", LAZY)));
    assert_only(
        &findings(&daemon.place, &[]),
        &[
            "its issuer is unknown; set tls.ca",
            "CN=localhost",
            "signed by CN=the right one",
            "TCP ",
        ],
    );
    daemon.place.write("ca.pem", authority.certificate_pem());
    // The daemon tries the certificate first, and reports so until it is in force.
    eventually(PATIENCE, || {
        findings(&daemon.place, &[]).is_empty().then_some(())
    });
}

/// Broken by judging the certificates at another time than now.
#[test]
fn certificates_that_end_soon_are_told_the_issuers_and_our_own() {
    let old = Authority::new("ca of old", &behind(25)).expect("authority");
    let issuer = on_tls(&old);
    let place = Place::new();
    place.secret("it.secret", SECRET);
    place.write("old.pem", old.certificate_pem());
    // The lifetime counts from the clock of the authority, which is 25 days behind.
    let soon = ClientOptions {
        not_before: -90 * 86_400,
        lifetime: Duration::from_secs(31 * 86_400),
        ..ClientOptions::default()
    };
    let client = old.client("it", &soon).expect("certificate");
    place.write("client.pem", &client.certificate_pem);
    place.secret("client.key", client.key_pem());
    let config = idp::idp(&issuer)
        + "tls = { ca = \"old.pem\", certificate = \"client.pem\", key = \"client.key\" }\n"
        + &idp::profile("it", "it", LAZY);
    let daemon = place.serve(&config);
    let found = findings(&daemon.place, &[]);
    assert_eq!(found.len(), 3, "{found:#?}");
    for part in [
        "tls.certificate: the certificate of CN=it expires on",
        "tls.ca: the certificate of CN=ca of old expires on",
        "its certificate of CN=localhost expires on",
    ] {
        assert!(
            found
                .iter()
                .any(|line| line.starts_with("warning: ") && line.contains(part)),
            "{part}: {found:#?}"
        );
    }
}

/// Broken by a difference with the wrong sign.
#[test]
fn a_clock_that_differs_from_the_issuers_is_told_by_how_much() {
    let (issuer, place, config) = idp::one(LAZY);
    let daemon = place.serve(&config);
    for (skew, parts) in [
        (20, None),
        (-120, Some(["warning: ", "2m behind this machine's"])),
        (900, Some(["error: ", "15m ahead of this machine's"])),
    ] {
        issuer.clear_script();
        issuer.script_for(
            Target::Path(DISCOVERY.into()),
            Fault::Date(skew),
            Times::Always,
        );
        let found = findings(&daemon.place, &[]);
        match parts {
            None => assert_eq!(found, [""; 0], "{skew}"),
            Some(parts) => {
                assert_only(&found, &parts);
                assert_only(&found, &["timedatectl"]);
            }
        }
    }
}

/// If only the token endpoint is known, the doctor connects to its host and asks for no token.
/// Broken by a POST to the endpoint.
#[test]
fn a_token_endpoint_without_discovery_is_reached_without_a_token_request() {
    let (issuer, place, _) = idp::one(LAZY);
    let config = idp::idp(&issuer)
        .replace("issuer = ", "token_url = ")
        .replace("\"\nmax_in", "/token\"\nmax_in");
    let daemon = place.serve(&(config + &idp::profile("it", "it", LAZY)));
    let ran = doctor(&daemon.place, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert!(
        ran.out.contains("HTTP ") && ran.out.contains("clock: within 0 s"),
        "{}",
        ran.out
    );
    assert_eq!(issuer.count("/token"), 0);
}

/// Broken by asking the issuers one after the other.
#[test]
fn an_issuer_that_hangs_costs_the_timeout_and_nobody_elses_result() {
    let (hanging, place, config) = idp::one(LAZY);
    hanging.script_for(Target::Path(DISCOVERY.into()), Fault::Hang, Times::Always);
    let fine = idp::issuer(vec![RegisteredClient::with_secret("other", SECRET)]);
    place.secret("other.secret", SECRET);
    let config = config.replace("\"1s\"", "\"60s\"")
        + &idp::idp(&fine).replace("[idp.it]", "[idp.other]")
        + &idp::profile("other", "other", LAZY).replace("idp = \"it\"", "idp = \"other\"");
    let daemon = place.serve(&config);
    let begun = Instant::now();
    let ran = doctor(&daemon.place, &["--timeout", "2s"]);
    let took = begun.elapsed();
    assert_eq!(ran.code, Some(1), "{}", ran.out);
    let error = format!(
        "error    identity providers: {}/ gave no answer within 2s (discovery was not over",
        hanging.url()
    );
    let well = format!("ok       identity providers: {}/", fine.url());
    assert!(
        ran.out.contains(&error) && ran.out.contains(&well),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("raise --timeout"), "{}", ran.out);
    assert!(took < Duration::from_secs(10), "{took:?}");
}
