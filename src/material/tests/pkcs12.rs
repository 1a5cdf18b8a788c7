//! PKCS#12 as .NET, OpenSSL 3.4 and Bouncy Castle write it: null passwords, another MAC, and
//! indefinite lengths.

use super::stores::said;
use super::*;
use crate::core::profile::Keystore;

const NULL: &[u8] = include_bytes!("files/null-password.p12");
/// libcrypto's PKCS12_create made this without a password.
const NULL_3DES: &[u8] = include_bytes!("files/null-password-3des.p12");
const PBMAC1: &[u8] = include_bytes!("files/pbmac1.p12");
/// Keycloak exported this.
const INDEFINITE: &[u8] = include_bytes!("files/indefinite.p12");

fn opened(bytes: &[u8], password: Option<&str>) -> Result<Material, Vec<String>> {
    let folder = Folder::new();
    let store = Keystore {
        path: folder.write("store", bytes),
        password: password.map(|text| SecretRef::File(folder.write("pw", text))),
        alias: None,
        key_password: None,
    };
    let source = Some(IdentitySource::Store(store));
    let profile = oauth2(ClientAuth::Tls, source, TrustSource::System);
    // The certificates in the files are valid at this time.
    read(
        &profile,
        &Surroundings::default(),
        NOW.plus(Duration::from_secs(864_000)),
    )
    .map_err(|problems| texts(&problems))
}

fn opens(bytes: &[u8], password: Option<&str>) {
    let material = opened(bytes, password).unwrap();
    assert_eq!(material.certificates().len(), 1);
}

fn refuses(bytes: &[u8], password: Option<&str>, why: &str) {
    said(opened(bytes, password), "tls.keystore", why);
}

#[test]
fn both_empty_passwords_of_pkcs12_open_it() {
    for password in [None, Some(""), Some("\n")] {
        opens(NULL, password);
    }
    refuses(
        NULL,
        Some("another"),
        "cannot be opened with tls.keystore.password",
    );
    // The cure in the message was tried with OpenSSL 3.0.
    for password in [None, Some("")] {
        refuses(
            NULL_3DES,
            password,
            "openssl pkcs12 -legacy -in OLD -passin pass:",
        );
    }
}

#[test]
fn an_empty_password_is_no_other_secret_than_a_stores() {
    refuses(
        PBMAC1,
        Some(""),
        "has a password: set tls.keystore.password",
    );
    let folder = Folder::new();
    let profile = profile(Method::Static {
        token: SecretRef::File(folder.write("token", "")),
    });
    let problem = only(of(&profile));
    assert!(problem.contains("is empty"), "{problem}");
}

#[test]
fn pbmac1_is_judged() {
    opens(PBMAC1, Some("changeit"));
    refuses(
        PBMAC1,
        Some("changeIt"),
        "cannot be opened with tls.keystore.password",
    );
    // This byte is under the MAC, well inside of the encrypted part.
    let mut changed = PBMAC1.to_vec();
    changed[400] ^= 1;
    refuses(
        &changed,
        Some("changeit"),
        "cannot be opened with tls.keystore.password",
    );
}

#[test]
fn lengths_that_are_not_told_are_found() {
    opens(INDEFINITE, Some("changeit"));
    refuses(
        INDEFINITE,
        Some("changeIt"),
        "cannot be opened with tls.keystore.password",
    );
    for end in [INDEFINITE.len() - 1, INDEFINITE.len() / 2, 40] {
        refuses(
            &INDEFINITE[..end],
            Some("changeit"),
            "not a whole PKCS#12 file",
        );
    }
    let deep = [
        &[0x30, 0x80, 0x02, 0x01, 0x03][..],
        &[0x30, 0x80].repeat(100_000),
    ]
    .concat();
    refuses(&deep, Some("changeit"), "not a whole PKCS#12 file");
}
