//! PKCS#12 (RFC 7292), as OpenSSL, Java and Windows write it.

use p12_keystore::error::Error;
use p12_keystore::{CertificateBag, Pkcs12Archive, PrivateKeyBag};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::super::PrivateKey;
use super::super::certificate::belongs;
use super::super::cost::{self, next};
use super::ber::{FIRST, SEQUENCE, definite, value};
use super::seal::{self, PasswordForm};
use super::{Contents, StoreEntry, StoreError, StoredKey};
use crate::core::secret::Secret;

/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// Most certificates that are followed in a chain. No real chain is as long, but cross-signed
/// authorities may name one another in a circle.
const LONGEST_CHAIN: usize = 16;

/// Reads everything in the file. None stands for the empty password.
pub(super) fn read(bytes: &[u8], password: Option<&Secret>) -> Result<Contents, StoreError> {
    let password = password.map_or("", Secret::expose);
    let store = Unsealed::new(bytes)?;
    let form = match &store.mac {
        Some(mac) => Some(seal::judge(mac, &store.content, password)?),
        None => None,
    };
    // These bytes have no MAC any more. Where one was verified, a failure here is not about the
    // store's password.
    let opened = Pkcs12Archive::from_pkcs12(&store.bytes, password);
    let archive = opened.map_err(|error| match error {
        Error::Pkcs5Error(_) | Error::UnpadError | Error::InvalidPrivateKey => match form {
            Some(PasswordForm::Null) => StoreError::NullPassword,
            Some(PasswordForm::Text) => StoreError::EntryPassword,
            None => StoreError::Password,
        },
        Error::InvalidParameters => StoreError::TooMuch,
        Error::UnsupportedEncryptionScheme
        | Error::UnsupportedMacAlgorithm
        | Error::UnsupportedContentType
        | Error::UnsupportedCertificateType
        | Error::InvalidVersion => StoreError::Unsupported,
        // A wrong password may yield bytes that look whole.
        _ if form == Some(PasswordForm::Null) => StoreError::NullPassword,
        _ => StoreError::Torn,
    })?;
    let entries = archive
        .keys
        .iter()
        .map(|key| entry(key, &archive.certs))
        .collect();
    // Java marks trusted certificates, and OpenSSL marks none. Certificates in a file with keys
    // belong to the chains and are not meant to be trusted.
    let all = archive.keys.is_empty() && !archive.certs.iter().any(|bag| bag.trusted);
    let trusted = archive
        .certs
        .iter()
        .filter(|bag| all || bag.trusted)
        .map(certificate)
        .collect();
    Ok(Contents { entries, trusted })
}

/// A file (RFC 7292 §4) as DER, apart from its MAC, which is verified here and not by the library.
struct Unsealed {
    bytes: Vec<u8>,
    /// The content under the MAC, as the file has it.
    content: Vec<u8>,
    mac: Option<Vec<u8>>,
}

impl Unsealed {
    fn new(bytes: &[u8]) -> Result<Unsealed, StoreError> {
        let whole = definite(bytes)?;
        cost::check(&whole)?;
        let (file, _) = next(&whole)?;
        let (version, rest) = next(file.content)?;
        let (info, mac) = next(rest)?;
        let (kind, content) = next(info.content)?;
        if kind.content != DATA {
            return Err(StoreError::Unsupported);
        }
        let content = inside(content)?.to_vec();
        let version = value(version.tag, &[version.content]);
        let safes = safes(&content)?;
        let info = data(&safes);
        // The second check covers what the conversion has uncovered.
        cost::check(&value(SEQUENCE, &[&version, &info, mac]))?;
        Ok(Unsealed {
            bytes: value(SEQUENCE, &[&version, &info]),
            content,
            mac: (!mac.is_empty()).then(|| mac.to_vec()),
        })
    }
}

/// Converts an AuthenticatedSafe to DER, including its unencrypted parts.
fn safes(content: &[u8]) -> Result<Vec<u8>, StoreError> {
    let whole = definite(content)?;
    let (list, _) = next(&whole)?;
    let (mut left, mut safes) = (list.content, Vec::new());
    while !left.is_empty() {
        let (info, rest) = next(left)?;
        left = rest;
        let (kind, content) = next(info.content)?;
        safes.push(match kind.content == DATA {
            true => data(&definite(inside(content)?)?),
            false => value(info.tag, &[info.content]),
        });
    }
    let safes: Vec<&[u8]> = safes.iter().map(Vec::as_slice).collect();
    Ok(value(SEQUENCE, &safes))
}

/// A ContentInfo of plain data (RFC 5652 §4).
fn data(content: &[u8]) -> Vec<u8> {
    let string = value(0x04, &[content]);
    value(
        SEQUENCE,
        &[&value(0x06, &[DATA]), &value(FIRST, &[&string])],
    )
}

/// The octet string inside of `[0]`.
fn inside(bytes: &[u8]) -> Result<&[u8], StoreError> {
    let (tagged, _) = next(bytes)?;
    let (string, _) = next(tagged.content)?;
    Ok(string.content)
}

fn entry(key: &PrivateKeyBag, certificates: &[CertificateBag]) -> StoreEntry {
    let der = PrivatePkcs8KeyDer::from(key.key.as_der().to_vec());
    let der: PrivateKey = Zeroizing::new(der.into());
    StoreEntry {
        alias: key.friendly_name.clone().unwrap_or_default(),
        chain: chain(key, &der, certificates),
        key: StoredKey::Open(der),
    }
}

/// The own certificate, its issuer, and so on, whatever their order in the file.
fn chain(
    key: &PrivateKeyBag,
    der: &PrivateKey,
    certificates: &[CertificateBag],
) -> Vec<CertificateDer<'static>> {
    let same_id = |bag: &&CertificateBag| {
        let id = key.local_key_id.as_ref().map(AsRef::as_ref);
        id.is_some() && bag.local_key_id.as_deref() == id
    };
    let own = certificates.iter().find(same_id).or_else(|| {
        // Some writers leave the identifiers out, so the key itself decides.
        let signer = any_supported_type(der).ok()?;
        certificates.iter().find(|bag| {
            X509Certificate::from_der(bag.cert.as_der())
                .is_ok_and(|(_, certificate)| belongs(&certificate, &*signer))
        })
    });
    let mut chain: Vec<&CertificateBag> = Vec::new();
    let mut next = own;
    while let Some(bag) = next {
        chain.push(bag);
        if bag.cert.issuer() == bag.cert.subject() || chain.len() == LONGEST_CHAIN {
            break;
        }
        next = certificates.iter().find(|other| {
            other.cert.subject() == bag.cert.issuer()
                && !chain
                    .iter()
                    .any(|known| known.cert.as_der() == other.cert.as_der())
        });
    }
    chain.into_iter().map(certificate).collect()
}

fn certificate(bag: &CertificateBag) -> CertificateDer<'static> {
    CertificateDer::from(bag.cert.as_der().to_vec())
}
