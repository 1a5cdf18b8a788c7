//! `[server]` and `[audit]`.

use super::report::ConfigReport;
use super::schema::{Table, audit, limits, server};
use super::section::Section;
use super::spot::{Owner, Span, Spot};
use crate::core::profile::{AuditSettings, AuditSink, Server, ServerLimits, UnitIdentity};

/// Reads `[server]`, with all defaults if it is not there.
pub(super) fn server(report: &mut ConfigReport, found: Option<&Section>) -> Server {
    let absent = absent(&server::TABLE);
    let section = found.unwrap_or(&absent);
    let metrics_listen = section.get(&server::METRICS_LISTEN);
    if metrics_listen.is_some_and(|address| !address.ip().is_loopback()) {
        report
            .warning(
                &section.spot_of(&server::METRICS_LISTEN),
                "metrics are served to everybody who can reach this address",
            )
            .help("listen on 127.0.0.1, or read them from the Unix socket");
    }
    Server {
        socket: section.get(&server::SOCKET),
        socket_group: section.get(&server::SOCKET_GROUP),
        socket_mode: section.get(&server::SOCKET_MODE),
        unit_identity: match section.get(&server::UNIT_IDENTITY) {
            "pid" => UnitIdentity::Pid,
            _ => UnitIdentity::Pidfd,
        },
        admins: section.get(&server::ADMINS),
        limits: limits(&section.table_or_absent(&server::LIMITS)),
        metrics_listen,
    }
}

fn limits(section: &Section) -> ServerLimits {
    ServerLimits {
        connections: section.get(&limits::CONNECTIONS),
        connections_per_user: section.get(&limits::CONNECTIONS_PER_USER),
        streams_per_connection: section.get(&limits::STREAMS_PER_CONNECTION),
        streams: section.get(&limits::STREAMS),
        streams_per_user: section.get(&limits::STREAMS_PER_USER),
        waiting_per_user: section.get(&limits::WAITING_PER_USER),
        requests_per_second: section.get(&limits::REQUESTS_PER_SECOND),
        profiles_per_second: section.get(&limits::PROFILES_PER_SECOND),
        forced_renewals_per_minute: section.get(&limits::FORCED_RENEWALS_PER_MINUTE),
        control_frames_per_second: section.get(&limits::CONTROL_FRAMES_PER_SECOND),
        message_size: section.get(&limits::MESSAGE_SIZE),
        half_sent_per_user: section.get(&limits::HALF_SENT_PER_USER),
        header_size: section.get(&limits::HEADER_SIZE),
        handshake_timeout: section.get(&limits::HANDSHAKE_TIMEOUT),
        idle_timeout: section.get(&limits::IDLE_TIMEOUT),
    }
}

/// Reads `[audit]`, with all defaults if it is not there.
pub(super) fn audit(report: &mut ConfigReport, found: Option<&Section>) -> AuditSettings {
    let absent = absent(&audit::TABLE);
    let section = found.unwrap_or(&absent);
    let to_file = section.get(&audit::SINK) == "file";
    let sink = match section.get(&audit::PATH) {
        Some(path) if to_file => AuditSink::File(path),
        _ => AuditSink::Journald,
    };
    if to_file && !section.has(&audit::PATH) {
        report
            .error(
                &section.spot_of(&audit::SINK),
                "`sink = \"file\"` needs a `path`",
            )
            .help("for instance path = \"/var/log/tokend/audit.jsonl\"")
            .if_whole();
    }
    // If `sink` is wrong, there is nothing to compare with.
    let broken = section.is_broken(&audit::SINK);
    if !to_file && !broken && section.has(&audit::PATH) {
        report
            .error(
                &section.spot_of(&audit::PATH),
                "`path` belongs to `sink = \"file\"`",
            )
            .if_whole();
    }
    let deny_on_failure = section.get(&audit::ON_FAILURE) == "deny";
    AuditSettings {
        sink,
        deny_on_failure,
    }
}

/// Stands for a missing table. Nothing can be wrong with it, so its place is never shown.
fn absent(schema: &'static Table) -> Section {
    Section::absent(
        schema,
        Spot {
            owner: Owner::Main,
            path: schema.title.to_owned(),
            place: Span::of(0, 0..0),
        },
    )
}
