//! From a configuration to what is served: reads the material of every profile, keeps what has not
//! changed, and swaps the registry whole. Starting is a reload from nothing.

mod entry;
mod member;
mod staging;
#[cfg(test)]
mod tests;
mod trial;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::{info, warn};

use self::member::Member;
use super::warm_restart::PreviousRun;
use crate::broker::{Broker, ProfileHandle};
use crate::caller::{CachedDirectory, SystemDirectory};
use crate::clock::Clock;
use crate::core::config::AccessOnDisk;
use crate::core::policy::Access;
use crate::core::policy::stated::Stated;
use crate::core::profile::{Config, Invalid, Profile, ProfileName};
use crate::core::time::WallTime;
use crate::material::{self, Material, Surroundings};
use crate::provider;
use crate::registry::reload::{ReloadOutcome, ReloadReport, Reloaded};
use crate::registry::{Current, ProfileHealth, Registry, RegistryEntry};

/// What is served, and how it came about.
pub struct Assembly {
    pub broker: Broker,
    pub registry: Current,
    pub clock: Clock,
    pub shared: provider::Shared,
    pub surroundings: Surroundings,
    pub daemon_uid: u32,
    /// Why rules that name a unit match nobody here, if so.
    pub no_units: Option<String>,
    /// What an earlier run has left, until the first configuration has been taken over.
    pub left: PreviousRun,
    /// Looked at with every configuration; an outage of it must not lock anybody out.
    directory: CachedDirectory<SystemDirectory>,
    members: BTreeMap<ProfileName, Member>,
    /// Profiles that never could be used, and since when.
    invalid: BTreeMap<ProfileName, Reloaded>,
    /// Counts the times that files were looked at, so that a report knows what was changed by them.
    looks: u64,
    /// What was logged last of each profile, so that it is not said again at every look at the
    /// files.
    said: BTreeMap<ProfileName, Vec<String>>,
    /// Names profiles whose trials have come further, for [`Assembly::promote`].
    trials: mpsc::Sender<ProfileName>,
    /// Handles that nobody will find once the registry has been swapped.
    leaving: Vec<Arc<ProfileHandle>>,
}

/// A profile with its files read, or why not.
pub type GatheredMaterial = BTreeMap<ProfileName, Result<(Arc<Profile>, Material), Invalid>>;

impl Assembly {
    /// Nothing yet.
    pub fn new(
        broker: Broker,
        registry: Current,
        clock: Clock,
        shared: provider::Shared,
        daemon_uid: u32,
        left: PreviousRun,
        trials: mpsc::Sender<ProfileName>,
    ) -> Assembly {
        Assembly {
            broker,
            registry,
            clock,
            shared,
            surroundings: surroundings(),
            daemon_uid,
            no_units: None,
            left,
            directory: CachedDirectory::new(SystemDirectory),
            members: BTreeMap::new(),
            invalid: BTreeMap::new(),
            looks: 0,
            said: BTreeMap::new(),
            trials,
            leaving: Vec::new(),
        }
    }

    /// Takes a configuration over, profile by profile: what fails, fails alone. `access` is what
    /// the files say of that, which holds in any case; `warnings` are the daemon's own. Gives the
    /// profiles that are gone.
    pub async fn apply(
        &mut self,
        config: &Config,
        access: &AccessOnDisk,
        gathered: GatheredMaterial,
        mut warnings: Vec<String>,
    ) -> Vec<ProfileName> {
        self.looks += 1;
        let mut entries = Vec::with_capacity(gathered.len());
        let mut before = std::mem::take(&mut self.members);
        let mut invalid_before = std::mem::take(&mut self.invalid);
        for (name, outcome) in gathered {
            let stated = access.of(&name);
            let member = before.remove(&name);
            let prepared = outcome
                .and_then(|(profile, material)| self.prepare(profile, material, member.as_ref()));
            match (prepared, member) {
                (Ok((prepared, known)), member) => {
                    let mut member = self.admit(prepared, known, member).await;
                    member.file = config.files.get(&name).cloned();
                    entries.push(self.enter(name, member, stated));
                }
                (Err(invalid), Some(member)) => {
                    let member = self.keep(member, one_line(&invalid.message));
                    entries.push(self.enter(name, member, stated));
                }
                (Err(invalid), None) => {
                    let since = invalid_before
                        .remove(&name)
                        .map_or_else(|| self.now(), |known| known.since);
                    let reloaded = Reloaded {
                        outcome: ReloadOutcome::Invalid,
                        why: one_line(&invalid.message),
                        since,
                        nothing_left: true,
                    };
                    entries.push(self.invalid(&name, &invalid, reloaded.clone(), stated));
                    self.invalid.insert(name, reloaded);
                }
            }
        }
        let mut removed = Vec::new();
        for (name, member) in before {
            // Nobody knows what is in a file, or in a folder of them, that cannot be read: what was
            // defined there is not gone.
            let broken = |path: &Path| config.broken.get(path);
            let file = member.file.as_deref();
            match file.and_then(|file| broken(file).or_else(|| broken(file.parent()?))) {
                Some(why) => {
                    let why = why.clone();
                    let member = self.keep(member, why);
                    let stated = access.of(&name);
                    entries.push(self.enter(name, member, stated));
                }
                None => {
                    self.leaving.push(member.live.handle);
                    self.leaving
                        .extend(member.staged.map(|staged| staged.version.handle));
                    removed.push(name);
                }
            }
        }
        for entry in &entries {
            self.say(entry);
        }
        let (admins, unknown) = self.access(&config.server.admins);
        warnings.extend(
            unknown
                .into_iter()
                .map(|name| format!("[server] admins: {name}")),
        );
        self.put_in_force(admins, entries, warnings).await;
        removed
    }

