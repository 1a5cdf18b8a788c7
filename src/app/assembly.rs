//! From a configuration to what is served: reads the material of every profile, keeps what has not changed, and swaps the
//! registry whole. Starting is a reload from nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use crate::broker::{Broker, Seat, Spec, Upstream};
use crate::caller::{Remembered, SystemDirectory};
use crate::clock::Clock;
use crate::core::credential::Variant;
use crate::core::policy::Access;
use crate::core::profile::{AccessRule, Config, Invalid, Method, Profile, ProfileName, Request};
use crate::material::{self, Digest, Material, Surroundings};
use crate::provider;
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
    /// Looked at with every configuration; an outage of it must not lock anybody out.
    directory: Remembered<SystemDirectory>,
    members: BTreeMap<ProfileName, Member>,
    /// What was logged last of each profile, so that it is not said again at every look at the files.
    said: BTreeMap<ProfileName, Vec<String>>,
    said_of_admins: Vec<String>,
    /// Told when a staged version has delivered, so that it is promoted at once.
    stir: Arc<Notify>,
    /// Seats that nobody will find once the registry has been swapped.
    leaving: Vec<Arc<Seat>>,
}

/// A profile that is served.
struct Member {
    live: Version,
    /// What is in the files now, until it has delivered its first credential. None: that is what is live.
    staged: Option<Version>,
}

/// A definition with its material, and the seat that both have been given.
struct Version {
    profile: Arc<Profile>,
    digest: Digest,
    seat: Arc<Seat>,
    /// What its files gave reason to say.
    warnings: Vec<String>,
}

/// A profile with its files read, or why not.
pub type Gathered = BTreeMap<ProfileName, Result<(Arc<Profile>, Material), Invalid>>;

/// What a reload did to one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is served as before, and nobody was asked.
    Unchanged,
    /// New material or another definition is in force.
    Changed,
    /// New material or another definition is being tried; what was there is served until it has delivered.
    Staged,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It cannot be used now and is served as before.
    Kept,
    /// It cannot be used and never could.
    Invalid,
}

impl Assembly {
    /// Nothing yet.
    pub fn new(
        broker: Broker,
        registry: Current,
        clock: Clock,
        shared: provider::Shared,
        surroundings: Surroundings,
        daemon_uid: u32,
        stir: Arc<Notify>,
    ) -> Assembly {
        Assembly {
            broker,
            registry,
            clock,
            shared,
            surroundings,
            daemon_uid,
            directory: Remembered::new(SystemDirectory),
            members: BTreeMap::new(),
            said: BTreeMap::new(),
            said_of_admins: Vec::new(),
            stir,
            leaving: Vec::new(),
        }
    }

    /// Takes a configuration over, profile by profile: what fails, fails alone.
    pub async fn apply(
        &mut self,
        config: &Config,
        gathered: Gathered,
    ) -> BTreeMap<ProfileName, Applied> {
        let mut report = BTreeMap::new();
        let mut entries = Vec::with_capacity(gathered.len());
        let mut before = std::mem::take(&mut self.members);
        for (name, outcome) in gathered {
            let member = before.remove(&name);
            let prepared = outcome
                .and_then(|(profile, material)| self.prepare(profile, material, member.as_ref()));
            let (applied, entry) = match prepared {
                Ok(prepared) => {
                    let (applied, member) = self.admit(prepared, member).await;
                    let entry = self.entry(&member, None);
                    self.members.insert(name.clone(), member);
                    (applied, entry)
                }
                Err(invalid) => match member {
                    Some(mut member) => {
                        self.leaving
                            .extend(member.staged.take().map(|staged| staged.seat));
                        let kept = format!(
                            "its last good state is kept: {}",
                            one_line(&invalid.message)
                        );
                        let entry = self.entry(&member, Some(kept));
                        self.members.insert(name.clone(), member);
                        (Applied::Kept, entry)
                    }
                    None => (Applied::Invalid, self.invalid(&name, invalid)),
                },
            };
            self.say(&entry);
            report.insert(name, applied);
            entries.push(Arc::new(entry));
        }
        let (admins, unknown) =
            Access::resolve(&config.server.admins, self.daemon_uid, &self.directory);
        if unknown != self.said_of_admins {
            for name in &unknown {
                warn!("[server] admins: {name}");
            }
            self.said_of_admins = unknown;
        }
        self.put_in_force(admins, entries, report.len());
        // Only now that nobody finds them any more.
        for (name, member) in before {
            report.insert(name, Applied::Removed);
            self.leaving.push(member.live.seat);
            self.leaving.extend(member.staged.map(|staged| staged.seat));
        }
        for seat in std::mem::take(&mut self.leaving) {
            self.broker.remove(&seat).await;
        }
        report
    }

