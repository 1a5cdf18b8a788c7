//! The permit: what lets a caller have one of a profile's credentials. It is made once for a call
//! and used until the call is answered.

use std::sync::Arc;
use std::time::Duration;

use super::super::error::{Denial, shortened};
use super::CredentialRequest;
use crate::audit::{Action, GrantedCredential};
use crate::broker::{Answer, ProfileHandle, Slot};
use crate::core::credential::Variant;
use crate::core::policy::Decision;
use crate::core::time::Stamp;
use crate::proto::WatchTokenRequest;
use crate::registry::RegistryEntry;

/// The most scopes that one request may name.
const SCOPES_PER_REQUEST: usize = 32;

/// What a call asks for, and which call it is.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub profile: &'a str,
    pub scopes: &'a [String],
    pub audience: &'a str,
    pub action: Action,
}

impl<'a> Wanted<'a> {
    /// The profile's default credential.
    pub fn default_of(profile: &'a str, action: Action) -> Wanted<'a> {
        Wanted {
            profile,
            scopes: &[],
            audience: "",
            action,
        }
    }
}

impl<'a> From<&'a CredentialRequest> for Wanted<'a> {
    fn from(ask: &'a CredentialRequest) -> Wanted<'a> {
        Wanted {
            profile: &ask.profile,
            scopes: &ask.scopes,
            audience: &ask.audience,
            action: Action::GetToken,
        }
    }
}

impl<'a> From<&'a WatchTokenRequest> for Wanted<'a> {
    fn from(request: &'a WatchTokenRequest) -> Wanted<'a> {
        Wanted {
            profile: &request.profile,
            scopes: &request.scopes,
            audience: &request.audience,
            action: Action::WatchToken,
        }
    }
}

/// What lets a caller have a credential, and where the credential is published.
pub struct Permit {
    pub entry: Arc<RegistryEntry>,
    pub handle: Arc<ProfileHandle>,
    pub variant: Variant,
    pub decision: Decision,
    pub action: Action,
}

impl Permit {
    /// The grant that the audit records before this answer leaves.
    pub fn given<'a>(&'a self, answer: &'a Answer) -> GrantedCredential<'a> {
        GrantedCredential {
            profile: &self.entry.name,
            variant: &self.variant,
            credential: &answer.credential,
            decision: self.decision,
            action: self.action,
        }
    }

    /// The published credential, if it lives long enough.
    pub fn in_memory(&self, min_ttl: Duration, now: Stamp) -> Option<Arc<Answer>> {
        let look = |slot: &Slot| {
            let answer = slot.view().servable(now, min_ttl).cloned()?;
            slot.note_asked(now);
            Some(answer)
        };
        if self.variant.is_default() {
            look(self.handle.own())
        } else {
            look(self.handle.slot(&self.variant)?.as_ref())
        }
    }
}

/// The variant that the caller names beyond the default, as far as the profile allows it.
pub fn variant(entry: &RegistryEntry, wanted: Wanted<'_>) -> Result<Variant, Denial> {
    let Wanted {
        scopes, audience, ..
    } = wanted;
    if scopes.is_empty() && audience.is_empty() {
        return Ok(Variant::default());
    }
    if scopes.len() > SCOPES_PER_REQUEST {
        return Err(Denial::bad_request(format!(
            "a request may name at most {SCOPES_PER_REQUEST} scopes"
        )));
    }
    if let Some(scope) = scopes
        .iter()
        .find(|scope| !entry.request.scopes.contains(scope))
    {
        return Err(Denial::bad_request(format!(
            "profile {}: the scope {:?} is not among those that `request.scopes` allows",
            entry.name,
            shortened(scope)
        )));
    }
    if !audience.is_empty()
        && !entry
            .request
            .audiences
            .iter()
            .any(|allowed| allowed == audience)
    {
        return Err(Denial::bad_request(format!(
            "profile {}: the audience {:?} is not among those that `request.audiences` allows",
            entry.name,
            shortened(audience)
        )));
    }
    let mut scopes = scopes.to_vec();
    scopes.sort_unstable();
    scopes.dedup();
    Ok(Variant {
        scopes,
        audience: Some(audience.to_owned()).filter(|audience| !audience.is_empty()),
    })
}
