//! `[audit]`

use std::path::PathBuf;

use super::{KeySchema, Table, choice_or, path};

pub static SINK: KeySchema<&'static str> = choice_or(
    "sink",
    &["journald", "file"],
    "journald",
    "Where records go: the journal, or a file of JSON lines.",
);
pub static ON_FAILURE: KeySchema<&'static str> = choice_or(
    "on_failure",
    &["continue", "deny"],
    "continue",
    "`deny`: no credential is handed out whose record could not be written.",
);
pub static PATH: KeySchema<Option<PathBuf>> = path("path", "The file, for `sink = \"file\"`.");

pub static TABLE: Table = Table {
    title: "audit",
    doc: "The record of every grant and denial. Only in `tokend.toml`.",
    keys: &[&SINK.spec, &ON_FAILURE.spec, &PATH.spec],
};