    /// Swaps the registry. One that differs in nothing but what there is to say is not a new configuration.
    fn put_in_force(&self, admins: Access, entries: Vec<Arc<Entry>>, profiles: usize) {
        let before = self.registry.load_full();
        let mut registry = Registry::new(before.generation, admins, entries);
        if before.generation == 0 || !registry.serves_the_same_as(&before) {
            registry.generation += 1;
            info!(
                generation = registry.generation,
                profiles, "configuration in force"
            );
        }
        self.registry.store(Arc::new(registry));
    }

    fn prepare(
        &self,
        profile: Arc<Profile>,
        material: Material,
        member: Option<&Member>,
    ) -> Result<Prepared, Invalid> {
        let digest = material.digest;
        let warnings = material.warnings.clone();
        let is = |version: &Version| {
            version.digest == digest && version.profile.same_credential(&profile)
        };
        let known = match member {
            Some(member) if is(&member.live) => Known::Live,
            Some(Member {
                staged: Some(staged),
                ..
            }) if is(staged) => Known::Staged,
            _ => Known::Not(Box::new(self.spec(&profile, material)?)),
        };
        Ok(Prepared {
            profile,
            digest,
            warnings,
            known,
        })
    }

    /// Takes a sound profile in. What is served changes only when its successor has delivered, or when nothing is left of
    /// it that could be served.
    async fn admit(&mut self, prepared: Prepared, member: Option<Member>) -> (Applied, Member) {
        let Prepared {
            profile,
            digest,
            warnings,
            known,
        } = prepared;
        let same_identity = member
            .as_ref()
            .is_some_and(|member| member.live.profile.same_identity(&profile));
        let version = |seat| Version {
            profile,
            digest,
            seat,
            warnings,
        };
        let (mut member, staged) = match (member, known) {
            (None, known) => {
                let Known::Not(spec) = known else {
                    unreachable!("nothing is known of a profile that is not served")
                };
                let live = version(self.broker.seat(*spec).await);
                return (Applied::Added, Member { live, staged: None });
            }
            (Some(mut member), Known::Live) => {
                self.leaving
                    .extend(member.staged.take().map(|staged| staged.seat));
                member.live = version(member.live.seat);
                return (Applied::Unchanged, member);
            }
            (Some(mut member), Known::Staged) => {
                let staged = member.staged.take().expect("it was compared with");
                (member, version(staged.seat))
            }
            (Some(mut member), Known::Not(mut spec)) => {
                let staged = member.staged.take().map(|staged| staged.seat);
                // Not where somebody else is asked, or for somebody else.
                if same_identity {
                    spec.told_to_wait = staged
                        .as_ref()
                        .and_then(|staged| staged.told_to_wait())
                        .or_else(|| member.live.seat.told_to_wait());
                }
                self.leaving.extend(staged);
                if spec.upstream.is_none() && same_identity {
                    // Nobody can be asked, and there is nothing to wait for.
                    self.broker.replace(&member.live.seat, *spec).await;
                    member.live = version(member.live.seat);
                    return (Applied::Changed, member);
                }
                let seat = self.stage(*spec).await;
                (member, version(seat))
            }
        };
        if self.delivers(&staged.seat) || !self.delivers(&member.live.seat) {
            info!(profile = %staged.profile.name, "new material or definition in force");
            let generation = member.live.seat.generation();
            self.broker.succeed(&staged.seat, generation).await;
            self.leaving
                .push(std::mem::replace(&mut member.live, staged).seat);
            return (Applied::Changed, member);
        }
        member.staged = Some(staged);
        (Applied::Staged, member)
    }

