//! Makes the registry entry of a profile from its member, and logs what is new.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::Assembly;
use super::member::Member;
use crate::core::policy::Access;
use crate::core::policy::stated::Stated;
use crate::core::profile::{AccessRule, Invalid, Method, ProfileName, RequestSettings};
use crate::core::time::{Stamp, WallTime};
use crate::provider::oauth2::proxy;
use crate::registry::reload::{ReloadOutcome, Reloaded};
use crate::registry::{ProfileHealth, RegistryEntry};

/// The beginning of the line about a profile that cannot be used.
const UNUSABLE: &str = "all callers of this profile are refused, since it cannot be used";

impl Assembly {
    /// Logs what is new about a profile.
    pub(super) fn say(&mut self, entry: &RegistryEntry) {
        let mut lines = entry.warnings.clone();
        if let ProfileHealth::Invalid(why) = &entry.health {
            lines.insert(0, format!("{UNUSABLE}: {why}"));
        }
        let before = self.said.remove(&entry.name).unwrap_or_default();
        // A trial is no cause for alarm: an ordinary rotation comes this way.
        let ordinary = (entry.reloaded.outcome == ReloadOutcome::Staged
            && !entry.reloaded.nothing_left)
            .then(|| entry.reloaded.told());
        for line in lines.iter().filter(|line| !before.contains(line)) {
            if ordinary.as_ref() == Some(line) {
                info!(profile = %entry.name, "{line}");
            } else if line.starts_with(UNUSABLE) {
                error!(profile = %entry.name, "{line}");
            } else {
                warn!(profile = %entry.name, "{line}");
            }
        }
        if lines.is_empty() && !before.is_empty() {
            if !is_well(entry, self.clock.now()) {
                // The trouble is not over before there is a credential that can be renewed.
                lines = before;
            } else {
                info!(profile = %entry.name, "nothing is wrong with the profile any more");
            }
        }
        self.said.insert(entry.name.clone(), lines);
    }

    pub(super) fn entry(&self, member: &Member) -> RegistryEntry {
        let profile = &member.live.profile;
        let (access, unknown) = self.access(&profile.access);
        // Until the content of the files is in force, callers get only what both versions permit.
        let also: Vec<Access> = member
            .on_disk
            .beyond(&profile.access)
            .map(|stated| self.stated(stated).0)
            .collect();
        let narrowed = member
            .access_differs_since
            .map(|since| narrowed(&also, since));
        let reloaded = member.reloaded();
        let pending = (!reloaded.outcome.in_force()).then(|| reloaded.told());
        let certificates = member.certificates();
        let now = self.now();
        let mut ending: Vec<String> = certificates
            .iter()
            .filter_map(|(_, certificate)| Some(certificate.warning(now)?.to_string()))
            .collect();
        // The same certificate is usually in both places.
        ending.dedup();
        let proxied = match &profile.method {
            Method::OAuth2(oauth2) => proxy::remark(&oauth2.idp),
            _ => None,
        };
        let warnings = pending
            .into_iter()
            .chain(narrowed)
            .chain(ending)
            .chain(profile.warnings.iter().cloned())
            .chain(
                member
                    .live
                    .warnings
                    .iter()
                    .chain(&proxied)
                    .map(ToString::to_string),
            )
            .chain(unknown)
            .collect();
        RegistryEntry {
            name: profile.name.clone(),
            method: profile.method.as_str().to_owned(),
            target: profile.target.clone(),
            issuer: match &profile.method {
                Method::OAuth2(oauth2) => Some(oauth2.idp.endpoint.as_str().to_owned()),
                Method::Exec(exec) => Some(exec.program().display().to_string()),
                _ => None,
            },
            access,
            also,
            request: profile.request.clone(),
            health: ProfileHealth::Managed(member.live.handle.clone()),
            warnings,
            reloaded,
            certificates,
        }
    }

    pub(super) fn invalid(
        &self,
        name: &ProfileName,
        invalid: &Invalid,
        reloaded: Reloaded,
        stated: &[Stated],
    ) -> Arc<RegistryEntry> {
        // As long as no rule can be read, only root may learn that the profile exists.
        let stated = if stated.is_empty() {
            &[Stated::RootOnly]
        } else {
            stated
        };
        let mut warnings = Vec::new();
        let mut all = stated.iter().map(|stated| {
            let (access, said) = self.stated(stated);
            warnings.extend(said);
            access
        });
        let access = all.next().expect("there is always one");
        let also = all.collect();
        Arc::new(RegistryEntry {
            name: name.clone(),
            method: invalid.method.clone(),
            target: None,
            issuer: None,
            access,
            also,
            request: RequestSettings::default(),
            health: ProfileHealth::Invalid(reloaded.why.clone()),
            warnings,
            reloaded,
            certificates: Vec::new(),
        })
    }

    /// Access as the files state it, with names turned into numbers.
    fn stated(&self, stated: &Stated) -> (Access, Vec<String>) {
        match stated {
            Stated::Rules(rules) => self.access(rules),
            Stated::RootOnly => (Access::root_only(), Vec::new()),
        }
    }

    /// Rules with names turned into numbers, and the warnings about them.
    pub(super) fn access(&self, rules: &[AccessRule]) -> (Access, Vec<String>) {
        let (access, mut said) = Access::resolve(rules, self.daemon_uid, &self.directory);
        if access.asks_for_units()
            && let Some(why) = &self.no_units
        {
            said.push(format!(
                "access names a systemd unit, and callers' units cannot be known here: {why}; such an entry matches no one"
            ));
        }
        (access, said)
    }
}

/// Tells people whom the files permit.
fn narrowed(also: &[Access], since: WallTime) -> String {
    let named: Vec<String> = also.iter().map(Access::named_ones).collect();
    format!(
        "what its files say of access holds since {since} although the rest of what they say is not in force: of those permitted before, only {} are served",
        named.join(" and, of these, ")
    )
}

/// Whether there is a credential, or the first caller's request brings one, and no attempt at the
/// next one has failed.
fn is_well(entry: &RegistryEntry, now: Stamp) -> bool {
    match &entry.health {
        ProfileHealth::Managed(handle) => {
            let view = handle.own().view();
            view.state(now).available() && view.trouble.is_none()
        }
        ProfileHealth::Invalid(_) => false,
    }
}
