//! `GET /metrics`: the state of the daemon in the Prometheus text format, version 0.0.4.
//!
//! The page is made when it is asked for, from what is published anyway. So nothing has to be kept
//! in step: a profile that is gone is gone here too. Names of profiles are labels. Secrets, tokens,
//! fingerprints and messages never appear.

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::answered::Answered;
use super::service::ApiService;
use crate::broker::ProfileHandle;
use crate::core::account::{Resource, Spent};
use crate::core::time::Stamp;
use crate::registry::{ProfileHealth, RegistryEntry};

/// At most this many accounts have lines of their own. Accounts that have reached no limit for a
/// long time are forgotten, so the number stays small.
const ACCOUNTS: usize = 64;

pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Renders all metrics as text.
pub fn render(service: &ApiService, entries: &[Arc<RegistryEntry>]) -> String {
    let now = service.clock.now();
    let registry = service.registry.load();
    let mut page = Page::default();

    page.family("tokend_info", Gauge, "The version that is running.")
        .line(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family(
        "process_start_time_seconds",
        Gauge,
        "When it started, in seconds since 1970.",
    )
    .line(&[], service.started.wall.0.as_secs_f64());
    page.family(
        "tokend_config_generation",
        Gauge,
        "Grows with each configuration that was taken over.",
    )
    .line(&[], registry.generation);
    page.family(
        "tokend_config_refused",
        Gauge,
        "1 while tokend.toml as it is on disk cannot be used.",
    )
    .line(&[], u8::from(!registry.refused.is_empty()));
    answered(&mut page, &service.answered);
    taken(&mut page, service);
    profiles(&mut page, service, entries, now);
    attempts(&mut page, entries);
    reloads(&mut page, entries);
    certificates(&mut page, entries);
    page.text
}

fn answered(page: &mut Page, answered: &Answered) {
    let mut requests = page.family(
        "tokend_token_requests_total",
        Counter,
        "Requests for a credential, by what they got: memory, waited (for an attempt), or the reason of the refusal.",
    );
    let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
    requests.line(&[("result", "memory")], count(&answered.memory));
    requests.line(&[("result", "waited")], count(&answered.waited));
    let refused = answered
        .refused
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    for (reason, count) in refused.iter() {
        requests.line(&[("result", &reason.to_ascii_lowercase())], count);
    }
}

fn taken(page: &mut Page, service: &ApiService) {
    let (connections, streams, counts) = service.accounts.book(|book| {
        let of_users = |what| book.refused_held(what);
        let counts = [
            ("connections", book.refused_in_all(Resource::Connections)),
            ("connections_per_user", of_users(Resource::Connections)),
            ("streams", book.refused_in_all(Resource::Streams)),
            ("streams_per_user", of_users(Resource::Streams)),
            ("waiting_per_user", of_users(Resource::Waiting)),
            ("half_sent_per_user", of_users(Resource::Bytes)),
            ("requests_per_second", book.refused_spent(Spent::Requests)),
            ("profiles_per_second", book.refused_spent(Spent::Profiles)),
            (
                "forced_renewals_per_minute",
                book.refused_spent(Spent::Renewals),
            ),
        ];
        (
            book.in_all(Resource::Connections),
            book.in_all(Resource::Streams),
            counts,
        )
    });
    page.family("tokend_connections", Gauge, "Connections that are open.")
        .line(&[], connections);
    page.family("tokend_streams", Gauge, "Streams that are open.")
        .line(&[], streams);
    let mut refused = page.family(
        "tokend_limit_refused_total",
        Counter,
        "How often a limit of [server.limits] was reached.",
    );
    for (limit, count) in counts {
        refused.line(&[("limit", limit)], count);
    }
    let mut by = page.family(
        "tokend_account_refused_total",
        Counter,
        "How often the account of a user or a unit has reached a limit: of those accounts that have done so most often.",
    );
    for usage in service.accounts.refused(ACCOUNTS) {
        let (uid, unit) = (
            usage.uid.to_string(),
            usage.unit.as_deref().unwrap_or_default(),
        );
        let counts = usage.refused_held.iter().chain(&usage.refused_spent);
        by.line(&[("uid", &uid), ("unit", unit)], counts.sum::<u64>());
    }
    let counts = service.audit.counts();
    let mut records = page.family(
        "tokend_audit_records_total",
        Counter,
        "Audit records that were written, and grants and denials that are without one.",
    );
    for (result, count) in [("written", &counts.written), ("lost", &counts.lost)] {
        records.line(&[("result", result)], count.load(Ordering::Relaxed));
    }
    let mut limited = page.family(
        "tokend_audit_limited_total",
        Counter,
        "Grants and denials that were counted together since their caller had as many records of its own as it may.",
    );
    let (grants, denials) = service.audit.limited();
    for (event, limited_so_far) in [("grant", grants), ("deny", denials)] {
        limited.line(&[("event", event)], limited_so_far.count);
    }
    page.family(
        "tokend_audit_failing",
        Gauge,
        "1 while audit records cannot be written.",
    )
    .line(&[], u8::from(service.audit.trouble().is_some()));
}

fn profiles(page: &mut Page, service: &ApiService, entries: &[Arc<RegistryEntry>], now: Stamp) {
    let mut available = page.family(
        "tokend_profile_available",
        Gauge,
        "1 while callers get a credential at once or, of a sleeping profile, on first use.",
    );
    for entry in entries {
        let labels = [
            ("profile", entry.name.as_str()),
            ("method", entry.method.as_str()),
        ];
        available.line(&labels, u8::from(service.available(entry, now)));
    }
    let mut states = page.family(
        "tokend_profile_state",
        Gauge,
        "1 for the state that the profile is in.",
    );
    for entry in entries {
        let state = match &entry.health {
            ProfileHealth::Managed(handle) => handle.own().view().state(now).as_str(),
            ProfileHealth::Invalid(_) => "invalid",
        };
        states.line(&[("profile", entry.name.as_str()), ("state", state)], 1);
    }
    let mut left = page.family(
        "tokend_credential_expires_in_seconds",
        Gauge,
        "Time that the credential in memory has left; absent without one, and for one that does not expire.",
    );
    for (name, handle) in handles(entries) {
        let view = handle.own().view();
        if let Some(answer) = view.servable(now, Duration::ZERO)
            && let Some(ttl) = answer.credential.ttl(now)
        {
            left.line(&[("profile", name)], ttl.as_secs_f64());
        }
    }
}

/// Names and handles of the profiles that can be used.
fn handles(entries: &[Arc<RegistryEntry>]) -> impl Iterator<Item = (&str, &ProfileHandle)> {
    entries
        .iter()
        .filter_map(|entry| Some((entry.name.as_str(), handle(entry)?)))
}

fn attempts(page: &mut Page, entries: &[Arc<RegistryEntry>]) {
    let mut failures = page.family(
        "tokend_upstream_failures",
        Gauge,
        "Failed attempts since the last that succeeded.",
    );
    for (name, handle) in handles(entries) {
        let trouble = handle
            .own()
            .view()
            .trouble
            .as_ref()
            .map_or(0, |trouble| trouble.failures);
        failures.line(&[("profile", name)], trouble);
    }
    let mut skew = page.family(
        "tokend_issuer_clock_skew_seconds",
        Gauge,
        "How far the identity provider's clock is ahead of this machine's, by the answer with the credential.",
    );
    for (name, handle) in handles(entries) {
        let view = handle.own().view();
        let credential = view.answer.as_ref().map(|answer| &answer.credential);
        if let Some(ahead) = credential.and_then(|credential| credential.clock_skew) {
            skew.line(&[("profile", name)], ahead);
        }
    }
    let mut attempts = page.family(
        "tokend_upstream_attempts_total",
        Counter,
        "Attempts to get a credential, by result; begins anew when a new version of the profile comes into force.",
    );
    for (name, handle) in handles(entries) {
        let ended = handle.attempts();
        for (result, count) in [
            ("succeeded", &ended.succeeded),
            ("unavailable", &ended.unavailable),
            ("rejected", &ended.rejected),
        ] {
            let labels = [("profile", name), ("result", result)];
            attempts.line(&labels, count.load(Ordering::Relaxed));
        }
    }
    let mut took = page.family(
        "tokend_upstream_attempt_seconds_total",
        Counter,
        "What these attempts took together.",
    );
    for (name, handle) in handles(entries) {
        let took_so_far = Duration::from_millis(handle.attempts().took.load(Ordering::Relaxed));
        took.line(&[("profile", name)], took_so_far.as_secs_f64());
    }
}

fn reloads(page: &mut Page, entries: &[Arc<RegistryEntry>]) {
    let mut in_force = page.family(
        "tokend_reload_in_force",
        Gauge,
        "1 while the profile is served as its files say; 0 while its last good state is kept, or it has none.",
    );
    for entry in entries {
        let labels = [
            ("profile", entry.name.as_str()),
            ("outcome", entry.reloaded.outcome.as_str()),
        ];
        in_force.line(&labels, u8::from(entry.reloaded.outcome.in_force()));
    }
    let mut since = page.family(
        "tokend_reload_since_timestamp_seconds",
        Gauge,
        "Since when that is so, in seconds since 1970.",
    );
    for entry in entries {
        since.line(
            &[("profile", entry.name.as_str())],
            entry.reloaded.since.0.as_secs(),
        );
    }
}

fn certificates(page: &mut Page, entries: &[Arc<RegistryEntry>]) {
    let mut end = page.family(
        "tokend_certificate_expiry_timestamp_seconds",
        Gauge,
        "End of the own certificates' and federated assertions' validity, in seconds since 1970; in use, and on disk as far as that can be used.",
    );
    for entry in entries {
        for (place, certificate) in &entry.certificates {
            let labels = [
                ("profile", entry.name.as_str()),
                ("role", certificate.role),
                ("place", place.as_str()),
            ];
            end.line(&labels, certificate.not_after.0.as_secs());
        }
    }
}

fn handle(entry: &RegistryEntry) -> Option<&ProfileHandle> {
    match &entry.health {
        ProfileHealth::Managed(handle) => Some(handle),
        ProfileHealth::Invalid(_) => None,
    }
}

/// Metric types, in the format's own words.
#[derive(Clone, Copy)]
enum MetricKind {
    Gauge,
    Counter,
}
use MetricKind::{Counter, Gauge};

/// The text of the page while it grows.
#[derive(Default)]
struct Page {
    text: String,
}

/// One metric, whose lines stand together.
struct Family<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl Page {
    fn family(&mut self, name: &'static str, kind: MetricKind, help: &str) -> Family<'_> {
        let kind = match kind {
            Gauge => "gauge",
            Counter => "counter",
        };
        // Writing to a String does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            name,
            text: &mut self.text,
        }
    }
}

impl Family<'_> {
    fn line(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(self.name);
        for (n, (label, text)) in labels.iter().enumerate() {
            let before = if n == 0 { '{' } else { ',' };
            let text = text
                .replace('\\', "\\\\")
                .replace('"', "\\\"")
                .replace('\n', "\\n");
            let _ = write!(self.text, "{before}{label}=\"{text}\"");
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_is_escaped() {
        let mut page = Page::default();
        page.family("m", Gauge, "Help.")
            .line(&[("a", "x\"y\\z\n"), ("b", "")], 1.5);
        assert_eq!(
            page.text,
            "# HELP m Help.\n# TYPE m gauge\nm{a=\"x\\\"y\\\\z\\n\",b=\"\"} 1.5\n"
        );
    }
}
