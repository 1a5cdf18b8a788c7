//! Promise 4 of docs/promises.md under load: a hundred rotations in a row, with every way to
//! replace files, while fifty callers and twenty watchers ask all the time.

mod witness;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use tokend::proto;
use tokend::proto::credential_service_client::CredentialServiceClient;
use tokend_issuer::Issuer;
use tokend_issuer::certificates::{Authority, ClientOptions, GeneratedKeyKind, Pair};
use tonic::transport::Channel;

use self::witness::{Witness, locked};
use crate::harness::ask::get;
use crate::harness::idp;
use crate::harness::{Daemon, PATIENCE, Place, block, eventually, is_root};

const CALLERS: usize = 50;
const WATCHERS: usize = 20;
const ROTATIONS: usize = 100;

/// The pause between two requests of one caller. It leaves processor time for the daemon, which is
/// what is measured.
const BREATH: Duration = Duration::from_millis(10);

/// The longest time from the last file operation to a token that was issued with the new
/// certificate. The daemon gets file events.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(2);

/// A way to replace a certificate. If `is_good` is true the new certificate comes into force; the
/// other ways change nothing.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// New files are renamed over both files.
    Rename,
    /// As Kubernetes does: a folder is filled, then a link is swapped.
    Swap,
    /// Both files are written in place. The certificate is written in two halves with a pause
    /// between.
    Halves,
    KeyFirst,
    CertificateFirst,
    /// A key that is encrypted with another password.
    WrongPassword,
    /// An expired certificate.
    Expired,
    /// A certificate that the identity provider has registered for another client.
    Rejected,
}

const WAYS: [Way; 8] = [
    Way::Rename,
    Way::Swap,
    Way::Halves,
    Way::KeyFirst,
    Way::CertificateFirst,
    Way::WrongPassword,
    Way::Expired,
    Way::Rejected,
];

/// The password of the keys.
const PASSWORD: &str = "the-password-of-the-keys";

impl Way {
    fn is_good(self) -> bool {
        !matches!(self, Way::WrongPassword | Way::Expired | Way::Rejected)
    }
}

/// An issuer that binds tokens to certificates, and a daemon. The path to the daemon's certificate
/// contains links.
struct Stage {
    issuer: Issuer,
    authority: Authority,
    daemon: Daemon,
    first: Pair,
    folders: usize,
}

impl Stage {
    fn new(lifetime: Duration, profiles: impl FnOnce(&str) -> String) -> Stage {
        let clock = tokend_issuer::clock::WallClock::system();
        let authority = Authority::new("root", &clock).expect("authority");
        let first = authority
            .client("it", &ClientOptions::default())
            .expect("certificate");
        let issuer = idp::binding(&authority, lifetime);
        let place = Place::new();
        place.write("ca.pem", authority.certificate_pem());
        place.write("tls/..0/tls.crt", &first.certificate_pem);
        place.write("tls/..0/tls.key", &encrypted(&first, PASSWORD));
        place.secret("password", PASSWORD);
        symlink("..0", place.path("tls/..data")).expect("linked");
        for name in ["tls.crt", "tls.key"] {
            symlink(format!("..data/{name}"), place.path(&format!("tls/{name}"))).expect("linked");
        }
        let daemon = place.serve(&profiles(issuer.url()));
        Stage {
            issuer,
            authority,
            daemon,
            first,
            folders: 0,
        }
    }

    /// A stage with the only profile `it`.
    fn alone(lifetime: Duration) -> Stage {
        Stage::new(lifetime, |url| {
            format!(
                "[profiles.it]\nmethod = \"oauth2\"\nissuer = \"{url}\"\nclient_id = \"it\"\nclient_auth = \"tls_client_auth\"\n\
                 tls = {{ ca = \"ca.pem\", certificate = \"tls/tls.crt\", key = \"tls/tls.key\", key_password = {{ file = \"password\" }} }}\n"
            )
        })
    }

