//! `http` of an `[idp.NAME]` or a profile.

use std::time::Duration;

use url::Url;

use super::{KeySchema, Table, duration, ms, seconds, url};
use crate::core::config::values::UrlRule;

pub static CONNECT_TIMEOUT: KeySchema<Duration> = duration(
    "connect_timeout",
    ms(10),
    seconds(300),
    seconds(5),
    "Time for TCP and TLS together.",
);
pub static TIMEOUT: KeySchema<Duration> = duration(
    "timeout",
    ms(10),
    seconds(600),
    seconds(10),
    "One request, from its start to the last byte of the answer.",
);
pub static PROXY: KeySchema<Option<Url>> = url(
    "proxy",
    UrlRule::Proxy,
    "An HTTP proxy. Of the environment only `HTTPS_PROXY` and `NO_PROXY` are obeyed (in small \
     letters too): `ALL_PROXY` and `HTTP_PROXY` are not.",
)
.or_as_told("what `HTTPS_PROXY` and `NO_PROXY` say, never for loopback");

pub static TABLE: Table = Table {
    title: "http",
    doc: "`http` of an `[idp.NAME]` or a profile.",
    keys: &[&CONNECT_TIMEOUT.spec, &TIMEOUT.spec, &PROXY.spec],
};
