mod damage;
mod encodings;
mod federated;
mod pkcs12;
mod sections;
mod stores;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use url::Url;

use super::*;
use crate::core::profile::{
    Endpoint, GrantType, Http, Idp, ProfileName, Refresh, RequestSettings, SecretRef,
};

const MARKER: &str = "MarkerSecret-0123456789";

/// A moment in 2026.
const NOW: WallTime = WallTime(Duration::from_secs(1_795_490_940));

fn profile(method: Method) -> Profile {
    Profile {
        name: ProfileName::parse("p").unwrap(),
        target: None,
        method,
        access: Vec::new(),
        refresh: Refresh::default(),
        request: RequestSettings::default(),
        refuse_bound_tokens: false,
        warnings: Vec::new(),
    }
}

fn oauth2(
    client_auth: ClientAuth,
    identity: Option<IdentitySource>,
    trust: TrustSource,
) -> Profile {
    profile(Method::OAuth2(Box::new(OAuth2 {
        idp: Idp {
            endpoint: Endpoint::Token(Url::parse("https://idp.example/token").unwrap()),
            max_in_flight: 1,
            max_per_second: 1,
            http: Http {
                connect_timeout: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                proxy: None,
            },
            trust,
            identity,
            allow_insecure_http: false,
        },
        grant: GrantType::ClientCredentials,
        client_id: "c".into(),
        client_auth,
        scopes: Vec::new(),
        audience: None,
        resource: Vec::new(),
        extra: std::collections::BTreeMap::new(),
    })))
}

/// A folder with files that only their owner can read.
struct Folder(TempDir);

