//! From a configuration to what is served: reads the material of every profile, keeps what has not changed, and swaps the
//! registry whole. Starting is a reload from nothing.

mod entry;
mod member;
mod trial;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use self::member::{InForce, Member, Staged, Version};
use self::trial::Trial;
use super::keeper::Left;
use crate::broker::{Broker, Seat, Spec, Upstream};
use crate::caller::{Remembered, SystemDirectory};
use crate::clock::Clock;
use crate::core::certificate::Certificate;
use crate::core::config::AccessOnDisk;
use crate::core::lifecycle::State;
use crate::core::policy::Access;
use crate::core::policy::stated::Stated;
use crate::core::profile::{Config, Invalid, Method, Profile, ProfileName};
use crate::core::time::WallTime;
use crate::material::{self, Digest, Material, Surroundings};
use crate::provider;
use crate::registry::reload::{Outcome, Reloaded, Report};
use crate::registry::{Current, Entry, Registry, Standing};

/// An attempt may need two requests, discovery and token; its deadline covers both with a little to spare.
const ATTEMPT_SLACK: Duration = Duration::from_secs(1);

/// Methods that only look at what was read.
const LOCAL_ATTEMPT: Duration = Duration::from_secs(10);

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
    pub left: Left,
    /// Looked at with every configuration; an outage of it must not lock anybody out.
    directory: Remembered<SystemDirectory>,
    members: BTreeMap<ProfileName, Member>,
    /// Profiles that never could be used, and since when.
    invalid: BTreeMap<ProfileName, Reloaded>,
    /// Counts the times that files were looked at, so that a report knows what was changed by them.
    looks: u64,
    /// What was logged last of each profile, so that it is not said again at every look at the files.
    said: BTreeMap<ProfileName, Vec<String>>,
    /// Told when a staged version has delivered, so that it is promoted at once.
    stir: Arc<Notify>,
    /// Seats that nobody will find once the registry has been swapped.
    leaving: Vec<Arc<Seat>>,
}

/// A profile with its files read, or why not.
pub type Gathered = BTreeMap<ProfileName, Result<(Arc<Profile>, Material), Invalid>>;

/// What came of a look at the files.
#[derive(Debug, Default)]
pub struct Looked {
    /// Everything is served as the files say.
    pub complete: bool,
    /// Profiles that are gone.
    pub removed: Vec<ProfileName>,
}

