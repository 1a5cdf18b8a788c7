//! What `user`, `group` and `unit` of an access rule are.

use super::{KeySchema, Table, principal, text};
use crate::core::config::values;
use crate::core::profile::UserOrGroup;

pub static USER: KeySchema<Option<UserOrGroup>> = principal(
    "user",
    "The caller's user, by name or by number. Text of digits alone is a number.",
);
pub static GROUP: KeySchema<Option<UserOrGroup>> = principal(
    "group",
    "A group that the caller is in, by name or by number, supplementary groups included.",
);
pub static UNIT: KeySchema<Option<String>> = text(
    "unit",
    values::unit,
    "The caller's systemd unit, with `*` for any text and `?` for any character.",
);

pub static TABLE: Table = Table {
    title: "access rule",
    doc: "One entry of `access` or `admins`. Every key that is present must hold; of several entries \
     one suffices. What cannot be known of a caller never matches.",
    keys: &[&USER.spec, &GROUP.spec, &UNIT.spec],
};
