//! Encrypted PKCS#8 keys in PEM (RFC 5958 §3, RFC 8018 §6.2): PBKDF2 or scrypt with AES, and the
//! older algorithms that old tools used.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pkcs8::{EncryptedPrivateKeyInfoRef, pkcs5};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::cost::{self, CostRefusal};
use crate::core::secret::Secret;

const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// How a PEM key is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// No protection.
    None,
    /// A password, as encrypted PKCS#8, which can be read here.
    Pkcs8,
    /// A password, as in OpenSSL before 1.0 (RFC 1421 headers, one round of MD5).
    Headers,
}

/// Tells the protection by the PEM labels alone.
pub(super) fn protection(pem: &[u8]) -> Protection {
    let has = |label: &str| {
        let label = label.as_bytes();
        pem.windows(label.len()).any(|window| window == label)
    };
    match () {
        () if has(BEGIN) => Protection::Pkcs8,
        () if has("Proc-Type: 4,ENCRYPTED") => Protection::Headers,
        () => Protection::None,
    }
}

/// Decrypts the key, or returns cause and cure.
pub(super) fn decrypt(
    pem: &[u8],
    password: &Secret,
) -> Result<PrivateKeyDer<'static>, &'static str> {
    const TORN: &str = "is not whole PEM, perhaps written only in part: write it anew";
    let der = body(pem).ok_or(TORN)?;
    cost::check(&der).map_err(|refusal| match refusal {
        CostRefusal::Torn | CostRefusal::Indefinite => TORN,
        CostRefusal::TooMuch => {
            "asks for more rounds of key derivation than anybody can want (over five million, or over 64 MiB of \
             memory): write it anew (openssl pkcs8 -topk8 -v2 aes-256-cbc)"
        }
    })?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
        .map_err(|_| "is encrypted in a way that cannot be read: write it anew (openssl pkcs8 -topk8 -v2 aes-256-cbc)")?;
    match encrypted.decrypt(password.expose()) {
        Ok(document) => Ok(PrivatePkcs8KeyDer::from(document.as_bytes().to_vec()).into()),
        Err(pkcs8::Error::EncryptedPrivateKey(
            pkcs5::Error::NoPbes1CryptSupport
            | pkcs5::Error::UnsupportedAlgorithm { .. }
            | pkcs5::Error::AlgorithmParametersInvalid { .. },
        )) => Err(
            "is encrypted in an old or rare way: encrypt it anew (openssl pkcs8 -topk8 -v2 aes-256-cbc)",
        ),
        // A wrong password and a damaged file look the same: what comes out is no key.
        Err(_) => Err(
            "cannot be decrypted with key_password: put the right password in place, or write the key anew if it is \
             damaged",
        ),
    }
}

/// The bytes between the labels.
fn body(pem: &[u8]) -> Option<Vec<u8>> {
    // There may be anything around the section. Nothing in it is secret as long as it is encrypted.
    let text = String::from_utf8_lossy(pem);
    let (_, rest) = text.split_once(BEGIN)?;
    let (body, _) = rest.split_once(END)?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}
