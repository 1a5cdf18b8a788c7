//! What right configurations mean.

use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::core::config::schema::{DefaultValue, TABLES, ValueKind};
use crate::core::profile::client_auth::ClientAuth;
use crate::core::profile::files::paths;
use crate::core::profile::{
    AccessRule, AuditSink, Endpoint, IdentitySource, Refresh, SecretRef, TrustSource, UserOrGroup,
};

#[test]
fn nothing_at_all_is_a_configuration_of_defaults() {
    let outcome = one("");
    assert!(outcome.findings.is_empty());
    let config = config(&outcome);
    assert_eq!(config.server.socket, None);
    assert_eq!(config.server.socket_mode, 0o660);
    let limits = &config.server.limits;
    assert_eq!(
        (limits.connections, limits.connections_per_user),
        (4096, 512)
    );
    assert_eq!(
        (limits.streams_per_connection, limits.requests_per_second),
        (256, 20_000)
    );
    assert_eq!((limits.message_size, limits.header_size), (65536, 65536));
    assert_eq!(limits.half_sent_per_user, 32 << 20);
    assert_eq!(limits.control_frames_per_second, 500);
    assert_eq!(limits.handshake_timeout, Duration::from_secs(10));
    assert_eq!(limits.idle_timeout, Duration::from_secs(600));
    assert_eq!(config.audit.sink, AuditSink::Journald);
    assert!(!config.audit.deny_on_failure);
    let outcome = one("[profiles.p]\nmethod = \"none\"\n");
    assert_eq!(profile(&outcome, "p").refresh, Refresh::default());
    assert!(profile(&outcome, "p").access.is_empty());
}

#[test]
fn every_default_could_be_written_too() {
    for table in TABLES {
        for key in table.keys {
            let fits = match (key.kind, key.default) {
                (_, DefaultValue::None) | (ValueKind::Bool, DefaultValue::Bool(_)) => true,
                (ValueKind::Choice(all), DefaultValue::Text(word)) => all.contains(&word),
                (ValueKind::Duration(low, high), DefaultValue::Duration(it)) => {
                    (low..=high).contains(&it)
                }
                (ValueKind::Integer(low, high), DefaultValue::Integer(it)) => {
                    (low..=high).contains(&it)
                }
                (ValueKind::Mode, DefaultValue::Mode(it)) => it <= 0o777,
                (ValueKind::Number(low, high), DefaultValue::Number(it)) => {
                    (low..=high).contains(&it)
                }
                _ => false,
            };
            assert!(fits, "{}.{}", table.title, key.name);
        }
    }
}

#[test]
fn access_rules_by_name_number_and_unit() {
    let outcome = one(concat!(
        "[profiles.p]\nmethod = \"none\"\n",
        "access = [{ user = \"worker\" }, { user = \"1000\" }, { group = 5, unit = \"a@*.service\" }]\n"
    ));
    let rule = |user, group, unit: Option<&str>| AccessRule {
        user,
        group,
        unit: unit.map(str::to_owned),
    };
    assert_eq!(
        profile(&outcome, "p").access,
        [
            rule(Some(UserOrGroup::Name("worker".into())), None, None),
            rule(Some(UserOrGroup::Id(1000)), None, None),
            rule(None, Some(UserOrGroup::Id(5)), Some("a@*.service")),
        ]
    );
}

#[test]
fn a_profile_overrides_its_idp_key_by_key() {
    let outcome = one(concat!(
        "[idp.corp]\nissuer = \"https://idp.example/a\"\nmax_in_flight = 3\n",
        "http = { connect_timeout = \"1s\", timeout = \"2s\" }\n",
        "tls = { ca = \"ca.pem\", certificate = \"c.pem\", key = \"k.pem\", key_password = { file = \"pw\" } }\n",
        "[profiles.as_is]\nmethod = \"oauth2\"\nidp = \"corp\"\nclient_id = \"c\"\nclient_auth = \"tls_client_auth\"\n",
        "[profiles.other]\nmethod = \"oauth2\"\nidp = \"corp\"\nclient_id = \"c\"\nclient_auth = \"tls_client_auth\"\n",
        "token_url = \"https://idp.example/b\"\nhttp = { timeout = \"9s\" }\n",
        "tls = { truststore = { path = \"t.p12\" }, keystore = { path = \"k.p12\" } }\n",
        "[profiles.rekeyed]\nmethod = \"oauth2\"\nidp = \"corp\"\nclient_id = \"c\"\nclient_auth = \"tls_client_auth\"\n",
        "tls = { key = \"k2.pem\" }\n",
    ));
    let as_is = &oauth2(&outcome, "as_is").idp;
    assert!(matches!(&as_is.endpoint, Endpoint::Issuer(url) if url.path() == "/a"));
    assert_eq!(as_is.max_in_flight, 3);
    assert_eq!(as_is.http.timeout, Duration::from_secs(2));
    assert!(matches!(&as_is.trust, TrustSource::Pem(path) if path == "/etc/tokend/ca.pem"));
    let other = &oauth2(&outcome, "other").idp;
    assert!(matches!(&other.endpoint, Endpoint::Token(url) if url.path() == "/b"));
    assert_eq!(other.http.connect_timeout, Duration::from_secs(1));
    assert_eq!(other.http.timeout, Duration::from_secs(9));
    assert!(matches!(&other.trust, TrustSource::Store(_)));
    assert!(matches!(&other.identity, Some(IdentitySource::Store(_))));
    let rekeyed = &oauth2(&outcome, "rekeyed").idp;
    assert_eq!(
        rekeyed.identity,
        Some(IdentitySource::Pem {
            certificate: "/etc/tokend/c.pem".into(),
            key: "/etc/tokend/k2.pem".into(),
            key_password: None,
        })
    );
}