impl Assembly {
    /// Nothing yet.
    pub fn new(
        broker: Broker,
        registry: Current,
        clock: Clock,
        shared: provider::Shared,
        daemon_uid: u32,
        left: Left,
        stir: Arc<Notify>,
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
            directory: Remembered::new(SystemDirectory),
            members: BTreeMap::new(),
            invalid: BTreeMap::new(),
            looks: 0,
            said: BTreeMap::new(),
            stir,
            leaving: Vec::new(),
        }
    }

    /// Takes a configuration over, profile by profile: what fails, fails alone. `access` is what the files say of that, which
    /// holds in any case; `warnings` are the daemon's own.
    pub async fn apply(
        &mut self,
        config: &Config,
        access: &AccessOnDisk,
        gathered: Gathered,
        mut warnings: Vec<String>,
    ) -> Looked {
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
                (Ok(prepared), member) => {
                    let mut member = self.admit(prepared, member).await;
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
                        outcome: Outcome::Invalid,
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
            // Nobody knows what is in a file, or in a folder of them, that cannot be read: what was defined there is not gone.
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
                    self.leaving.push(member.live.seat);
                    self.leaving
                        .extend(member.staged.map(|staged| staged.version.seat));
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
        let complete = entries
            .iter()
            .all(|entry| entry.reloaded.outcome.in_force());
        self.put_in_force(admins, entries, warnings);
        // Only now that nobody finds them any more.
        for seat in std::mem::take(&mut self.leaving) {
            self.broker.remove(&seat).await;
        }
        Looked { complete, removed }
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
    pub fn report(&self, after: u64, removed: &[ProfileName]) -> Report {
        let now = self.now();
        let registry = self.registry.load();
        let mut profiles: BTreeMap<ProfileName, Reloaded> = self.invalid.clone();
        profiles.extend(self.members.iter().map(|(name, member)| {
            let mut reloaded = member.reloaded();
            if reloaded.outcome.in_force() && member.live.in_force.look <= after {
                reloaded.outcome = Outcome::Unchanged;
            }
            (name.clone(), reloaded)
        }));
        for name in removed {
            let gone = Reloaded {
                outcome: Outcome::Removed,
                why: String::new(),
                since: now,
                nothing_left: true,
            };
            profiles.entry(name.clone()).or_insert(gone);
        }
        Report {
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
            .extend(member.staged.take().map(|staged| staged.version.seat));
        member.kept = Some(why);
        member.differs_since.get_or_insert(self.now());
        member
    }

    fn enter(&mut self, name: ProfileName, mut member: Member, stated: &[Stated]) -> Arc<Entry> {
        member.note_access(stated, self.now());
        let entry = Arc::new(self.entry(&member));
        self.members.insert(name, member);
        entry
    }

    /// Swaps the registry. One that differs in nothing but what there is to say is not a new configuration.
    fn put_in_force(&mut self, admins: Access, entries: Vec<Arc<Entry>>, warnings: Vec<String>) {
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
                && let Standing::Seated(seat) = &entry.standing
            {
                seat.stir();
            }
        }
    }

    fn prepare(
        &self,
        profile: Arc<Profile>,
        material: Material,
        member: Option<&Member>,
    ) -> Result<Prepared, Invalid> {
        let digest = material.digest;
        let warnings = material.warnings.clone();
        let certificates = material.certificates();
        let is = |version: &Version| {
            version.digest == digest && version.profile.same_credential(&profile)
        };
        let staged = member.and_then(|member| member.staged.as_ref());
        let known = match member {
            Some(member) if is(&member.live) => Known::Live,
            _ if staged.is_some_and(|staged| is(&staged.version)) => Known::Staged,
            _ => Known::Not(Box::new(self.spec(&profile, material)?)),
        };
        Ok(Prepared {
            profile,
            digest,
            warnings,
            certificates,
            known,
        })
    }

    /// Takes a sound profile in. What is served changes only when its successor has delivered, or when nothing is left of
    /// it that could be served.
    async fn admit(&mut self, prepared: Prepared, member: Option<Member>) -> Member {
        let Prepared {
            profile,
            digest,
            warnings,
            certificates,
            known,
        } = prepared;
        let left = match &member {
            None => self.left.take(&profile.name),
            Some(_) => Vec::new(),
        };
        let same_identity = member
            .as_ref()
            .is_some_and(|member| member.live.profile.same_identity(&profile));
        let in_force = |outcome| InForce {
            outcome,
            since: self.now(),
            look: self.looks,
        };
        let version = |seat, in_force| Version {
            profile,
            digest,
            seat,
            warnings,
            certificates,
            in_force,
        };
        let Some(mut member) = member else {
            let Known::Not(mut spec) = known else {
                unreachable!("nothing is known of a profile that is not served")
            };
            if let Some((identity, material)) = spec.keep {
                spec.left = left
                    .into_iter()
                    .filter(|kept| kept.identity == identity)
                    .map(|kept| (kept.variant, kept.credential, kept.material != material))
                    .collect();
            }
            let seat = self.broker.seat(*spec).await;
            return Member::new(version(seat, in_force(Outcome::Added)));
        };
        member.kept = None;
        let changed = in_force(Outcome::Changed);
        let staged = match known {
            Known::Live => {
                self.leaving
                    .extend(member.staged.take().map(|staged| staged.version.seat));
                let (before, seat) = (member.live.profile, member.live.seat);
                let since = member.live.in_force;
                member.live = version(seat, since);
                if !member.live.profile.same_definition(&before) {
                    member.live.in_force = changed;
                }
                member.differs_since = None;
                return member;
            }
            Known::Staged => {
                let staged = member.staged.take().expect("it was compared with");
                Staged {
                    version: version(staged.version.seat, changed),
                    trial: staged.trial,
                }
            }
            Known::Not(mut spec) => {
                let staged = member.staged.take().map(|staged| staged.version.seat);
                // Not where somebody else is asked, or for somebody else.
                if same_identity {
                    spec.told_to_wait = staged
                        .as_ref()
                        .and_then(|staged| staged.told_to_wait())
                        .or_else(|| member.live.seat.told_to_wait());
                }
                spec.replaces = true;
                self.leaving.extend(staged);
                info!(profile = %spec.name, "new material or definition is being tried");
                let seat = self.broker.seat(*spec).await;
                let trial = Trial::start(self, seat.clone(), member.live.seat.clone());
                Staged {
                    version: version(seat, changed),
                    trial,
                }
            }
        };
        if self.is_better(&staged, &member.live.seat) {
            let name = &staged.version.profile.name;
            let generation = member.live.seat.generation();
            self.broker.succeed(&staged.version.seat, generation).await;
            if self.delivers(&staged.version.seat) {
                info!(profile = %name, "new material or definition in force");
                member.differs_since = None;
            } else {
                info!(profile = %name, "nothing is left of what was in force: new material or definition takes its place untried");
                // Where there never was a credential, nothing has been lost, and nothing good is kept that a reload could tell of.
                if generation > 0 || member.unproven.is_some() {
                    member.differs_since.get_or_insert(changed.since);
                    member.unproven = Some(staged.trial);
                } else {
                    member.differs_since = None;
                }
                self.broker.again(&staged.version.seat).await;
            }
            self.leaving
                .push(std::mem::replace(&mut member.live, staged.version).seat);
        } else {
            member.staged = Some(staged);
            member.differs_since.get_or_insert(changed.since);
        }
        member
    }

    /// Whether what is new has proven itself, or nothing is left to lose.
    fn is_better(&self, staged: &Staged, live: &Seat) -> bool {
        let now = self.clock.now();
        let view = live.own().view();
        let something_to_lose =
            view.servable(now, Duration::ZERO).is_some() || view.state(now) == State::Asleep;
        (staged.trial.is_over() && self.delivers(&staged.version.seat)) || !something_to_lose
    }

    fn delivers(&self, seat: &Seat) -> bool {
        seat.own()
            .view()
            .servable(self.clock.now(), Duration::ZERO)
            .is_some()
    }

    fn spec(&self, profile: &Profile, material: Material) -> Result<Spec, Invalid> {
        let digest = material.digest;
        let provider = provider::build(profile, material, &self.shared)
            .map_err(|failure| invalid_because(profile, failure.message))?;
        let upstream = match &profile.method {
            Method::OAuth2(oauth2) => Some(Upstream {
                name: oauth2.idp.endpoint.as_str().to_owned(),
                max_in_flight: oauth2.idp.max_in_flight,
                max_per_second: oauth2.idp.max_per_second,
                deadline: deadline(&profile.method),
            }),
            _ => None,
        };
        Ok(Spec {
            name: profile.name.clone(),
            target: profile.target.clone(),
            rules: profile.refresh.clone(),
            provider,
            upstream,
            told_to_wait: None,
            replaces: false,
            keep: profile
                .identity()
                .map(|identity| (identity, digest.bytes())),
            left: Vec::new(),
        })
    }
}

/// One attempt, with everything in it, is given up after this.
pub fn deadline(method: &Method) -> Duration {
    match method {
        Method::OAuth2(oauth2) => oauth2.idp.http.timeout * 2 + ATTEMPT_SLACK,
        _ => LOCAL_ATTEMPT,
    }
}

/// A profile that passed everything that can be known without asking anybody.
struct Prepared {
    profile: Arc<Profile>,
    digest: Digest,
    warnings: Vec<String>,
    certificates: Vec<Certificate>,
    known: Known,
}

/// Whether a definition with its material has a seat already.
enum Known {
    /// It is what is served.
    Live,
    /// It is being tried.
    Staged,
    /// It has none.
    Not(Box<Spec>),
}

/// Reads the files of every profile. Blocks; touches nothing that is live.
pub fn gather(config: &Config, surroundings: &Surroundings, clock: &Clock) -> Gathered {
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
                    .map_err(|problems| invalid_because(profile, problems.join("; "))),
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
