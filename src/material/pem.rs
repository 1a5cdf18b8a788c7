//! PEM: certificate chains, keys and trust bundles (RFC 7468).

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reading::{LONGEST_BUNDLE, LONGEST_SECRET, Reader, digest};
use super::{AssertionKey, Identity, Trust};
use crate::core::profile::SecretRef;
use crate::core::time::WallTime;

/// Client certificate with chain, and its key.
pub(super) fn identity(
    certificate: &Path,
    key: &Path,
    key_password: Option<&SecretRef>,
    reader: &mut Reader<'_>,
) -> Option<Identity> {
    // Both are read before either is judged: all problems at once.
    let chain = chain("tls.certificate", certificate, LONGEST_SECRET, reader);
    let read = private_key("tls.key", key, key_password, reader);
    let (chain, (der, signer)) = (chain?, read?);
    let not_after = matching(
        "tls.certificate",
        certificate,
        key,
        &chain[0],
        &*signer,
        reader,
    )?;
    let mut pieces: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
    pieces.push(der.secret_der());
    Some(Identity {
        digest: digest(&pieces),
        chain,
        key: signer,
        not_after,
    })
}

/// A key for assertions, with the certificate for its thumbprints.
pub(super) fn assertion_key(
    key: &Path,
    key_password: Option<&SecretRef>,
    certificate: Option<&Path>,
    reader: &mut Reader<'_>,
) -> Option<AssertionKey> {
    let chain = certificate.map(|path| {
        (
            path,
            chain("assertion.certificate", path, LONGEST_SECRET, reader),
        )
    });
    let (der, signer) = private_key("assertion.key", key, key_password, reader)?;
    let (certificate, not_after) = match chain {
        None => (None, None),
        Some((path, chain)) => {
            let own = chain?.swap_remove(0);
            let role = "assertion.certificate";
            let not_after = matching(role, path, key, &own, &*signer, reader)?;
            (Some(own), Some(not_after))
        }
    };
    Some(AssertionKey {
        key: der,
        certificate,
        not_after,
    })
}

/// Roots instead of the system's.
pub(super) fn trust(path: &Path, reader: &mut Reader<'_>) -> Option<Trust> {
    let certificates = chain("tls.ca", path, LONGEST_BUNDLE, reader)?;
    let pieces: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
    let digest = digest(&pieces);
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates.into_iter().enumerate() {
        if roots.add(certificate).is_err() {
            reader.problem(format!(
                "tls.ca: certificate {} in {} cannot be used as a root: take it out or write the file anew",
                index + 1,
                path.display()
            ));
            return None;
        }
    }
    Some(Trust::Roots(Arc::new(roots), digest))
}

/// At least one certificate.
fn chain(
    role: &str,
    path: &Path,
    most: u64,
    reader: &mut Reader<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = reader.file(role, path, most, false)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    // The parser's own error may quote the file, which could be a key by mistake.
    let why = match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) if looks_like_store(&bytes) => {
            "looks like a PKCS#12 or JKS keystore, which this version does not support: convert it to PEM"
        }
        Ok(_) => "has no PEM certificate (-----BEGIN CERTIFICATE-----) in it: write one into it",
        Err(_) => "is not whole PEM, perhaps written only in part: write it anew",
    };
    reader.problem(format!("{role}: {} {why}", path.display()));
    None
}

/// The first private key, as it is and ready to sign.
fn private_key(
    role: &str,
    path: &Path,
    password: Option<&SecretRef>,
    reader: &mut Reader<'_>,
) -> Option<(PrivateKeyDer<'static>, Arc<dyn SigningKey>)> {
    let bytes = reader.file(role, path, LONGEST_SECRET, true)?;
    let has = |label: &[u8]| bytes.windows(label.len()).any(|window| window == label);
    let why = if has(b"-----BEGIN ENCRYPTED PRIVATE KEY-----") || has(b"Proc-Type: 4,ENCRYPTED") {
        "is encrypted, and encrypted keys are not supported by this version: decrypt it (openssl pkey) and protect \
         the file by its mode, or hand it over as a systemd credential"
    } else if password.is_some() {
        "is not encrypted, but key_password is set, and encrypted keys are not supported by this version: remove \
         key_password"
    } else {
        match PrivateKeyDer::from_pem_slice(&bytes) {
            Ok(der) => match any_supported_type(&der) {
                Ok(signer) => return Some((der, signer)),
                Err(_) => {
                    "holds a key that cannot be used: RSA from 2048 bits, P-256, P-384, P-521 and Ed25519 can"
                }
            },
            Err(rustls_pki_types::pem::Error::NoItemsFound) => {
                "has no PEM private key (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY) in it: write one into it"
            }
            Err(_) => "is not whole PEM, perhaps written only in part: write it anew",
        }
    };
    reader.problem(format!("{role}: {} {why}", path.display()));
    None
}

/// End of the certificate's validity, if it is valid now and belongs to the key.
fn matching(
    role: &str,
    path: &Path,
    key: &Path,
    certificate: &CertificateDer<'_>,
    signer: &dyn SigningKey,
    reader: &mut Reader<'_>,
) -> Option<WallTime> {
    let shown = path.display();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        reader.problem(format!(
            "{role}: the first certificate in {shown} cannot be read: write the file anew"
        ));
        return None;
    };
    let public = signer.public_key();
    if public.as_deref() != Some(parsed.tbs_certificate.subject_pki.raw) {
        reader.problem(format!(
            "{role}: the first certificate in {shown} does not belong to the key in {}: put both from the same \
             issuance in place, own certificate first",
            key.display()
        ));
        return None;
    }
    let validity = parsed.validity();
    let not_before = wall(validity.not_before.timestamp());
    let not_after = wall(validity.not_after.timestamp());
    if reader.now < not_before {
        reader.problem(format!(
            "{role}: the certificate in {shown} is not valid before {}: check the clock of this machine, or wait",
            validity.not_before
        ));
        return None;
    }
    if reader.now > not_after {
        reader.problem(format!(
            "{role}: the certificate in {shown} has expired on {}: put a new one in place",
            validity.not_after
        ));
        return None;
    }
    Some(not_after)
}

/// Before 1970 is 1970.
fn wall(seconds: i64) -> WallTime {
    WallTime(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// A DER sequence or the magic number of JKS.
fn looks_like_store(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x30, 0x82]) || bytes.starts_with(&[0xfe, 0xed, 0xfe, 0xed])
}
