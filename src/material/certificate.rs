//! Reads the facts in a certificate, and checks whether it belongs to a key.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reading::MaterialReader;
use crate::core::certificate::Certificate;
use crate::core::time::WallTime;

/// How messages name a certificate and the key that must match it.
pub(super) struct CertificateNames<'a> {
    /// The configuration key that names the certificate.
    pub(super) role: &'static str,
    /// Where the certificate is.
    pub(super) place: &'a str,
    /// Where the key is.
    pub(super) key: &'a str,
}

/// The facts about the certificate, if it is valid now and belongs to the key.
pub(super) fn matching(
    names: &CertificateNames<'_>,
    certificate: &CertificateDer<'_>,
    signer: &dyn SigningKey,
    reader: &mut MaterialReader<'_>,
) -> Option<Certificate> {
    let CertificateNames { role, place, key } = names;
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        reader.problem(
            *role,
            format!("the first certificate in {place} cannot be read: write the file anew"),
        );
        return None;
    };
    if !belongs(&parsed, signer) {
        reader.problem(*role, format!(
            "the first certificate in {place} does not belong to the key in {key}: put both from the same \
             issuance in place, own certificate first"
        ));
        return None;
    }
    let validity = parsed.validity();
    let not_before = wall(validity.not_before.timestamp());
    let not_after = wall(validity.not_after.timestamp());
    if reader.now < not_before {
        reader.problem(*role, format!(
            "the certificate in {place} is not valid before {not_before}: check the clock of this machine, or wait"
        ));
        return None;
    }
    if reader.now > not_after {
        reader.problem(
            *role,
            format!(
                "the certificate in {place} has expired on {not_after}: put a new one in place"
            ),
        );
        return None;
    }
    Some(told(role, &parsed, certificate))
}

/// The facts in any certificate, valid or not. None if it cannot be read.
#[must_use]
pub fn facts(role: &'static str, certificate: &CertificateDer<'_>) -> Option<Certificate> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(told(role, &parsed, certificate))
}

/// The issuer that the certificate names. None if it cannot be read.
#[must_use]
pub fn issuer(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(printable(&parsed.issuer().to_string()))
}

fn told(
    role: &'static str,
    parsed: &X509Certificate<'_>,
    certificate: &CertificateDer<'_>,
) -> Certificate {
    let validity = parsed.validity();
    Certificate {
        is_assertion: false,
        role,
        subject: printable(&parsed.subject().to_string()),
        thumbprint: URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, certificate)),
        not_before: wall(validity.not_before.timestamp()),
        not_after: wall(validity.not_after.timestamp()),
    }
}

pub(super) fn printable(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

/// Whether the certificate contains this key.
pub(super) fn belongs(certificate: &X509Certificate<'_>, signer: &dyn SigningKey) -> bool {
    let public = signer.public_key();
    public.as_deref() == Some(certificate.tbs_certificate.subject_pki.raw)
}

/// The wall time. A moment before 1970 becomes 1970.
fn wall(seconds: i64) -> WallTime {
    WallTime(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}
