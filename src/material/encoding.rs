//! Recognises the format of a file that should contain PEM, and names keys that nothing here signs
//! with. It never guesses.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::PrivateKeyDer;

use super::UNUSABLE_KEY;
use super::cost::next;

/// 1.3.101.112
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// The format of a file without a PEM section, with the cure. None if the format is unknown.
pub(super) fn instead_of_pem(bytes: &[u8]) -> Option<&'static str> {
    if is_der(bytes) {
        return Some(
            "is DER and no PEM: write it anew (openssl pkey -inform DER -in OLD -out NEW for a key, openssl x509 for a \
             certificate)",
        );
    }
    let text: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let decoded = STANDARD.decode(text).ok()?;
    if decoded.starts_with(b"-----BEGIN ") {
        Some("is base64 of a PEM file: decode it (base64 -d OLD > NEW)")
    } else if is_der(&decoded) {
        Some(
            "is base64 without the lines of PEM around it: decode it and write it anew (base64 -d OLD | openssl pkey \
             -inform DER -out NEW for a key, openssl x509 for a certificate)",
        )
    } else {
        None
    }
}

/// Whether the bytes are one sequence with nothing behind it.
fn is_der(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0x30) && next(bytes).is_ok_and(|(_, rest)| rest.is_empty())
}

/// The reason why nothing here signs with this key.
pub(super) fn unusable(key: &PrivateKeyDer<'_>) -> &'static str {
    match key {
        PrivateKeyDer::Pkcs8(der) if algorithm(der.secret_pkcs8_der()) == Some(ED25519) => {
            "holds an Ed25519 key in an encoding that is not read (RFC 8410 is; other libraries mark the public key in it \
             otherwise, or it does not fit): have it written as PKCS#8 without the public key, or make a new key \
             (openssl genpkey -algorithm ed25519)"
        }
        _ => UNUSABLE_KEY,
    }
}

/// The algorithm in a PKCS#8 key (RFC 5958 §2).
fn algorithm(der: &[u8]) -> Option<&[u8]> {
    let (info, _) = next(der).ok()?;
    let (_version, rest) = next(info.content).ok()?;
    let (algorithm, _) = next(rest).ok()?;
    let (oid, _) = next(algorithm.content).ok()?;
    Some(oid.content)
}
