//! `request` of a profile.

use super::{KeySchema, Table, texts};
use crate::core::config::spot::Spot;
use crate::core::config::values;

pub static SCOPES: KeySchema<Vec<(String, Spot)>> =
    texts("scopes", values::scope, "Scopes that a caller may name.").or_as_told("none");
pub static AUDIENCES: KeySchema<Vec<(String, Spot)>> = texts(
    "audiences",
    values::plain,
    "Audiences that a caller may name.",
)
.or_as_told("none");

pub static TABLE: Table = Table {
    title: "request",
    doc: "`request` of a profile: what a caller may ask for beyond the default.",
    keys: &[&SCOPES.spec, &AUDIENCES.spec],
};
