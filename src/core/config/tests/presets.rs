//! The support matrix: every preset with every method.

use super::*;
use crate::core::profile::Endpoint;
use crate::core::profile::client_auth::{Assertion, Audience, ClientAuth};

const PRESETS: &[(&str, [bool; 4])] = &[
    // none, basic, static, oauth2
    ("camunda-saas", [false, false, false, true]),
    ("camunda-helm", [true, true, true, true]),
    ("camunda-docker-compose", [true, true, true, true]),
    ("camunda-8-run", [true, true, true, true]),
    ("keycloak", [false, false, false, true]),
    ("entra", [false, false, false, true]),
    ("okta", [false, false, false, true]),
];

const METHODS: [(&str, &str); 4] = [
    ("none", ""),
    ("basic", "username = \"u\"\npassword = \"p\"\n"),
    ("static", "token = \"t\"\n"),
    (
        "oauth2",
        "client_id = \"c\"\nclient_secret = \"s\"\nissuer = \"https://login.microsoftonline.com/t/v2.0\"\nscopes = [\"x/.default\"]\n",
    ),
];

#[test]
fn every_preset_with_every_method() {
    for (preset, row) in PRESETS {
        for ((method, lines), works) in METHODS.iter().zip(row) {
            let text =
                format!("[profiles.p]\npreset = \"{preset}\"\nmethod = \"{method}\"\n{lines}");
            let outcome = one(&text);
            assert_eq!(
                config(&outcome).profiles["p"].is_ok(),
                *works,
                "{text}{:#?}",
                outcome.findings
            );
            if !works {
                let errors = errors(&outcome);
                assert_eq!(errors.len(), 1, "{text}");
                assert_eq!((errors[0].line, errors[0].column), (3, 10), "{text}");
                assert!(
                    errors[0].message.contains("does not go with"),
                    "{}",
                    errors[0].message
                );
            }
        }
    }
}

#[test]
fn saas_fills_in_what_is_always_the_same() {
    let outcome = one(
        "[profiles.p]\npreset = \"camunda-saas\"\nmethod = \"oauth2\"\nclient_id = \"c\"\nclient_secret = \"s\"\ntarget = \"https://bru-2.zeebe.camunda.io/X\"\n",
    );
    assert!(outcome.findings.is_empty(), "{:#?}", outcome.findings);
    let found = oauth2(&outcome, "p");
    assert_eq!(
        found.idp.endpoint.as_str(),
        "https://login.cloud.camunda.io/oauth/token"
    );
    assert!(matches!(found.idp.endpoint, Endpoint::Token(_)));
    assert_eq!(found.idp.max_per_second, 1);
    assert_eq!(found.audience.as_deref(), Some("zeebe.camunda.io"));
    assert!(matches!(found.client_auth, ClientAuth::SecretPost(_)));
    assert_eq!(
        profile(&outcome, "p").target.as_deref(),
        Some("https://bru-2.zeebe.camunda.io/X")
    );
}

#[test]
fn an_idp_that_names_its_rate_goes_before_the_preset() {
    let outcome = one(
        "[idp.saas]\ntoken_url = \"https://login.cloud.camunda.io/oauth/token\"\nmax_per_second = 3\n[profiles.p]\npreset = \"camunda-saas\"\nmethod = \"oauth2\"\nidp = \"saas\"\nclient_id = \"c\"\nclient_secret = \"s\"\n",
    );
    assert_eq!(oauth2(&outcome, "p").idp.max_per_second, 3);
}

#[test]
fn saas_refuses_what_it_does_not_know() {
    for (lines, part) in [
        (
            "client_auth = \"tls_client_auth\"\ntls = { certificate = \"c\", key = \"k\" }",
            "X.509",
        ),
        (
            "client_secret = \"s\"\ntls = { keystore = { path = \"c\" } }",
            "X.509",
        ),
        (
            "client_auth = \"private_key_jwt\"\nassertion = { key = \"k\" }",
            "client id and secret",
        ),
        ("client_auth = \"none\"", "client id and secret"),
        (
            "client_secret = \"s\"\ntarget = \"http://bru-2.zeebe.camunda.io/X\"",
            "https:// only",
        ),
        ("", "neither `client_secret` nor `client_auth`"),
    ] {
        let text = format!(
            "[profiles.p]\npreset = \"camunda-saas\"\nmethod = \"oauth2\"\nclient_id = \"c\"\n{lines}\n"
        );
        let message = &invalid(&one(&text), "p").message.clone();
        assert!(message.contains(part), "{text}{message}");
    }
}

