//! The secrets, keys, chains and trust of one profile, read and validated together, and immutable
//! from then on.
//!
//! A certificate and a key that were read at different moments appear here as a pair that does not
//! match (trap 3). The caller then keeps what it has and reads again. Nothing is repaired, guessed
//! or left out: named material that cannot be used is an error (trap 30).

pub mod certificate;
mod cost;
mod encoding;
mod encrypted;
mod federated;
mod pem;
pub mod program;
mod reading;
mod store;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use zeroize::Zeroizing;

use crate::core::certificate::Certificate;
use crate::core::diagnostic::Diagnostic;
use crate::core::profile::client_auth::{Assertion, AssertionSource, ClientAuth};
use crate::core::profile::{IdentitySource, Method, OAuth2, Profile, TrustSource};
use crate::core::secret::Secret;
use crate::core::time::WallTime;
use crate::readers::AccessScan;
use certificate::CertificateNames;
use reading::{FileCache, MaterialReader};

/// The parts of the daemon's environment that material depends on.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY` (systemd.exec(5)). None outside of systemd.
    pub credentials_directory: Option<PathBuf>,
    /// Finds out who can read files.
    readers: AccessScan,
    /// The files read so far. None: each file is read where it is needed.
    file_cache: Option<FileCache>,
}

impl Surroundings {
    /// The surroundings of a daemon that runs as this process's user and has no callers.
    #[must_use]
    pub fn new(credentials_directory: Option<PathBuf>) -> Surroundings {
        Surroundings {
            credentials_directory,
            ..Surroundings::default()
        }
    }

    /// The same, with `readers` telling the daemon's user and whom its socket lets in.
    #[must_use]
    pub fn with_readers(self, readers: AccessScan) -> Surroundings {
        Surroundings { readers, ..self }
    }

    /// The same, for one look at the files of many profiles: each file is read once, however many
    /// profiles name it.
    #[must_use]
    pub fn for_one_look(&self) -> Surroundings {
        Surroundings {
            readers: self.readers.anew(),
            file_cache: Some(FileCache::default()),
            ..self.clone()
        }
    }
}

/// SHA-256 over everything that was read, each piece with its role and length. It identifies
/// material. It is never shown, since a hash of a weak password can be cracked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The bytes of the digest. The caller must keep them where nobody sees them.
    #[must_use]
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[digest]")
    }
}

/// Everything secret or trusted that a profile needs.
#[derive(Clone, Debug)]
pub struct Material {
    /// Changes exactly when a byte of the material changes. An assertion from elsewhere counts only
    /// by whom it names, since its renewals are taken over in place.
    pub digest: Digest,
    /// Findings that are allowed but unwise.
    pub warnings: Vec<Diagnostic>,
    /// The password, token or client secret.
    pub secret: Option<Secret>,
    /// The client certificate and its key.
    pub identity: Option<ClientIdentity>,
    /// The trusted roots.
    pub trust: Trust,
    /// The material for client assertions. None for client_secret_jwt, which signs with the secret.
    pub assertion: Option<AssertionMaterial>,
}

impl Material {
    /// The profile's own certificates, for TLS and for assertions, and an assertion from elsewhere.
    #[must_use]
    pub fn certificates(&self) -> Vec<Certificate> {
        let identity = self.identity.as_ref().map(|it| &it.facts);
        let assertion = match &self.assertion {
            Some(AssertionMaterial::Key(key)) => key.facts.as_ref(),
            Some(AssertionMaterial::Ready(ready)) => ready.facts.as_ref(),
            None => None,
        };
        identity.into_iter().chain(assertion).cloned().collect()
    }
}

/// A client certificate with its chain and the key that matches it.
#[derive(Clone, Debug)]
pub struct ClientIdentity {
    /// The own certificate comes first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key that signs handshakes.
    pub key: Arc<dyn SigningKey>,
    /// The facts about the own certificate.
    pub facts: Certificate,
    /// The digest of chain and key.
    pub digest: Digest,
}

