//! Where a secret is.

use std::path::PathBuf;

use super::{KeySchema, Table, path, text};
use crate::core::config::values;

pub static FILE: KeySchema<Option<PathBuf>> = path(
    "file",
    "A file that holds the secret and nothing else; one line break at its end is ignored. It is \
     watched, and a change takes effect at once.",
);
pub static CREDENTIAL: KeySchema<Option<String>> = text(
    "credential",
    values::credential,
    "The name of a systemd credential (`LoadCredential=`, `LoadCredentialEncrypted=`).",
);
pub static ENV: KeySchema<Option<String>> = text(
    "env",
    values::variable,
    "An environment variable of the daemon. `tokend check` warns: environments are inherited and \
     show up in many places.",
);

pub static TABLE: Table = Table {
    title: "secret",
    doc: "A secret is text, or a table with exactly one of these keys. Text is accepted only in a file \
     that nobody but root and the daemon's user can read.",
    keys: &[&FILE.spec, &CREDENTIAL.spec, &ENV.spec],
};
