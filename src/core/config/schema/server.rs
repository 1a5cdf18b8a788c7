//! `[server]`, `[server.limits]`, `[audit]`.

use super::{Kind, Table, hours, key, ms, seconds};

pub(in crate::core::config) static SERVER: Table = Table {
    title: "server",
    doc: "The daemon itself. Only in `tokend.toml`.",
    keys: &[
        key("socket", Kind::Path, "The Unix socket. `TOKEND_SOCKET` overrides it; a socket handed over by systemd overrides both.")
            .or_as_told("`/run/tokend/tokend.sock`; not root: `$XDG_RUNTIME_DIR/tokend/tokend.sock`"),
        key("socket_group", Kind::Principal, "The socket's group: those who may connect. Never one that can read a secret; a profile whose secret it can read is refused.").or_as_told("the daemon's own"),
        key("socket_mode", Kind::Mode, "The socket's mode. Who may connect is not who may get a credential: that is `access`.").or("\"0660\""),
        key("admins", Kind::Rules, "Who may see everything and reload, besides root and the daemon's own user. Entries as in `access`.").or_as_told("nobody else"),
        key("metrics_listen", Kind::Address, "Also serves Prometheus metrics over TCP, to anybody who can connect: keep it on loopback.").or_as_told("not served over TCP"),
        key("limits", Kind::Table(&LIMITS), "What one caller can take from the others. None can be switched off."),
    ],
};

pub(in crate::core::config) static LIMITS: Table = Table {
    title: "server.limits",
    doc: "All have defaults; none is off.",
    keys: &[
        key(
            "connections",
            Kind::Integer(1, 1_000_000),
            "Connections in all.",
        )
        .or("4096"),
        key(
            "connections_per_user",
            Kind::Integer(1, 1_000_000),
            "Connections of one user.",
        )
        .or("512"),
        key(
            "streams_per_connection",
            Kind::Integer(1, 65_536),
            "Calls in flight on one connection.",
        )
        .or("256"),
        key(
            "streams",
            Kind::Integer(1, 1_000_000),
            "Streams in all that stay open: WatchToken, Health.Watch, reflection. The last eighth of these, and of `connections`, is for root, the daemon's user and whom access rules name by user or group.",
        )
        .or("16384"),
        key(
            "streams_per_user",
            Kind::Integer(1, 1_000_000),
            "The same of one user. A systemd unit may have three quarters of what its user may, here and in all other limits of a user; a subordinate uid (subuid(5)) counts for its owner.",
        )
        .or("8192"),
        key(
            "waiting_per_user",
            Kind::Integer(1, 1_000_000),
            "Calls of one user that wait for a credential which is not there.",
        )
        .or("16384"),
        key(
            "requests_per_second",
            Kind::Integer(1, 1_000_000),
            "Calls per second of one user that are not answered from memory; a second's worth may come at once.",
        )
        .or("20000"),
        key(
            "profiles_per_second",
            Kind::Integer(100, 100_000_000),
            "Profiles per second that lists, readiness, status and metrics of one user look at; a second's worth may come at once, and a longer list is waited for afterwards.",
        )
        .or("50000"),
        key(
            "forced_renewals_per_minute",
            Kind::Integer(1, 100_000),
            "Renewals per minute that calls of one user may force, by a `min_ttl` longer than what is left or by reporting a credential as rejected.",
        )
        .or("120"),
        key(
            "control_frames_per_second",
            Kind::Integer(100, 1_000_000),
            "Frames of one HTTP/2 connection, such as PING, beyond what its calls and the answers to them account for; a second's worth may come at once. Who sends more is cut off.",
        )
        .or("500"),
        key(
            "message_size",
            Kind::Integer(1024, 16_777_216),
            "Largest request message, in bytes.",
        )
        .or("65536"),
        key(
            "half_sent_per_user",
            Kind::Integer(65_536, 1_073_741_824),
            "What calls of one user may hold, in bytes, that wait for the rest of their message: 4096 for each and what has come of it; and answers longer than 64 KiB until they have been read. Further ones are refused.",
        )
        .or("33554432"),
        key(
            "header_size",
            Kind::Integer(4096, 1_048_576),
            "Largest header block of a request, in bytes. gRPC metadata counts.",
        )
        .or("65536"),
        key(
            "handshake_timeout",
            Kind::Duration(ms(100), seconds(300)),
            "Time for a new connection to become a usable one.",
        )
        .or("\"10s\""),
        key(
            "idle_timeout",
            Kind::Duration(seconds(1), hours(168)),
            "A connection without a call for this long is closed.",
        )
        .or("\"10m\""),
    ],
};

pub(in crate::core::config) static AUDIT: Table = Table {
    title: "audit",
    doc: "The record of every grant and denial. Only in `tokend.toml`.",
    keys: &[
        key(
            "sink",
            Kind::Choice(&["journald", "file"]),
            "Where records go: the journal, or a file of JSON lines.",
        )
        .or("\"journald\""),
        key(
            "on_failure",
            Kind::Choice(&["continue", "deny"]),
            "`deny`: no credential is handed out whose record could not be written.",
        )
        .or("\"continue\""),
        key("path", Kind::Path, "The file, for `sink = \"file\"`."),
    ],
};
