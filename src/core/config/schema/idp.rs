//! `[idp.NAME]`, and the tables that go to an identity provider: http, tls, assertion, keystore.

use super::super::values::{self, UrlRule};
use super::{Kind, Table, hours, key, ms, seconds};

pub(in crate::core::config) static IDP: Table = Table {
    title: "idp.NAME",
    doc: "An identity provider that profiles share: `idp = \"NAME\"`. What a profile says itself goes before what stands here, key by key.",
    keys: &[
        key("issuer", Kind::Url(UrlRule::Issuer), "The issuer; its token endpoint is discovered (OpenID Connect Discovery 1.0 §4, RFC 8414 §3). `https`, or `http` on loopback."),
        key("token_url", Kind::Url(UrlRule::Token), "The token endpoint, instead of `issuer`. `https`, or `http` on loopback."),
        key("max_in_flight", Kind::Integer(1, 1000), "Token requests at the same time, over all profiles of this issuer. Where they differ, the smallest holds for all.").or("8"),
        key("max_per_second", Kind::Integer(1, 1000), "Token requests per second, over all profiles of this issuer, which take turns. Where they differ, the smallest holds for all.").or("50").or_as_told("`50`; with `preset = \"camunda-saas\"` `1`"),
        key("http", Kind::Table(&HTTP), "How to get there."),
        key("tls", Kind::Table(&TLS), "Trust, and the client's own certificate."),
        key("allow_insecure_http", Kind::Bool, "Permits `http://` to an address that is not loopback: secrets and tokens then cross the network in the clear.").or("false"),
    ],
};

pub(in crate::core::config) static HTTP: Table = Table {
    title: "http",
    doc: "`http` of an `[idp.NAME]` or a profile.",
    keys: &[
        key(
            "connect_timeout",
            Kind::Duration(ms(10), seconds(300)),
            "Time for TCP and TLS together.",
        )
        .or("\"5s\""),
        key(
            "timeout",
            Kind::Duration(ms(10), seconds(600)),
            "One request, from its start to the last byte of the answer.",
        )
        .or("\"10s\""),
        key("proxy", Kind::Url(UrlRule::Proxy), "An HTTP proxy. Of the environment only `HTTPS_PROXY` and `NO_PROXY` are obeyed (in small letters too): `ALL_PROXY` and `HTTP_PROXY` are not.")
            .or_as_told("what `HTTPS_PROXY` and `NO_PROXY` say, never for loopback"),
    ],
};

pub(in crate::core::config) static TLS: Table = Table {
    title: "tls",
    doc: "`tls` of an `[idp.NAME]` or a profile, towards the identity provider. All files are watched; key and certificate change together or not at all.",
    keys: &[
        key(
            "ca",
            Kind::Path,
            "PEM certificates that are trusted, instead of the system's.",
        )
        .or_as_told("the system's roots"),
        key(
            "truststore",
            Kind::Table(&KEYSTORE),
            "PKCS#12 or JKS with the certificates that are trusted, instead of `ca`.",
        ),
        key(
            "certificate",
            Kind::Path,
            "PEM chain that the client presents, its own certificate first.",
        ),
        key(
            "key",
            Kind::Path,
            "The certificate's PEM key: PKCS#8 (encrypted with `key_password`), PKCS#1 or SEC1.",
        ),
        key(
            "key_password",
            Kind::Secret,
            "Password of an encrypted PKCS#8 key (PBES2). An error for a key that is not encrypted.",
        ),
        key(
            "keystore",
            Kind::Table(&KEYSTORE),
            "PKCS#12 or JKS with certificate and key, instead of the PEM files.",
        ),
    ],
};

pub(in crate::core::config) static ASSERTION: Table = Table {
    title: "assertion",
    doc: "`assertion` of a profile: the JWT of `client_auth = \"private_key_jwt\"` or `\"client_secret_jwt\"` (RFC 7523 §2.2). `private_key_jwt` needs one of `key`, `keystore` and `file`.",
    keys: &[
        key("key", Kind::Path, "PEM key that signs."),
        key(
            "key_password",
            Kind::Secret,
            "Password of an encrypted PKCS#8 key (PBES2). An error for a key that is not encrypted.",
        ),
        key(
            "certificate",
            Kind::Path,
            "PEM certificate of `key`, for `x5t`.",
        ),
        key(
            "keystore",
            Kind::Table(&KEYSTORE),
            "PKCS#12 or JKS with the key that signs, and its certificate.",
        ),
        key(
            "file",
            Kind::Path,
            "An assertion that somebody else makes and renews (workload identity federation). Nothing but this key then.",
        ),
        key(
            "algorithm",
            Kind::Choice(ALGORITHMS),
            "The signature's algorithm; `HS…` for `client_secret_jwt` alone.",
        )
        .or_as_told("what fits the key; `HS256` for `client_secret_jwt`"),
        key(
            "kid",
            Kind::Text(values::plain),
            "Key identifier in the header.",
        ),
        key(
            "x5t",
            Kind::Bool,
            "Puts the certificate's thumbprints into the header (RFC 7515 §4.1.7, §4.1.8).",
        )
        .or_as_told("`false`; with `preset = \"entra\"` `true`"),
        key(
            "audience",
            Kind::Text(values::plain),
            "The assertion's audience.",
        )
        .or_as_told("the issuer where it is known, else the token endpoint; presets know better"),
        key(
            "lifetime",
            Kind::Duration(seconds(10), hours(1)),
            "How long one assertion is valid.",
        )
        .or("\"1m\""),
    ],
};

const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
    "HS256", "HS384", "HS512",
];

pub(in crate::core::config) static KEYSTORE: Table = Table {
    title: "keystore",
    doc: "`tls.keystore`, `tls.truststore` or `assertion.keystore`: PKCS#12 or JKS, told by content, up to 512 KiB. Of a truststore, the certificates that Java would trust are trusted, and all certificates of a PKCS#12 file without keys.",
    keys: &[
        key("path", Kind::Path, "The file.").must(),
        key("password", Kind::Secret, "Password of the store.")
            .or_as_told("the empty one of PKCS#12; JKS is read without its seal"),
        key(
            "alias",
            Kind::Text(values::plain),
            "The entry with the key to use; not for a truststore.",
        )
        .or_as_told("the only one with a key"),
        key(
            "key_password",
            Kind::Secret,
            "JKS: password of the entry; not for a truststore. In PKCS#12 the store's opens all.",
        )
        .or_as_told("the store's"),
    ],
};
