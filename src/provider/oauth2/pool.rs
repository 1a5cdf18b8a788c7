//! HTTP clients and discovery documents, shared by profiles with the same way to an identity
//! provider.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::discovery::Discovery;
use super::idp_client::IdpClient;
use super::lane::Lanes;
use crate::core::failure::Failure;
use crate::core::oauth::withhold::origin;
use crate::core::profile::{Endpoint, Http, Idp};
use crate::material::{ClientIdentity, Digest, Trust};
use crate::tls::Tls;

/// Two profiles with the same key share a client: the key is identity provider, settings, trust and
/// certificate. Connections live on the thread of the identity provider that they were opened for,
/// so two identity providers share none.
/// providers share any.
#[derive(Clone, PartialEq, Eq, Hash)]
struct IdpKey {
    /// The origin of the configured URL.
    origin: String,
    http: Http,
    trust: Option<Digest>,
    identity: Option<Digest>,
}

/// Two profiles with the same key share a discovery document.
#[derive(PartialEq, Eq, Hash)]
struct DiscoveryKey {
    idp: IdpKey,
    issuer: String,
    allow_insecure_http: bool,
}

/// All clients and discovery documents in use. Each goes with its last profile.
#[derive(Default)]
pub(in crate::provider) struct IdpClients(Mutex<OpenClients>);

#[derive(Default)]
struct OpenClients {
    upstreams: HashMap<IdpKey, Weak<IdpClient>>,
    discoveries: HashMap<DiscoveryKey, Weak<Discovery>>,
    lanes: Lanes,
}

impl IdpClients {
    /// The client for an identity provider, and its discovery document unless the token endpoint is
    /// configured. Existing ones are reused.
    pub(super) fn get(
        &self,
        idp: &Idp,
        trust: &Trust,
        identity: Option<&ClientIdentity>,
        tls: &Tls,
    ) -> Result<(Arc<IdpClient>, Option<Arc<Discovery>>), Failure> {
        let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &idp.endpoint;
        let key = IdpKey {
            origin: origin(url),
            http: idp.http.clone(),
            trust: match trust {
                Trust::System => None,
                Trust::Roots(_, digest) => Some(*digest),
            },
            identity: identity.map(|identity| identity.digest),
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let OpenClients {
            upstreams,
            discoveries,
            lanes,
        } = &mut *all;
        let upstream = shared(upstreams, key.clone(), || {
            let config = tls.client_config(trust, identity, None).map_err(|_| {
                Failure::permanent(
                    "tls.certificate and tls.key cannot be used for TLS: use RSA, P-256, P-384 or Ed25519",
                )
            })?;
            let lane = lanes.get(&key.origin);
            Ok(IdpClient::new(&idp.http, config, identity.is_some(), lane))
        })?;
        let Endpoint::Issuer(issuer) = &idp.endpoint else {
            return Ok((upstream, None));
        };
        let allow_insecure_http = idp.allow_insecure_http;
        let key = DiscoveryKey {
            idp: key,
            issuer: issuer.as_str().to_owned(),
            allow_insecure_http,
        };
        let discovery = shared(discoveries, key, || {
            Ok(Discovery::new(issuer.clone(), allow_insecure_http))
        })?;
        Ok((upstream, Some(discovery)))
    }

    /// The number of clients in use.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.upstreams
            .values()
            .filter(|upstream| upstream.strong_count() > 0)
            .count()
    }
}

/// The value in use for this key, or a new one. Unused values are dropped from the map.
fn shared<K: Eq + Hash, T>(
    all: &mut HashMap<K, Weak<T>>,
    key: K,
    make: impl FnOnce() -> Result<T, Failure>,
) -> Result<Arc<T>, Failure> {
    if let Some(one) = all.get(&key).and_then(Weak::upgrade) {
        return Ok(one);
    }
    let one = Arc::new(make()?);
    all.retain(|_, one| one.strong_count() > 0);
    all.insert(key, Arc::downgrade(&one));
    Ok(one)
}
