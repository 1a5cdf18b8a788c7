//! A PKCS#12 or JKS store.

use std::path::PathBuf;

use super::{KeySchema, Table, path, secret, text};
use crate::core::config::values;
use crate::core::profile::SecretRef;

pub static PATH: KeySchema<Option<PathBuf>> = path("path", "The file.").must();
pub static PASSWORD: KeySchema<Option<SecretRef>> = secret("password", "Password of the store.")
    .or_as_told("the empty one of PKCS#12; JKS is read without its seal");
pub static ALIAS: KeySchema<Option<String>> = text(
    "alias",
    values::plain,
    "The entry with the key to use; not for a truststore.",
)
.or_as_told("the only one with a key");
pub static KEY_PASSWORD: KeySchema<Option<SecretRef>> = secret(
    "key_password",
    "JKS: password of the entry; not for a truststore. In PKCS#12 the store's opens all.",
)
.or_as_told("the store's");

pub static TABLE: Table = Table {
    title: "keystore",
    doc: "`tls.keystore`, `tls.truststore` or `assertion.keystore`: PKCS#12 or JKS, told by content, up \
     to 512 KiB. Of a truststore, the certificates that Java would trust are trusted, and all \
     certificates of a PKCS#12 file without keys.",
    keys: &[&PATH.spec, &PASSWORD.spec, &ALIAS.spec, &KEY_PASSWORD.spec],
};
