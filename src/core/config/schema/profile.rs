//! `[profiles.NAME]`

use std::collections::BTreeMap;
use std::time::Duration;

use url::Url;

use super::{
    InnerTable, KeySchema, Table, ValueKind, assertion, choice, choice_or, duration, flag, hours,
    http, list, map, minutes, ms, optional, refresh, request, rules, seconds, secret, table, text,
    texts, tls, url,
};
use crate::core::config::spot::Spot;
use crate::core::config::values::{self, UrlRule};
use crate::core::profile::exec::FORMATS;
use crate::core::profile::{AccessRule, SecretRef};

/// The words of `preset`.
const PRESETS: &[&str] = &[
    "camunda-saas",
    "camunda-helm",
    "camunda-docker-compose",
    "camunda-8-run",
    "keycloak",
    "entra",
    "okta",
];

/// What `method` can be.
const METHODS: &[&str] = &["none", "basic", "static", "oauth2", "exec"];

/// What `client_auth` can be.
const CLIENT_AUTHS: &[&str] = &[
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "none",
];

const OAUTH2: &[&str] = &["oauth2"];
const EXEC: &[&str] = &["exec"];
const ASKING: &[&str] = &["oauth2", "exec"];

pub static PRESET: KeySchema<Option<&'static str>> = choice(
    "preset",
    PRESETS,
    "What the API or identity provider is: fills in defaults, and refuses what cannot work there.",
);
pub static TARGET: KeySchema<Option<Url>> = url(
    "target",
    UrlRule::Target,
    "Base URL of the API, told to callers.",
)
.or_as_told(
    "none; with `preset = \"camunda-8-run\"` or `\"camunda-docker-compose\"` \
         `\"http://localhost:8080\"`",
);
pub static METHOD: KeySchema<Option<&'static str>> = choice(
    "method",
    METHODS,
    "How the credential is obtained. `plugin` is not supported by this version.",
)
.must();
pub static ACCESS: KeySchema<Vec<AccessRule>> =
    rules("access", "Who may have the credential.").or_as_told("the daemon's own user and root");
pub static REFRESH: KeySchema<InnerTable> =
    table("refresh", &refresh::TABLE, "When it is renewed.");
pub static ALLOW_REMOTE_WITHOUT_AUTH: KeySchema<bool> = flag(
    "allow_remote_without_auth",
    false,
    "Permits `method = \"none\"` towards a target that is not loopback.",
)
.of(&["none"]);
pub static USERNAME: KeySchema<Option<String>> =
    text("username", values::username, "User name (RFC 7617).")
        .must()
        .of(&["basic"]);
pub static PASSWORD: KeySchema<Option<SecretRef>> = secret("password", "Password (RFC 7617).")
    .must()
    .of(&["basic"]);
pub static TOKEN: KeySchema<Option<SecretRef>> =
    secret("token", "A bearer token that somebody else renews.")
        .must()
        .of(&["static"]);
pub static IDP: KeySchema<Option<String>> =
    text("idp", values::plain, "The `[idp.NAME]` to use.").of(OAUTH2);
pub static ISSUER: KeySchema<Option<Url>> =
    url("issuer", UrlRule::Issuer, "As in `[idp.NAME]`.").of(OAUTH2);
pub static TOKEN_URL: KeySchema<Option<Url>> = url(
    "token_url",
    UrlRule::Token,
    "As in `[idp.NAME]`.",
)
.or_as_told(
    "none; with `preset = \"camunda-saas\"` `\"https://login.cloud.camunda.io/oauth/token\"`",
)
.of(OAUTH2);
pub static HTTP: KeySchema<InnerTable> =
    table("http", &http::TABLE, "As in `[idp.NAME]`, and before it.").of(OAUTH2);
pub static TLS: KeySchema<InnerTable> =
    table("tls", &tls::TABLE, "As in `[idp.NAME]`, and before it.").of(OAUTH2);
pub static ALLOW_INSECURE_HTTP: KeySchema<bool> =
    flag("allow_insecure_http", false, "As in `[idp.NAME]`.").of(OAUTH2);
pub static GRANT: KeySchema<&'static str> = choice_or(
    "grant",
    &["client_credentials"],
    "client_credentials",
    "The OAuth grant. Only `client_credentials` (RFC 6749 §4.4) is supported by this version.",
)
.of(OAUTH2);
pub static CLIENT_ID: KeySchema<Option<String>> = text(
    "client_id",
    values::client_id,
    "Client identifier (RFC 6749 §2.2).",
)
.or_as_told("must be set; with `assertion.file` none")
.of(OAUTH2);
pub static CLIENT_SECRET: KeySchema<Option<SecretRef>> =
    secret("client_secret", "Client secret.").of(OAUTH2);