    /// Gives a version a seat beside the live one and has it tried.
    async fn stage(&self, spec: Spec) -> Arc<Seat> {
        info!(profile = %spec.name, "new material or definition is being tried");
        let seat = self.broker.seat(spec).await;
        let (broker, stir, clock, tried) = (
            self.broker.clone(),
            self.stir.clone(),
            self.clock.clone(),
            seat.clone(),
        );
        tokio::spawn(async move {
            let mut views = tried.own().watch();
            // A lazy profile is tried too. What comes of it is seen in the views.
            let _ = broker.ask(&tried, Variant::default(), Duration::ZERO).await;
            let _ = views
                .wait_for(|view| {
                    view.closed || view.servable(clock.now(), Duration::ZERO).is_some()
                })
                .await;
            stir.notify_one();
        });
        seat
    }

    fn delivers(&self, seat: &Seat) -> bool {
        seat.own()
            .view()
            .servable(self.clock.now(), Duration::ZERO)
            .is_some()
    }

    fn spec(&self, profile: &Profile, material: Material) -> Result<Spec, Invalid> {
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
        })
    }

    /// Logs what is new of a profile.
    fn say(&mut self, entry: &Entry) {
        let mut lines = entry.warnings.clone();
        if let Standing::Invalid(why) = &entry.standing {
            lines.insert(0, format!("the profile cannot be used: {why}"));
        }
        let before = self.said.remove(&entry.name).unwrap_or_default();
        for line in lines.iter().filter(|line| !before.contains(line)) {
            warn!(profile = %entry.name, "{line}");
        }
        if lines.is_empty() && !before.is_empty() {
            info!(profile = %entry.name, "nothing is wrong with the profile any more");
        }
        self.said.insert(entry.name.clone(), lines);
    }

    fn entry(&self, member: &Member, kept: Option<String>) -> Entry {
        let profile = &member.live.profile;
        let (access, unknown) = self.access(&profile.access);
        let staged = member.staged.as_ref();
        // Until the new definition is in force, nobody gets more than both permit.
        let also = staged.map(|staged| self.access(&staged.profile.access).0);
        let trying = staged.map(|staged| {
            let view = staged.seat.own().view();
            let why = view
                .trouble
                .as_ref()
                .map_or("its first credential has not come yet", |trouble| {
                    trouble.failure.message.as_str()
                });
            format!("what is in its files now is not in force yet: {why}")
        });
        let warnings = kept
            .into_iter()
            .chain(trying)
            .chain(profile.warnings.iter().cloned())
            .chain(member.live.warnings.iter().cloned())
            .chain(unknown)
            .collect();
        Entry {
            name: profile.name.clone(),
            method: profile.method.as_str().to_owned(),
            target: profile.target.clone(),
            issuer: match &profile.method {
                Method::OAuth2(oauth2) => Some(oauth2.idp.endpoint.as_str().to_owned()),
                _ => None,
            },
            access,
            also,
            request: profile.request.clone(),
            standing: Standing::Seated(member.live.seat.clone()),
            warnings,
        }
    }

    fn invalid(&self, name: &ProfileName, invalid: Invalid) -> Entry {
        let (access, warnings) = self.access(&invalid.access);
        Entry {
            name: name.clone(),
            method: invalid.method,
            target: None,
            issuer: None,
            access,
            also: None,
            request: Request::default(),
            standing: Standing::Invalid(one_line(&invalid.message)),
            warnings,
        }
    }

    fn access(&self, rules: &[AccessRule]) -> (Access, Vec<String>) {
        Access::resolve(rules, self.daemon_uid, &self.directory)
    }
}

/// One attempt, with everything in it, is given up after this.
pub fn deadline(method: &Method) -> Duration {
    match method {
        Method::OAuth2(oauth2) => oauth2.idp.http.timeout * 2 + ATTEMPT_SLACK,
        Method::Exec { timeout, .. } => *timeout + ATTEMPT_SLACK,
        _ => LOCAL_ATTEMPT,
    }
}

/// A profile that passed everything that can be known without asking anybody.
struct Prepared {
    profile: Arc<Profile>,
    digest: Digest,
    warnings: Vec<String>,
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
    Surroundings {
        credentials_directory: std::env::var_os("CREDENTIALS_DIRECTORY").map(Into::into),
    }
}

/// Several problems as one line, for logs and answers.
fn one_line(message: &str) -> String {
    message.replace('\n', "; ")
}