impl ClientIdentity {
    /// Makes an identity from a chain that is not empty, if the chain belongs to the key.
    fn new(
        names: &CertificateNames<'_>,
        chain: Vec<CertificateDer<'static>>,
        der: &PrivateKey,
        key: Arc<dyn SigningKey>,
        reader: &mut MaterialReader<'_>,
    ) -> Option<ClientIdentity> {
        let facts = certificate::matching(names, &chain[0], &*key, reader)?;
        let mut pieces: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        pieces.push(der.secret_der());
        Some(ClientIdentity {
            digest: reading::digest(&pieces),
            chain,
            key,
            facts,
        })
    }
}

/// The roots that a server's certificate may lead to.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The system's roots.
    System,
    /// These roots and no others.
    Roots(Arc<RootCertStore>, Digest),
}

/// Trusted certificates, and where they come from.
struct Bundle {
    role: &'static str,
    place: String,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// Trusts all certificates of the bundle.
    fn new(bundle: Bundle, reader: &mut MaterialReader<'_>) -> Option<Trust> {
        let Bundle {
            role,
            place,
            certificates,
        } = bundle;
        let pieces: Vec<&[u8]> = certificates.iter().map(AsRef::as_ref).collect();
        let digest = reading::digest(&pieces);
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.into_iter().enumerate() {
            if roots.add(certificate).is_err() {
                reader.problem(role, format!(
                    "certificate {} in {place} cannot be used as a root: take it out or write the file anew",
                    index + 1,
                ));
                return None;
            }
        }
        Some(Trust::Roots(Arc::new(roots), digest))
    }
}

/// The material for client assertions.
#[derive(Clone, Debug)]
pub enum AssertionMaterial {
    /// A key. The daemon signs a new assertion for every request.
    Key(AssertionKey),
    /// An assertion that another program signs and renews in its file.
    Ready(ReadyAssertion),
}

/// The assertion in a file.
#[derive(Clone, Debug)]
pub struct ReadyAssertion {
    /// The JWT.
    pub assertion: Secret,
    /// Whom the assertion names, and when it ends. None if that cannot be read or is missing.
    pub facts: Option<Certificate>,
}

/// A private key in DER, wiped when dropped.
pub type PrivateKey = Zeroizing<PrivateKeyDer<'static>>;

/// The message about a sound key whose kind or size nothing here signs with.
const UNUSABLE_KEY: &str =
    "holds a key that cannot be used: RSA from 2048 bits, P-256, P-384, P-521 and Ed25519 can";

/// A key to sign assertions with.
pub struct AssertionKey {
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PrivateKey,
    /// The certificate for the thumbprints.
    pub certificate: Option<CertificateDer<'static>>,
    /// The facts about that certificate.
    pub facts: Option<Certificate>,
}

impl Clone for AssertionKey {
    fn clone(&self) -> AssertionKey {
        AssertionKey {
            key: Zeroizing::new(self.key.clone_key()),
            certificate: self.certificate.clone(),
            facts: self.facts.clone(),
        }
    }
}

impl std::fmt::Debug for AssertionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[assertion key]")
    }
}

/// Reads and validates all material of a profile. Certificates are checked against the time `now`.
///
/// # Errors
/// Every problem, with its key, the path, the cause and the cure. No problem shows any of the
/// content.
pub fn read(
    profile: &Profile,
    surroundings: &Surroundings,
    now: WallTime,
) -> Result<Material, Vec<Diagnostic>> {
    let mut reader = MaterialReader::new(surroundings, now);
    let mut material = Parts::default();
    match &profile.method {
        Method::None => {}
        Method::Basic { password, .. } => material.secret = reader.secret("password", password),
        Method::Static { token } => material.secret = reader.secret("token", token),
        Method::OAuth2(oauth) => read_oauth2(oauth, &mut reader, &mut material),
        Method::Exec(exec) => {
            // The program is no material: another one may be put in its place at any time.
            if let Err(why) = program::check(exec.program(), surroundings.readers.daemon()) {
                reader.problem("command", why);
            }
        }
    }
    let (digest, warnings) = reader.finish()?;
    Ok(Material {
        digest,
        warnings,
        secret: material.secret,
        identity: material.identity,
        trust: material.trust.unwrap_or(Trust::System),
        assertion: material.assertion,
    })
}