    /// Whether everything is served as the files say.
    pub fn is_complete(&self) -> bool {
        let registry = self.registry.load();
        let mut entries = registry.all().into_iter();
        entries.all(|entry| entry.reloaded.outcome.in_force())
    }

    /// Notes that the configuration on disk cannot be used at all.
    pub fn refuse(&mut self, why: Vec<String>) {
        let before = self.registry.load_full();
        if before.refused != why {
            self.registry.store(Arc::new(before.refusing(why)));
        }
    }

    /// How many times files were looked at; what a report is asked since.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// What became of everything after so many looks.
    pub fn report(&self, after: u64, removed: &[ProfileName]) -> ReloadReport {
        let now = self.now();
        let registry = self.registry.load();
        let mut profiles: BTreeMap<ProfileName, Reloaded> = self.invalid.clone();
        profiles.extend(self.members.iter().map(|(name, member)| {
            let mut reloaded = member.reloaded();
            if reloaded.outcome.in_force() && member.live.in_force.look <= after {
                reloaded.outcome = ReloadOutcome::Unchanged;
            }
            (name.clone(), reloaded)
        }));
        for name in removed {
            let gone = Reloaded {
                outcome: ReloadOutcome::Removed,
                why: String::new(),
                since: now,
                nothing_left: true,
            };
            profiles.entry(name.clone()).or_insert(gone);
        }
        ReloadReport {
            generation: registry.generation,
            refused: registry.refused.clone(),
            profiles: profiles.into_iter().collect(),
            settled: self.members.values().all(Member::is_settled),
        }
    }

    fn now(&self) -> WallTime {
        self.clock.now().wall
    }

    /// Holds on to what is served although the files say something that cannot be used.
    fn keep(&mut self, mut member: Member, why: String) -> Member {
        self.leaving
            .extend(member.staged.take().map(|staged| staged.version.handle));
        member.kept = Some(why);
        member.differs_since.get_or_insert(self.now());
        member
    }

    fn enter(
        &mut self,
        name: ProfileName,
        mut member: Member,
        stated: &[Stated],
    ) -> Arc<RegistryEntry> {
        member.note_access(stated, self.now());
        let entry = Arc::new(self.entry(&member));
        self.members.insert(name, member);
        entry
    }

    /// Swaps the registry, and removes the handles that nobody finds any more then. One that
    /// differs in nothing but what there is to say is not a new configuration.
    async fn put_in_force(
        &mut self,
        admins: Access,
        entries: Vec<Arc<RegistryEntry>>,
        warnings: Vec<String>,
    ) {
        let before = self.registry.load_full();
        for warning in warnings.iter().filter(|one| !before.warnings.contains(one)) {
            warn!("{warning}");
        }
        let profiles = entries.len();
        let mut registry = Registry::new(before.generation, admins, entries);
        registry.warnings = warnings;
        // Whether that still holds is said after this.
        registry.refused = before.refused.clone();
        if before.generation == 0 || !registry.serves_the_same_as(&before) {
            registry.generation += 1;
            info!(
                generation = registry.generation,
                profiles, "configuration in force"
            );
        }
        let registry = Arc::new(registry);
        self.registry.store(registry.clone());
        // Streams that are open are held to rules that have changed, at once.
        for entry in registry.all() {
            let before = before.get(entry.name.as_str());
            if before.is_some_and(|before| !entry.permits_the_same_as(before))
                && let ProfileHealth::Managed(handle) = &entry.health
            {
                handle.wake_watchers();
            }
        }
        for handle in std::mem::take(&mut self.leaving) {
            self.broker.remove(&handle).await;
        }
    }
}

/// Reads the files of every profile. Blocks; touches nothing that is live.
pub fn gather(config: &Config, surroundings: &Surroundings, clock: &Clock) -> GatheredMaterial {
    let now = clock.now().wall;
    let surroundings = &surroundings.for_one_look();
    config
        .profiles
        .iter()
        .map(|(name, profile)| {
            let outcome = match profile {
                Err(invalid) => Err(invalid.clone()),
                Ok(profile) => material::read(profile, surroundings, now)
                    .map(|material| (profile.clone(), material))
                    .map_err(|problems| {
                        let problems: Vec<String> =
                            problems.iter().map(ToString::to_string).collect();
                        invalid_because(profile, problems.join("; "))
                    }),
            };
            (name.clone(), outcome)
        })
        .collect()
}

/// A profile whose definition is sound but that cannot be used.
pub fn invalid_because(profile: &Profile, message: String) -> Invalid {
    Invalid {
        message,
        method: profile.method.as_str().to_owned(),
        access: profile.access.clone(),
    }
}

/// Where this process runs.
pub fn surroundings() -> Surroundings {
    Surroundings::new(std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into))
}

/// Several problems as one line, for logs and answers.
fn one_line(message: &str) -> String {
    message.replace('\n', "; ")
}
