//! The incidents of the night, and what each place says about them. An operator must find the cause
//! and the cure within a minute, wherever the search begins.
//!
//! An incident is a test. It causes the trouble, and has lines of a place and a fragment of what
//! must stand there. All texts that are collected on the way are also searched for sentences that
//! cannot be true (`sentences`).

mod places;
mod sentences;

use std::os::unix::fs::chown;
use std::time::Duration;

use tokend_issuer::certificates::{Authority, ClientOptions, Pair};
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::clock::WallClock;
use tokend_issuer::faults::{Fault, Times};
use tokend_issuer::{Issuer, IssuerTls, Settings};

use self::places::Where::{Caller, Check, Doctor, Explain, Log, Metrics, Ready, Status};
use self::places::{Where, tells};
use crate::harness::disk::SmallDisk;
use crate::harness::idp::{self, SECRET};
use crate::harness::{Daemon, Place, is_root};
use crate::restart::Manager;

/// The line of a place that has nothing to say about an incident.
const NOTHING: &str = "";
const READY: &str = "\"ready\":true";
const NOT_READY: &str = "\"ready\":false";
const AVAILABLE: &str = "tokend_profile_available{profile=\"it\",method=\"oauth2\"} 1";
const UNAVAILABLE: &str = "tokend_profile_available{profile=\"it\",method=\"oauth2\"} 0";
const REFUSED: &str = "all callers of this profile are refused";

