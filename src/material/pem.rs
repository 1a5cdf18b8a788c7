//! PEM: certificate chains, keys and trust bundles (RFC 7468).

mod sections;

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::certificate::{CertificateNames, matching};
use super::encrypted::{self, Protection};
use super::reading::{LONGEST_BUNDLE, LONGEST_SECRET, MaterialReader};
use super::store::StoreKind;
use super::{AssertionKey, Bundle, ClientIdentity, PrivateKey, encoding};
use crate::core::profile::SecretRef;

const NO_BASE64: &str =
    "has something in a section that is no base64, pasted in perhaps or cut off: write it anew";

/// Reads the client certificate with its chain, and its key.
pub(super) fn identity(
    certificate: &Path,
    key: &Path,
    key_password: Option<&SecretRef>,
    reader: &mut MaterialReader<'_>,
) -> Option<ClientIdentity> {
    // Both are read before either is judged, so that all problems are reported at once.
    let chain = chain("tls.certificate", certificate, LONGEST_SECRET, reader);
    let read = private_key("tls.key", key, key_password, reader);
    let (chain, (der, signer)) = (chain?, read?);
    let names = CertificateNames {
        role: "tls.certificate",
        place: &certificate.display().to_string(),
        key: &key.display().to_string(),
    };
    ClientIdentity::new(&names, chain, &der, signer, reader)
}

/// Reads a key for assertions, and the certificate for its thumbprints.
pub(super) fn assertion_key(
    key: &Path,
    key_password: Option<&SecretRef>,
    certificate: Option<&Path>,
    reader: &mut MaterialReader<'_>,
) -> Option<AssertionKey> {
    let chain = certificate.map(|path| {
        (
            path,
            chain("assertion.certificate", path, LONGEST_SECRET, reader),
        )
    });
    let (der, signer) = private_key("assertion.key", key, key_password, reader)?;
    let (certificate, facts) = match chain {
        None => (None, None),
        Some((path, chain)) => {
            let own = chain?.swap_remove(0);
            let names = CertificateNames {
                role: "assertion.certificate",
                place: &path.display().to_string(),
                key: &key.display().to_string(),
            };
            let facts = matching(&names, &own, &*signer, reader)?;
            (Some(own), Some(facts))
        }
    };
    Some(AssertionKey {
        key: der,
        certificate,
        facts,
    })
}

/// Reads roots that replace the system's.
pub(super) fn trust(path: &Path, reader: &mut MaterialReader<'_>) -> Option<Bundle> {
    Some(Bundle {
        role: "tls.ca",
        place: path.display().to_string(),
        certificates: chain("tls.ca", path, LONGEST_BUNDLE, reader)?,
    })
}

/// Reads a chain of at least one certificate.
fn chain(
    role: &str,
    path: &Path,
    most: u64,
    reader: &mut MaterialReader<'_>,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = reader.file(role, path, most, false)?;
    let bytes = whole(role, path, &bytes, reader)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    // The parser's own error may quote the file, which could be a key by mistake.
    let why = match read {
        Ok(chain) if !chain.is_empty() => return Some(chain),
        Ok(_) if StoreKind::of(bytes).is_store() => {
            "is a keystore and no PEM: name it as keystore or truststore = { path = …, password = … } instead"
        }
        Ok(_) => encoding::instead_of_pem(bytes).unwrap_or(
            "has no PEM certificate (-----BEGIN CERTIFICATE-----) in it: write one into it",
        ),
        Err(rustls_pki_types::pem::Error::Base64Decode(_)) => NO_BASE64,
        Err(_) => "is not whole PEM, perhaps written only in part: write it anew",
    };
    reader.problem(role, format!("{} {why}", path.display()));
    None
}

/// The content of a file without a byte order mark. Refused if a line that looks like a section
/// would be ignored.
fn whole<'a>(
    role: &str,
    path: &Path,
    bytes: &'a [u8],
    reader: &mut MaterialReader<'_>,
) -> Option<&'a [u8]> {
    let bytes = sections::unmarked(bytes);
    if !StoreKind::of(bytes).is_store()
        && let Some(why) = sections::left_out(bytes)
    {
        reader.problem(role, format!("{} {why}", path.display()));
        return None;
    }
    Some(bytes)
}

/// Reads the private key, both as it is and ready to sign.
fn private_key(
    role: &str,
    path: &Path,
    password: Option<&SecretRef>,
    reader: &mut MaterialReader<'_>,
) -> Option<(PrivateKey, Arc<dyn SigningKey>)> {
    let named = password.is_some();
    // Both are read before either is judged, so that all problems are reported at once.
    let password = password.map(|password| reader.secret(&format!("{role}_password"), password));
    let bytes = reader.file(role, path, LONGEST_SECRET, true)?;
    let bytes = whole(role, path, &bytes, reader)?;
    let read = match (encrypted::protection(bytes), password) {
        _ if sections::keys(bytes) > 1 => {
            Err("has more than one private key in it: leave the one that belongs to the certificate")
        }
        (Protection::Headers, _) => Err(
            "is encrypted the old way (Proc-Type: 4,ENCRYPTED), which protects badly and is not read: write it anew \
             (openssl pkcs8 -topk8 -v2 aes-256-cbc)",
        ),
        (Protection::Pkcs8, None) => {
            let message = format!(
                "{} is encrypted: set {role}_password to where its password is, a file for instance",
                path.display()
            );
            reader.problem(role, message);
            return None;
        }
        (Protection::Pkcs8, Some(password)) => encrypted::decrypt(bytes, &password?),
        (Protection::None, _) if named => {
            Err("is not encrypted, but key_password is set: remove key_password, or encrypt the key")
        }
        (Protection::None, _) => PrivateKeyDer::from_pem_slice(bytes).map_err(|error| match error {
            rustls_pki_types::pem::Error::NoItemsFound if StoreKind::of(bytes).is_store() => {
                "is a keystore and no PEM: name it as keystore = { path = …, password = … }, without certificate and key"
            }
            rustls_pki_types::pem::Error::NoItemsFound => encoding::instead_of_pem(bytes).unwrap_or(
                "has no PEM private key (PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY) in it: write one into it",
            ),
            rustls_pki_types::pem::Error::Base64Decode(_) => NO_BASE64,
            _ => "is not whole PEM, perhaps written only in part: write it anew",
        }),
    };
    let why = match read.map(Zeroizing::new) {
        Ok(der) => match any_supported_type(&der) {
            Ok(signer) => return Some((der, signer)),
            Err(_) => encoding::unusable(&der),
        },
        Err(why) => why,
    };
    reader.problem(role, format!("{} {why}", path.display()));
    None
}
