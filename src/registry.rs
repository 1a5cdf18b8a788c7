//! Profiles by name: what a request needs to know of a profile. The registry is swapped whole on
//! reload and read without a lock.

pub mod reload;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::broker::ProfileHandle;
use crate::core::certificate::Certificate;
use crate::core::policy::{Access, Decision, Named, Subject, Unit};
use crate::core::profile::{ProfileName, RequestSettings};
use crate::core::time::Stamp;
use reload::Reloaded;

/// The registry that is in force.
pub type Current = Arc<ArcSwap<Registry>>;

/// The serial number of the next registry.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// Every profile of one configuration.
#[derive(Debug)]
pub struct Registry {
    /// Grows with each configuration that is taken over.
    pub generation: u64,
    pub admins: Access,
    /// Why no part of the configuration on disk is in force. Empty: it is in force, profile by
    /// profile.
    pub refused: Vec<String>,
    /// Why nothing can be served: no configuration was ever in force, and the one on disk cannot be
    /// used. All callers see this text, so it names no profile.
    pub closed: Option<String>,
    /// What an operator should know of the daemon itself.
    pub warnings: Vec<String>,
    /// A number that differs from that of every other registry with other profiles or rules.
    pub serial: u64,
    /// The users and groups that any rule names.
    pub named: Named,
    /// Whether a rule of any profile depends on the caller's unit.
    asks_for_units: bool,
    entries: HashMap<ProfileName, Arc<RegistryEntry>>,
}

/// Why a profile is hidden from a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// The profile does not exist, or no rule permits it.
    Denied,
    /// The decision depends on the caller's unit, or has to look as if it did. A profile that does
    /// not exist must not be told from one that a rule with a unit protects, not even by the time
    /// that the answer takes.
    NeedsUnit,
}

/// One profile, as the server sees it.
#[derive(Debug)]
pub struct RegistryEntry {
    pub name: ProfileName,
    /// The word of the configuration; may be empty for an invalid profile.
    pub method: String,
    /// The base URL of the API.
    pub target: Option<String>,
    /// The issuer or the token endpoint.
    pub issuer: Option<String>,
    pub access: Access,
    /// Access rules of the files that are not in force. They have to permit a caller too.
    pub also: Vec<Access>,
    /// What a caller may ask for beyond the default.
    pub request: RequestSettings,
    pub health: ProfileHealth,
    /// What an operator should know although the profile works.
    pub warnings: Vec<String>,
    /// Whether the profile is served as its files say, and if not, why.
    pub reloaded: Reloaded,
    /// The profile's own certificates.
    pub certificates: Vec<(ProfileLocation, Certificate)>,
}

/// Where a certificate is. The two places differ while a new version is on trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileLocation {
    /// The profile presents it to the identity provider.
    InUse,
    /// It is in the files.
    OnDisk,
}

impl ProfileLocation {
    /// The word for this in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ProfileLocation::InUse => "in_use",
            ProfileLocation::OnDisk => "on_disk",
        }
    }
}

impl RegistryEntry {
    /// Whether a caller may use the profile. If more than one rule set has to permit, the one in
    /// force names the rule.
    #[must_use]
    pub fn decide(&self, subject: Subject<'_>) -> Decision {
        let mut decision = self.access.decide(subject);
        for also in &self.also {
            match also.decide(subject) {
                Decision::Denied => return Decision::Denied,
                Decision::NeedsUnit if decision.permits() => decision = Decision::NeedsUnit,
                _ => {}
            }
        }
        decision
    }

    /// Whether there is a credential, or one will be fetched on first use.
    #[must_use]
    pub fn available(&self, now: Stamp) -> bool {
        match &self.health {
            ProfileHealth::Managed(handle) => handle.own().view().state(now).available(),
            ProfileHealth::Invalid(_) => false,
        }
    }

    /// Whether both entries permit the same to every caller.
    #[must_use]
    pub fn permits_the_same_as(&self, other: &RegistryEntry) -> bool {
        self.access == other.access && self.also == other.also && self.request == other.request
    }

