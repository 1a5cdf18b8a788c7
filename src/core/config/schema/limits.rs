//! `[server.limits]`

use std::time::Duration;

use super::{KeySchema, Table, duration, hours, integer, minutes, ms, seconds};

pub static CONNECTIONS: KeySchema<u32> =
    integer("connections", 1, 1_000_000, 4096, "Connections in all.");
pub static CONNECTIONS_PER_USER: KeySchema<u32> = integer(
    "connections_per_user",
    1,
    1_000_000,
    512,
    "Connections of one user.",
);
pub static STREAMS_PER_CONNECTION: KeySchema<u32> = integer(
    "streams_per_connection",
    1,
    65_536,
    256,
    "Calls in flight on one connection.",
);
pub static STREAMS: KeySchema<u32> = integer(
    "streams",
    1,
    1_000_000,
    16_384,
    "Streams in all that stay open: WatchToken, Health.Watch, reflection. The last eighth of \
     these, and of `connections`, is for root, the daemon's user and whom access rules name by \
     user or group.",
);
pub static STREAMS_PER_USER: KeySchema<u32> = integer(
    "streams_per_user",
    1,
    1_000_000,
    8192,
    "The same of one user. A systemd unit may have three quarters of what its user may, here and \
     in all other limits of a user; a subordinate uid (subuid(5)) counts for its owner.",
);
pub static WAITING_PER_USER: KeySchema<u32> = integer(
    "waiting_per_user",
    1,
    1_000_000,
    16_384,
    "Calls of one user that wait for a credential which is not there.",
);
pub static REQUESTS_PER_SECOND: KeySchema<u32> = integer(
    "requests_per_second",
    1,
    1_000_000,
    20_000,
    "Calls per second of one user that are not answered from memory; a second's worth may come at \
     once.",
);
pub static PROFILES_PER_SECOND: KeySchema<u32> = integer(
    "profiles_per_second",
    100,
    100_000_000,
    50_000,
    "Profiles per second that lists, readiness, status and metrics of one user look at; a second's \
     worth may come at once, and a longer list is waited for afterwards.",
);
pub static FORCED_RENEWALS_PER_MINUTE: KeySchema<u32> = integer(
    "forced_renewals_per_minute",
    1,
    100_000,
    120,
    "Renewals per minute that calls of one user may force, by a `min_ttl` longer than what is left \
     or by reporting a credential as rejected.",
);
pub static CONTROL_FRAMES_PER_SECOND: KeySchema<u32> = integer(
    "control_frames_per_second",
    100,
    1_000_000,
    500,
    "Frames of one HTTP/2 connection, such as PING, beyond what its calls and the answers to them \
     account for; a second's worth may come at once. Who sends more is cut off.",
);
pub static MESSAGE_SIZE: KeySchema<u32> = integer(
    "message_size",
    1024,
    16_777_216,
    65_536,
    "Largest request message, in bytes.",
);
pub static HALF_SENT_PER_USER: KeySchema<u32> = integer(
    "half_sent_per_user",
    65_536,
    1_073_741_824,
    33_554_432,
    "What calls of one user may hold, in bytes, that wait for the rest of their message: 4096 for \
     each and what has come of it; and answers longer than 64 KiB until they have been read. \
     Further ones are refused.",
);
pub static HEADER_SIZE: KeySchema<u32> = integer(
    "header_size",
    4096,
    1_048_576,
    65_536,
    "Largest header block of a request, in bytes. gRPC metadata counts.",
);
pub static HANDSHAKE_TIMEOUT: KeySchema<Duration> = duration(
    "handshake_timeout",
    ms(100),
    seconds(300),
    seconds(10),
    "Time for a new connection to become a usable one.",
);
pub static IDLE_TIMEOUT: KeySchema<Duration> = duration(
    "idle_timeout",
    seconds(1),
    hours(168),
    minutes(10),
    "A connection without a call for this long is closed.",
);

pub static TABLE: Table = Table {
    title: "server.limits",
    doc: "All have defaults; none is off.",
    keys: &[
        &CONNECTIONS.spec,
        &CONNECTIONS_PER_USER.spec,
        &STREAMS_PER_CONNECTION.spec,
        &STREAMS.spec,
        &STREAMS_PER_USER.spec,
        &WAITING_PER_USER.spec,
        &REQUESTS_PER_SECOND.spec,
        &PROFILES_PER_SECOND.spec,
        &FORCED_RENEWALS_PER_MINUTE.spec,
        &CONTROL_FRAMES_PER_SECOND.spec,
        &MESSAGE_SIZE.spec,
        &HALF_SENT_PER_USER.spec,
        &HEADER_SIZE.spec,
        &HANDSHAKE_TIMEOUT.spec,
        &IDLE_TIMEOUT.spec,
    ],
};
