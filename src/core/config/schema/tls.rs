//! `tls` of an `[idp.NAME]` or a profile.

use std::path::PathBuf;

use super::{InnerTable, KeySchema, Table, keystore, path, secret, table};
use crate::core::profile::SecretRef;

pub static CA: KeySchema<Option<PathBuf>> = path(
    "ca",
    "PEM certificates that are trusted, instead of the system's.",
)
.or_as_told("the system's roots");
pub static TRUSTSTORE: KeySchema<InnerTable> = table(
    "truststore",
    &keystore::TABLE,
    "PKCS#12 or JKS with the certificates that are trusted, instead of `ca`.",
);
pub static CERTIFICATE: KeySchema<Option<PathBuf>> = path(
    "certificate",
    "PEM chain that the client presents, its own certificate first.",
);
pub static KEY: KeySchema<Option<PathBuf>> = path(
    "key",
    "The certificate's PEM key: PKCS#8 (encrypted with `key_password`), PKCS#1 or SEC1.",
);
pub static KEY_PASSWORD: KeySchema<Option<SecretRef>> = secret(
    "key_password",
    "Password of an encrypted PKCS#8 key (PBES2). An error for a key that is not encrypted.",
);
pub static KEYSTORE: KeySchema<InnerTable> = table(
    "keystore",
    &keystore::TABLE,
    "PKCS#12 or JKS with certificate and key, instead of the PEM files.",
);

pub static TABLE: Table = Table {
    title: "tls",
    doc: "`tls` of an `[idp.NAME]` or a profile, towards the identity provider. All files are watched; \
     key and certificate change together or not at all.",
    keys: &[
        &CA.spec,
        &TRUSTSTORE.spec,
        &CERTIFICATE.spec,
        &KEY.spec,
        &KEY_PASSWORD.spec,
        &KEYSTORE.spec,
    ],
};
