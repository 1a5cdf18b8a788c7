//! Trust and identity as a TLS configuration. One immutable configuration per material: a new certificate means a new
//! configuration and a new HTTP client, never a certificate swapped below open connections (traps 36, 37).

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;

use crate::material::{Identity, Trust};

/// Sessions kept for resumption per configuration. A configuration talks to one or two hosts; rustls' default of 256
/// costs memory for nothing.
const SESSIONS: usize = 8;

/// What the TLS configurations of a process share: cryptography, and the system's roots.
#[derive(Clone, Debug)]
pub struct Tls {
    crypto: Arc<CryptoProvider>,
    system: Arc<SystemRoots>,
}

impl Default for Tls {
    fn default() -> Tls {
        Tls::new()
    }
}

impl Tls {
    /// aws-lc-rs, named here and not left to a process-wide default. Reads nothing yet.
    #[must_use]
    pub fn new() -> Tls {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Tls {
            system: Arc::new(SystemRoots {
                crypto: crypto.clone(),
                loaded: Mutex::new(None),
            }),
            crypto,
        }
    }

    /// TLS 1.2 and 1.3, HTTP/1.1, with the client certificate if there is one. With a certificate no session is ever
    /// resumed: a resumed session would go on speaking for the certificate that it began with.
    ///
    /// # Errors
    /// When the key cannot be used for TLS; material has checked that before.
    pub fn client_config(
        &self,
        trust: &Trust,
        identity: Option<&Identity>,
    ) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(self.crypto.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = match trust {
            Trust::System => builder
                .dangerous()
                .with_custom_certificate_verifier(self.system.clone()),
            Trust::Roots(roots, _) => builder.with_root_certificates(roots.clone()),
        };
        let mut config = match identity {
            None => {
                let mut config = builder.with_no_client_auth();
                config.resumption = Resumption::in_memory_sessions(SESSIONS);
                config
            }
            Some(identity) => {
                let certified = CertifiedKey::new(identity.chain.clone(), identity.key.clone());
                let mut config =
                    builder.with_client_cert_resolver(Arc::new(Only(Arc::new(certified))));
                config.resumption = Resumption::disabled();
                config
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Presents one certificate whenever one is asked for, whatever issuers the server hints at: the hint is often
/// incomplete, and a wrong certificate is refused with a reason while a missing one is not.
#[derive(Debug)]
struct Only(Arc<CertifiedKey>);

impl ResolvesClientCert for Only {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.0
            .key
            .choose_scheme(schemes)
            .is_some()
            .then(|| self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The system's roots, read at the first handshake that needs them and kept once for the whole process: a set of roots
/// takes hundreds of kilobytes. A reading that failed is tried again at the next handshake.
#[derive(Debug)]
struct SystemRoots {
    crypto: Arc<CryptoProvider>,
    loaded: Mutex<Option<Arc<Verifier>>>,
}

impl SystemRoots {
    fn verifier(&self) -> Result<Arc<Verifier>, Error> {
        // Nothing can panic between lock and unlock and leave half a value.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(verifier) = &*loaded {
            return Ok(verifier.clone());
        }
        let verifier = Arc::new(Verifier::new(self.crypto.clone())?);
        *loaded = Some(verifier.clone());
        Ok(verifier)
    }
}

impl ServerCertVerifier for SystemRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier()?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.crypto.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.crypto.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.crypto
            .signature_verification_algorithms
            .supported_schemes()
    }
}
