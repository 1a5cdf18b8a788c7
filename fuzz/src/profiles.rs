//! The profiles of the daemon: one for each way in which a request can end.

use std::future::{pending, ready};
use std::sync::Arc;
use std::time::Duration;

use tokend::broker::{Broker, IssuerBudget, Spec};
use tokend::caller::SystemDirectory;
use tokend::clock::Clock;
use tokend::core::config::{self, SourceFile, Sources};
use tokend::core::credential::{Issued, Lifetime, Scheme, Variant};
use tokend::core::failure::Failure;
use tokend::core::policy::Access;
use tokend::core::profile::{
    AccessRule, Profile, ProfileName, Refresh, RequestSettings, ServerLimits, UserOrGroup,
};
use tokend::core::secret::Secret;
use tokend::core::time::WallTime;
use tokend::material::{self, Surroundings};
use tokend::provider::{self, Attempt, Provider};
use tokend::registry::reload::{ReloadOutcome, Reloaded};
use tokend::registry::{ProfileHealth, Registry, RegistryEntry};

use crate::secrets::{FORBIDDEN, SERVED};

/// The user of the caller. A caller that is an administrator is root, who may use the same
/// profiles.
pub const CALLER: u32 = 1000;

/// A user who never asks.
const SOMEBODY_ELSE: u32 = 1;

/// The user of the daemon; no caller has it.
const DAEMON: u32 = 999;

/// A caller that asks for `slow` waits no longer than this.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// Attempts that the daemon may have under way at the same time.
pub const IN_FLIGHT: u32 = 4;

/// The limits that hold where nothing is configured, but with as many requests as a test needs.
pub fn limits() -> ServerLimits {
    let mut limits = load("[server]\n").server.limits;
    limits.requests_per_second = 1_000_000;
    limits.profiles_per_second = 100_000_000;
    limits.forced_renewals_per_minute = 100_000;
    limits
}

/// A registry with all profiles.
pub async fn registry(broker: &Broker, clock: &Clock) -> Registry {
    let shared = provider::Shared::new(clock.clone());
    let config = load(&format!(
        "[profiles.open]\nmethod = \"none\"\n\
         [profiles.fixed]\nmethod = \"static\"\ntoken = \"{SERVED}\"\ntarget = \"https://api.example\"\n\
         [profiles.other]\nmethod = \"static\"\ntoken = \"{FORBIDDEN}\"\n"
    ));
    let mut entries = Vec::new();
    for profile in config.profiles.values() {
        let profile = profile.as_ref().expect("the profiles are sound");
        let provider = built(profile, &shared);
        let who = if profile.name.as_str() == "other" {
            SOMEBODY_ELSE
        } else {
            CALLER
        };
        let name = profile.name.as_str();
        let mut entry = entry(name, who, seated(broker, name, provider, None).await);
        entry.method = profile.method.as_str().to_owned();
        entry.target.clone_from(&profile.target);
        entries.push(entry);
    }
    let scripted: [(&str, Arc<dyn Provider>); 4] = [
        ("fetched", Arc::new(Fetched(clock.clone()))),
        (
            "failing",
            Arc::new(Failing(
                Failure::transient("HTTP 503").with_retry_after(Some(Duration::from_secs(7))),
            )),
        ),
        (
            "rejected",
            Arc::new(Failing(
                Failure::permanent("check client_id")
                    .with_oauth_error(Some("invalid_client".into())),
            )),
        ),
        ("slow", Arc::new(Slow)),
    ];
    for (name, provider) in scripted {
        let upstream = IssuerBudget {
            name: name.to_owned(),
            max_in_flight: IN_FLIGHT / 4,
            max_per_second: 1_000,
        };
        let standing = seated(broker, name, provider, Some(upstream)).await;
        let mut entry = entry(name, CALLER, standing);
        entry.request = RequestSettings {
            scopes: vec!["read".into(), "write".into()],
            audiences: vec!["api".into()],
        };
        entries.push(entry);
    }
    entries.push(entry(
        "invalid",
        CALLER,
        ProfileHealth::Invalid("client_secret: no such file".into()),
    ));
    let entries = entries.into_iter().map(Arc::new).collect();
    Registry::new(1, access(&[]), entries)
}

fn load(text: &str) -> tokend::core::profile::Config {
    let main = SourceFile {
        path: "/etc/tokend/tokend.toml".into(),
        text: text.to_owned(),
        private: true,
        readers: String::new(),
    };
    config::load(&Sources {
        main,
        fragments: Vec::new(),
    })
    .config
    .expect("the configuration is sound")
}

fn built(profile: &Profile, shared: &provider::Shared) -> Arc<dyn Provider> {
    let material = material::read(profile, &Surroundings::default(), WallTime(Duration::ZERO))
        .expect("nothing has to be read");
    provider::build(profile, material, shared).expect("the token can stand in a header")
}

async fn seated(
    broker: &Broker,
    name: &str,
    provider: Arc<dyn Provider>,
    upstream: Option<IssuerBudget>,
) -> ProfileHealth {
    let spec = Spec {
        name: parsed(name),
        target: None,
        rules: Refresh {
            // Only callers cause attempts.
            eager: upstream.is_none(),
            ..Refresh::default()
        },
        provider,
        upstream,
        told_to_wait: None,
        replaces: false,
        keep: None,
        left: Vec::new(),
    };
    ProfileHealth::Managed(broker.add_profile(spec).await)
}

fn entry(name: &str, who: u32, health: ProfileHealth) -> RegistryEntry {
    let rule = |id| AccessRule {
        user: Some(UserOrGroup::Id(id)),
        group: None,
        unit: None,
    };
    let root = (who == CALLER).then(|| rule(0));
    let rules: Vec<AccessRule> = root.into_iter().chain([rule(who)]).collect();
    RegistryEntry {
        name: parsed(name),
        method: "oauth2".into(),
        target: None,
        issuer: None,
        access: access(&rules),
        also: Vec::new(),
        request: RequestSettings::default(),
        health,
        warnings: Vec::new(),
        reloaded: Reloaded {
            outcome: ReloadOutcome::Added,
            why: String::new(),
            since: WallTime(Duration::ZERO),
            nothing_left: false,
        },
        certificates: Vec::new(),
    }
}

fn parsed(name: &str) -> ProfileName {
    ProfileName::parse(name).expect("letters only")
}

fn access(rules: &[AccessRule]) -> Access {
    Access::resolve(rules, DAEMON, &SystemDirectory).0
}

/// An identity provider that delivers.
struct Fetched(Clock);

impl Provider for Fetched {
    fn fetch<'a>(&'a self, variant: &'a Variant) -> Attempt<'a> {
        Box::pin(ready(Ok(Issued {
            token: Secret::new(SERVED.into()),
            scheme: Scheme::Bearer,
            asked_at: self.0.now(),
            lifetime: Lifetime::For(Duration::from_secs(300)),
            scopes: variant.scopes.clone(),
            confirmation: None,
            clock_skew: None,
        })))
    }
}

/// An identity provider that refuses.
struct Failing(Failure);

impl Provider for Failing {
    fn fetch<'a>(&'a self, _: &'a Variant) -> Attempt<'a> {
        Box::pin(ready(Err(self.0.clone())))
    }
}

/// An identity provider that does not answer.
struct Slow;

impl Provider for Slow {
    fn fetch<'a>(&'a self, _: &'a Variant) -> Attempt<'a> {
        Box::pin(pending())
    }

    fn deadline(&self) -> Duration {
        DEADLINE
    }
}