/// What has been read so far. If something is missing, the reader has a problem for it.
#[derive(Default)]
struct Parts {
    secret: Option<Secret>,
    identity: Option<ClientIdentity>,
    trust: Option<Trust>,
    assertion: Option<AssertionMaterial>,
}

fn read_oauth2(oauth: &OAuth2, reader: &mut MaterialReader<'_>, material: &mut Parts) {
    match &oauth.client_auth {
        ClientAuth::SecretBasic(secret)
        | ClientAuth::SecretBasicPlain(secret)
        | ClientAuth::SecretPost(secret)
        | ClientAuth::SecretJwt(secret, _) => {
            material.secret = reader.secret("client_secret", secret);
        }
        ClientAuth::PrivateKeyJwt(assertion) => {
            material.assertion = read_assertion(assertion, reader);
        }
        ClientAuth::Tls | ClientAuth::SelfSignedTls => {
            if oauth.idp.identity.is_none() {
                let auth = oauth.client_auth.as_str();
                reader.problem(
                    "client_auth",
                    format!("{auth:?} needs tls.certificate and tls.key, or tls.keystore"),
                );
            }
        }
        ClientAuth::None => {}
    }
    material.identity = match &oauth.idp.identity {
        None => None,
        Some(IdentitySource::Pem {
            certificate,
            key,
            key_password,
        }) => pem::identity(certificate, key, key_password.as_ref(), reader),
        Some(IdentitySource::Store(store)) => store::identity(store, reader),
    };
    material.trust = match &oauth.idp.trust {
        TrustSource::System => Some(Trust::System),
        named => read_bundle(named, reader).and_then(|bundle| Trust::new(bundle, reader)),
    };
}

/// Reads the named certificates. None stands for the system's.
fn read_bundle(source: &TrustSource, reader: &mut MaterialReader<'_>) -> Option<Bundle> {
    match source {
        TrustSource::System => None,
        TrustSource::Pem(path) => pem::trust(path, reader),
        TrustSource::Store(store) => store::trust(store, reader),
    }
}

/// Reads the trusted roots alone, whatever state the rest of the material is in, with the facts
/// about the certificates named for that.
///
/// # Errors
/// As [`read`].
pub fn trust(
    source: &TrustSource,
    surroundings: &Surroundings,
    now: WallTime,
) -> Result<(Trust, Vec<Certificate>), Vec<Diagnostic>> {
    let mut reader = MaterialReader::new(surroundings, now);
    let mut facts = Vec::new();
    let trust = read_bundle(source, &mut reader).and_then(|bundle| {
        let told = bundle.certificates.iter();
        facts.extend(told.filter_map(|it| certificate::facts(bundle.role, it)));
        Trust::new(bundle, &mut reader)
    });
    reader.finish()?;
    Ok((trust.unwrap_or(Trust::System), facts))
}

fn read_assertion(
    assertion: &Assertion,
    reader: &mut MaterialReader<'_>,
) -> Option<AssertionMaterial> {
    match &assertion.source {
        None => {
            reader.problem(
                "client_auth",
                "\"private_key_jwt\" needs assertion.key, assertion.keystore or assertion.file",
            );
            None
        }
        Some(AssertionSource::File { path, kind }) => {
            federated::read(path, kind, reader).map(AssertionMaterial::Ready)
        }
        Some(AssertionSource::Pem {
            key,
            key_password,
            certificate,
        }) => pem::assertion_key(key, key_password.as_ref(), certificate.as_deref(), reader)
            .map(AssertionMaterial::Key),
        Some(AssertionSource::Store(store)) => {
            store::assertion_key(store, reader).map(AssertionMaterial::Key)
        }
    }
}
