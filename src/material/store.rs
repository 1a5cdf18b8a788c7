//! Keystores: PKCS#12 and JKS. The content of the file tells the format, not its name.
//!
//! The PKCS#12 library makes copies of keys while it opens a file, and does not wipe them. What
//! this code keeps of them is wiped.

mod ber;
mod jks;
mod pkcs12;
mod seal;

use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::CertificateDer;

use super::certificate::{CertificateNames, matching};
use super::cost::CostRefusal;
use super::reading::{LONGEST_STORE, MaterialReader};
use super::{AssertionKey, Bundle, ClientIdentity, PrivateKey, encoding};
use crate::core::profile::Keystore;
use crate::core::secret::Secret;

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    /// PKCS#12 (RFC 7292).
    Pkcs12,
    /// Java's own format until Java 8, and its successor in Java Cryptography Extension.
    Jks,
    Jceks,
    /// A file with a PEM label in it.
    Pem,
    Empty,
    /// None of these.
    Other,
}

impl StoreKind {
    pub(super) fn of(bytes: &[u8]) -> StoreKind {
        match bytes {
            [] => StoreKind::Empty,
            [0xfe, 0xed, 0xfe, 0xed, ..] => StoreKind::Jks,
            [0xce, 0xce, 0xce, 0xce, ..] => StoreKind::Jceks,
            // This is BER of indefinite length, too. A PFX is a sequence that begins with the
            // number 3 (RFC 7292 §4).
            [0x30, 0x80, 0x02, 0x01, 0x03, ..]
            | [0x30, 0x81, _, 0x02, 0x01, 0x03, ..]
            | [0x30, 0x82, _, _, 0x02, 0x01, 0x03, ..]
            | [0x30, 0x83, _, _, _, 0x02, 0x01, 0x03, ..] => StoreKind::Pkcs12,
            _ if bytes.windows(11).any(|window| window == b"-----BEGIN ") => StoreKind::Pem,
            _ => StoreKind::Other,
        }
    }

    pub(super) fn is_store(self) -> bool {
        matches!(self, StoreKind::Pkcs12 | StoreKind::Jks | StoreKind::Jceks)
    }
}

#[derive(Default)]
struct Contents {
    entries: Vec<StoreEntry>,
    /// Certificates that are entries of their own, and are meant to be trusted.
    trusted: Vec<CertificateDer<'static>>,
}

/// A private key with its chain.
struct StoreEntry {
    /// The entry's name. Empty if it has none.
    alias: String,
    key: StoredKey,
    /// The own certificate comes first. The chain may be empty.
    chain: Vec<CertificateDer<'static>>,
}

enum StoredKey {
    Open(PrivateKey),
    /// A JKS key. Each has a password of its own.
    Sealed(Vec<u8>),
}

/// The reason why a store cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StoreError {
    Torn,
    Indefinite,
    TooMuch,
    /// The password is wrong or the file is damaged. Both look the same.
    Password,
    /// The store's password is right, but an entry has another one.
    EntryPassword,
    /// The store is encrypted under the null password, with an algorithm that supports only the
    /// other empty password here.
    NullPassword,
    /// The encryption is not supported.
    Unsupported,
}

impl From<CostRefusal> for StoreError {
    fn from(refusal: CostRefusal) -> StoreError {
        match refusal {
            CostRefusal::Torn => StoreError::Torn,
            CostRefusal::Indefinite => StoreError::Indefinite,
            CostRefusal::TooMuch => StoreError::TooMuch,
        }
    }
}

/// Reads the client certificate with chain and key: `tls.keystore`.
pub(super) fn identity(
    store: &Keystore,
    reader: &mut MaterialReader<'_>,
) -> Option<ClientIdentity> {
    let (entry, der, signer) = own(store, "tls.keystore", reader)?;
    let place = entry.place(store);
    if entry.chain.is_empty() {
        reader.problem("tls.keystore", format!(
            "{place} has a key without a certificate: put the certificate in, or name another entry as \
             tls.keystore.alias"
        ));
        return None;
    }
    let names = CertificateNames {
        role: "tls.keystore",
        place: &place,
        key: "the same entry",
    };
    ClientIdentity::new(&names, entry.chain, &der, signer, reader)
}

/// Reads a key for assertions: `assertion.keystore`. Its certificate is used if there is one.
pub(super) fn assertion_key(
    store: &Keystore,
    reader: &mut MaterialReader<'_>,
) -> Option<AssertionKey> {
    let (mut entry, key, signer) = own(store, "assertion.keystore", reader)?;
    let names = CertificateNames {
        role: "assertion.keystore",
        place: &entry.place(store),
        key: "the same entry",
    };
    let facts = match entry.chain.first() {
        None => None,
        Some(own) => Some(matching(&names, own, &*signer, reader)?),
    };
    Some(AssertionKey {
        key,
        certificate: facts.is_some().then(|| entry.chain.swap_remove(0)),
        facts,
    })
}

