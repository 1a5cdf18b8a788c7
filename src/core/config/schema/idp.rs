//! `[idp.NAME]`

use url::Url;

use super::{InnerTable, KeySchema, Table, flag, http, integer, table, tls, url};
use crate::core::config::values::UrlRule;

pub static ISSUER: KeySchema<Option<Url>> = url(
    "issuer",
    UrlRule::Issuer,
    "The issuer; its token endpoint is discovered (OpenID Connect Discovery 1.0 §4, RFC 8414 §3). \
     `https`, or `http` on loopback.",
);
pub static TOKEN_URL: KeySchema<Option<Url>> = url(
    "token_url",
    UrlRule::Token,
    "The token endpoint, instead of `issuer`. `https`, or `http` on loopback.",
);
pub static MAX_IN_FLIGHT: KeySchema<u32> = integer(
    "max_in_flight",
    1,
    1000,
    8,
    "Token requests at the same time, over all profiles that ask the same server, be it named \
     by `issuer` or `token_url`. Where they differ, the smallest holds for all.",
);
pub static MAX_PER_SECOND: KeySchema<u32> = integer(
    "max_per_second",
    1,
    1000,
    50,
    "Token requests per second, over all profiles that ask the same server, which take turns. Where they \
     differ, the smallest holds for all.",
)
.or_as_told("`50`; with `preset = \"camunda-saas\"` `1`");
pub static HTTP: KeySchema<InnerTable> = table("http", &http::TABLE, "How to get there.");
pub static TLS: KeySchema<InnerTable> = table(
    "tls",
    &tls::TABLE,
    "Trust, and the client's own certificate.",
);
pub static ALLOW_INSECURE_HTTP: KeySchema<bool> = flag(
    "allow_insecure_http",
    false,
    "Permits `http://` to an address that is not loopback: secrets and tokens then cross the \
     network in the clear.",
);

pub static TABLE: Table = Table {
    title: "idp.NAME",
    doc: "An identity provider that profiles share: `idp = \"NAME\"`. What a profile says itself goes \
     before what stands here, key by key.",
    keys: &[
        &ISSUER.spec,
        &TOKEN_URL.spec,
        &MAX_IN_FLIGHT.spec,
        &MAX_PER_SECOND.spec,
        &HTTP.spec,
        &TLS.spec,
        &ALLOW_INSECURE_HTTP.spec,
    ],
};
