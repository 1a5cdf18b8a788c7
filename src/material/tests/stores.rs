//! Keystores and encrypted keys that these tests make. tests/it/keystores.rs has those that other
//! programs make.

pub(super) mod keys;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use p12_keystore::{
    Certificate, EncryptionAlgorithm, KeyStore, KeyStoreEntry, PrivateKey as P12Key,
    PrivateKeyChain,
};

use rcgen::{IsCa, Issuer};

use super::*;
use crate::core::profile::Keystore;

pub(super) const PASSWORD: &str = "Store-pässword-1";
pub(super) const KEY_PASSWORD: &str = "Key-password-2";

/// A key with its chain, leaf first, and the CA that signed it.
pub(super) struct Issued {
    pub(super) key: KeyPair,
    pub(super) chain: Vec<Vec<u8>>,
}

pub(super) fn issued(name: &str) -> Issued {
    let params = |name: &str, ca: bool| {
        let mut params = CertificateParams::new(vec![name.into()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        if ca {
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params
    };
    let (root, middle, key) = (
        KeyPair::generate().unwrap(),
        KeyPair::generate().unwrap(),
        KeyPair::generate().unwrap(),
    );
    let root_params = params("root", true);
    let root_cert = root_params.self_signed(&root).unwrap();
    let root = Issuer::new(root_params, root);
    let middle_params = params("middle", true);
    let middle_cert = middle_params.signed_by(&middle, &root).unwrap();
    let middle = Issuer::new(middle_params, middle);
    let leaf = params(name, false).signed_by(&key, &middle).unwrap();
    Issued {
        chain: [leaf, middle_cert, root_cert]
            .iter()
            .map(|certificate| certificate.der().to_vec())
            .collect(),
        key,
    }
}

/// PKCS#12 with these keys and trusted certificates. It has few rounds, to save time.
pub(super) fn p12(
    keys: &[(&str, &Issued)],
    trusted: &[&[u8]],
    algorithm: EncryptionAlgorithm,
    rounds: u32,
) -> Vec<u8> {
    let mut store = KeyStore::new();
    for (alias, issued) in keys {
        let key = P12Key::from_der(&issued.key.serialize_der()).unwrap();
        let chain = issued
            .chain
            .iter()
            .map(|der| Certificate::from_der(der).unwrap());
        let entry = PrivateKeyChain::new(*alias, key, chain);
        store.add_entry(alias, KeyStoreEntry::PrivateKeyChain(entry));
    }
    for (number, der) in trusted.iter().enumerate() {
        let certificate = Certificate::from_der(der).unwrap();
        store.add_entry(
            &format!("ca-{number}"),
            KeyStoreEntry::Certificate(certificate),
        );
    }
    store
        .writer(PASSWORD)
        .encryption_algorithm(algorithm)
        .encryption_iterations(rounds)
        .mac_iterations(rounds)
        .write()
        .unwrap()
}

pub(super) const AES: EncryptionAlgorithm = EncryptionAlgorithm::PbeWithHmacSha256AndAes256;

fn sha1(password: &str, pieces: &[&[u8]]) -> [u8; 20] {
    let mut all: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    all.extend(pieces.concat());
    digest(&SHA1_FOR_LEGACY_USE_ONLY, &all)
        .as_ref()
        .try_into()
        .unwrap()
}

/// JKS as Java writes it. The keys have `KEY_PASSWORD`.
pub(super) fn jks(keys: &[(&str, &Issued)], trusted: &[&[u8]]) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
        out.extend(text.as_bytes());
    }
    fn piece(out: &mut Vec<u8>, piece: &[u8]) {
        out.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
        out.extend(piece);
    }
    let count = u32::try_from(keys.len() + trusted.len()).unwrap();
    let mut out = vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2];
    out.extend(count.to_be_bytes());
    for (alias, issued) in keys {
        out.extend(1_u32.to_be_bytes());
        text(&mut out, alias);
        out.extend([0; 8]);
        piece(&mut out, &sealed(&issued.key.serialize_der()));
        out.extend(u32::try_from(issued.chain.len()).unwrap().to_be_bytes());
        for certificate in &issued.chain {
            text(&mut out, "X.509");
            piece(&mut out, certificate);
        }
    }
    for (number, certificate) in trusted.iter().enumerate() {
        out.extend(2_u32.to_be_bytes());
        text(&mut out, &format!("ca-{number}"));
        out.extend([0; 8]);
        text(&mut out, "X.509");
        piece(&mut out, certificate);
    }
    let seal = sha1(PASSWORD, &[b"Mighty Aphrodite", &out]);
    out.extend(seal);
    out
}

