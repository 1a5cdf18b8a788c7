//! `[server]` and `[audit]`.

use super::report::{Owner, Place, Report, Spot};
use super::schema::{AUDIT, LIMITS, SERVER, Table};
use super::section::Section;
use crate::core::profile::{Audit, AuditSink, Limits, Server};

/// `[server]`, all defaults where it is not there.
pub(super) fn server(report: &mut Report, found: Option<&Section>) -> Server {
    let absent = absent(&SERVER);
    let section = found.unwrap_or(&absent);
    let metrics_listen = section.address("metrics_listen");
    if metrics_listen.is_some_and(|address| !address.ip().is_loopback()) {
        report
            .warning(
                &section.spot_of("metrics_listen"),
                "metrics are served to everybody who can reach this address",
            )
            .help("listen on 127.0.0.1, or read them from the Unix socket");
    }
    Server {
        socket: section.path("socket"),
        socket_group: section.principal("socket_group"),
        socket_mode: section.small("socket_mode"),
        admins: section.rules("admins"),
        limits: limits(section.table("limits")),
        metrics_listen,
    }
}

fn limits(found: Option<&Section>) -> Limits {
    let absent = absent(&LIMITS);
    let section = found.unwrap_or(&absent);
    Limits {
        connections: section.small("connections"),
        connections_per_user: section.small("connections_per_user"),
        streams_per_connection: section.small("streams_per_connection"),
        streams: section.small("streams"),
        streams_per_user: section.small("streams_per_user"),
        waiting_per_user: section.small("waiting_per_user"),
        requests_per_second: section.small("requests_per_second"),
        profiles_per_second: section.small("profiles_per_second"),
        forced_renewals_per_minute: section.small("forced_renewals_per_minute"),
        control_frames_per_second: section.small("control_frames_per_second"),
        message_size: section.small("message_size"),
        half_sent_per_user: section.small("half_sent_per_user"),
        header_size: section.small("header_size"),
        handshake_timeout: section.duration("handshake_timeout"),
        idle_timeout: section.duration("idle_timeout"),
    }
}

/// `[audit]`, all defaults where it is not there.
pub(super) fn audit(report: &mut Report, found: Option<&Section>) -> Audit {
    let absent = absent(&AUDIT);
    let section = found.unwrap_or(&absent);
    let to_file = section.text("sink").as_deref() == Some("file");
    let sink = match section.path("path") {
        Some(path) if to_file => AuditSink::File(path),
        _ => AuditSink::Journald,
    };
    if to_file && !section.has("path") {
        report
            .error(&section.spot_of("sink"), "`sink = \"file\"` needs a `path`")
            .help("for instance path = \"/var/log/tokend/audit.jsonl\"")
            .if_whole();
    }
    // Where `sink` is wrong there is nothing to compare with.
    let broken = section.has("sink") && section.given_text("sink").is_none();
    if !to_file && !broken && section.has("path") {
        report
            .error(
                &section.spot_of("path"),
                "`path` belongs to `sink = \"file\"`",
            )
            .if_whole();
    }
    let deny_on_failure = section.text("on_failure").as_deref() == Some("deny");
    Audit {
        sink,
        deny_on_failure,
    }
}

/// Stands for a table that nobody wrote. Nothing can be wrong with it, so its place is never told.
fn absent(schema: &'static Table) -> Section {
    Section::absent(
        schema,
        Spot {
            owner: Owner::Main,
            path: schema.title.to_owned(),
            place: Place::of(0, 0..0),
        },
    )
}
