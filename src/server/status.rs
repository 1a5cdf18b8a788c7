//! Status of the daemon and its profiles, for people and for monitoring.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::desk::Desk;
use super::wire;
use crate::core::failure::FailureKind;
use crate::core::profile::ProfileName;
use crate::core::time::Stamp;
use crate::proto::{
    GetStatusResponse, ProfileCertificate, ProfileError, ProfileReload, ProfileStatus,
    ReloadResponse,
};
use crate::registry::reload::{Reloaded, Report};
use crate::registry::{Entry, Registry, Standing};

/// Whether a credential is there now or will be fetched on first use.
pub fn available(entry: &Entry, now: Stamp) -> bool {
    match &entry.standing {
        Standing::Seated(seat) => seat.own().view().state(now).available(),
        Standing::Invalid(_) => false,
    }
}

/// The state of these profiles.
pub fn of(desk: &Desk, registry: &Registry, entries: &[&Arc<Entry>]) -> GetStatusResponse {
    let now = desk.clock.now();
    GetStatusResponse {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at: Some(wire::timestamp(desk.started.wall)),
        config_generation: registry.generation,
        profiles: entries.iter().map(|entry| profile(entry, now)).collect(),
        refused: registry.refused.clone(),
        warnings: registry.warnings.clone(),
    }
}

fn profile(entry: &Entry, now: Stamp) -> ProfileStatus {
    let mut status = ProfileStatus {
        name: entry.name.to_string(),
        method: entry.method.clone(),
        available: available(entry, now),
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
    let seat = match &entry.standing {
        Standing::Invalid(why) => {
            status.state = "invalid".to_owned();
            status.last_error = Some(ProfileError {
                reason: "PROFILE_INVALID".to_owned(),
                message: why.clone(),
                ..ProfileError::default()
            });
            return status;
        }
        Standing::Seated(seat) => seat,
    };
    let view = seat.own().view();
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

/// What became of a reload.
pub fn reload(report: &Report) -> ReloadResponse {
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

/// The same as JSON.
pub fn reload_json(report: &Report) -> Value {
    json!({
        "complete": report.complete(),
        "config_generation": report.generation,
        "refused": report.refused,
        "profiles": report
            .profiles
            .iter()
            .map(|(name, outcome)| {
                let mut line = reloaded_json(outcome);
                line["profile"] = json!(name.as_str());
                line
            })
            .collect::<Vec<_>>(),
    })
}

fn certificates_json(entry: &Entry) -> Value {
    let lines = entry.certificates.iter().map(|(place, certificate)| {
        json!({
            "role": certificate.role,
            "place": place.as_str(),
            "subject": certificate.subject,
            "thumbprint": certificate.thumbprint,
            "not_before": wire::rfc3339(certificate.not_before),
            "not_after": wire::rfc3339(certificate.not_after),
        })
    });
    Value::Array(lines.collect())
}

fn reloaded_json(reloaded: &Reloaded) -> Value {
    json!({
        "outcome": reloaded.outcome.as_str(),
        "message": reloaded.why,
        "since": wire::rfc3339(reloaded.since),
    })
}

/// The same as JSON. What concerns the daemon as a whole is for administrators.
pub fn json(desk: &Desk, registry: &Registry, entries: &[&Arc<Entry>], admin: bool) -> Value {
    let status = of(desk, registry, entries);
    let profiles = status.profiles.iter().zip(entries);
    let mut body = json!({
        "version": status.version,
        "pid": status.pid,
        "started_at": wire::rfc3339(desk.started.wall),
        "config_generation": status.config_generation,
        "profiles": profiles
            .map(|(status, entry)| {
                let mut line = profile_json(status);
                line["reload"] = reloaded_json(&entry.reloaded);
                line["certificates"] = certificates_json(entry);
                line
            })
            .collect::<Vec<_>>(),
    });
    if admin {
        body["refused"] = json!(status.refused);
        body["warnings"] = json!(status.warnings);
    }
    body
}

fn profile_json(profile: &ProfileStatus) -> Value {
    let mut body = json!({
        "name": profile.name,
        "method": profile.method,
        "state": profile.state,
        "available": profile.available,
        "target": profile.target,
        "issuer": profile.issuer,
        "generation": profile.generation,
        "fingerprint": profile.fingerprint,
        "warnings": profile.warnings,
    });
    let seconds = |time: &prost_types::Duration| {
        json!(time.seconds as f64 + f64::from(time.nanos / 1_000_000) / 1000.0)
    };
    if let Some(time) = &profile.expires_in {
        body["expires_in"] = seconds(time);
    }
    if let Some(time) = &profile.next_attempt_in {
        body["next_attempt_in"] = seconds(time);
    }
    if let Some(time) = &profile.clock_skew {
        body["clock_skew"] = json!(time.seconds);
    }
    if let Some(error) = &profile.last_error {
        body["last_error"] = json!({
            "reason": error.reason,
            "message": error.message,
            "oauth_error": error.oauth_error,
            "since": error.since.as_ref().map(|at| wire::rfc3339(crate::core::time::WallTime(
                Duration::new(at.seconds.cast_unsigned(), at.nanos.cast_unsigned()),
            ))),
            "failures": error.failures,
        });
    }
    body
}
