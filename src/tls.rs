//! Turns trust and identity into a TLS configuration. Each material has one immutable
//! configuration. A new certificate means a new configuration and a new HTTP client. A certificate
//! is never swapped under open connections (traps 36, 37).

pub mod flaw;
pub mod witness;

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;

use self::flaw::Exact;
use self::witness::Witness;
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
            system: Arc::new(SystemRoots {
                crypto: crypto.clone(),
                followed: Followed::default(),
            }),
            crypto,
        }
    }

    /// Makes a configuration for TLS 1.2 and 1.3 and HTTP/1.1, with the client certificate if there
    /// is one. With a certificate no session is ever resumed: a resumed session would go on
    /// speaking for the certificate that it began with.
    ///
    /// # Errors
    /// When the key cannot be used for TLS. Material has checked that before.
    pub fn client_config(
        &self,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
    ) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(self.crypto.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
        let builder = builder
            .dangerous()
            .with_custom_certificate_verifier(self.judge(trust)?);
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
}

impl Tls {
    /// The verifier of servers' certificates. It also explains its refusals.
    fn judge(&self, trust: &Trust) -> Result<Arc<dyn ServerCertVerifier>, Error> {
        let judge: Arc<dyn ServerCertVerifier> = match trust {
            Trust::System => self.system.clone(),
            Trust::Roots(roots, _) => {
                WebPkiServerVerifier::builder_with_provider(roots.clone(), self.crypto.clone())
                    .build()
                    .map_err(|error| Error::General(error.to_string()))?
            }
        };
        Ok(Arc::new(Exact(judge)))
    }

    /// The same configuration, with a witness that records the certificates that servers show.
    ///
    /// # Errors
    /// As [`Tls::client_config`].
    pub fn witnessed(
        &self,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
    ) -> Result<(ClientConfig, Arc<Witness>), Error> {
        let mut config = self.client_config(trust, identity)?;
        let judge = self.judge(trust)?;
        let witness = Arc::new(Witness::of(judge));
        config.dangerous().set_certificate_verifier(witness.clone());
        Ok((config, witness))
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

/// The places where distributions keep their roots. The environment's `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` replace all of them. This list serves only to notice changes. The verifier
/// decides what is read, and in which order.
const SYSTEM: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
];

/// The system's roots. They are read at the first handshake that needs them and kept once for the
/// whole process, since a set of roots takes hundreds of kilobytes. Every full handshake checks
/// whether their files have changed, and reads them again in that case.
#[derive(Debug)]
struct SystemRoots {
    crypto: Arc<CryptoProvider>,
    followed: Followed<Verifier>,
}

impl SystemRoots {
    fn verifier(&self) -> Result<Arc<Verifier>, Error> {
        self.followed
            .get(&sources(), || Verifier::new(self.crypto.clone()))
    }
}

/// The files and folders of the roots.
fn sources() -> Vec<PathBuf> {
    let file = std::env::var_os("SSL_CERT_FILE");
    let folders = std::env::var_os("SSL_CERT_DIR");
    if file.is_none() && folders.is_none() {
        return SYSTEM.iter().map(PathBuf::from).collect();
    }
    let folders = folders.iter().flat_map(std::env::split_paths);
    file.iter().map(PathBuf::from).chain(folders).collect()
}

/// Device, inode, size and change time of every source. None if the source does not exist.
type SourceState = Vec<Option<(u64, u64, u64, i64, i64)>>;

fn state(sources: &[PathBuf]) -> SourceState {
    let one = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some((
            data.dev(),
            data.ino(),
            data.size(),
            data.ctime(),
            data.ctime_nsec(),
        ))
    };
    sources.iter().map(one).collect()
}

/// A value that was read from files that may change.
#[derive(Debug)]
struct Followed<T>(Mutex<Option<(SourceState, Arc<T>)>>);

impl<T> Default for Followed<T> {
    fn default() -> Followed<T> {
        Followed(Mutex::new(None))
    }
}

impl<T> Followed<T> {
    /// The value of the files now. While they cannot be read (in the middle of an update, say), the
    /// last value stays in use, and the next call tries again.
    fn get<E>(
        &self,
        sources: &[PathBuf],
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        // No panic between lock and unlock can leave half a value.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The state is taken before reading, so that the next call notices a change in between.
        let now = state(sources);
        if let Some((then, known)) = &*last
            && *then == now
        {
            return Ok(known.clone());
        }
        match (read(), &*last) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                *last = Some((now, value.clone()));
                Ok(value)
            }
            (Err(_), Some((_, known))) => Ok(known.clone()),
            (Err(error), None) => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_changed_are_read_again_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle.pem");
        let sources = [bundle.clone(), folder.path().join("absent")];
        let followed = Followed::default();
        let get = || followed.get(&sources, || std::fs::read_to_string(&bundle));
        assert!(get().is_err(), "nothing to read, and nothing known");
        std::fs::write(&bundle, "one").unwrap();
        let one = get().unwrap();
        assert_eq!(*one, "one");
        assert!(Arc::ptr_eq(&one, &get().unwrap()), "kept while unchanged");
        // This is how package managers do it: a new file takes the name.
        let next = folder.path().join("next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &bundle).unwrap();
        assert_eq!(*get().unwrap(), "two");
        std::fs::remove_file(&bundle).unwrap();
        assert_eq!(*get().unwrap(), "two", "better than none");
        std::fs::write(&bundle, "three").unwrap();
        assert_eq!(*get().unwrap(), "three");
    }
}
