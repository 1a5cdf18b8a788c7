//! Finds the real flaw in a refused server certificate where the verifier's own words would
//! mislead. A certificate without subjectAltName is not one for another host, and a short key is no
//! unknown issuer.

use std::sync::Arc;

use rustls::{CertificateError, Error, OtherError};
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::X509Version;

/// The shortest RSA key that the verifier accepts, in bits.
const SHORTEST_RSA: usize = 2048;

/// A flaw, as cause and cure. The texts are fixed but for a number or a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    /// Names are looked for only in subjectAltName (RFC 9525 §6.3).
    #[error(
        "it has no subjectAltName, and the common name does not count; let it be issued anew with the host name in it \
         (openssl x509 -req -extfile, subjectAltName=DNS:…)"
    )]
    NoAlternativeName,
    /// The certificate has no extensions, so it has neither names nor purposes.
    #[error(
        "it, or one in its chain, is of X.509 version 1, which has no subjectAltName; let it be issued anew as version 3 \
         (openssl x509 -req with -extfile)"
    )]
    OldVersion,
    /// The length of the RSA key, in bits.
    #[error(
        "the key in it, or in its chain, is too weak (RSA of {0} bits); let it be issued anew with RSA from 2048 bits or \
         P-256"
    )]
    WeakKey(usize),
    /// SHA-1 or older, or an algorithm so rare that nothing verifies it.
    #[error(
        "it, or one in its chain, is signed with {0}, which is not taken; let it be issued anew with SHA-256 or better"
    )]
    WeakSignature(&'static str),
}

/// Returns the flaw behind the error, or else the error.
pub(super) fn explained(error: Error, shown: &[&CertificateDer<'_>]) -> Error {
    let Error::InvalidCertificate(why) = &error else {
        return error;
    };
    let certificates: Vec<X509Certificate<'_>> = shown
        .iter()
        .filter_map(|der| Some(X509Certificate::from_der(der).ok()?.1))
        .collect();
    let found = match why {
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            certificates.first().and_then(no_names)
        }
        CertificateError::Other(_) => certificates
            .iter()
            .any(|it| it.version() != X509Version::V3)
            .then_some(Flaw::OldVersion),
        CertificateError::BadSignature | CertificateError::UnknownIssuer => certificates
            .iter()
            .find_map(weak_key)
            .or_else(|| certificates.iter().find_map(weak_signature)),
        _ if format!("{why:?}").starts_with("UnsupportedSignatureAlgorithm") => certificates
            .iter()
            .find_map(weak_signature)
            .or_else(|| certificates.iter().find_map(weak_key)),
        _ => None,
    };
    match found {
        Some(flaw) => CertificateError::Other(OtherError(Arc::new(flaw))).into(),
        None => error,
    }
}

fn no_names(certificate: &X509Certificate<'_>) -> Option<Flaw> {
    match certificate.subject_alternative_name() {
        Ok(None) => Some(Flaw::NoAlternativeName),
        Ok(Some(_)) | Err(_) => None,
    }
}

fn weak_key(certificate: &X509Certificate<'_>) -> Option<Flaw> {
    match certificate.public_key().parsed() {
        Ok(PublicKey::RSA(key)) if key.key_size() < SHORTEST_RSA => {
            Some(Flaw::WeakKey(key.key_size()))
        }
        _ => None,
    }
}

fn weak_signature(certificate: &X509Certificate<'_>) -> Option<Flaw> {
    let algorithm = certificate.signature_algorithm.algorithm.to_id_string();
    Some(Flaw::WeakSignature(match algorithm.as_str() {
        "1.2.840.113549.1.1.2" => "MD2",
        "1.2.840.113549.1.1.4" => "MD5",
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" | "1.3.14.3.2.29" => {
            "SHA-1"
        }
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => "SHA-224",
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::tls::verifier::{ExactVerifier, Roots};

    /// The message for the first certificate of a file whose last one is trusted.
    fn told(pem: &str) -> String {
        let chain: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(chain.last().unwrap().clone()).unwrap();
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let stated = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), crypto.clone());
        let verifier = ExactVerifier {
            crypto,
            roots: Roots::Stated(stated.build().unwrap()),
            witness: None,
        };
        let name = ServerName::try_from("localhost").unwrap();
        // A moment in December 2026.
        let now = UnixTime::since_unix_epoch(Duration::from_secs(1_796_400_000));
        let middle = &chain[1..chain.len() - 1];
        let error = verifier
            .verify_server_cert(&chain[0], middle, &name, &[], now)
            .unwrap_err();
        let Error::InvalidCertificate(CertificateError::Other(other)) = &error else {
            panic!("{error:?}");
        };
        other.0.downcast_ref::<Flaw>().expect("a flaw").to_string()
    }

    #[test]
    fn what_is_wrong_with_a_certificate_is_named() {
        for (pem, expected) in [
            (include_str!("files/no-names.pem"), "no subjectAltName"),
            (include_str!("files/version-1.pem"), "X.509 version 1"),
            (include_str!("files/sha-1.pem"), "signed with SHA-1"),
            (include_str!("files/weak-key.pem"), "RSA of 1024 bits"),
        ] {
            let told = told(pem);
            assert!(told.contains(expected), "{told}");
        }
    }
}
