//! Damaged files: whatever a few bytes become, nothing panics and nothing takes long. The targets
//! in fuzz/ look for the same at length.

use std::time::Instant;

use super::stores::keys::{encrypted, pbkdf2};
use super::stores::{AES, PASSWORD, identity_of, issued, jks, p12, store, trust_of};
use super::*;

/// The number of changes to each file. All of them take a second or two.
const CHANGES: u32 = 1500;

/// The longest time that a single read may take. A store may ask for five million rounds, which
/// take some seconds here.
const LONGEST: Duration = Duration::from_secs(60);

/// A repeatable random source, even enough for this (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit.max(1) as u64).unwrap()
    }
}

/// Flips a bit, sets a byte, cuts the end off, removes a part or repeats one; up to three of these.
fn damaged(whole: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..=dice.below(3) {
        let at = dice.below(bytes.len());
        let to = (at + 1 + dice.below(16)).min(bytes.len());
        if at >= to {
            return bytes;
        }
        match dice.below(6) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = [0x00, 0x7f, 0x80, 0xff][dice.below(4)],
            2 => bytes[at] = u8::try_from(dice.below(256)).unwrap(),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..to)),
            _ => {
                let part = bytes[at..to].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
    bytes
}

/// Reads the file after every change. Returns how many results were still usable.
fn endure(
    seed: u64,
    whole: &[u8],
    mut read: impl FnMut(Vec<u8>) -> Result<Material, Vec<String>>,
) -> u32 {
    let mut dice = Dice(seed);
    let mut usable = 0;
    assert!(read(whole.to_vec()).is_ok(), "whole it is good");
    for _ in 0..CHANGES {
        let start = Instant::now();
        match read(damaged(whole, &mut dice)) {
            Ok(_) => usable += 1,
            Err(problems) => {
                for problem in problems {
                    assert!(problem.contains(": "), "{problem}");
                    assert!(!problem.contains(PASSWORD), "{problem}");
                }
            }
        }
        assert!(start.elapsed() < LONGEST, "{:?}", start.elapsed());
    }
    usable
}

#[test]
fn damaged_pem_never_panics() {
    let folder = Folder::new();
    let issued = issued("it");
    let pem = |key: &str| {
        let certificate = rustls_pki_types::CertificateDer::from(issued.chain[0].clone());
        let body = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            certificate.as_ref(),
        );
        format!("{key}-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    };
    let read = |password: Option<&str>, bytes: Vec<u8>| {
        let path = folder.write("both.pem", bytes);
        let source = IdentitySource::Pem {
            certificate: path.clone(),
            key: path.clone(),
            key_password: password.map(|password| SecretRef::Literal(Secret::new(password.into()))),
        };
        of(&oauth2(
            ClientAuth::Tls,
            Some(source),
            TrustSource::Pem(path),
        ))
    };
    let plain = pem(&issued.key.serialize_pem());
    let usable = endure(1, plain.as_bytes(), |bytes| read(None, bytes));
    assert!(usable < CHANGES / 4, "{usable}");
    let hidden = pem(&encrypted(&issued.key, &pbkdf2(10)));
    let password = Some(super::stores::KEY_PASSWORD);
    let usable = endure(2, hidden.as_bytes(), |bytes| read(password, bytes));
    assert!(usable < CHANGES / 4, "{usable}");
}

#[test]
fn damaged_stores_never_panic_and_never_hang() {
    let folder = Folder::new();
    let (one, two) = (issued("one"), issued("two"));
    let keys = [("one", &one), ("two", &two)];
    let root: &[u8] = &one.chain[2];
    for (seed, bytes) in [(3, p12(&keys, &[root], AES, 10)), (4, jks(&keys, &[root]))] {
        let usable = endure(seed, &bytes, |bytes| {
            let path = folder.write("store", bytes);
            let mut named = store(path);
            named.alias = Some("two".into());
            identity_of(named)
        });
        // The seal of a password lets no change pass, except one that undoes another.
        assert!(usable < CHANGES / 100, "{usable}");
        endure(seed + 10, &bytes, |bytes| {
            let mut named = store(folder.write("store", bytes));
            named.key_password = None;
            trust_of(named)
        });
    }
}

/// Without a seal, damage reaches the inner parts.
#[test]
fn damaged_stores_without_a_seal_never_panic() {
    let folder = Folder::new();
    let issued = issued("it");
    let bytes = jks(&[("it", &issued)], &[&issued.chain[2]]);
    endure(5, &bytes, |bytes| {
        let mut named = store(folder.write("store", bytes));
        named.password = None;
        named.key_password = Some(SecretRef::Literal(Secret::new(
            super::stores::KEY_PASSWORD.into(),
        )));
        identity_of(named)
    });
    let sealed = p12(&[("it", &issued)], &[], AES, 10);
    let open = without_mac(&sealed);
    endure(6, &open, |bytes| {
        identity_of(store(folder.write("store", bytes)))
    });
}

/// Cuts off the third part of a PFX.
fn without_mac(file: &[u8]) -> Vec<u8> {
    let length = |at: usize| usize::from(u16::from_be_bytes([file[at + 2], file[at + 3]])) + 4;
    // The form is SEQUENCE { 3, SEQUENCE { … }, … }.
    let end = 7 + length(7);
    let mut open = file[..end].to_vec();
    let inside = u16::try_from(end - 4).unwrap();
    open[2..4].copy_from_slice(&inside.to_be_bytes());
    open
}