#[test]
fn paths_are_relative_to_their_file() {
    let text = "[profiles.q]\nmethod = \"static\"\ntoken = { file = \"q.token\" }\n";
    let outcome = many(
        "[profiles.p]\nmethod = \"static\"\ntoken = { file = \"/abs\" }\n",
        &[("profiles.d/q.toml", text)],
    );
    let expected: Vec<PathBuf> = vec!["/abs".into(), "/etc/tokend/profiles.d/q.token".into()];
    assert_eq!(
        paths(config(&outcome)).into_iter().collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn every_kind_of_file_is_among_the_paths() {
    let outcome = one(&oauth2_with(concat!(
        "client_auth = \"private_key_jwt\"\n",
        "tls = { truststore = { path = \"1\", password = { file = \"2\" } }, keystore = { path = \"3\", password = { file = \"4\" }, key_password = { file = \"5\" } } }\n",
        "assertion = { key = \"6\", key_password = { file = \"7\" }, certificate = \"8\" }\n",
    )));
    let names: Vec<String> = paths(config(&outcome))
        .iter()
        .map(|path| {
            path.strip_prefix("/etc/tokend")
                .expect("relative")
                .display()
                .to_string()
        })
        .collect();
    assert_eq!(names, ["1", "2", "3", "4", "5", "6", "7", "8"]);
}

#[test]
fn ways_to_prove_who_the_client_is() {
    for (lines, expected) in [
        ("client_secret = \"s\"", "client_secret_basic"),
        (
            "client_secret = \"s\"\npreset = \"keycloak\"",
            "client_secret_basic",
        ),
        (
            "client_secret = \"s\"\nclient_auth = \"client_secret_post\"",
            "client_secret_post",
        ),
        (
            "client_secret = \"s\"\nclient_auth = \"client_secret_jwt\"",
            "client_secret_jwt",
        ),
        (
            "client_auth = \"private_key_jwt\"\nassertion = { key = \"k\" }",
            "private_key_jwt",
        ),
        (
            "client_auth = \"private_key_jwt\"\nassertion = { file = \"k\" }",
            "private_key_jwt",
        ),
        (
            "client_auth = \"tls_client_auth\"\ntls = { certificate = \"c\", key = \"k\" }",
            "tls_client_auth",
        ),
        (
            "client_auth = \"self_signed_tls_client_auth\"\ntls = { keystore = { path = \"c\" } }",
            "self_signed_tls_client_auth",
        ),
        ("client_auth = \"none\"", "none"),
    ] {
        let outcome = one(&oauth2_with(lines));
        assert_eq!(
            oauth2(&outcome, "p").client_auth.as_str(),
            expected,
            "{lines}"
        );
    }
}

#[test]
fn unchanged_profiles_are_recognised_and_changed_ones_too() {
    let with = |secret: &str, at: &str| {
        one(&oauth2_with(&format!(
            "client_secret = \"{secret}\"\nrefresh = {{ at = {at} }}"
        )))
    };
    let base = with("a", "0.5");
    let same = with("a", "0.5");
    let (secret, refresh) = (with("b", "0.5"), with("a", "0.6"));
    let p = profile(&base, "p");
    assert!(p.same_credential(profile(&same, "p")));
    assert!(!p.same_credential(profile(&secret, "p")));
    assert!(!p.same_credential(profile(&refresh, "p")));
}

#[test]
fn a_literal_secret_is_what_stands_there() {
    let outcome = one(&oauth2_with("client_secret = \"hunter2\""));
    match &oauth2(&outcome, "p").client_auth {
        ClientAuth::SecretBasic(SecretRef::Literal(secret)) => {
            assert_eq!(secret.expose(), "hunter2")
        }
        other => panic!("{other:?}"),
    }
}
