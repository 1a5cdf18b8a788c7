//! `[server]`

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{
    InnerTable, KeySchema, Table, address, choice_or, limits, mode, path, principal, rules, table,
};
use crate::core::profile::{AccessRule, UserOrGroup};

pub static SOCKET: KeySchema<Option<PathBuf>> = path(
    "socket",
    "The Unix socket. `TOKEND_SOCKET` overrides it; a socket handed over by systemd overrides \
     both.",
)
.or_as_told("`/run/tokend/tokend.sock`; not root: `$XDG_RUNTIME_DIR/tokend/tokend.sock`");
pub static SOCKET_GROUP: KeySchema<Option<UserOrGroup>> = principal(
    "socket_group",
    "The socket's group: those who may connect. Never one that can read a secret; a profile whose \
     secret it can read is refused.",
)
.or_as_told("the daemon's own");
pub static SOCKET_MODE: KeySchema<u32> = mode(
    "socket_mode",
    0o660,
    "The socket's mode. Who may connect is not who may get a credential: that is `access`.",
);
pub static ADMINS: KeySchema<Vec<AccessRule>> = rules(
    "admins",
    "Who may see everything and reload, besides root and the daemon's own user. Entries as in \
     `access`.",
)
.or_as_told("nobody else");
pub static UNIT_IDENTITY: KeySchema<&'static str> = choice_or(
    "unit_identity",
    &["pidfd", "pid"],
    "pidfd",
    "How a caller's unit is found. `pidfd`: by the process that the kernel holds for the connection \
     (Linux 6.5); on older kernels rules with `unit` match no one. `pid`: there, by the number of \
     the process too, if its user and start time fit (Linux 5.3); docs/threat-model.md says what \
     that leaves open.",
);
pub static METRICS_LISTEN: KeySchema<Option<SocketAddr>> = address(
    "metrics_listen",
    "Also serves Prometheus metrics over TCP, to anybody who can connect: keep it on loopback.",
)
.or_as_told("not served over TCP");
pub static LIMITS: KeySchema<InnerTable> = table(
    "limits",
    &limits::TABLE,
    "What one caller can take from the others. None can be switched off.",
);

pub static TABLE: Table = Table {
    title: "server",
    doc: "The daemon itself. Only in `tokend.toml`.",
    keys: &[
        &SOCKET.spec,
        &SOCKET_GROUP.spec,
        &SOCKET_MODE.spec,
        &ADMINS.spec,
        &UNIT_IDENTITY.spec,
        &METRICS_LISTEN.spec,
        &LIMITS.spec,
    ],
};
