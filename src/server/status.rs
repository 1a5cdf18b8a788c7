//! The status of the daemon and its profiles, for people and for monitoring.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::service::ApiService;
use super::wire;
use crate::audit::Audit;
use crate::core::account::{Resource, Spent, Usage};
use crate::core::credential;
use crate::core::failure::FailureKind;
use crate::core::profile::ProfileName;
use crate::core::time::Stamp;
use crate::proto::{
    self, AuditStatus, GetStatusResponse, LimitStatus, ListProfilesResponse, ProfileCertificate,
    ProfileError, ProfileReload, ProfileStatus, ProfileSummary, ReloadResponse,
};
use crate::registry::reload::{ReloadReport, Reloaded};
use crate::registry::{ProfileHealth, Registry, RegistryEntry};

/// At most this many accounts that have reached a limit are named.
const ACCOUNTS: usize = 16;

/// Fields about the daemon that only administrators see.
const FOR_ADMINS: [&str; 4] = ["audit", "limits", "refused", "warnings"];

/// The text for callers who may not know what is wrong with the daemon.
pub const UNRECORDED: &str = "callers are refused: no audit record can be written, and audit.on_failure = \"deny\" lets no credential go without; `tokend doctor` shows an administrator why";

/// Lists these profiles, in short.
pub fn listed(service: &ApiService, entries: &[Arc<RegistryEntry>]) -> ListProfilesResponse {
    let now = service.clock.now();
    let profiles = entries.iter().map(|entry| ProfileSummary {
        name: entry.name.to_string(),
        method: entry.method.clone(),
        available: service.available(entry, now),
        target: entry.target.clone().unwrap_or_default(),
    });
    ListProfilesResponse {
        profiles: profiles.collect(),
    }
}

/// The state of these profiles, and of the daemon as far as every caller may know it.
fn of_profiles(service: &ApiService, entries: &[Arc<RegistryEntry>]) -> GetStatusResponse {
    let now = service.clock.now();
    GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: Some(wire::timestamp(service.started.wall)),
        config_generation: service.registry.load().generation,
        profiles: entries
            .iter()
            .map(|entry| profile(&service.audit, entry, now))
            .collect(),
        ..GetStatusResponse::default()
    }
}

/// The state of these profiles and of the daemon, for administrators.
pub fn of(service: &ApiService, entries: &[Arc<RegistryEntry>]) -> GetStatusResponse {
    let registry = service.registry.load();
    GetStatusResponse {
        refused: registry.refused.clone(),
        warnings: registry
            .warnings
            .iter()
            .cloned()
            .chain(service.audit.trouble())
            .collect(),
        limits: limits(service),
        audit: Some(audit(service)),
        ..of_profiles(service, entries)
    }
}

/// The same as JSON. Fields about the daemon as a whole are for administrators; others do not even
/// see their names.
pub fn json(service: &ApiService, entries: &[Arc<RegistryEntry>], admin: bool) -> Value {
    if admin {
        return proto::json::value(&of(service, entries));
    }
    let mut body = proto::json::value(&of_profiles(service, entries));
    if let Some(keys) = body.as_object_mut() {
        keys.retain(|key, _| !FOR_ADMINS.contains(&key.as_str()));
    }
    body
}

/// The daemon's state in one line, for `systemctl status`.
pub fn in_one_line(registry: &Registry, audit: &Audit, now: Stamp) -> String {
    /// At most this many names are listed.
    const NAMES: usize = 3;
    let entries = registry.all();
    let missing: Vec<&str> = entries
        .iter()
        .filter(|entry| !entry.available(now))
        .map(|entry| entry.name.as_str())
        .collect();
    let all = entries.len();
    let mut line = match missing.as_slice() {
        [] => format!("serving, {all} profile{}", if all == 1 { "" } else { "s" }),
        missing => format!("serving {} of {all} profiles; not: ", all - missing.len()),
    };
    line.push_str(&missing[..missing.len().min(NAMES)].join(", "));
    if missing.len() > NAMES {
        line.push_str(" …");
    }
    if !registry.refused.is_empty() {
        line.push_str("; tokend.toml cannot be used, what was in force is kept");
    }
    if audit.refuses() {
        line.insert_str(
            0,
            "refusing everybody, since no audit record can be written; else ",
        );
    }
    line
}