/// Reads roots that replace the system's: `tls.truststore`. These are the certificates that Java
/// would trust, and all certificates of a PKCS#12 file without keys, since OpenSSL cannot mark
/// certificates as trusted.
pub(super) fn trust(store: &Keystore, reader: &mut MaterialReader<'_>) -> Option<Bundle> {
    const ROLE: &str = "tls.truststore";
    if store.alias.is_some() || store.key_password.is_some() {
        let which = if store.alias.is_some() {
            "alias"
        } else {
            "key_password"
        };
        reader.problem(format!("{ROLE}.{which}"), format!(
            "every certificate of a truststore is trusted, and keys in it are not read: remove {which}"
        ));
    }
    let (contents, _) = open(store, ROLE, reader)?;
    let shown = store.path.display();
    match (contents.trusted.is_empty(), contents.entries.is_empty()) {
        (false, true) => {}
        (false, false) => reader.warning(ROLE, format!(
            "{shown} holds a private key too, which nobody needs in order to trust: keep certificates alone \
             in a truststore"
        )),
        (true, false) => {
            reader.problem(ROLE, format!(
                "{shown} has no certificate that is trusted, only private keys with theirs: put the CA's \
                 certificate in (keytool -importcert -trustcacerts)"
            ));
            return None;
        }
        (true, true) => {
            reader.problem(ROLE, format!(
                "{shown} is a store with nothing in it: put the CA's certificate in (keytool -importcert \
                 -trustcacerts)"
            ));
            return None;
        }
    }
    Some(Bundle {
        role: ROLE,
        place: shown.to_string(),
        certificates: contents.trusted,
    })
}

impl StoreEntry {
    fn place(&self, store: &Keystore) -> String {
        let shown = store.path.display();
        match self.alias.as_str() {
            "" => shown.to_string(),
            alias => format!("{shown} ({alias:?})"),
        }
    }
}

/// The chosen entry, with its key both as it is and ready to sign.
fn own(
    store: &Keystore,
    role: &str,
    reader: &mut MaterialReader<'_>,
) -> Option<(StoreEntry, PrivateKey, Arc<dyn SigningKey>)> {
    let key_password = store
        .key_password
        .as_ref()
        .map(|source| reader.secret(&format!("{role}.key_password"), source));
    let (contents, password) = open(store, role, reader)?;
    let key_password = match key_password {
        None => password,
        Some(read) => Some(read?),
    };
    let mut entry = match choose(contents, store, role) {
        Ok(entry) => entry,
        Err((key, message)) => {
            reader.problem(key, message);
            return None;
        }
    };
    let place = entry.place(store);
    let der = match std::mem::replace(&mut entry.key, StoredKey::Sealed(Vec::new())) {
        StoredKey::Open(der) => der,
        StoredKey::Sealed(sealed) => {
            let Some(key_password) = key_password else {
                reader.problem(role, format!(
                    "{place} needs a password: set {role}.password to where it is, a file for instance"
                ));
                return None;
            };
            let Some(der) = jks::unseal(&sealed, &key_password) else {
                match &store.key_password {
                    Some(_) => reader.problem(
                        format!("{role}.key_password"),
                        format!("does not open {place}: put the password of this entry in place"),
                    ),
                    None => reader.problem(role, format!(
                        "the store's password does not open {place}: set {role}.key_password to the password of this \
                         entry"
                    )),
                }
                return None;
            };
            der
        }
    };
    match any_supported_type(&der) {
        Ok(signer) => Some((entry, der, signer)),
        Err(_) => {
            reader.problem(role, format!("{place} {}", encoding::unusable(&der)));
            None
        }
    }
}

/// Chooses the only entry with a key, or the one with the configured name. An error names the
/// configuration key to change, and the reason.
fn choose(
    contents: Contents,
    store: &Keystore,
    role: &str,
) -> Result<StoreEntry, (String, String)> {
    let shown = store.path.display();
    if contents.entries.is_empty() {
        let why = match contents.trusted.is_empty() {
            true => format!("{shown} is a store with nothing in it: put certificate and key in"),
            false => format!(
                "{shown} has certificates but no private key: export it with the key (openssl pkcs12 -export -inkey \
                 …, keytool -importkeystore)"
            ),
        };
        return Err((role.to_owned(), why));
    }
    let which = format!("{role}.alias");
    let names: Vec<String> = contents
        .entries
        .iter()
        .map(StoreEntry::shown_alias)
        .collect();
    let names = names.join(", ");
    let mut entries = contents.entries;
    let Some(alias) = &store.alias else {
        return match entries.pop() {
            Some(entry) if entries.is_empty() => Ok(entry),
            _ => {
                let why =
                    format!("{shown} has several private keys: set {which} to one of {names}");
                Err((which, why))
            }
        };
    };
    // Java stores aliases in small letters, however they were typed.
    let same: [fn(&str, &str) -> bool; 2] = [
        |one, other| one == other,
        |one, other| one.to_lowercase() == other.to_lowercase(),
    ];
    for same in same {
        let fits = |entry: &StoreEntry| same(&entry.alias, alias);
        match entries.iter().filter(|entry| fits(entry)).count() {
            0 => {}
            1 => {
                let at = entries.iter().position(fits).unwrap_or(0);
                return Ok(entries.swap_remove(at));
            }
            _ => {
                let why = format!(
                    "{shown} has several private keys called {alias:?}: give each a name of its own"
                );
                return Err((which, why));
            }
        }
    }
    let why = format!("{shown} has no private key called {alias:?}: it has {names}");
    Err((which, why))
}