fn sealed(key: &[u8]) -> Vec<u8> {
    let salt = [7; 20];
    let (mut hidden, mut stream) = (key.to_vec(), salt);
    for block in hidden.chunks_mut(20) {
        stream = sha1(KEY_PASSWORD, &[&stream]);
        block
            .iter_mut()
            .zip(stream)
            .for_each(|(byte, mask)| *byte ^= mask);
    }
    let data = [&salt[..], &hidden, &sha1(KEY_PASSWORD, &[key])].concat();
    let oid = [
        0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01, 0x05, 0x00,
    ];
    tlv(0x30, &[tlv(0x30, &oid), tlv(0x04, &data)].concat())
}

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length[..], content].concat()
}

fn literal(text: &str) -> Option<SecretRef> {
    Some(SecretRef::Literal(Secret::new(text.into())))
}

/// A store with its password, and for JKS the key's password.
pub(super) fn store(path: PathBuf) -> Keystore {
    let is_jks = fs::read(&path).unwrap().starts_with(&[0xfe, 0xed]);
    Keystore {
        path,
        password: literal(PASSWORD),
        alias: None,
        key_password: is_jks.then(|| literal(KEY_PASSWORD)).flatten(),
    }
}

pub(super) fn identity_of(store: Keystore) -> Result<Material, Vec<String>> {
    let source = Some(IdentitySource::Store(store));
    of(&oauth2(ClientAuth::Tls, source, TrustSource::System))
}

pub(super) fn trust_of(store: Keystore) -> Result<Material, Vec<String>> {
    of(&oauth2(ClientAuth::None, None, TrustSource::Store(store)))
}

fn roots(material: Result<Material, Vec<String>>) -> usize {
    match material.unwrap().trust {
        Trust::Roots(roots, _) => roots.len(),
        Trust::System => panic!("the system's roots instead"),
    }
}

pub(super) fn said(problems: Result<Material, Vec<String>>, role: &str, expected: &str) {
    let message = only(problems);
    assert!(message.starts_with(&format!("{role}: ")), "{message}");
    assert!(message.contains(expected), "{message}\n{expected}");
    for secret in [PASSWORD, KEY_PASSWORD, "wrong-one"] {
        assert!(!message.contains(secret), "{message}");
    }
}

#[test]
fn both_kinds_of_store_give_the_chain_in_order_and_its_facts() {
    let folder = Folder::new();
    let issued = issued("it");
    for bytes in [
        p12(&[("it", &issued)], &[], AES, 50),
        p12(
            &[("it", &issued)],
            &[],
            EncryptionAlgorithm::PbeWithShaAnd3KeyTripleDesCbc,
            50,
        ),
        p12(
            &[("it", &issued)],
            &[],
            EncryptionAlgorithm::PbeWithShaAnd40BitRc4Cbc,
            50,
        ),
        jks(&[("it", &issued)], &[]),
    ] {
        // The name of the file does not matter.
        let material = identity_of(store(folder.write("store.pem", &bytes))).unwrap();
        assert_eq!(
            material.certificates()[0].not_after,
            WallTime(Duration::from_secs(1_893_456_000))
        );
        let identity = material.identity.unwrap();
        let chain: Vec<&[u8]> = identity.chain.iter().map(AsRef::as_ref).collect();
        assert_eq!(chain, issued.chain);
        assert_eq!(identity.facts.subject, "CN=it");
        assert_eq!(
            identity.facts.thumbprint,
            tokend_issuer::certificates::thumbprint(&issued.chain[0])
        );
        // 2020-01-01
        assert_eq!(
            identity.facts.not_before,
            WallTime(Duration::from_secs(1_577_836_800))
        );
    }
}

