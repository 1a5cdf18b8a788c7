//! Profiles by name: what a request needs to know of one, swapped whole on reload and read without
//! a lock.

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

/// Of the next registry.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// Every profile of one configuration.
#[derive(Debug)]
pub struct Registry {
    /// Grows with each configuration that was taken over.
    pub generation: u64,
    /// Who administers the daemon.
    pub admins: Access,
    /// Why the configuration as it is on disk is not in force, nor any part of it; empty: it is,
    /// profile by profile.
    pub refused: Vec<String>,
    /// Why nothing can be served: nothing was ever in force, and what is on disk cannot be used.
    /// For whoever asks, so that no profile is named in it.
    pub closed: Option<String>,
    /// What an operator should know of the daemon itself.
    pub warnings: Vec<String>,
    /// Tells this registry from every other.
    pub serial: u64,
    /// Whom any rule names.
    pub named: Named,
    /// Whether a rule of any profile depends on callers' units.
    asks_for_units: bool,
    entries: HashMap<ProfileName, Arc<RegistryEntry>>,
}

/// Why a profile is not for a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// It is not there, or nothing permits.
    Denied,
    /// That depends on the caller's unit, or looks as if it did: a name that nobody has is not to
    /// be told from one that a rule with a unit keeps, not even by how long it takes.
    NeedsUnit,
}

/// One profile, as the server sees it.
#[derive(Debug)]
pub struct RegistryEntry {
    /// Its name.
    pub name: ProfileName,
    /// As in the configuration; may be empty for an invalid one.
    pub method: String,
    /// Base URL of the API.
    pub target: Option<String>,
    /// Issuer or token endpoint.
    pub issuer: Option<String>,
    /// Who may use it.
    pub access: Access,
    /// What its files say of that now, where it is not in force: they have to permit too.
    pub also: Vec<Access>,
    /// What a caller may ask for beyond the default.
    pub request: RequestSettings,
    /// Whether it works.
    pub health: ProfileHealth,
    /// What an operator should know although it works.
    pub warnings: Vec<String>,
    /// Whether its files say what is served, and if not, why.
    pub reloaded: Reloaded,
    /// Its own certificates.
    pub certificates: Vec<(ProfileLocation, Certificate)>,
}

/// Where a certificate is; two of them differ while what is new is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileLocation {
    /// Presented to the identity provider.
    InUse,
    /// In the files.
    OnDisk,
}

impl ProfileLocation {
    /// As in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ProfileLocation::InUse => "in_use",
            ProfileLocation::OnDisk => "on_disk",
        }
    }
}

impl RegistryEntry {
    /// Whether a caller may use it. Where more than one has to permit, the one that is in force
    /// names the rule.
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

    /// Whether everybody may do the same with both.
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
    /// Its credentials are published here.
    Managed(Arc<ProfileHandle>),
    /// It cannot be used, and why.
    Invalid(String),
}

impl Registry {
    /// A registry of these.
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

    /// The same, when what is on disk now cannot be used.
    #[must_use]
    pub fn refusing(&self, refused: Vec<String>) -> Registry {
        Registry {
            generation: self.generation,
            // The same profiles, and the same callers for them.
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

    /// The same where nothing was ever in force: `why` is for whoever asks.
    #[must_use]
    pub fn closed(&self, refused: Vec<String>, why: String) -> Registry {
        Registry {
            closed: Some(why),
            ..self.refusing(refused)
        }
    }

    /// The profile of this name and what permits it. One that is not there and one that is not
    /// permitted look alike.
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

    /// The profile of this name, whoever asks.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<RegistryEntry>> {
        self.entries.get(name)
    }

    /// Whether what callers may see can depend on a unit that has not been looked for.
    #[must_use]
    pub fn needs(&self, unit: Unit<'_>) -> bool {
        self.asks_for_units && unit == Unit::NotAsked
    }

    /// The profiles that this caller may use, by name.
    #[must_use]
    pub fn visible(&self, subject: Subject<'_>) -> Vec<&Arc<RegistryEntry>> {
        self.sorted(|entry| entry.decide(subject).permits())
    }

    /// Whether everybody gets the same from both; what there is to say does not count.
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

    /// Every profile, by name.
    #[must_use]
    pub fn all(&self) -> Vec<&Arc<RegistryEntry>> {
        self.sorted(|_| true)
    }

    /// How many profiles there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
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