/// The limits for callers, in the order of the reference.
fn limits(service: &ApiService) -> Vec<LimitStatus> {
    let limits = &service.limits;
    let reached = service.accounts.refused(ACCOUNTS);
    service.accounts.book(|book| {
        let line = |name: &str, limit: String| LimitStatus {
            name: name.to_owned(),
            limit,
            ..LimitStatus::default()
        };
        let plain = |name: &str, limit: u32| line(name, limit.to_string());
        let in_all = |name: &str, limit: u32, what| LimitStatus {
            used: Some(book.in_all(what)),
            refused: Some(book.refused_in_all(what)),
            ..plain(name, limit)
        };
        let per_user = |name: &str, limit: u32, what| LimitStatus {
            used: Some(book.of_one_user(what)),
            refused: Some(book.refused_held(what)),
            reached_by: who(&reached, |usage| usage.refused_held(what)),
            ..plain(name, limit)
        };
        let rate = |name: &str, limit: u32, what| LimitStatus {
            refused: Some(book.refused_spent(what)),
            reached_by: who(&reached, |usage| usage.refused_spent(what)),
            ..plain(name, limit)
        };
        let time = |name, limit| line(name, humantime::format_duration(limit).to_string());
        vec![
            in_all("connections", limits.connections, Resource::Connections),
            per_user(
                "connections_per_user",
                limits.connections_per_user,
                Resource::Connections,
            ),
            plain("streams_per_connection", limits.streams_per_connection),
            in_all("streams", limits.streams, Resource::Streams),
            per_user(
                "streams_per_user",
                limits.streams_per_user,
                Resource::Streams,
            ),
            per_user(
                "waiting_per_user",
                limits.waiting_per_user,
                Resource::Waiting,
            ),
            rate(
                "requests_per_second",
                limits.requests_per_second,
                Spent::Requests,
            ),
            rate(
                "profiles_per_second",
                limits.profiles_per_second,
                Spent::Profiles,
            ),
            rate(
                "forced_renewals_per_minute",
                limits.forced_renewals_per_minute,
                Spent::Renewals,
            ),
            plain(
                "control_frames_per_second",
                limits.control_frames_per_second,
            ),
            plain("message_size", limits.message_size),
            per_user(
                "half_sent_per_user",
                limits.half_sent_per_user,
                Resource::Bytes,
            ),
            plain("header_size", limits.header_size),
            time("handshake_timeout", limits.handshake_timeout),
            time("idle_timeout", limits.idle_timeout),
        ]
    })
}

/// Principals that have reached a limit, those with the most refusals first.
fn who(reached: &[Usage], refused: impl Fn(&Usage) -> u64) -> Vec<String> {
    let names = reached.iter().filter_map(|usage| {
        let count = refused(usage);
        let times = if count == 1 {
            "once".to_owned()
        } else {
            format!("{count} times")
        };
        let unit = usage
            .unit
            .as_ref()
            .map_or_else(String::new, |unit| format!(", unit {unit}"));
        (count > 0).then(|| format!("uid {}{unit}: {times}", usage.uid))
    });
    names.collect()
}

fn audit(service: &ApiService) -> AuditStatus {
    let counts = service.audit.counts();
    AuditStatus {
        written: counts.written.load(Ordering::Relaxed),
        lost: counts.lost.load(Ordering::Relaxed),
        trouble: service.audit.trouble().unwrap_or_default(),
        counted_together: counted_together(service),
        refuses: service.audit.refuses(),
    }
}

