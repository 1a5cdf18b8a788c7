//! PKCS#12 (RFC 7292), as OpenSSL, Java and Windows write it.

use p12_keystore::error::Error;
use p12_keystore::{CertificateBag, Pkcs12Archive, PrivateKeyBag};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::super::PrivateKey;
use super::super::certificate::belongs;
use super::{Contents, StoreEntry, StoreError, StoredKey};
use crate::core::secret::Secret;

/// Longer than any chain; and cross-signed authorities may name one another in a circle.
const LONGEST_CHAIN: usize = 16;

/// Everything in it. None stands for the empty password.
pub(super) fn read(bytes: &[u8], password: Option<&Secret>) -> Result<Contents, StoreError> {
    let password = password.map_or("", Secret::expose);
    let archive = Pkcs12Archive::from_pkcs12(bytes, password).map_err(|error| match error {
        Error::MacError(_) => StoreError::Password,
        // The MAC, if there is one, has been passed by then.
        Error::Pkcs5Error(_) | Error::UnpadError | Error::InvalidPrivateKey => {
            match has_mac(bytes) {
                true => StoreError::EntryPassword,
                false => StoreError::Password,
            }
        }
        Error::InvalidParameters => StoreError::TooMuch,
        Error::UnsupportedEncryptionScheme
        | Error::UnsupportedMacAlgorithm
        | Error::UnsupportedContentType
        | Error::UnsupportedCertificateType
        | Error::InvalidVersion => StoreError::Unsupported,
        _ => StoreError::Torn,
    })?;
    let entries = archive
        .keys
        .iter()
        .map(|key| entry(key, &archive.certs))
        .collect();
    // Java marks what is trusted, OpenSSL marks nothing; where there are keys, their chains are not
    // meant to be trusted.
    let all = archive.keys.is_empty() && !archive.certs.iter().any(|bag| bag.trusted);
    let trusted = archive
        .certs
        .iter()
        .filter(|bag| all || bag.trusted)
        .map(certificate)
        .collect();
    Ok(Contents { entries, trusted })
}

/// Whether there is a third part in the file (RFC 7292 §4).
fn has_mac(bytes: &[u8]) -> bool {
    use super::super::cost::next;
    let parts = || {
        let (file, _) = next(bytes).ok()?;
        let (_version, rest) = next(file.content).ok()?;
        let (_content, rest) = next(rest).ok()?;
        Some(!rest.is_empty())
    };
    parts().unwrap_or(false)
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

/// Own certificate, its issuer, and so on, whatever order they have in the file.
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
        // Some writers leave the identifiers out; the key itself cannot be mistaken.
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
