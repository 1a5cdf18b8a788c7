//! `assertion` of a profile.

use std::path::PathBuf;
use std::time::Duration;

use super::{
    InnerTable, KeySchema, Table, choice, duration, flag, hours, keystore, minutes, path, seconds,
    secret, table, text,
};
use crate::core::config::values;
use crate::core::profile::SecretRef;

const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
];

pub static KEY: KeySchema<Option<PathBuf>> = path("key", "PEM key that signs.");
pub static KEY_PASSWORD: KeySchema<Option<SecretRef>> = secret(
    "key_password",
    "Password of an encrypted PKCS#8 key (PBES2). An error for a key that is not encrypted.",
);
pub static CERTIFICATE: KeySchema<Option<PathBuf>> =
    path("certificate", "PEM certificate of `key`, for `x5t`.");
pub static KEYSTORE: KeySchema<InnerTable> = table(
    "keystore",
    &keystore::TABLE,
    "PKCS#12 or JKS with the key that signs, and its certificate.",
);
pub static FILE: KeySchema<Option<PathBuf>> = path(
    "file",
    "An assertion that somebody else makes and renews (workload identity federation). Nothing but \
     this key and `type` then, and `client_id` may be absent where the assertion names the client.",
);
pub static TYPE: KeySchema<Option<String>> = text(
    "type",
    values::assertion_type,
    "What the assertion in `file` is sent as (`client_assertion_type`): `\"jwt-bearer\"` (RFC 7523), \
     `\"jwt-spiffe\"` (a JWT-SVID for Keycloak's SPIFFE identity provider), or a URN.",
)
.or_as_told("`\"jwt-bearer\"`");
pub static ALGORITHM: KeySchema<Option<&'static str>> = choice(
    "algorithm",
    ALGORITHMS,
    "The signature's algorithm; `HS…` for `client_secret_jwt` alone.",
)
.or_as_told("what fits the key; `HS256` for `client_secret_jwt`");
pub static KID: KeySchema<Option<String>> =
    text("kid", values::plain, "Key identifier in the header.");
pub static KID_THUMBPRINT: KeySchema<bool> = flag(
    "kid_thumbprint",
    false,
    "Makes the key identifier the thumbprint of the public key (RFC 7638), which follows the key \
     when it is rotated. Instead of `kid`.",
);
pub static X5T: KeySchema<bool> = flag(
    "x5t",
    false,
    "Puts the certificate's thumbprints into the header (RFC 7515 §4.1.7, §4.1.8).",
)
.or_as_told("`false`; with `preset = \"entra\"` `true`");
pub static AUDIENCE: KeySchema<Option<String>> = text(
    "audience",
    values::assertion_audience,
    "The assertion's audience: `\"issuer\"`, `\"token_endpoint\"`, or the URL itself. Identity \
         providers differ in which of them they take.",
)
.or_as_told("the issuer where it is known, else the token endpoint; presets know better");
pub static LIFETIME: KeySchema<Duration> = duration(
    "lifetime",
    seconds(10),
    hours(1),
    minutes(1),
    "How long one assertion is valid.",
);

pub static TABLE: Table = Table {
    title: "assertion",
    doc: "`assertion` of a profile: the JWT of `client_auth = \"private_key_jwt\"` or \
     `\"client_secret_jwt\"` (RFC 7523 §2.2). `private_key_jwt` needs one of `key`, `keystore` and \
     `file`.",
    keys: &[
        &KEY.spec,
        &KEY_PASSWORD.spec,
        &CERTIFICATE.spec,
        &KEYSTORE.spec,
        &FILE.spec,
        &TYPE.spec,
        &ALGORITHM.spec,
        &KID.spec,
        &KID_THUMBPRINT.spec,
        &X5T.spec,
        &AUDIENCE.spec,
        &LIFETIME.spec,
    ],
};