fn counted_together(service: &ApiService) -> Vec<String> {
    let (grants, denials) = service.audit.limited();
    let lines = [("grants", grants), ("denials", denials)].into_iter();
    lines
        .filter_map(|(what, limited)| {
            let last = limited.last?;
            Some(format!("{} {what}, the last of uid {last}", limited.count))
        })
        .collect()
}

/// The state of one profile.
pub fn profile(audit: &Audit, entry: &RegistryEntry, now: Stamp) -> ProfileStatus {
    let mut status = ProfileStatus {
        name: entry.name.to_string(),
        method: entry.method.clone(),
        available: !audit.refuses() && entry.available(now),
        target: entry.target.clone().unwrap_or_default(),
        issuer: entry.issuer.clone().unwrap_or_default(),
        warnings: entry.warnings.clone(),
        reload: Some(reloaded(&entry.name, &entry.reloaded)),
        certificates: entry
            .certificates
            .iter()
            .map(|(place, certificate)| ProfileCertificate {
                role: certificate.role.to_owned(),
                place: place.as_str().to_owned(),
                subject: certificate.subject.clone(),
                thumbprint: certificate.thumbprint.clone(),
                not_before: Some(wire::timestamp(certificate.not_before)),
                not_after: Some(wire::timestamp(certificate.not_after)),
            })
            .collect(),
        ..ProfileStatus::default()
    };
    if audit.refuses() {
        status.warnings.insert(0, UNRECORDED.to_owned());
    }
    let handle = match &entry.health {
        ProfileHealth::Invalid(why) => {
            status.state = "invalid".to_owned();
            status.last_error = Some(ProfileError {
                reason: "PROFILE_INVALID".to_owned(),
                message: why.clone(),
                ..ProfileError::default()
            });
            return status;
        }
        ProfileHealth::Managed(handle) => handle,
    };
    let remarks = handle.provider().map(|provider| provider.remarks());
    let remarks = remarks.unwrap_or_default();
    status
        .warnings
        .extend(remarks.iter().map(ToString::to_string));
    let view = handle.own().view();
    status.state = view.state(now).as_str().to_owned();
    status.next_attempt_in = view
        .next_attempt
        .map(|at| wire::duration(at.since(now.boot)));
    if let Some(answer) = &view.answer {
        let credential = &answer.credential;
        if credential.lives(now, Duration::ZERO) {
            status.expires_in = credential.ttl(now).map(wire::duration);
            status.fingerprint = credential.fingerprint.to_string();
        }
        status.generation = credential.generation;
        status.clock_skew = credential
            .clock_skew
            .map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let skewed = credential.clock_skew.and_then(credential::skewed);
        status.warnings.extend(skewed);
    }
    status.last_error = view.trouble.as_ref().map(|trouble| ProfileError {
        reason: match trouble.failure.kind {
            FailureKind::Transient => "UPSTREAM_UNAVAILABLE",
            FailureKind::Permanent => "UPSTREAM_REJECTED",
        }
        .to_owned(),
        message: trouble.failure.message.clone(),
        oauth_error: trouble.failure.oauth_error.clone().unwrap_or_default(),
        since: Some(wire::timestamp(trouble.since.wall)),
        failures: trouble.failures,
    });
    status
}

fn reloaded(name: &ProfileName, reloaded: &Reloaded) -> ProfileReload {
    ProfileReload {
        profile: name.to_string(),
        outcome: reloaded.outcome.as_str().to_owned(),
        message: reloaded.why.clone(),
        since: Some(wire::timestamp(reloaded.since)),
    }
}

/// The result of a reload.
pub fn reload(report: &ReloadReport) -> ReloadResponse {
    ReloadResponse {
        complete: report.complete(),
        config_generation: report.generation,
        refused: report.refused.clone(),
        profiles: report
            .profiles
            .iter()
            .map(|(name, outcome)| reloaded(name, outcome))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