/// What the preset says about the issuer of SaaS holds for that issuer only.
#[test]
fn saas_with_an_identity_provider_of_its_own() {
    let certificate =
        "client_auth = \"tls_client_auth\"\ntls = { certificate = \"c\", key = \"k\" }";
    for lines in [
        certificate,
        "client_auth = \"private_key_jwt\"\nassertion = { key = \"k\" }",
        "client_secret = \"s\"",
    ] {
        for (head, idp) in [
            ("", "issuer = \"https://idp.example/realms/camunda\""),
            ("", "token_url = \"https://camunda.io.example/token\""),
            (
                "[idp.own]\nissuer = \"https://idp.example/\"\n",
                "idp = \"own\"",
            ),
        ] {
            let outcome = one(&format!(
                "{head}[profiles.p]\npreset = \"camunda-saas\"\nmethod = \"oauth2\"\nclient_id = \"c\"\n{idp}\n{lines}\n"
            ));
            assert!(errors(&outcome).is_empty(), "{idp} {lines}");
            let found = oauth2(&outcome, "p");
            assert_eq!(found.audience, None, "{idp}");
            assert!(!matches!(found.client_auth, ClientAuth::SecretPost(_)));
            assert_ne!(found.idp.max_per_second, 1, "{idp}");
        }
    }
    let outcome = one(&format!(
        "[profiles.p]\npreset = \"camunda-saas\"\nmethod = \"oauth2\"\nclient_id = \"c\"\ntoken_url = \"https://login.cloud.camunda.io/oauth/token\"\n{certificate}\n"
    ));
    assert!(invalid(&outcome, "p").message.contains("X.509"));
}

/// A cluster has tenants of its own behind one address (Camunda 8.10).
#[test]
fn a_target_has_any_path() {
    for target in [
        "https://bru-2.zeebe.camunda.io/X/physical-tenants/blue",
        "http://localhost:8080/physical-tenants/blue/",
    ] {
        let preset = match target.starts_with("https") {
            true => "camunda-saas",
            false => "camunda-8-run",
        };
        let outcome = one(&format!(
            "[profiles.p]\npreset = \"{preset}\"\nmethod = \"oauth2\"\nclient_id = \"c\"\nissuer = \"https://idp.example/\"\nclient_secret = \"s\"\ntarget = \"{target}\"\n"
        ));
        assert!(errors(&outcome).is_empty(), "{:#?}", outcome.findings);
        assert_eq!(profile(&outcome, "p").target.as_deref(), Some(target));
    }
}

#[test]
fn self_managed_defaults_and_warnings() {
    let outcome = one("[profiles.p]\npreset = \"camunda-8-run\"\nmethod = \"none\"\n");
    assert_eq!(
        profile(&outcome, "p").target.as_deref(),
        Some("http://localhost:8080")
    );
    let outcome = one("[profiles.p]\npreset = \"camunda-helm\"\nmethod = \"none\"\n");
    assert_eq!(profile(&outcome, "p").target, None);
    let basic = "method = \"basic\"\nusername = \"u\"\npassword = \"p\"\n";
    let outcome = one(&format!("[profiles.p]\npreset = \"camunda-helm\"\n{basic}"));
    assert_eq!(warnings(&outcome).len(), 1);
    assert!(profile(&outcome, "p").warnings[0].contains("hashes the password"));
    assert!(one(&format!("[profiles.p]\n{basic}")).findings.is_empty());
}

#[test]
fn none_towards_another_machine() {
    let text = "[profiles.p]\npreset = \"camunda-helm\"\nmethod = \"none\"\ntarget = \"http://zeebe:8080\"\n";
    assert!(
        invalid(&one(text), "p")
            .message
            .contains("not on this machine")
    );
    let outcome = one(&format!("{text}allow_remote_without_auth = true\n"));
    assert_eq!(profile(&outcome, "p").warnings.len(), 1);
}

fn idp(preset: &str, lines: &str) -> ConfigOutcome {
    one(&format!(
        "[profiles.p]\npreset = \"{preset}\"\nmethod = \"oauth2\"\nclient_id = \"c\"\n{lines}\n"
    ))
}

