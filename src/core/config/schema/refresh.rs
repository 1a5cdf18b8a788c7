//! `refresh` of a profile.

use std::time::Duration;

use super::{KeySchema, Table, duration, flag, hours, ms, number, seconds};
use crate::core::profile::Refresh;

pub static AT: KeySchema<f64> = number(
    "at",
    0.1,
    0.95,
    Refresh::DEFAULT.at,
    "Share of the lifetime after which renewal is due.",
);
pub static JITTER: KeySchema<f64> = number(
    "jitter",
    0.0,
    0.5,
    Refresh::DEFAULT.jitter,
    "Spread around it, as a share of the lifetime.",
);
pub static MARGIN: KeySchema<Duration> = duration(
    "margin",
    ms(0),
    seconds(300),
    Refresh::DEFAULT.margin,
    "Taken off every lifetime, so that no credential expires on its way; at most a tenth of the \
     lifetime.",
);
pub static MIN_INTERVAL: KeySchema<Duration> = duration(
    "min_interval",
    ms(100),
    hours(1),
    Refresh::DEFAULT.min_interval,
    "Least time between two attempts, whatever the identity provider says.",
);
pub static RETRY_AFTER_MAX: KeySchema<Duration> = duration(
    "retry_after_max",
    seconds(1),
    hours(24),
    Refresh::DEFAULT.retry_after_max,
    "Longest `Retry-After` that is obeyed.",
);
pub static DEFAULT_LIFETIME: KeySchema<Duration> = duration(
    "default_lifetime",
    seconds(10),
    hours(24),
    Refresh::DEFAULT.default_lifetime,
    "Lifetime of a token that does not say how long it lives.",
);
pub static EAGER: KeySchema<bool> = flag(
    "eager",
    Refresh::DEFAULT.eager,
    "`true`: fetched at start and kept fresh. `false`: fetched on first use, and no longer renewed \
     when nobody asks.",
);

pub static TABLE: Table = Table {
    title: "refresh",
    doc: "`refresh` of a profile.",
    keys: &[
        &AT.spec,
        &JITTER.spec,
        &MARGIN.spec,
        &MIN_INTERVAL.spec,
        &RETRY_AFTER_MAX.spec,
        &DEFAULT_LIFETIME.spec,
        &EAGER.spec,
    ],
};