    fn pair(&self, way: Way, kind: GeneratedKeyKind) -> Pair {
        let mut options = ClientOptions {
            key: kind,
            ..ClientOptions::default()
        };
        if matches!(way, Way::Expired) {
            options.lifetime = Duration::ZERO;
        }
        let name = if matches!(way, Way::Rejected) {
            "other"
        } else {
            "it"
        };
        self.authority.client(name, &options).expect("certificate")
    }

    /// Replaces the certificate and its key. It returns right after the last file operation.
    fn rotate(&mut self, way: Way, pair: &Pair) {
        // The daemon has time to find half of the file and read it. It acts on file events when
        // there was none for 200 ms.
        let half_way = || std::thread::sleep(Duration::from_millis(60));
        let password = match way {
            Way::WrongPassword => "another",
            _ => PASSWORD,
        };
        let (certificate, key) = (pair.certificate_pem.as_str(), &encrypted(pair, password));
        let place = &self.daemon.place;
        match way {
            Way::Rename | Way::Expired | Way::WrongPassword => {
                for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
                    place.write(&format!("tls/..data/.{name}"), text);
                    let data = |name: &str| place.path(&format!("tls/..data/{name}"));
                    fs::rename(data(&format!(".{name}")), data(name)).expect("renamed");
                }
            }
            Way::Swap | Way::Rejected => {
                self.folders += 1;
                let folder = format!("..{}", self.folders);
                place.write(&format!("tls/{folder}/tls.crt"), certificate);
                place.write(&format!("tls/{folder}/tls.key"), key);
                let before = fs::read_link(place.path("tls/..data")).expect("a link");
                symlink(&folder, place.path("tls/..tmp")).expect("linked");
                fs::rename(place.path("tls/..tmp"), place.path("tls/..data")).expect("swapped");
                fs::remove_dir_all(place.path("tls").join(before)).expect("removed");
            }
            Way::Halves => {
                place.write("tls/tls.key", key);
                place.write("tls/tls.crt", &certificate[..certificate.len() / 2]);
                half_way();
                place.write("tls/tls.crt", certificate);
            }
            Way::KeyFirst => {
                place.write("tls/tls.key", key);
                half_way();
                place.write("tls/tls.crt", certificate);
            }
            Way::CertificateFirst => {
                place.write("tls/tls.crt", certificate);
                half_way();
                place.write("tls/tls.key", key);
            }
        }
    }
}

/// The key as encrypted PKCS#8 in PEM, with as few rounds as possible.
fn encrypted(pair: &Pair, password: &str) -> String {
    use pkcs8::der::Encode;
    use pkcs8::der::asn1::OctetStringRef;
    use pkcs8::pkcs5::pbes2::Parameters;

    let key = PrivatePkcs8KeyDer::from_pem_slice(pair.key_pem().as_bytes()).expect("PKCS#8");
    let parameters = Parameters::generate_pbkdf2_sha256_aes256cbc(10, &[1; 16], [2; 16]);
    let parameters = parameters.expect("sound");
    let hidden = parameters.encrypt(password, key.secret_pkcs8_der());
    let hidden = hidden.expect("encrypted");
    let info = pkcs8::EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.into(),
        encrypted_data: OctetStringRef::new(&hidden).expect("short"),
    };
    let body = STANDARD.encode(info.to_der().expect("encoded"));
    format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n")
}

/// Waits for a token that is bound to this certificate. Returns how long that took.
fn in_force(channel: &Channel, profile: &str, pair: &Pair) -> Duration {
    let since = Instant::now();
    let mut client = CredentialServiceClient::new(channel.clone());
    eventually(PATIENCE, || {
        let answer = block(client.get_token(get(profile))).expect("served all the time");
        let credential = proto::Credential::decode(answer.into_inner().credential);
        (credential.expect("a credential").confirmation == pair.thumbprint).then_some(())
    });
    since.elapsed()
}

/// Waits until the daemon has read the useless material and, if it gets so far, tried it.
fn refused(daemon: &Daemon, way: Way) {
    let (outcome, why) = match way {
        Way::WrongPassword => ("kept", "cannot be decrypted with key_password"),
        Way::Expired => ("kept", "has expired"),
        Way::Rejected => ("rejected", ""),
        good => panic!("{good:?} is not refused"),
    };
    eventually(PATIENCE, || {
        let status = daemon.get("/v1/status").body;
        let reload = &status["profiles"][0]["reload"];
        let message = reload["message"].as_str()?;
        (reload["outcome"] == outcome && message.contains(why)).then_some(())
    });
}