pub static CLIENT_AUTH: KeySchema<Option<&'static str>> = choice(
    "client_auth",
    CLIENT_AUTHS,
    "How the client proves who it is: RFC 6749 §2.3.1 (`client_secret_basic`, \
     `client_secret_post`), RFC 7523 §2.2 (`…_jwt`), RFC 8705 §2 (`…tls_client_auth`), or not at \
     all.",
)
.or_as_told(
    "with a `client_secret` `\"client_secret_basic\"`, with `preset = \"camunda-saas\"` \
         `\"client_secret_post\"`",
)
.of(OAUTH2);
pub static BASIC_ENCODING: KeySchema<&'static str> = choice_or(
    "basic_encoding",
    &["form", "plain"],
    "form",
    "How id and secret go into the header of `client_secret_basic`: form-urlencoded first, as \
     RFC 6749 §2.3.1 has it (`form`), or as they are (`plain`), for identity providers that do not \
     decode them. It matters only where one of them has other characters than letters, digits, \
     `-`, `.`, `_` and `*`.",
)
.of(OAUTH2);
pub static ASSERTION: KeySchema<InnerTable> = table(
    "assertion",
    &assertion::TABLE,
    "The signed assertion of `private_key_jwt` and `client_secret_jwt`.",
)
.of(OAUTH2);
pub static SCOPES: KeySchema<Vec<(String, Spot)>> = texts(
    "scopes",
    values::scope,
    "Scopes to ask for (RFC 6749 §3.3).",
)
.or_as_told("none: the identity provider decides")
.of(ASKING);
pub static AUDIENCE: KeySchema<Option<String>> = text(
    "audience",
    values::plain,
    "`audience` parameter of the token request.",
)
.or_as_told("none; with `preset = \"camunda-saas\"` `\"zeebe.camunda.io\"`")
.of(ASKING);
pub static RESOURCE: KeySchema<Vec<(String, Spot)>> = texts(
    "resource",
    values::resource,
    "`resource` parameters of the token request (RFC 8707 §2).",
)
.of(ASKING);
pub static EXTRA: KeySchema<BTreeMap<String, String>> = map(
    "extra",
    values::parameter,
    "Further parameters of the token request.",
)
.of(OAUTH2);
pub static REQUEST: KeySchema<InnerTable> = table(
    "request",
    &request::TABLE,
    "What a caller may ask for beyond the default.",
)
.of(ASKING);
pub static BOUND_TOKENS: KeySchema<&'static str> = choice_or(
    "bound_tokens",
    &["serve", "refuse"],
    "serve",
    "What to do with a token that is bound to the client certificate (RFC 8705 §3): the API may \
     want to see that certificate from the caller. `serve` together with a client certificate \
     makes `tokend check` warn.",
)
.of(ASKING);

pub static COMMAND: KeySchema<Vec<(String, Spot)>> = list(
    "command",
    ValueKind::Arguments(values::argument),
    "The program that obtains the credential, by its absolute path, and its arguments; docs/plugins.md \
     says what it reads and writes. No shell runs it. Arguments can be seen by every user of the \
     machine: no secret belongs there.",
)
.must()
.of(EXEC);
pub static TIMEOUT: KeySchema<Duration> = duration(
    "timeout",
    ms(100),
    minutes(10),
    seconds(30),
    "The time for one run. Then the program and what it has started are killed.",
)
.of(EXEC);
pub static FORMAT: KeySchema<&'static str> = choice_or(
    "format",
    FORMATS,
    "auto",
    "The form of the answer: told by its content (`auto`), or one form and no other.",
)
.of(EXEC);
pub static SETTINGS: KeySchema<BTreeMap<String, String>> = map(
    "settings",
    values::plain,
    "What the program is told in its request, under names that it chooses.",
)
.of(EXEC);
pub static LIFETIME: KeySchema<Option<Duration>> = optional(
    "lifetime",
    ValueKind::Duration(seconds(1), hours(24 * 30)),
    "How long a token lives whose answer does not say so; a bare token needs it.",
)
.of(EXEC);
pub static ENV: KeySchema<BTreeMap<String, String>> = map(
    "env",
    values::variable,
    "The program's environment. Nothing else is in it but a PATH of the system's folders.",
)
.of(EXEC);

pub static TABLE: Table = Table {
    title: "profiles.NAME",
    doc: "One credential that callers ask for by name: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a \
     letter or digit.",
    keys: &[
        &PRESET.spec,
        &TARGET.spec,
        &METHOD.spec,
        &ACCESS.spec,
        &REFRESH.spec,
        &ALLOW_REMOTE_WITHOUT_AUTH.spec,
        &USERNAME.spec,
        &PASSWORD.spec,
        &TOKEN.spec,
        &IDP.spec,
        &ISSUER.spec,
        &TOKEN_URL.spec,
        &HTTP.spec,
        &TLS.spec,
        &ALLOW_INSECURE_HTTP.spec,
        &GRANT.spec,
        &CLIENT_ID.spec,
        &CLIENT_SECRET.spec,
        &CLIENT_AUTH.spec,
        &BASIC_ENCODING.spec,
        &ASSERTION.spec,
        &SCOPES.spec,
        &AUDIENCE.spec,
        &RESOURCE.spec,
        &EXTRA.spec,
        &REQUEST.spec,
        &BOUND_TOKENS.spec,
        &COMMAND.spec,
        &TIMEOUT.spec,
        &FORMAT.spec,
        &SETTINGS.spec,
        &LIFETIME.spec,
        &ENV.spec,
    ],
};