impl StoreEntry {
    fn shown_alias(&self) -> String {
        match self.alias.as_str() {
            "" => "one without a name".into(),
            alias => format!("{alias:?}"),
        }
    }
}

/// Reads a whole store and its password.
fn open(
    store: &Keystore,
    role: &str,
    reader: &mut MaterialReader<'_>,
) -> Option<(Contents, Option<Secret>)> {
    let password = store
        .password
        .as_ref()
        .map(|source| reader.store_password(&format!("{role}.password"), source));
    let bytes = reader.file(role, &store.path, LONGEST_STORE, true)?;
    let password = match password {
        None => None,
        Some(read) => Some(read?),
    };
    let opened = match StoreKind::of(&bytes) {
        StoreKind::Pkcs12 => pkcs12::read(&bytes, password.as_ref()).map_err(|closed| {
            let has_password = password.as_ref().is_some_and(|it| !it.is_empty());
            why_pkcs12(closed, role, has_password)
        }),
        StoreKind::Jks => jks::read(&bytes, password.as_ref())
            .map_err(|closed| why_jks(closed).to_owned()),
        StoreKind::Jceks => Err(
            "is a JCEKS keystore, which is not read: convert it (keytool -importkeystore -deststoretype pkcs12)".into(),
        ),
        StoreKind::Pem => Err(pem_instead(role).into()),
        StoreKind::Empty => Err("is empty: write the store into it, or wait until whoever does has done so".into()),
        StoreKind::Other => Err(
            "is neither PKCS#12 nor JKS: check the path, or write the store anew (openssl pkcs12 -export, keytool)".into(),
        ),
    };
    match opened {
        Ok(contents) => Some((contents, password)),
        Err(why) => {
            reader.problem(role, format!("{} {why}", store.path.display()));
            None
        }
    }
}

fn pem_instead(role: &str) -> &'static str {
    match role {
        "tls.truststore" => "is PEM and no keystore: name it as tls.ca",
        "assertion.keystore" => "is PEM and no keystore: name it as assertion.key",
        _ => "is PEM and no keystore: name it as tls.certificate, and its key as tls.key",
    }
}

fn why_pkcs12(closed: StoreError, role: &str, has_password: bool) -> String {
    match closed {
        StoreError::Torn | StoreError::Indefinite => {
            "is not a whole PKCS#12 file, perhaps written only in part: write it anew".into()
        }
        StoreError::TooMuch => {
            "asks for more rounds of key derivation than anybody can want (over a million at once or five million in \
             all): write it anew"
                .into()
        }
        StoreError::Password if has_password => format!(
            "cannot be opened with {role}.password: put the right password in place, or write the file anew if it is \
             damaged"
        ),
        StoreError::Password => {
            format!("has a password: set {role}.password to where it is, a file for instance")
        }
        StoreError::EntryPassword => {
            "has an entry with another password than the store, which in PKCS#12 is not read: write it anew with one \
             password for both"
                .into()
        }
        StoreError::NullPassword => {
            "is encrypted without a password in the old way (3DES or RC2, as .NET and Azure Key Vault export it), which \
             is not read: write it anew with a password (umask 077; openssl pkcs12 -legacy -in OLD -passin pass: -nodes \
             -out PEM; openssl pkcs12 -export -in PEM -passout file:PASSWORD -out NEW)"
                .into()
        }
        StoreError::Unsupported => {
            "is protected in a way that is not supported: write it anew with AES-256 and a MAC of SHA-256 (openssl \
             pkcs12 -export -certpbe AES-256-CBC -keypbe AES-256-CBC -macalg sha256, or keytool -importkeystore)"
                .into()
        }
    }
}

fn why_jks(closed: StoreError) -> &'static str {
    match closed {
        StoreError::Password | StoreError::EntryPassword => {
            "cannot be opened with its password: put the right password in place, or write the file anew if it is \
             damaged"
        }
        StoreError::Unsupported | StoreError::NullPassword => {
            "is a JKS keystore with something in it that is no X.509 certificate or key: convert it (keytool \
             -importkeystore -deststoretype pkcs12)"
        }
        StoreError::Torn | StoreError::Indefinite | StoreError::TooMuch => {
            "is not a whole JKS keystore, perhaps written only in part: write it anew"
        }
    }
}
