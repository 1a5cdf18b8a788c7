//! `[profiles.NAME]`, `refresh` and `request`.

use super::super::preset;
use super::super::values::{self, UrlRule};
use super::idp::{ASSERTION, HTTP, TLS};
use super::{Kind, Table, hours, key, ms, seconds};

/// What `method` can be.
const METHODS: &[&str] = &["none", "basic", "static", "oauth2", "exec", "plugin"];

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

const GRANTS: &[&str] = &[
    "client_credentials",
    "refresh_token",
    "token_exchange",
    "jwt_bearer",
];

const OAUTH2: &[&str] = &["oauth2"];

/// Methods whose credential a caller can ask for in variants, and that can be bound to a certificate.
const ISSUED: &[&str] = &["oauth2", "exec", "plugin"];

pub(in crate::core::config) static PROFILE: Table = Table {
    title: "profiles.NAME",
    doc: "One credential that callers ask for by name: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first a letter or digit.",
    keys: &[
        key("preset", Kind::Choice(preset::NAMES), "What the API or identity provider is: fills in defaults, and refuses what cannot work there."),
        key("target", Kind::Url(UrlRule::Target), "Base URL of the API, told to callers.")
            .or_as_told("none; with `preset = \"camunda-8-run\"` or `\"camunda-docker-compose\"` `\"http://localhost:8080\"`"),
        key("method", Kind::Choice(METHODS), "How the credential is obtained. `exec` and `plugin` are not supported by this version.").must(),
        key("access", Kind::Rules, "Who may have the credential.").or_as_told("the daemon's own user and root"),
        key("refresh", Kind::Table(&REFRESH), "When it is renewed."),
        key("allow_remote_without_auth", Kind::Bool, "Permits `method = \"none\"` towards a target that is not loopback.").or("false").of(&["none"]),
        key("username", Kind::Text(values::username), "User name (RFC 7617).").must().of(&["basic"]),
        key("password", Kind::Secret, "Password (RFC 7617).").must().of(&["basic"]),
        key("token", Kind::Secret, "A bearer token that somebody else renews.").must().of(&["static"]),
        key("idp", Kind::Text(values::plain), "The `[idp.NAME]` to use.").of(OAUTH2),
        key("issuer", Kind::Url(UrlRule::Issuer), "As in `[idp.NAME]`.").of(OAUTH2),
        key("token_url", Kind::Url(UrlRule::Token), "As in `[idp.NAME]`.")
            .or_as_told("none; with `preset = \"camunda-saas\"` `\"https://login.cloud.camunda.io/oauth/token\"`").of(OAUTH2),
        key("http", Kind::Table(&HTTP), "As in `[idp.NAME]`, and before it.").of(OAUTH2),
        key("tls", Kind::Table(&TLS), "As in `[idp.NAME]`, and before it.").of(OAUTH2),
        key("allow_insecure_http", Kind::Bool, "As in `[idp.NAME]`.").or("false").of(OAUTH2),
        key("grant", Kind::Choice(GRANTS), "The OAuth grant. Only `client_credentials` (RFC 6749 §4.4) is supported by this version.").or("\"client_credentials\"").of(OAUTH2),
        key("client_id", Kind::Text(values::client_id), "Client identifier (RFC 6749 §2.2).").must().of(OAUTH2),
        key("client_secret", Kind::Secret, "Client secret.").of(OAUTH2),
        key("client_auth", Kind::Choice(CLIENT_AUTHS), "How the client proves who it is: RFC 6749 §2.3.1 (`client_secret_basic`, `client_secret_post`), RFC 7523 §2.2 (`…_jwt`), RFC 8705 §2 (`…tls_client_auth`), or not at all.")
            .or_as_told("with a `client_secret` `\"client_secret_basic\"`, with `preset = \"camunda-saas\"` `\"client_secret_post\"`").of(OAUTH2),
        key("assertion", Kind::Table(&ASSERTION), "The signed assertion of `private_key_jwt` and `client_secret_jwt`.").of(OAUTH2),
        key("scopes", Kind::Texts(values::scope), "Scopes to ask for (RFC 6749 §3.3).").or_as_told("none: the identity provider decides").of(OAUTH2),
        key("audience", Kind::Text(values::plain), "`audience` parameter of the token request.").or_as_told("none; with `preset = \"camunda-saas\"` `\"zeebe.camunda.io\"`").of(OAUTH2),
        key("resource", Kind::Texts(values::resource), "`resource` parameters of the token request (RFC 8707 §2).").of(OAUTH2),
        key("extra", Kind::Map(values::parameter), "Further parameters of the token request.").of(OAUTH2),
        key("request", Kind::Table(&REQUEST), "What a caller may ask for beyond the default.").of(ISSUED),
        key("bound_tokens", Kind::Choice(&["serve", "refuse"]), "What to do with a token that is bound to the client certificate (RFC 8705 §3): the API may want to see that certificate from the caller. `serve` together with a client certificate makes `tokend check` warn.").or("\"serve\"").of(ISSUED),
        key("command", Kind::Command, "Program that prints a credential, and its arguments.").must().of(&["exec"]),
        key("timeout", Kind::Duration(ms(100), seconds(600)), "After this the program is killed.").or("\"30s\"").of(&["exec"]),
        key("socket", Kind::Path, "Socket of the plugin.").must().of(&["plugin"]),
        key("settings", Kind::Map(values::setting), "Passed on to the plugin as they are.").of(&["plugin"]),
    ],
};

pub(in crate::core::config) static REFRESH: Table = Table {
    title: "refresh",
    doc: "`refresh` of a profile.",
    keys: &[
        key("at", Kind::Number(0.1, 0.95), "Share of the lifetime after which renewal is due.").or("0.75"),
        key("jitter", Kind::Number(0.0, 0.5), "Spread around it, as a share of the lifetime.").or("0.1"),
        key("margin", Kind::Duration(ms(0), seconds(300)), "Taken off every lifetime, so that no credential expires on its way; at most a tenth of the lifetime.").or("\"5s\""),
        key("min_interval", Kind::Duration(ms(100), hours(1)), "Least time between two attempts, whatever the identity provider says.").or("\"1s\""),
        key("retry_after_max", Kind::Duration(seconds(1), hours(24)), "Longest `Retry-After` that is obeyed.").or("\"1h\""),
        key("default_lifetime", Kind::Duration(seconds(10), hours(24)), "Lifetime of a token that does not say how long it lives.").or("\"5m\""),
        key("eager", Kind::Bool, "`true`: fetched at start and kept fresh. `false`: fetched on first use, and no longer renewed when nobody asks.").or("true"),
    ],
};

pub(in crate::core::config) static REQUEST: Table = Table {
    title: "request",
    doc: "`request` of a profile: what a caller may ask for beyond the default.",
    keys: &[
        key(
            "scopes",
            Kind::Texts(values::scope),
            "Scopes that a caller may name.",
        )
        .or_as_told("none"),
        key(
            "audiences",
            Kind::Texts(values::plain),
            "Audiences that a caller may name.",
        )
        .or_as_told("none"),
    ],
};