    fn serves_the_same_as(&self, other: &RegistryEntry) -> bool {
        self.health == other.health
            && self.permits_the_same_as(other)
            && self.target == other.target
    }
}

/// Whether a profile works.
#[derive(Clone, Debug, PartialEq)]
pub enum ProfileHealth {
    /// The profile works; this handle leads to its published credentials.
    Managed(Arc<ProfileHandle>),
    /// The profile cannot be used, for this reason.
    Invalid(String),
}

impl Registry {
    #[must_use]
    pub fn new(generation: u64, admins: Access, entries: Vec<Arc<RegistryEntry>>) -> Registry {
        let mut named = Named::default();
        admins.add_to(&mut named);
        for entry in &entries {
            entry.access.add_to(&mut named);
        }
        Registry {
            generation,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            named,
            admins,
            refused: Vec::new(),
            closed: None,
            warnings: Vec::new(),
            asks_for_units: entries.iter().any(|entry| {
                entry.access.asks_for_units() || entry.also.iter().any(Access::asks_for_units)
            }),
            entries: entries
                .into_iter()
                .map(|entry| (entry.name.clone(), entry))
                .collect(),
        }
    }

    /// The same registry, while the configuration on disk cannot be used.
    #[must_use]
    pub fn refusing(&self, refused: Vec<String>) -> Registry {
        Registry {
            generation: self.generation,
            // Profiles and access are the same, so the number is too.
            serial: self.serial,
            named: self.named.clone(),
            admins: self.admins.clone(),
            refused,
            closed: None,
            warnings: self.warnings.clone(),
            asks_for_units: self.asks_for_units,
            entries: self.entries.clone(),
        }
    }

    /// The same registry, when no configuration was ever in force. `why` is the text for all
    /// callers.
    #[must_use]
    pub fn closed(&self, refused: Vec<String>, why: String) -> Registry {
        Registry {
            closed: Some(why),
            ..self.refusing(refused)
        }
    }

    /// The profile of this name, and the rule that permits it. A profile that does not exist and
    /// one that is not permitted look alike.
    ///
    /// # Errors
    /// [`Hidden`]
    #[inline]
    pub fn permitted(
        &self,
        name: &str,
        subject: Subject<'_>,
    ) -> Result<(&Arc<RegistryEntry>, Decision), Hidden> {
        let found = self.entries.get(name);
        if let Some(entry) = found {
            let decision = entry.decide(subject);
            if decision.permits() {
                return Ok((entry, decision));
            }
        }
        Err(if self.needs(subject.unit) {
            Hidden::NeedsUnit
        } else {
            Hidden::Denied
        })
    }

    /// The profile of this name, without regard to the caller.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<RegistryEntry>> {
        self.entries.get(name)
    }

    /// Whether the answer to callers can depend on a unit that has not been looked up.
    #[must_use]
    pub fn needs(&self, unit: Unit<'_>) -> bool {
        self.asks_for_units && unit == Unit::NotAsked
    }

    /// The profiles that this caller may use, sorted by name.
    #[must_use]
    pub fn visible(&self, subject: Subject<'_>) -> Vec<&Arc<RegistryEntry>> {
        self.sorted(|entry| entry.decide(subject).permits())
    }

    /// Whether every caller gets the same from both registries. Warnings and reasons do not count.
    #[must_use]
    pub fn serves_the_same_as(&self, other: &Registry) -> bool {
        self.admins == other.admins
            && self.entries.len() == other.entries.len()
            && self.entries.iter().all(|(name, entry)| {
                other
                    .entries
                    .get(name)
                    .is_some_and(|other| entry.serves_the_same_as(other))
            })
    }

    /// Every profile, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<&Arc<RegistryEntry>> {
        self.sorted(|_| true)
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn sorted(&self, mut keep: impl FnMut(&RegistryEntry) -> bool) -> Vec<&Arc<RegistryEntry>> {
        let mut entries: Vec<_> = self.entries.values().filter(|entry| keep(entry)).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        entries
    }
}