#[test]
fn entra() {
    let tenant = "issuer = \"https://login.microsoftonline.com/t-1/v2.0\"\nclient_secret = \"s\"\n";
    for (lines, part) in [
        (format!("{tenant}scopes = []"), "without a scope"),
        (tenant.to_owned(), "without a scope"),
        (
            format!("{tenant}scopes = [\"User.Read\"]"),
            "end in `/.default`",
        ),
        (
            format!("{tenant}scopes = [\"a/.default\"]\naudience = \"x\""),
            "does not know the parameter `audience`",
        ),
        (
            format!("{tenant}scopes = [\"a/.default\"]\nresource = [\"https://x\"]"),
            "does not know the parameter `resource`",
        ),
        (
            tenant.replace("t-1", "common") + "scopes = [\"a/.default\"]",
            "need the tenant itself",
        ),
        (
            tenant.replace("/v2.0", "") + "scopes = [\"a/.default\"]",
            "ends in /v2.0",
        ),
    ] {
        let outcome = idp("entra", &lines);
        let errors = errors(&outcome);
        assert_eq!(errors.len(), 1, "{lines}\n{errors:#?}");
        assert!(
            errors[0].message.contains(part),
            "{lines}\n{}",
            errors[0].message
        );
    }
}

#[track_caller]
fn assertion(outcome: &ConfigOutcome) -> &Assertion {
    match &oauth2(outcome, "p").client_auth {
        ClientAuth::PrivateKeyJwt(assertion) => assertion,
        other => panic!("{other:?}"),
    }
}

#[test]
fn assertions_are_addressed_as_each_provider_documents() {
    let signed = "client_auth = \"private_key_jwt\"\nscopes = [\"a/.default\"]\nassertion = { key = \"k\", certificate = \"c\" }\n";
    for (preset, issuer, audience) in [
        (
            "entra",
            "https://login.microsoftonline.com/t-1/v2.0",
            Some("https://login.microsoftonline.com/t-1/oauth2/v2.0/token"),
        ),
        (
            "okta",
            "https://d.okta.com/oauth2/default",
            Some("https://d.okta.com/oauth2/default/v1/token"),
        ),
        (
            "okta",
            "https://d.okta.com",
            Some("https://d.okta.com/oauth2/v1/token"),
        ),
        ("keycloak", "https://k.example/realms/r", None),
    ] {
        let outcome = idp(preset, &format!("issuer = \"{issuer}\"\n{signed}"));
        assert_eq!(
            assertion(&outcome).audience,
            audience.map(|url| Audience::Named(url.into())),
            "{preset}"
        );
        assert_eq!(assertion(&outcome).x5t, preset == "entra", "{preset}");
    }
    let bare = "issuer = \"https://login.microsoftonline.com/t-1/v2.0\"\nclient_auth = \"private_key_jwt\"\nscopes = [\"a/.default\"]\nassertion = { key = \"k\" }\n";
    assert_eq!(warnings(&idp("entra", bare)).len(), 1);
}

#[test]
fn okta_needs_scopes_and_keycloak_a_realm() {
    let outcome = idp(
        "okta",
        "issuer = \"https://d.okta.com\"\nclient_secret = \"s\"",
    );
    assert!(invalid(&outcome, "p").message.contains("without a scope"));
    let outcome = idp(
        "keycloak",
        "issuer = \"https://k.example/\"\nclient_secret = \"s\"",
    );
    assert_eq!(profile(&outcome, "p").warnings.len(), 1);
    let outcome = idp(
        "keycloak",
        "issuer = \"https://k.example/auth/realms/r\"\nclient_secret = \"s\"",
    );
    assert!(outcome.findings.is_empty());
}

#[test]
fn a_client_certificate_and_bound_tokens() {
    let lines = "client_auth = \"tls_client_auth\"\ntls = { certificate = \"c\", key = \"k\" }\n";
    let outcome = one(&oauth2_with(lines));
    assert!(profile(&outcome, "p").warnings[0].contains("RFC 8705"));
    assert!(!profile(&outcome, "p").refuse_bound_tokens);
    let outcome = one(&oauth2_with(&format!("{lines}bound_tokens = \"refuse\"")));
    assert!(outcome.findings.is_empty());
    assert!(profile(&outcome, "p").refuse_bound_tokens);
}
