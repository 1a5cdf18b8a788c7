//! The identity of a credential: whom the profile asks, as which client, and for what. The material
//! that proves the client does not count.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use serde::Serialize;

use super::{Endpoint, Method, Profile};

/// All parts of a credential's identity. A field that is added here is compared when the
/// configuration is read again, and becomes part of what is kept over a restart.
#[derive(PartialEq, Serialize)]
struct CredentialIdentity<'a> {
    target: Option<&'a str>,
    source: CredentialSource<'a>,
}

/// The part that depends on `method`.
#[derive(PartialEq, Serialize)]
enum CredentialSource<'a> {
    None,
    Static,
    Basic {
        username: &'a str,
    },
    OAuth2 {
        /// An issuer and a token endpoint with the same URL are two identity providers.
        discovered: bool,
        url: &'a str,
        grant: &'static str,
        client_id: &'a str,
        client_auth: &'static str,
        scopes: &'a [String],
        audience: Option<&'a str>,
        resource: &'a [String],
        extra: &'a BTreeMap<String, String>,
    },
    Exec {
        command: &'a [String],
        settings: &'a BTreeMap<String, String>,
        env: &'a BTreeMap<String, String>,
        scopes: &'a [String],
        audience: Option<&'a str>,
        resource: &'a [String],
    },
}

impl Profile {
    /// Whether both profiles ask the same server for the same API as the same client, whatever
    /// proves the client. Only then may one profile serve the other's credential.
    #[must_use]
    pub fn same_identity(&self, other: &Profile) -> bool {
        self.credential_identity() == other.credential_identity()
    }

    /// The identity as a digest, for what is kept over a restart. None: the profile asks no
    /// provider, so nothing has to be kept.
    #[must_use]
    pub fn identity(&self) -> Option<[u8; 32]> {
        if !matches!(self.method, Method::OAuth2(_) | Method::Exec(_)) {
            return None;
        }
        // JSON delimits each text, so that no character can move from one text into the next.
        let json = serde_json::to_vec(&self.credential_identity())
            .expect("texts, lists and maps of texts can be written");
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, &json).as_ref());
        Some(out)
    }

    fn credential_identity(&self) -> CredentialIdentity<'_> {
        let source = match &self.method {
            Method::None => CredentialSource::None,
            Method::Static { .. } => CredentialSource::Static,
            Method::Basic { username, .. } => CredentialSource::Basic { username },
            Method::OAuth2(oauth2) => CredentialSource::OAuth2 {
                discovered: matches!(oauth2.idp.endpoint, Endpoint::Issuer(_)),
                url: oauth2.idp.endpoint.as_str(),
                grant: oauth2.grant.as_str(),
                client_id: &oauth2.client_id,
                client_auth: oauth2.client_auth.as_str(),
                scopes: &oauth2.scopes,
                audience: oauth2.audience.as_deref(),
                resource: &oauth2.resource,
                extra: &oauth2.extra,
            },
            Method::Exec(exec) => CredentialSource::Exec {
                command: &exec.command,
                settings: &exec.settings,
                env: &exec.env,
                scopes: &exec.scopes,
                audience: exec.audience.as_deref(),
                resource: &exec.resource,
            },
        };
        CredentialIdentity {
            target: self.target.as_deref(),
            source,
        }
    }
}
