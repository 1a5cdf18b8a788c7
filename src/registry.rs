//! Profiles by name: what a request needs to know of one, swapped whole on reload and read without a lock.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::broker::Seat;
use crate::core::policy::{Access, Caller};
use crate::core::profile::{ProfileName, Request};

/// The registry that is in force.
pub type Current = Arc<ArcSwap<Registry>>;

/// Every profile of one configuration.
#[derive(Debug, PartialEq)]
pub struct Registry {
    /// Grows with each configuration that was taken over.
    pub generation: u64,
    /// Who administers the daemon.
    pub admins: Access,
    entries: HashMap<ProfileName, Arc<Entry>>,
}

/// One profile, as the server sees it.
#[derive(Debug, PartialEq)]
pub struct Entry {
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
    /// What a caller may ask for beyond the default.
    pub request: Request,
    /// Whether it works.
    pub standing: Standing,
    /// What an operator should know although it works.
    pub warnings: Vec<String>,
}

/// Whether a profile works.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Its credentials are published here.
    Seated(Arc<Seat>),
    /// It cannot be used, and why.
    Invalid(String),
}

impl Registry {
    /// A registry of these.
    #[must_use]
    pub fn new(generation: u64, admins: Access, entries: Vec<Arc<Entry>>) -> Registry {
        Registry {
            generation,
            admins,
            entries: entries
                .into_iter()
                .map(|entry| (entry.name.clone(), entry))
                .collect(),
        }
    }

    /// The profile of this name, if this caller may use it. One that is not there and one that is not permitted look alike.
    #[must_use]
    pub fn permitted(&self, name: &str, caller: &Caller) -> Option<&Arc<Entry>> {
        self.entries
            .get(name)
            .filter(|entry| entry.access.decide(caller).permits())
    }

    /// The profiles that this caller may use, by name.
    #[must_use]
    pub fn visible(&self, caller: &Caller) -> Vec<&Arc<Entry>> {
        self.sorted(|entry| entry.access.decide(caller).permits())
    }

    /// Every profile, by name.
    #[must_use]
    pub fn all(&self) -> Vec<&Arc<Entry>> {
        self.sorted(|_| true)
    }

    fn sorted(&self, mut keep: impl FnMut(&Entry) -> bool) -> Vec<&Arc<Entry>> {
        let mut entries: Vec<_> = self.entries.values().filter(|entry| keep(entry)).collect();
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        entries
    }
}