#[test]
fn one_of_several_entries_is_told_by_its_alias() {
    let folder = Folder::new();
    let (one, two) = (issued("one"), issued("two"));
    for bytes in [
        p12(&[("one", &one), ("two", &two)], &[], AES, 50),
        jks(&[("one", &one), ("two", &two)], &[]),
    ] {
        let path = folder.write("store", bytes);
        let with = |alias: Option<&str>| {
            identity_of(Keystore {
                alias: alias.map(Into::into),
                ..store(path.clone())
            })
        };
        for alias in ["two", "TWO"] {
            let identity = with(Some(alias)).unwrap().identity.unwrap();
            assert_eq!(identity.facts.subject, "CN=two");
        }
        let role = "tls.keystore.alias";
        said(
            with(None),
            role,
            "set tls.keystore.alias to one of \"one\", \"two\"",
        );
        said(with(Some("three")), role, "it has \"one\", \"two\"");
    }
}

#[test]
fn wrong_and_missing_passwords_say_which() {
    let folder = Folder::new();
    let issued = issued("it");
    let p12 = folder.write("p12", p12(&[("it", &issued)], &[], AES, 50));
    let jks = folder.write("jks", jks(&[("it", &issued)], &[]));
    let with = |path: &Path, password: Option<&str>, key_password: Option<&str>| {
        identity_of(Keystore {
            path: path.into(),
            password: password.and_then(literal),
            alias: None,
            key_password: key_password.and_then(literal),
        })
    };
    let role = "tls.keystore";
    said(
        with(&p12, Some("wrong-one"), None),
        role,
        "cannot be opened with tls.keystore.password",
    );
    said(with(&p12, None, None), role, "set tls.keystore.password to");
    said(
        with(&jks, Some("wrong-one"), Some(KEY_PASSWORD)),
        role,
        "cannot be opened with its password",
    );
    said(
        with(&jks, Some(PASSWORD), None),
        role,
        "set tls.keystore.key_password to the password of this entry",
    );
    said(
        with(&jks, Some(PASSWORD), Some("wrong-one")),
        "tls.keystore.key_password",
        "does not open",
    );
    said(with(&jks, None, None), role, "set tls.keystore.password to");
    // As in Java, the store's password is not needed to get at a key that has its own.
    assert!(with(&jks, None, Some(KEY_PASSWORD)).is_ok());
}

#[test]
fn trust_comes_from_certificates_and_never_from_keys() {
    let folder = Folder::new();
    let (issued, root) = (issued("it"), issued("other").chain.pop().unwrap());
    for (bytes, name) in [
        (p12(&[], &[&root, &issued.chain[2]], AES, 50), "p12"),
        (jks(&[], &[&root, &issued.chain[2]]), "jks"),
    ] {
        let path = folder.write(name, bytes);
        assert_eq!(roots(trust_of(store_without_key(&path))), 2);
        said(
            identity_of(store(path)),
            "tls.keystore",
            "has certificates but no private key",
        );
    }
    for (bytes, name) in [
        (p12(&[("it", &issued)], &[&root], AES, 50), "both.p12"),
        (jks(&[("it", &issued)], &[&root]), "both.jks"),
    ] {
        let material = trust_of(store_without_key(&folder.write(name, bytes)));
        let warnings = texts(&material.as_ref().unwrap().warnings);
        assert!(
            warnings[0].contains("holds a private key too"),
            "{warnings:?}"
        );
        assert_eq!(roots(material), 1);
    }
    for (bytes, name) in [
        (p12(&[("it", &issued)], &[], AES, 50), "key.p12"),
        (jks(&[("it", &issued)], &[]), "key.jks"),
    ] {
        let path = folder.write(name, bytes);
        said(
            trust_of(store_without_key(&path)),
            "tls.truststore",
            "has no certificate that is trusted",
        );
    }
    for (bytes, name) in [
        (p12(&[], &[], AES, 50), "no.p12"),
        (jks(&[], &[]), "no.jks"),
    ] {
        let path = folder.write(name, bytes);
        said(
            trust_of(store_without_key(&path)),
            "tls.truststore",
            "a store with nothing in it",
        );
        said(
            identity_of(store(path)),
            "tls.keystore",
            "with nothing in it",
        );
    }
}

