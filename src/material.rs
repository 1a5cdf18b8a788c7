//! Secrets, keys, chains and trust of one profile, read together, validated together, and immutable
//! from then on.
//!
//! A certificate and a key read at different moments show up here as a pair that does not match
//! (trap 3): the caller keeps what it has and reads again. Nothing is repaired, guessed or left
//! out: material that is named and cannot be used is an error (trap 30).

pub mod certificate;
mod cost;
mod encoding;
mod encrypted;
mod federated;
mod pem;
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

/// Where the daemon runs, as far as material depends on it.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// `$CREDENTIALS_DIRECTORY` (systemd.exec(5)); None outside of systemd.
    pub credentials_directory: Option<PathBuf>,
    /// Who can read files.
    readers: AccessScan,
    /// What has been read already; None: everything is read where it is needed.
    file_cache: Option<FileCache>,
}

impl Surroundings {
    /// Of a daemon with this `$CREDENTIALS_DIRECTORY`, which is this process's user and has no
    /// callers.
    #[must_use]
    pub fn new(credentials_directory: Option<PathBuf>) -> Surroundings {
        Surroundings {
            credentials_directory,
            ..Surroundings::default()
        }
    }

    /// The same where `readers` says whose the daemon is and whom its socket lets in.
    #[must_use]
    pub fn with_readers(self, readers: AccessScan) -> Surroundings {
        Surroundings { readers, ..self }
    }

    /// For one look at the files of many profiles: a file is read once, however many name it.
    #[must_use]
    pub fn for_one_look(&self) -> Surroundings {
        Surroundings {
            readers: self.readers.anew(),
            file_cache: Some(FileCache::default()),
            ..self.clone()
        }
    }
}

/// SHA-256 over everything that was read, each piece with its role and length. Names material;
/// never shown, since a hash of a weak password can be cracked.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// To be kept where nobody sees it.
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
    /// Changes exactly when some byte of the material changes; of an assertion that somebody else
    /// makes, when it names somebody else. Its renewals are taken over in place.
    pub digest: Digest,
    /// What is allowed but unwise.
    pub warnings: Vec<Diagnostic>,
    /// Password, token or client secret.
    pub secret: Option<Secret>,
    /// Client certificate and key.
    pub identity: Option<ClientIdentity>,
    /// Whom to believe.
    pub trust: Trust,
    /// What client assertions are made of; None for client_secret_jwt, which signs with the secret.
    pub assertion: Option<AssertionMaterial>,
}

impl Material {
    /// The own certificates, towards the server and of assertions, and an assertion that somebody
    /// else makes.
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
    /// Own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Signs handshakes.
    pub key: Arc<dyn SigningKey>,
    /// About the own certificate.
    pub facts: Certificate,
    /// Names chain and key.
    pub digest: Digest,
}

impl ClientIdentity {
    /// Of a chain that is not empty, if it belongs to the key.
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

/// Whom to believe.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The system's roots.
    System,
    /// These and nobody else.
    Roots(Arc<RootCertStore>, Digest),
}

/// Certificates to believe in, and where they come from.
struct Bundle {
    role: &'static str,
    place: String,
    certificates: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// In all of these.
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

/// What client assertions are made of.
#[derive(Clone, Debug)]
pub enum AssertionMaterial {
    /// Signed here, anew for every request.
    Key(AssertionKey),
    /// Signed by somebody else, and renewed in its file.
    Ready(ReadyAssertion),
}

/// An assertion as it is in its file.
#[derive(Clone, Debug)]
pub struct ReadyAssertion {
    /// The JWT.
    pub assertion: Secret,
    /// Whom it names and until when; None where that cannot be read or is not said.
    pub facts: Option<Certificate>,
}

/// A private key in DER, wiped when dropped.
pub type PrivateKey = Zeroizing<PrivateKeyDer<'static>>;

/// What is said of a key that is read well and has a kind or size that nothing here signs with.
const UNUSABLE_KEY: &str =
    "holds a key that cannot be used: RSA from 2048 bits, P-256, P-384, P-521 and Ed25519 can";

/// A key to sign assertions with.
pub struct AssertionKey {
    /// PKCS#8, PKCS#1 or SEC1.
    pub key: PrivateKey,
    /// For the thumbprints.
    pub certificate: Option<CertificateDer<'static>>,
    /// About that certificate.
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

/// Reads and validates all material of a profile. `now` decides whether certificates are valid.
///
/// # Errors
/// Every problem, with its key, the path, the cause and the cure. Never with anything of the
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

/// What has been read so far; something missing has left a problem in the reader.
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

/// The certificates that are named; None for the system's.
fn read_bundle(source: &TrustSource, reader: &mut MaterialReader<'_>) -> Option<Bundle> {
    match source {
        TrustSource::System => None,
        TrustSource::Pem(path) => pem::trust(path, reader),
        TrustSource::Store(store) => store::trust(store, reader),
    }
}

/// Reads only whom to believe, whatever the rest of the material is like, and what the certificates
/// that are named for it say of themselves.
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
