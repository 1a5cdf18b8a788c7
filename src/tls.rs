//! Turns trust and identity into a TLS configuration. Each material has one immutable
//! configuration. A new certificate means a new configuration and a new HTTP client. A certificate
//! is never swapped under open connections (traps 36, 37).

pub mod flaw;
mod roots;
pub mod verifier;

use std::sync::Arc;

use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, Error, SignatureScheme};

use self::roots::SystemRoots;
use self::verifier::{ExactVerifier, Roots, Witness};
use crate::material::{ClientIdentity, Trust};

/// The number of sessions kept for resumption per configuration. A configuration talks to one or
/// two hosts, so rustls' default of 256 would waste memory.
const SESSIONS: usize = 8;

/// The shared parts of a process's TLS configurations: cryptography, and the system's roots.
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
    /// Uses aws-lc-rs explicitly, not a process-wide default. It reads nothing yet.
    #[must_use]
    pub fn new() -> Tls {
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        Tls {
            system: Arc::new(SystemRoots::new(crypto.clone())),
            crypto,
        }
    }

    /// Makes a configuration for TLS 1.2 and 1.3 and HTTP/1.1, with the client certificate if there
    /// is one. With a certificate no session is ever resumed: a resumed session would go on
    /// speaking for the certificate that it began with. `witness` records the certificates that
    /// servers show.
    ///
    /// # Errors
    /// When the key cannot be used for TLS. Material has checked that before.
    pub fn client_config(
        &self,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
        witness: Option<Arc<Witness>>,
    ) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(self.crypto.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(self.verifier(trust, witness)?));
        let mut config = match identity {
            None => {
                let mut config = builder.with_no_client_auth();
                config.resumption = Resumption::in_memory_sessions(SESSIONS);
                config
            }
            Some(identity) => {
                let certified = CertifiedKey::new(identity.chain.clone(), identity.key.clone());
                let mut config = builder
                    .with_client_cert_resolver(Arc::new(SingleCertificate(Arc::new(certified))));
                config.resumption = Resumption::disabled();
                config
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// The verifier of servers' certificates.
    fn verifier(
        &self,
        trust: &Trust,
        witness: Option<Arc<Witness>>,
    ) -> Result<ExactVerifier, Error> {
        let roots = match trust {
            Trust::System => Roots::System(self.system.clone()),
            Trust::Roots(roots, _) => Roots::Stated(
                WebPkiServerVerifier::builder_with_provider(roots.clone(), self.crypto.clone())
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?,
            ),
        };
        Ok(ExactVerifier {
            crypto: self.crypto.clone(),
            roots,
            witness,
        })
    }
}

/// Presents one certificate whenever the server asks for any, whatever issuers the server hints at.
/// The hint is often incomplete, and servers explain the refusal of a wrong certificate but not of
/// a missing one.
#[derive(Debug)]
struct SingleCertificate(Arc<CertifiedKey>);

impl ResolvesClientCert for SingleCertificate {
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
