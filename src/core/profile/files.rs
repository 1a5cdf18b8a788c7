//! The files that profiles refer to, for those parts of the daemon that watch them. systemd
//! credentials are left out: their folder is not part of the configuration.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::client_auth::{Assertion, AssertionSource, ClientAuth};
use super::{Config, IdentitySource, Keystore, Method, OAuth2, Profile, SecretRef, TrustSource};

/// Every file that any usable profile refers to.
#[must_use]
pub fn paths(config: &Config) -> BTreeSet<PathBuf> {
    config
        .profiles
        .values()
        .flatten()
        .flat_map(|profile| files(profile))
        .collect()
}

/// Every file that this profile refers to: secrets, certificates, keys, stores, assertions, the
/// program of its command.
#[must_use]
pub fn files(profile: &Profile) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    match &profile.method {
        Method::Basic { password, .. } => secret(&mut found, Some(password)),
        Method::Static { token } => secret(&mut found, Some(token)),
        Method::OAuth2(oauth2) => of_oauth2(&mut found, oauth2),
        // A program that is mended is noticed, too.
        Method::Exec(exec) => {
            found.insert(exec.program().to_owned());
        }
        Method::None => {}
    }
    found
}

fn of_oauth2(found: &mut BTreeSet<PathBuf>, oauth2: &OAuth2) {
    match &oauth2.idp.trust {
        TrustSource::System => {}
        TrustSource::Pem(path) => {
            found.insert(path.clone());
        }
        TrustSource::Store(store) => keystore(found, store),
    }
    match &oauth2.idp.identity {
        None => {}
        Some(IdentitySource::Pem {
            certificate,
            key,
            key_password,
        }) => {
            found.extend([certificate.clone(), key.clone()]);
            secret(found, key_password.as_ref());
        }
        Some(IdentitySource::Store(store)) => keystore(found, store),
    }
    match &oauth2.client_auth {
        ClientAuth::SecretBasic(it)
        | ClientAuth::SecretBasicPlain(it)
        | ClientAuth::SecretPost(it) => secret(found, Some(it)),
        ClientAuth::SecretJwt(it, by) => {
            secret(found, Some(it));
            assertion(found, by);
        }
        ClientAuth::PrivateKeyJwt(by) => assertion(found, by),
        ClientAuth::Tls | ClientAuth::SelfSignedTls | ClientAuth::None => {}
    }
}

fn assertion(found: &mut BTreeSet<PathBuf>, assertion: &Assertion) {
    match &assertion.source {
        None => {}
        Some(AssertionSource::Pem {
            key,
            key_password,
            certificate,
        }) => {
            found.insert(key.clone());
            found.extend(certificate.clone());
            secret(found, key_password.as_ref());
        }
        Some(AssertionSource::Store(store)) => keystore(found, store),
        Some(AssertionSource::File { path, .. }) => {
            found.insert(path.clone());
        }
    }
}

fn keystore(found: &mut BTreeSet<PathBuf>, store: &Keystore) {
    found.insert(store.path.clone());
    secret(found, store.password.as_ref());
    secret(found, store.key_password.as_ref());
}

fn secret(found: &mut BTreeSet<PathBuf>, secret: Option<&SecretRef>) {
    if let Some(SecretRef::File(path)) = secret {
        found.insert(path.clone());
    }
}
