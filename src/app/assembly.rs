//! Turns a configuration into what is served: reads the material of every profile, keeps what has
//! not changed, and swaps the registry whole. A start is a reload from nothing.

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

/// What the daemon serves, and where each profile stands between its files and that.
pub struct Assembly {
    pub broker: Broker,
    pub registry: Current,
    pub clock: Clock,
    pub shared: provider::Shared,
    pub surroundings: Surroundings,
    pub daemon_uid: u32,
    /// The reason why rules that name a unit match nobody on this host, if there is one.
    pub no_units: Option<String>,
    /// What an earlier run has left. It is forgotten once the first configuration has been taken
    /// over.
    pub left: PreviousRun,
    /// Every configuration looks users and groups up here. The cache keeps an outage of the user
    /// database from locking anybody out.
    directory: CachedDirectory<SystemDirectory>,
    members: BTreeMap<ProfileName, Member>,
    /// Profiles that could never be used, and since when.
    invalid: BTreeMap<ProfileName, Reloaded>,
    /// Counts the looks at the files, so that a report covers exactly the changes since one of
    /// them.
    looks: u64,
    /// The last log lines of each profile. The same lines are not logged again at every look at the
    /// files.
    said: BTreeMap<ProfileName, Vec<String>>,
    /// Carries the names of profiles whose trials have made progress, for [`Assembly::promote`].
    trials: mpsc::Sender<ProfileName>,
    /// Handles that are removed once the registry has been swapped and no request can find them.
    leaving: Vec<Arc<ProfileHandle>>,
}

/// Each profile with the material from its files, or the reason why it cannot be used.
pub type GatheredMaterial = BTreeMap<ProfileName, Result<(Arc<Profile>, Material), Invalid>>;

impl Assembly {
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

    /// Takes a configuration over, profile by profile; each profile fails alone. `access` is what
    /// the files say about access, which holds in any case. `warnings` are the daemon's own.
    /// Returns the profiles that are gone.
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
            // A file or folder that cannot be read may still define this profile. The profile does
            // not count as gone.
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

    /// Records that the configuration on disk cannot be used at all.
    pub fn refuse(&mut self, why: Vec<String>) {
        let before = self.registry.load_full();
        if before.refused != why {
            self.registry.store(Arc::new(before.refusing(why)));
        }
    }

    /// The number of looks at the files so far. [`Assembly::report`] takes it as its starting
    /// point.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// What became of every change after look number `after`.
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

    /// Keeps serving what is live although the files now say something that cannot be used.
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

    /// Swaps the registry, then removes the handles that no request can find any more. A registry
    /// that differs only in its messages is not a new generation.
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
        // The caller says afterwards whether this refusal still holds.
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
        // Changed rules apply to open streams at once.
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

/// Reads the files of every profile. This blocks, and it touches nothing live.
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

/// The entry of a profile whose definition is sound but which cannot be used.
pub fn invalid_because(profile: &Profile, message: String) -> Invalid {
    Invalid {
        message,
        method: profile.method.as_str().to_owned(),
        access: profile.access.clone(),
    }
}

/// The surroundings of this process.
pub fn surroundings() -> Surroundings {
    Surroundings::new(std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into))
}

/// Joins several problems into one line, for logs and answers.
fn one_line(message: &str) -> String {
    message.replace('\n', "; ")
}