fn store_without_key(path: &Path) -> Keystore {
    Keystore {
        key_password: None,
        ..store(path.into())
    }
}

#[test]
fn files_that_are_something_else_say_what_they_are() {
    let folder = Folder::new();
    let issued = issued("it");
    let p12 = p12(&[("it", &issued)], &[], AES, 50);
    let jks = jks(&[("it", &issued)], &[]);
    let half = |bytes: &[u8]| bytes[..bytes.len() / 2].to_vec();
    let mut jceks = jks.clone();
    jceks[..4].fill(0xce);
    for (bytes, expected) in [
        (half(&p12), "not a whole PKCS#12 file"),
        (half(&jks), "not a whole JKS keystore"),
        (jceks, "-deststoretype pkcs12"),
        (
            issued.key.serialize_pem().into(),
            "name it as tls.certificate",
        ),
        (Vec::new(), "is empty"),
        (issued.chain[0].clone(), "neither PKCS#12 nor JKS"),
        (vec![0x30; 512 * 1024 + 1], "longer than 512 KiB"),
    ] {
        let path = folder.write("store", bytes);
        said(identity_of(store(path)), "tls.keystore", expected);
    }
    let pem = store(folder.write("ca.pem", issued.key.serialize_pem()));
    said(trust_of(pem), "tls.truststore", "name it as tls.ca");
    // The same with the formats exchanged.
    let p12 = folder.write("key.p12", p12);
    let problems = of(&oauth2(
        ClientAuth::Tls,
        pair(&p12, &p12),
        TrustSource::System,
    ))
    .unwrap_err();
    assert_eq!(problems.len(), 2);
    for problem in problems {
        assert!(problem.contains("name it as keystore"), "{problem}");
    }
}

#[test]
fn a_store_that_asks_for_hours_is_refused_at_once() {
    let folder = Folder::new();
    let issued = issued("it");
    let start = std::time::Instant::now();
    let refused = |bytes| {
        said(
            identity_of(store(folder.write("store", bytes))),
            "tls.keystore",
            "more rounds of key derivation",
        );
    };
    // The MAC comes last in the file, and its rounds come last in it: 30001 of them become two
    // thousand million.
    let mut bomb = p12(&[("it", &issued)], &[], AES, 0x7531);
    let (mac, end) = (bomb.len() - 4, bomb.len());
    assert_eq!(bomb[mac..], [0x02, 0x02, 0x75, 0x31]);
    bomb.splice(mac.., [0x02, 0x04, 0x7f, 0xff, 0xff, 0xff]);
    // The lengths of the MAC and of the file around it grow too.
    let outer = u16::from_be_bytes([bomb[2], bomb[3]]) + 2;
    bomb[2..4].copy_from_slice(&outer.to_be_bytes());
    let mac_data = (0..mac)
        .rev()
        .find(|at| bomb[*at] == 0x30 && at + 2 + usize::from(bomb[at + 1]) == end)
        .unwrap();
    bomb[mac_data + 1] += 2;
    refused(bomb);
    // A million rounds are bearable, six times a million are not.
    let million = tlv(0x30, &[0x04, 0x01, 0x00, 0x02, 0x03, 0x0f, 0x42, 0x40]);
    let file = [vec![0x02, 0x01, 0x03], million.repeat(6)].concat();
    refused(tlv(0x30, &file));
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn passwords_and_content_are_in_the_digest() {
    let folder = Folder::new();
    let issued = issued("it");
    let bytes = p12(&[("it", &issued)], &[], AES, 50);
    let digest = |bytes: &[u8], key_password: Option<&str>| {
        let store = Keystore {
            key_password: key_password.and_then(literal),
            ..store(folder.write("store", bytes))
        };
        identity_of(store).unwrap().digest
    };
    let first = digest(&bytes, None);
    assert_eq!(first, digest(&bytes, None));
    assert_ne!(first, digest(&bytes, Some("another")));
    // The same key and certificates, salted anew.
    let again = p12(&[("it", &issued)], &[], AES, 50);
    assert_ne!(first, digest(&again, None));
}
