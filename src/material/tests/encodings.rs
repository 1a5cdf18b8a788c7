//! Files with the right content in the wrong encoding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

fn told(key: impl AsRef<[u8]>) -> String {
    let folder = Folder::new();
    let pair = pair(&folder.write("c.pem", "none"), &folder.write("k.pem", key));
    let problems = of(&oauth2(ClientAuth::Tls, pair, TrustSource::System));
    let problems = problems.expect_err("problems");
    let of_key = problems.iter().find(|line| line.starts_with("tls.key: "));
    of_key.unwrap_or_else(|| panic!("{problems:?}")).clone()
}

/// The public key in this file is tagged as ring's first versions did it.
#[test]
fn an_ed25519_key_of_another_encoding_is_named() {
    let start = [
        0x30, 0x53, 2, 1, 1, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    let seed: Vec<u8> = (0..32).collect();
    let public = [&[0xa1, 0x23, 3, 0x21, 0][..], &[7; 32]].concat();
    let der = STANDARD.encode([&start[..], &seed, &public].concat());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{der}\n-----END PRIVATE KEY-----\n");
    let told = told(pem);
    assert!(
        told.contains("an Ed25519 key in an encoding that is not read"),
        "{told}"
    );
}

#[test]
fn base64_and_der_where_pem_is_wanted_are_named() {
    let key = KeyPair::generate().unwrap();
    let der = key.serialize_der();
    let (pem, base64) = (key.serialize_pem(), STANDARD.encode(&der));
    for (written, expected) in [
        (der, "is DER and no PEM"),
        (
            format!("{base64}\n").into_bytes(),
            "is base64 without the lines of PEM",
        ),
        (
            STANDARD.encode(&pem).into_bytes(),
            "is base64 of a PEM file",
        ),
        (
            pem.replacen("MI", "M*", 1).into_bytes(),
            "has something in a section that is no base64",
        ),
        (b"no key".to_vec(), "has no PEM private key"),
    ] {
        let told = told(written);
        assert!(told.contains(expected), "{told}");
        assert!(!told.contains(&base64[..12]), "{told}");
    }
}