/// The number of open descriptors; None where this user may not see them.
fn descriptors(daemon: &Daemon) -> Option<usize> {
    let folder = fs::read_dir(PathBuf::from(format!("/proc/{}/fd", daemon.pid())));
    Some(folder.ok()?.count())
}

/// Resident memory in KiB.
fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.expect("VmRSS").parse().expect("a number")
}

/// Broken by an `is_better` that returns true at once: rejected material replaces what works, and
/// callers wait or fail. Broken by an `Assembly::prepare` that does not look at the digest: nothing
/// ever comes into force. Broken by a `put_in_force` that keeps the old registry: the daemon serves
/// the old certificate's token after the new one's.
#[test]
fn trap_36_a_hundred_rotations_in_a_row_are_noticed_by_nobody() {
    let mut stage = Stage::alone(Duration::from_secs(6));
    let first = stage.first.clone();
    let own = stage.daemon.grpc().channel;
    in_force(&own, "it", &first);
    let witness = Witness::new(&first, &stage.daemon.place.secrets);
    let channels: Vec<Channel> = (0..CALLERS + WATCHERS)
        .map(|_| stage.daemon.grpc().channel)
        .collect();
    let crowd = witness.crowd(channels);
    let started = Instant::now();
    let mut latencies = Vec::new();
    let mut before = None;
    let mut last_good = first;
    let mut way_of = WAYS.into_iter().cycle();
    for number in 0..ROTATIONS {
        let way = way_of.next().expect("for ever");
        // RSA keys take long to make, and another trap covers the change of the kind of key.
        let kind = [GeneratedKeyKind::Ec, GeneratedKeyKind::Ed25519][number % 2];
        let pair = stage.pair(way, kind);
        if way.is_good() {
            witness.install(&pair);
        }
        stage.rotate(way, &pair);
        if way.is_good() {
            last_good = pair;
            // The next rotation overtakes some certificates before they are in force.
            if number % 3 == 0 {
                latencies.push(in_force(&own, "it", &last_good));
            }
        } else {
            refused(&stage.daemon, way);
        }
        if let Some(wrong) = locked(&witness.wrong).clone() {
            panic!("rotation {number}, {way:?}: {wrong}");
        }
        if number == 14 {
            before = Some((descriptors(&stage.daemon), resident(&stage.daemon)));
        }
    }
    // In the end the last good certificate is in use, whatever came after it.
    latencies.push(in_force(&own, "it", &last_good));
    let useless = stage.pair(Way::Rejected, GeneratedKeyKind::Ec);
    stage.rotate(Way::Rejected, &useless);
    refused(&stage.daemon, Way::Rejected);
    in_force(&own, "it", &last_good);
    let took = started.elapsed();
    witness.over.store(true, Ordering::SeqCst);
    for task in crowd {
        block(task).expect("no panic");
    }
    assert_eq!(locked(&witness.wrong).take(), None);
    latencies.sort();
    let (median, worst) = (
        latencies[latencies.len() / 2],
        latencies[latencies.len() - 1],
    );
    let answers = witness.answers.load(Ordering::SeqCst);
    let (descriptors_before, resident_before) = before.expect("there were more than fifteen");
    let resident_after = resident(&stage.daemon);
    println!(
        "{ROTATIONS} rotations in {took:.1?}, {answers} answers; in force after {median:.0?} (median), {worst:.0?} (worst); \
         resident {resident_before} KiB before, {resident_after} KiB after; descriptors before: {descriptors_before:?}"
    );
    assert!(worst <= IN_FORCE_WITHIN, "in force after {worst:?} only");
    assert!(answers > 10_000, "{answers} answers: that was no load");
    // The callers have left by now. The daemon must have closed what rotations opened.
    if is_root() {
        eventually(PATIENCE, || {
            let now = descriptors(&stage.daemon)?;
            (now <= descriptors_before?).then_some(())
        });
    }
    assert!(
        resident_after < resident_before + 16 * 1024,
        "{resident_before} KiB before, {resident_after} KiB after"
    );
    assert!(took < Duration::from_secs(45), "{took:?}");
}

