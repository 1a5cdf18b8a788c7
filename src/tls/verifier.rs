//! Verifies the certificates of servers: rustls decides, by the roots that a profile trusts. What
//! it refuses is explained more exactly, and what a server shows can be recorded.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::flaw::explained;
use super::roots::SystemRoots;

/// Whose signatures are trusted.
#[derive(Debug)]
pub(super) enum Roots {
    System(Arc<SystemRoots>),
    Stated(Arc<WebPkiServerVerifier>),
}

/// The certificates that a server has shown, refused ones included.
#[derive(Debug, Default)]
pub struct Witness(Mutex<Vec<CertificateDer<'static>>>);

impl Witness {
    /// The certificates of the last server, its own first.
    #[must_use]
    pub fn seen(&self) -> Vec<CertificateDer<'static>> {
        // The value is set by one assignment, which cannot panic half-way.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn sees(&self, shown: &[&CertificateDer<'_>]) {
        let shown = shown.iter().map(|it| (*it).clone().into_owned()).collect();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = shown;
    }
}

#[derive(Debug)]
pub(super) struct ExactVerifier {
    pub crypto: Arc<CryptoProvider>,
    pub roots: Roots,
    pub witness: Option<Arc<Witness>>,
}

impl ServerCertVerifier for ExactVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let shown: Vec<_> = std::iter::once(end_entity).chain(intermediates).collect();
        if let Some(witness) = &self.witness {
            witness.sees(&shown);
        }
        let verifier: Arc<dyn ServerCertVerifier> = match &self.roots {
            Roots::System(roots) => roots.verifier()?,
            Roots::Stated(verifier) => verifier.clone(),
        };
        verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            .map_err(|error| explained(error, &shown))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, cert, dss, algorithms)
            .map_err(|error| explained(error, &[cert]))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, cert, dss, algorithms)
            .map_err(|error| explained(error, &[cert]))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.crypto.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
