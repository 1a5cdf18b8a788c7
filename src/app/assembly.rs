//! From a configuration to what is served: reads the material of every profile, keeps what has not changed, and swaps the
//! registry whole. Starting is a reload from nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::broker::{Broker, Seat, Spec, Upstream};
use crate::caller::{Remembered, SystemDirectory};
use crate::clock::Clock;
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
}

/// A profile that is served.
struct Member {
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
    /// It has new material or another definition.
    Changed,
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
                    let (applied, member) = self.seat(prepared, member).await;
                    let entry = self.entry(&member, None);
                    self.members.insert(name.clone(), member);
                    (applied, entry)
                }
                Err(invalid) => match member {
                    Some(member) => {
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
        let in_force = self.registry.load_full();
        // A reload that changes nothing is not a new configuration.
        if in_force.generation == 0
            || *in_force != Registry::new(in_force.generation, admins.clone(), entries.clone())
        {
            let generation = in_force.generation + 1;
            self.registry
                .store(Arc::new(Registry::new(generation, admins, entries)));
            info!(
                generation,
                profiles = report.len(),
                "configuration in force"
            );
        }
        // Only now that nobody finds them any more.
        for (name, member) in before {
            self.broker.remove(&member.seat).await;
            report.insert(name, Applied::Removed);
        }
        report
    }

    fn prepare(
        &self,
        profile: Arc<Profile>,
        material: Material,
        member: Option<&Member>,
    ) -> Result<Prepared, Invalid> {
        let digest = material.digest;
        let warnings = material.warnings.clone();
        let unchanged = member.is_some_and(|member| {
            member.digest == digest && member.profile.same_credential(&profile)
        });
        let spec = if unchanged {
            None
        } else {
            Some(self.spec(&profile, material)?)
        };
        Ok(Prepared {
            profile,
            digest,
            warnings,
            spec,
        })
    }

    async fn seat(&self, prepared: Prepared, member: Option<Member>) -> (Applied, Member) {
        let Prepared {
            profile,
            digest,
            warnings,
            spec,
        } = prepared;
        let (applied, seat) = match (member, spec) {
            (Some(member), None) => (Applied::Unchanged, member.seat),
            (Some(member), Some(spec)) => {
                info!(profile = %profile.name, "new material or definition");
                self.broker.replace(&member.seat, spec).await;
                (Applied::Changed, member.seat)
            }
            (None, spec) => {
                let spec = spec.expect("a profile that is not served yet was built");
                (Applied::Added, self.broker.seat(spec).await)
            }
        };
        let member = Member {
            profile,
            digest,
            seat,
            warnings,
        };
        (applied, member)
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
        let profile = &member.profile;
        let (access, unknown) = self.access(&profile.access);
        let warnings = kept
            .into_iter()
            .chain(profile.warnings.iter().cloned())
            .chain(member.warnings.iter().cloned())
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
            request: profile.request.clone(),
            standing: Standing::Seated(member.seat.clone()),
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
    /// None: it is served as it is.
    spec: Option<Spec>,
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