/// Broken by `IdpClients` whose key has no identity: the daemon would use the old connection again,
/// and with it the certificate that was shown when the connection was opened.
#[test]
fn trap_37_requests_after_the_swap_come_on_new_connections_with_the_new_certificate() {
    let mut stage = Stage::alone(Duration::from_secs(300));
    let own = stage.daemon.grpc().channel;
    in_force(&own, "it", &stage.first);
    let renew = |stage: &Stage| {
        let grpc = stage.daemon.grpc();
        let before = grpc.token("it").expect("a token").credential;
        let request = proto::ReportRejectedRequest {
            profile: "it".into(),
            fingerprint: before.fingerprint.clone(),
        };
        let mut client = CredentialServiceClient::new(grpc.channel.clone());
        block(async move { client.report_rejected(request).await }).expect("reported");
        eventually(PATIENCE, || {
            let now = grpc.token("it").expect("served").credential;
            (now.fingerprint != before.fingerprint).then_some(())
        });
    };
    // A second request on the same connection shows that it is kept open.
    renew(&stage);
    let second = stage.pair(Way::Swap, GeneratedKeyKind::Ec);
    stage.rotate(Way::Swap, &second);
    in_force(&own, "it", &second);
    renew(&stage);
    let requests = stage.issuer.requests();
    let shown: Vec<(u64, Option<&str>)> = requests
        .iter()
        .map(|request| (request.connection, request.certificate.as_deref()))
        .collect();
    let [one, again, new, new_again] = shown.as_slice() else {
        panic!("{shown:?}")
    };
    assert_eq!(one, again, "kept open before the swap");
    assert_ne!(again.0, new.0, "another connection after it");
    assert_eq!(new, new_again, "and that one is kept open");
    assert_eq!(one.1, Some(stage.first.thumbprint.as_str()));
    assert_eq!(new.1, Some(second.thumbprint.as_str()));
}

/// Broken by a `gather` without `for_one_look` (it reads a thousand times), and by a trial that
/// does not go through the budget.
#[test]
fn a_thousand_profiles_that_share_a_certificate_rotate_within_the_budget() {
    const PROFILES: usize = 1000;
    const AT_ONCE: usize = 4;
    let mut stage = Stage::new(Duration::from_secs(300), |url| {
        let mut config = format!(
            "[idp.it]\nissuer = \"{url}\"\nmax_in_flight = {AT_ONCE}\nmax_per_second = 1000\n\
             tls = {{ ca = \"ca.pem\", certificate = \"tls/tls.crt\", key = \"tls/tls.key\", key_password = {{ file = \"password\" }} }}\n"
        );
        for number in 0..PROFILES {
            config += &format!(
                "[profiles.p{number}]\nmethod = \"oauth2\"\nidp = \"it\"\nclient_id = \"it\"\n\
                 client_auth = \"tls_client_auth\"\n"
            );
        }
        config
    });
    let grpc = stage.daemon.grpc();
    let all_bound_to = |pair: &Pair| {
        for number in 0..PROFILES {
            in_force(&grpc.channel, &format!("p{number}"), pair);
        }
    };
    all_bound_to(&stage.first);
    assert_eq!(stage.issuer.count("/mtls/token"), PROFILES);
    let pair = stage.pair(Way::Swap, GeneratedKeyKind::Ec);
    stage.rotate(Way::Swap, &pair);
    let swapped = Instant::now();
    all_bound_to(&pair);
    let took = swapped.elapsed();
    println!("{PROFILES} profiles with one certificate: in force in {took:.1?}");
    assert_eq!(
        stage.issuer.count("/mtls/token"),
        2 * PROFILES,
        "one request each"
    );
    assert!(
        stage.issuer.max_in_flight_seen() <= AT_ONCE,
        "{} at a time",
        stage.issuer.max_in_flight_seen()
    );
}
