//! Keys in stores, and keys that are encrypted themselves.

use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5};

use super::*;

#[test]
fn assertions_are_signed_with_the_key_of_a_store() {
    let folder = Folder::new();
    let issued = issued("it");
    let assertion = |store| {
        let assertion = Assertion {
            source: Some(AssertionSource::Store(store)),
            algorithm: None,
            kid: None,
            x5t: true,
            audience: None,
            lifetime: Duration::from_secs(60),
        };
        of(&oauth2(
            ClientAuth::PrivateKeyJwt(assertion),
            None,
            TrustSource::System,
        ))
    };
    let bare = Issued {
        key: KeyPair::generate().unwrap(),
        chain: Vec::new(),
    };
    for (issued, has_certificate) in [(&issued, true), (&bare, false)] {
        let bytes = jks(&[("it", issued)], &[]);
        match assertion(store(folder.write("store", &bytes)))
            .unwrap()
            .assertion
        {
            Some(AssertionMaterial::Key(key)) => {
                assert_eq!(key.key.secret_der(), issued.key.serialize_der());
                assert_eq!(key.certificate.is_some(), has_certificate);
            }
            other => panic!("{other:?}"),
        }
    }
    let bare = store(folder.write("bare", jks(&[("it", &bare)], &[])));
    said(
        identity_of(bare),
        "tls.keystore",
        "a key without a certificate",
    );
    said(
        assertion(store(folder.write("pem", issued.key.serialize_pem()))),
        "assertion.keystore",
        "name it as assertion.key",
    );
}

/// The key as encrypted PKCS#8 in PEM.
pub(in super::super) fn encrypted(key: &KeyPair, parameters: &pkcs5::pbes2::Parameters) -> String {
    use base64::Engine;
    use pkcs8::der::{Encode, asn1::OctetStringRef};
    let hidden = parameters
        .encrypt(KEY_PASSWORD, &key.serialize_der())
        .unwrap();
    let der = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.clone().into(),
        encrypted_data: OctetStringRef::new(&hidden).unwrap(),
    };
    let body = base64::engine::general_purpose::STANDARD.encode(der.to_der().unwrap());
    format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n")
}

pub(in super::super) fn pbkdf2(rounds: u32) -> pkcs5::pbes2::Parameters {
    pkcs5::pbes2::Parameters::generate_pbkdf2_sha256_aes256cbc(rounds, &[1; 16], [2; 16]).unwrap()
}

#[test]
fn encrypted_keys_and_their_passwords() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let certificate = folder.certificate("cert.pem", &key, 2020, 2030);
    let with = |pem: &str, password: Option<&str>| {
        let source = IdentitySource::Pem {
            certificate: certificate.clone(),
            key: folder.write("key.pem", pem),
            key_password: password.and_then(literal),
        };
        of(&oauth2(ClientAuth::Tls, Some(source), TrustSource::System))
    };
    let scrypt = |log_n| {
        let params = pkcs5::scrypt::Params::new(log_n, 8, 1).unwrap();
        pkcs5::pbes2::Parameters::generate_scrypt_aes256cbc(params, &[1; 16], [2; 16]).unwrap()
    };
    let good = encrypted(&key, &pbkdf2(100));
    let first = with(&good, Some(KEY_PASSWORD)).unwrap().digest;
    let scrypted = with(&encrypted(&key, &scrypt(4)), Some(KEY_PASSWORD)).unwrap();
    assert_ne!(first, scrypted.digest);
    let role = "tls.key";
    said(with(&good, None), role, "set tls.key_password to");
    said(
        with(&good, Some("wrong-one")),
        role,
        "cannot be decrypted with key_password",
    );
    said(
        with(&key.serialize_pem(), Some(KEY_PASSWORD)),
        role,
        "is not encrypted, but key_password is set",
    );
    said(
        with(&good.replace("\n-----END", "\n---"), Some(KEY_PASSWORD)),
        role,
        "not whole PEM",
    );
    let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n\
               -----END RSA PRIVATE KEY-----\n";
    said(with(old, Some(KEY_PASSWORD)), role, "openssl pkcs8 -topk8");
    // This asks for a gigabyte of memory.
    let bomb = {
        let mut parameters = scrypt(4);
        if let pkcs5::pbes2::Kdf::Scrypt(scrypt) = &mut parameters.kdf {
            scrypt.cost_parameter = 1 << 20;
        }
        parameters
    };
    let start = std::time::Instant::now();
    said(
        with(&hollow(&bomb), Some(KEY_PASSWORD)),
        role,
        "more rounds of key derivation",
    );
    let mut many = pbkdf2(1);
    if let pkcs5::pbes2::Kdf::Pbkdf2(pbkdf2) = &mut many.kdf {
        pbkdf2.iteration_count = 5_000_001;
    }
    said(
        with(&hollow(&many), Some(KEY_PASSWORD)),
        role,
        "more rounds of key derivation",
    );
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// Encrypted PKCS#8 without content.
fn hollow(parameters: &pkcs5::pbes2::Parameters) -> String {
    use base64::Engine;
    use pkcs8::der::{Encode, asn1::OctetStringRef};
    let der = EncryptedPrivateKeyInfoRef {
        encryption_algorithm: parameters.clone().into(),
        encrypted_data: OctetStringRef::new(&[0; 32]).unwrap(),
    };
    let body = base64::engine::general_purpose::STANDARD.encode(der.to_der().unwrap());
    format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{body}\n-----END ENCRYPTED PRIVATE KEY-----\n")
}