/// The profile has no credential: each place has the cause and the cure, and `also`.
fn no_credential(
    daemon: &Daemon,
    state: &str,
    cause: &str,
    cure: &str,
    also: &[(Where, &'static str)],
) {
    let (doctor, metric) = (
        format!("error    daemon: profile it has no credential ({state})"),
        format!("tokend_profile_state{{profile=\"it\",state=\"{state}\"}} 1"),
    );
    let places = [Caller, Status, Explain, Doctor, Check, Log, Ready];
    let mut table: Vec<(Where, &str)> = places
        .into_iter()
        .flat_map(|at| [(at, cause), (at, cure)])
        .collect();
    table.extend([
        (Doctor, doctor.as_str()),
        (Check, "1 error"),
        (Log, " ERROR "),
        (Log, REFUSED),
        (Ready, NOT_READY),
        (Metrics, UNAVAILABLE),
        (Metrics, &metric),
    ]);
    table.extend(also);
    tells(daemon, &table);
}

fn with_fault(fault: Fault) -> (Issuer, Daemon) {
    let (issuer, place, config) = idp::one("");
    issuer.script(fault, Times::Always);
    (issuer, place.serve(&config))
}

/// What is told of an identity provider that may recover by itself.
const AGAIN: [(Where, &str); 4] = [
    (Caller, "it is tried again in "),
    (Status, " ago)"),
    (
        Explain,
        "There is no credential: the last attempt to get one failed.",
    ),
    (Explain, "The next attempt is made in "),
];

#[test]
fn the_identity_provider_is_down() {
    let (issuer, place, config) = idp::one("");
    idp::down(&issuer);
    let daemon = place.serve(&config);
    let cause = "cannot be reached: the connection was refused";
    let cure = "check host and port, and that it is running";
    let doctor = [
        (Doctor, "error    identity providers: "),
        (Doctor, "needed by profile it"),
    ];
    let also = [&AGAIN[..], &doctor].concat();
    no_credential(&daemon, "backoff", cause, cure, &also);
}

#[test]
fn the_identity_provider_asks_for_patience() {
    let (_issuer, daemon) = with_fault(Fault::RetryAfter(429, Duration::from_secs(40)));
    let cause = "answered HTTP 429: the identity provider asks for patience";
    let cure = "raise refresh.min_interval or lower max_per_second";
    no_credential(&daemon, "backoff", cause, cure, &AGAIN);
}

#[test]
fn the_identity_provider_hangs() {
    let (_issuer, daemon) = with_fault(Fault::Hang);
    let cause = "/token gave no complete answer within 1s: the identity provider is slow or hangs";
    no_credential(&daemon, "backoff", cause, "raise http.timeout", &AGAIN);
}

#[test]
fn the_host_does_not_exist() {
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let idp = "[idp.it]\nissuer = \"https://idp.invalid\"\n";
    let daemon = place.serve(&(idp.to_owned() + &idp::profile("it", "it", "")));
    let cause = "cannot be reached: its host name cannot be resolved";
    let cure = "check the name, DNS, and whether a proxy is needed";
    no_credential(&daemon, "backoff", cause, cure, &AGAIN);
}

fn authority() -> Authority {
    Authority::new("ca", &WallClock::system()).expect("authority")
}

#[test]
fn the_authority_is_unknown() {
    let (authority, other) = (authority(), authority());
    let issuer = idp::with(Settings {
        tls: Some(IssuerTls {
            server: authority.server(&["localhost"]).expect("certificate"),
            client_roots: Vec::new(),
        }),
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    place.write("ca.pem", other.certificate_pem());
    let config = idp::idp(&issuer) + "tls = { ca = \"ca.pem\" }\n" + &idp::profile("it", "it", "");
    let daemon = place.serve(&config);
    let cause = "cannot be trusted: its issuer is unknown";
    let cure = "set tls.ca to the CA's certificate";
    let also = [&AGAIN[..], &[(Doctor, "is signed by CN=ca")]].concat();
    no_credential(&daemon, "backoff", cause, cure, &also);
}

#[test]
fn the_secret_is_wrong() {
    let (_issuer, place, config) = idp::one("");
    place.secret("it.secret", "not-the-registered-one");
    let daemon = place.serve(&config);
    let cause = "error invalid_client: the identity provider does not accept client id or secret";
    let cure = "check client_id, client_secret and client_auth";
    let also = [
        (Caller, "help: repair its secret"),
        (Status, "UPSTREAM_REJECTED invalid_client"),
        (
            Explain,
            "a changed secret, certificate or configuration is what helps",
        ),
        (Doctor, "help: repair its secret"),
        (Log, "oauth_error=\"invalid_client\""),
    ];
    no_credential(&daemon, "rejected", cause, cure, &also);
}

/// The cure is not in the secret. Broken by advice that is always about the secret.
#[test]
fn the_scope_is_not_granted() {
    let (_issuer, daemon) = with_fault(Fault::oauth_error("invalid_scope"));
    let cause = "error invalid_scope: the identity provider does not grant these scopes";
    let also = [
        (
            Caller,
            "or configuration, or what the identity provider has registered",
        ),
        (
            Doctor,
            "or configuration, or what the identity provider has registered",
        ),
    ];
    no_credential(&daemon, "rejected", cause, "check scopes", &also);
}

/// What is told of a profile whose files cannot be used.
const UNUSABLE: [(Where, &str); 4] = [
    (Caller, "`tokend check` shows what is wrong"),
    (Status, "PROFILE_INVALID"),
    (Explain, "The profile or one of its files cannot be used."),
    (
        Metrics,
        "tokend_reload_in_force{profile=\"it\",outcome=\"invalid\"} 0",
    ),
];

#[test]
fn the_secret_cannot_be_read() {
    if !is_root() {
        return;
    }
    let (_issuer, mut place, config) = idp::one("");
    place.give_to(65_001);
    chown(place.path("it.secret"), Some(0), Some(0)).expect("chown");
    let daemon = place.serve(&config);
    let cause = "it.secret: cannot be read (permission denied)";
    let cure = "let the daemon's user read it";
    no_credential(&daemon, "invalid", cause, cure, &UNUSABLE);
}

/// A profile that proves itself by a certificate, with this certificate and this key.
fn certified(authority: &Authority, certificate: &Pair, key: &Pair) -> (Issuer, Place, String) {
    let issuer = idp::binding(authority, Duration::from_secs(300));
    let place = Place::new();
    place.write("ca.pem", authority.certificate_pem());
    place.write("client.pem", &certificate.certificate_pem);
    place.secret("client.key", key.key_pem());
    let config = idp::idp(&issuer)
        + "tls = { ca = \"ca.pem\", certificate = \"client.pem\", key = \"client.key\" }\n\
           [profiles.it]\nmethod = \"oauth2\"\nidp = \"it\"\nclient_id = \"it\"\n\
           client_auth = \"tls_client_auth\"\n";
    (issuer, place, config)
}

fn client(authority: &Authority) -> Pair {
    let client = authority.client("it", &ClientOptions::default());
    client.expect("certificate")
}

#[test]
fn the_certificate_has_expired() {
    let long_ago = || WallClock::system().now() - Duration::from_secs(90 * 86_400);
    let old = Authority::new("ca", &WallClock::given(long_ago)).expect("authority");
    let client = client(&old);
    let (_issuer, place, config) = certified(&authority(), &client, &client);
    let daemon = place.serve(&config);
    let (cause, cure) = ("client.pem has expired on 2", "put a new one in place");
    no_credential(&daemon, "invalid", cause, cure, &UNUSABLE);
}

const MISMATCH: &str = "does not belong to the key in ";
const SAME_ISSUANCE: &str = "put both from the same issuance in place";

#[test]
fn key_and_certificate_do_not_match() {
    let authority = authority();
    let (one, other) = (client(&authority), client(&authority));
    let (_issuer, place, config) = certified(&authority, &one, &other);
    let daemon = place.serve(&config);
    no_credential(&daemon, "invalid", MISMATCH, SAME_ISSUANCE, &UNUSABLE);
}

/// Broken by an `explain` that tells nothing of files that are not in force.
#[test]
fn a_new_key_does_not_match_while_the_old_pair_works() {
    let authority = authority();
    let (one, other) = (client(&authority), client(&authority));
    let (_issuer, place, config) = certified(&authority, &one, &one);
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("served");
    daemon.place.secret("client.key", other.key_pem());
    let places = [Status, Explain, Doctor, Check, Log].into_iter();
    let mut table: Vec<(Where, &str)> = places
        .flat_map(|at| [(at, MISMATCH), (at, SAME_ISSUANCE)])
        .collect();
    table.extend([
        (Caller, NOTHING),
        (Status, "its last good state is kept"),
        (Explain, "There is a credential, and it expires in "),
        (Explain, "its last good state is kept"),
        (Doctor, "its files are not in force (kept)"),
        (Log, " WARN its last good state is kept"),
        (Ready, READY),
        (Metrics, AVAILABLE),
        (
            Metrics,
            "tokend_reload_in_force{profile=\"it\",outcome=\"kept\"} 0",
        ),
    ]);
    tells(&daemon, &table);
}

/// Broken by a difference of clocks that only `status` tells, and without a cure.
#[test]
fn the_identity_providers_clock_is_wrong() {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        clock: WallClock::given(|| WallClock::system().now() + Duration::from_secs(900)),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let daemon = place.serve(&(idp::idp(&issuer) + &idp::profile("it", "it", "")));
    let cause = "is 15m ahead of this machine's";
    let table = [
        (Caller, NOTHING),
        (Status, cause),
        (Status, "timedatectl"),
        (Explain, "There is a credential, and it expires in "),
        (Explain, cause),
        (Explain, "timedatectl"),
        (Doctor, "error    clock: the clock of "),
        (Doctor, cause),
        (Doctor, "timedatectl"),
        (Check, cause),
        (Check, "timedatectl"),
        (Log, " WARN the identity provider's clock"),
        (Log, cause),
        (Log, "timedatectl"),
        (Ready, READY),
        (Metrics, AVAILABLE),
        (Metrics, "tokend_issuer_clock_skew_seconds{profile=\"it\"} "),
    ];
    tells(&daemon, &table);
}

#[test]
fn a_caller_is_denied() {
    let (_issuer, place, config) = idp::one("access = [{ user = 65002 }]");
    let daemon = place.serve(&config);
    let table = [
        (Caller, "no rule of its `access` names this caller"),
        (Caller, "it permits { user = 65002 }; `tokend explain it`"),
        (Status, "fresh"),
        (Explain, "denied: no rule holds"),
        (
            Explain,
            "access[0] { user = 65002 }: does not hold: the user is ",
        ),
        (Doctor, "callers: "),
        (Check, "0 errors"),
        (Log, "\"event\":\"deny\",\"decision\":\"deny\""),
        (Ready, READY),
        (Metrics, AVAILABLE),
        (
            Metrics,
            "tokend_token_requests_total{result=\"profile_not_found\"} ",
        ),
    ];
    tells(&daemon, &table);
}

#[test]
fn the_disk_is_full_under_deny() {
    let (_issuer, place, config) = idp::one("");
    let Some(disk) = SmallDisk::mount(&place.path("logs")) else {
        return;
    };
    disk.fill();
    let audit = "[audit]\nsink = \"file\"\npath = \"logs/audit.jsonl\"\non_failure = \"deny\"\n";
    let daemon = place.serve(&format!("{audit}{config}"));
    let full = "audit.jsonl cannot be written: No space left on device";
    let table = [
        (Caller, "the audit record of this grant cannot be written"),
        (Caller, "`tokend doctor` shows an administrator"),
        (Status, full),
        (Status, "callers are refused"),
        (Status, "`tokend doctor` shows an administrator why"),
        (Explain, "Callers are refused all the same: "),
        (Explain, full),
        (Doctor, full),
        (Doctor, "help: make room"),
        (Check, "0 errors"),
        (Log, " ERROR [audit] records are not written"),
        (Log, full),
        (Log, "nobody is given a credential until they can"),
        (Ready, NOT_READY),
        (Ready, "no audit record can be written"),
        (Ready, "`tokend doctor` shows an administrator why"),
        (Metrics, UNAVAILABLE),
        (Metrics, "tokend_audit_failing 1"),
    ];
    tells(&daemon, &table);
}

const UNKNOWN_KEY: &str = "unknown key `servr`";
const NEAREST: &str = "did you mean [server]?";
const NOT_IN_FORCE: &str = "tokend.toml is not in force";

/// Broken by an `explain` that tells nothing of it.
#[test]
fn the_configuration_is_broken_and_reloaded() {
    let (_issuer, place, config) = idp::one("");
    let daemon = place.serve(&config);
    daemon.grpc().token("it").expect("served");
    let broken = format!("{config}\n[servr]\n");
    daemon.place.write("tokend.toml", &broken);
    let places = [Status, Explain, Doctor, Check, Log].into_iter();
    let mut table: Vec<(Where, &str)> = places
        .flat_map(|at| [(at, "tokend.toml:14:2"), (at, UNKNOWN_KEY), (at, NEAREST)])
        .collect();
    table.extend([
        (Caller, NOTHING),
        (Status, NOT_IN_FORCE),
        (Explain, "There is a credential, and it expires in "),
        (Explain, NOT_IN_FORCE),
        (Doctor, NOT_IN_FORCE),
        (Doctor, "what was in force before is served until then"),
        (Check, "1 error"),
        (Log, "the one in force is kept"),
        (Ready, READY),
        (Metrics, AVAILABLE),
        (Metrics, "tokend_config_refused 1"),
    ]);
    tells(&daemon, &table);
}

/// Broken by a doctor that says that something is served, and by a `token` that sends its caller to
/// a status without profiles.
#[test]
fn the_configuration_is_broken_at_the_start() {
    let (_issuer, place, config) = idp::one("");
    place.write("tokend.toml", &format!("{config}\n[servr]\n"));
    let manager = Manager::new(&place);
    let daemon = manager.start(place);
    let mut table = Vec::new();
    for at in [Caller, Explain, Ready] {
        table.extend([
            (at, "tokend has no configuration that can be used"),
            (at, UNKNOWN_KEY),
            (at, "it takes up the repaired file by itself"),
        ]);
    }
    for at in [Status, Doctor, Check, Log] {
        table.extend([(at, UNKNOWN_KEY), (at, NEAREST)]);
    }
    table.extend([
        (
            Caller,
            "help: `tokend check` shows all that is to be repaired",
        ),
        (
            Explain,
            "help: `tokend check` shows all that is to be repaired",
        ),
        (Status, NOT_IN_FORCE),
        (Doctor, "so every caller is refused until then"),
        (Check, "1 error"),
        (Log, "every caller is told so until the files are repaired"),
        (Metrics, "tokend_config_refused 1"),
    ]);
    tells(&daemon, &table);
}