impl Folder {
    fn new() -> Folder {
        Folder(TempDir::new().unwrap())
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// A self-signed certificate for some years around NOW.
    fn certificate(&self, name: &str, key: &KeyPair, from: i32, to: i32) -> PathBuf {
        let mut params = CertificateParams::new(vec!["client".into()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        self.write(name, params.self_signed(key).unwrap().pem())
    }
}

fn pair(certificate: &Path, key: &Path) -> Option<IdentitySource> {
    Some(IdentitySource::Pem {
        certificate: certificate.into(),
        key: key.into(),
        key_password: None,
    })
}

fn of(profile: &Profile) -> Result<Material, Vec<String>> {
    read(profile, &Surroundings::default(), NOW).map_err(|problems| texts(&problems))
}

/// The findings as people see them.
fn texts(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(ToString::to_string).collect()
}

fn token(path: PathBuf) -> Result<Material, Vec<String>> {
    of(&profile(Method::Static {
        token: SecretRef::File(path),
    }))
}

fn only(problems: Result<Material, Vec<String>>) -> String {
    let problems = problems.expect_err("a problem");
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(!problems[0].contains(MARKER), "{problems:?}");
    problems[0].clone()
}

#[test]
fn one_line_break_at_the_end_is_taken_off() {
    let folder = Folder::new();
    for content in ["secret", "secret\n", "secret\r\n"] {
        let material = token(folder.write("token", content)).unwrap();
        assert_eq!(material.secret.unwrap().expose(), "secret");
        assert!(material.warnings.is_empty());
    }
    let material = token(folder.write("token", " pass wörd ")).unwrap();
    assert_eq!(material.secret.unwrap().expose(), " pass wörd ");
}

#[test]
fn bad_secret_files_are_refused_with_path_cause_and_cure() {
    let folder = Folder::new();
    for (content, expected) in [
        (b"".to_vec(), "is empty"),
        (b"\n".to_vec(), "is empty"),
        (b"MarkerSecret-0123456789\n\n".to_vec(), "control character"),
        (b"MarkerSecret-0123456789\0".to_vec(), "control character"),
        (b"a\nMarkerSecret-0123456789".to_vec(), "control character"),
        (b"MarkerSecret-0123456789\xff".to_vec(), "not UTF-8"),
        (vec![b'x'; 64 * 1024 + 1], "longer than 64 KiB"),
    ] {
        let path = folder.write("token", content);
        let message = only(token(path.clone()));
        assert!(message.contains(expected), "{message}");
        assert!(
            message.starts_with("token: ") && message.contains(path.to_str().unwrap()),
            "{message}"
        );
    }
    let message = only(token(folder.0.path().join("missing")));
    assert!(message.contains("does not exist: create it"), "{message}");
    let message = only(token(folder.0.path().into()));
    assert!(message.contains("is no regular file"), "{message}");
    assert!(token(folder.write("token", vec![b'x'; 64 * 1024])).is_ok());
}

#[test]
fn a_pipe_does_not_hang_the_daemon() {
    let folder = Folder::new();
    let path = folder.0.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    assert!(only(token(path)).contains("is no regular file"));
}

#[test]
fn a_secret_that_everybody_can_read_is_a_warning_except_in_the_credentials_folder() {
    let folder = Folder::new();
    let path = folder.write("token", MARKER);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let material = token(path).unwrap();
    assert_eq!(material.warnings.len(), 1);
    assert!(material.warnings[0].message.contains("everybody"));
    let surroundings = Surroundings::new(Some(folder.0.path().into()));
    let credential = |name: &str| {
        profile(Method::Static {
            token: SecretRef::Credential(name.into()),
        })
    };
    let material = read(&credential("token"), &surroundings, NOW).unwrap();
    assert!(material.warnings.is_empty());
    assert_eq!(material.secret.unwrap().expose(), MARKER);
    for name in ["../token", "a/b", "/etc/passwd", "", "."] {
        let message =
            only(read(&credential(name), &surroundings, NOW).map_err(|problems| texts(&problems)));
        assert!(
            message.contains("no name of a systemd credential"),
            "{message}"
        );
    }
    assert!(only(of(&credential("token"))).contains("$CREDENTIALS_DIRECTORY"));
}

#[test]
fn secrets_out_of_the_environment_and_the_configuration() {
    let method = |source| {
        profile(Method::Basic {
            username: "u".into(),
            password: source,
        })
    };
    let material = of(&method(SecretRef::Env("PATH".into()))).unwrap();
    assert_eq!(
        material.secret.unwrap().expose(),
        std::env::var("PATH").unwrap()
    );
    let message = only(of(&method(SecretRef::Env("TOKEND_TEST_NOT_SET".into()))));
    assert!(
        message.contains("TOKEND_TEST_NOT_SET is not set"),
        "{message}"
    );
    let material = of(&method(SecretRef::Literal(Secret::new(MARKER.into())))).unwrap();
    assert!(!format!("{material:?}").contains(MARKER));
    let empty = of(&method(SecretRef::Literal(Secret::new(String::new()))));
    assert!(only(empty).contains("is empty"));
}

#[test]
fn the_digest_follows_the_content() {
    let folder = Folder::new();
    let digest = |content: &str| token(folder.write("token", content)).unwrap().digest;
    let one = digest("one");
    assert_eq!(one, digest("one"));
    assert_ne!(one, digest("two"));
    let basic = of(&profile(Method::Basic {
        username: "u".into(),
        password: SecretRef::Literal(Secret::new("one".into())),
    }))
    .unwrap();
    assert_ne!(one, basic.digest);
}

#[test]
fn a_pair_is_read_in_every_key_format() {
    let folder = Folder::new();
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ECDSA_P521_SHA512,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
        let path = folder.write("key.pem", key.serialize_pem());
        let material = of(&oauth2(
            ClientAuth::Tls,
            pair(&certificate, &path),
            TrustSource::System,
        ))
        .unwrap();
        // 2030-01-01
        assert_eq!(
            material.certificates()[0].not_after,
            WallTime(Duration::from_secs(1_893_456_000))
        );
        let shown = format!("{material:?}");
        assert!(
            !shown.contains("secret_der") && shown.len() < 20_000,
            "{shown}"
        );
    }
    let key = KeyPair::generate().unwrap();
    let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
    let sec1 = folder.write("key.pem", sec1(&key));
    assert!(
        of(&oauth2(
            ClientAuth::Tls,
            pair(&certificate, &sec1),
            TrustSource::System
        ))
        .is_ok()
    );
}

/// The SEC1 key inside a PKCS#8 P-256 key, as PEM.
fn sec1(key: &KeyPair) -> String {
    use base64::Engine;
    let der = key.serialize_der();
    // SEQUENCE { version, AlgorithmIdentifier, OCTET STRING { ECPrivateKey } }
    let start = der
        .windows(5)
        .position(|window| window == [0x30, 0x6b, 0x02, 0x01, 0x01])
        .unwrap();
    let body = base64::engine::general_purpose::STANDARD.encode(&der[start..start + 0x6d]);
    format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----\n")
}

#[test]
fn trap_3_a_torn_pair_is_refused() {
    let folder = Folder::new();
    let (old, new) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let certificate = folder.certificate("cert.pem", &old, 2020, 2030);
    let key = folder.write("key.pem", new.serialize_pem());
    let message = only(of(&oauth2(
        ClientAuth::Tls,
        pair(&certificate, &key),
        TrustSource::System,
    )));
    assert!(message.contains("does not belong to the key"), "{message}");
    assert!(
        message.contains("cert.pem") && message.contains("key.pem"),
        "{message}"
    );
}

#[test]
fn trap_2_missing_and_half_written_files_are_problems_all_at_once() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let whole = fs::read(folder.certificate("cert.pem", &key, 2020, 2030)).unwrap();
    let certificate = folder.write("cert.pem", &whole[..whole.len() / 2]);
    let missing = folder.0.path().join("key.pem");
    let trust = TrustSource::Pem(folder.write("ca.pem", "nothing here"));
    let problems = of(&oauth2(
        ClientAuth::Tls,
        pair(&certificate, &missing),
        trust,
    ))
    .unwrap_err();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("not whole PEM"), "{problems:?}");
    assert!(problems[1].contains("does not exist"), "{problems:?}");
    assert!(problems[2].contains("no PEM certificate"), "{problems:?}");
    for cut in 0..whole.len() - 2 {
        let certificate = folder.write("cert.pem", &whole[..cut]);
        let key = folder.write("key.pem", key.serialize_pem());
        let outcome = of(&oauth2(
            ClientAuth::Tls,
            pair(&certificate, &key),
            TrustSource::System,
        ));
        assert!(outcome.is_err(), "cut at {cut}");
    }
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let path = folder.write("key.pem", key.serialize_pem());
    for (from, to, expected) in [
        (2000, 2025, "has expired"),
        (2040, 2050, "is not valid before"),
    ] {
        let certificate = folder.certificate("cert.pem", &key, from, to);
        let message = only(of(&oauth2(
            ClientAuth::Tls,
            pair(&certificate, &path),
            TrustSource::System,
        )));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_trust_bundle_is_read_whole() {
    let folder = Folder::new();
    let one =
        fs::read_to_string(folder.certificate("1", &KeyPair::generate().unwrap(), 2020, 2030))
            .unwrap();
    let two =
        fs::read_to_string(folder.certificate("2", &KeyPair::generate().unwrap(), 2020, 2030))
            .unwrap();
    let bundle = |text: String| {
        of(&oauth2(
            ClientAuth::None,
            None,
            TrustSource::Pem(folder.write("ca.pem", text)),
        ))
    };
    match bundle(format!("# one\n{one}\n# two\n{two}")).unwrap().trust {
        Trust::Roots(roots, _) => assert_eq!(roots.len(), 2),
        Trust::System => panic!("the system's roots instead"),
    }
    let garbage = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(only(bundle(format!("{one}{garbage}"))).contains("certificate 2"));
}

#[test]
fn trap_30_what_is_missing_says_so() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
    assert!(
        only(of(&oauth2(ClientAuth::Tls, None, TrustSource::System)))
            .contains("needs tls.certificate")
    );
    let assertion = |source| {
        ClientAuth::PrivateKeyJwt(Assertion {
            source,
            algorithm: None,
            kid: None,
            x5t: false,
            audience: None,
            lifetime: Duration::from_secs(60),
        })
    };
    let missing = oauth2(assertion(None), None, TrustSource::System);
    assert!(only(of(&missing)).contains("needs assertion.key, assertion.keystore"));
    // A key is where the certificate should be. The message does not quote it.
    let swapped = folder.write("swapped.pem", key.serialize_pem());
    let message = only(of(&oauth2(
        ClientAuth::Tls,
        pair(&swapped, &swapped),
        TrustSource::System,
    )));
    assert!(message.contains("no PEM certificate"), "{message}");
    let other = folder.write("other.pem", KeyPair::generate().unwrap().serialize_pem());
    let torn = assertion(Some(AssertionSource::Pem {
        key: other,
        key_password: None,
        certificate: Some(certificate),
    }));
    let message = only(of(&oauth2(torn, None, TrustSource::System)));
    assert!(message.starts_with("assertion.certificate: "), "{message}");
}

/// A thousand profiles that share a certificate must not read it a thousand times, and must all see
/// the same one. Broken by `MaterialReader::file` that does not look at `file_cache`.
#[test]
fn one_look_reads_a_file_once_and_the_next_look_reads_it_again() {
    let folder = Folder::new();
    let path = folder.write("token", "first");
    let shared = profile(Method::Static {
        token: SecretRef::File(path),
    });
    let all = Surroundings::default();
    let seen = |look: &Surroundings| {
        let material = read(&shared, look, NOW).unwrap();
        material.secret.unwrap().expose().to_owned()
    };
    let look = all.for_one_look();
    assert_eq!(seen(&look), "first");
    folder.write("token", "second");
    assert_eq!(seen(&look), "first", "as everybody else in this look");
    assert_eq!(seen(&all.for_one_look()), "second");
    assert_eq!(seen(&all), "second");
    assert!(!format!("{look:?}").contains("first"));
}
