//! How a client proves its identity: words and combinations, and the messages for wrong ones.

use super::*;
use crate::core::profile::client_auth::{Assertion, AssertionSource, Audience, ClientAuth, Kid};

/// The message and help of the one error in a profile with these lines.
fn one_error(lines: &str) -> String {
    let outcome = one(&oauth2_with(lines));
    let errors = errors(&outcome);
    assert_eq!(errors.len(), 1, "{lines}: {errors:#?}");
    format!("{}; {}", errors[0].message, errors[0].help)
}

fn auth(lines: &str) -> ClientAuth {
    oauth2(&one(&oauth2_with(lines)), "p").client_auth.clone()
}

#[test]
fn an_assertions_audience_is_a_word_or_a_url() {
    let signed = |audience: &str| {
        format!(
            "client_auth = \"private_key_jwt\"\nassertion = {{ key = \"k\", audience = \"{audience}\" }}"
        )
    };
    for (text, expected) in [
        ("issuer", Audience::Issuer),
        ("token_endpoint", Audience::TokenEndpoint),
        (
            "https://a.example",
            Audience::Named("https://a.example".into()),
        ),
        ("urn:a", Audience::Named("urn:a".into())),
    ] {
        match auth(&signed(text)) {
            ClientAuth::PrivateKeyJwt(found) => assert_eq!(found.audience, Some(expected)),
            other => panic!("{other:?}"),
        }
    }
    for (text, expected) in [
        ("token-endpoint", "did you mean \"token_endpoint\"?"),
        ("Issuer", "did you mean \"issuer\"?"),
        ("", "must not be empty"),
    ] {
        let said = one_error(&signed(text));
        assert!(said.contains(expected), "{said}");
    }
    let lines = signed("issuer");
    let by_token_url = oauth2_with(&lines).replace("issuer = \"https", "token_url = \"https");
    let outcome = one(&by_token_url);
    let said = invalid(&outcome, "p").message.clone();
    assert!(
        said.contains("with `token_url` nobody says who that is"),
        "{said}"
    );
}

#[test]
fn an_assertion_in_a_file_has_a_type_and_may_name_the_client() {
    let bare = |lines: &str| {
        oauth2_with(&format!(
            "client_auth = \"private_key_jwt\"\nassertion = {{ {lines} }}"
        ))
        .replace("client_id = \"c\"\n", "")
    };
    for (lines, expected) in [
        (
            "file = \"f\"",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
        (
            "file = \"f\", type = \"jwt-spiffe\"",
            "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe",
        ),
        ("file = \"f\", type = \"urn:a\"", "urn:a"),
    ] {
        let outcome = one(&bare(lines));
        let found = oauth2(&outcome, "p");
        assert_eq!(found.client_id, "");
        match &found.client_auth {
            ClientAuth::PrivateKeyJwt(Assertion {
                source: Some(AssertionSource::File { kind, .. }),
                ..
            }) => assert_eq!(kind, expected),
            other => panic!("{other:?}"),
        }
    }
    for (lines, expected) in [
        ("key = \"k\"", "`client_id` is missing"),
        (
            "file = \"f\", type = \"jwt_spiffe\"",
            "did you mean \"jwt-spiffe\"?",
        ),
    ] {
        let outcome = one(&bare(lines));
        let error = errors(&outcome)[0];
        assert!(
            format!("{} {}", error.message, error.help).contains(expected),
            "{error}"
        );
    }
    let signed = "client_auth = \"private_key_jwt\"\nassertion = { key = \"k\", type = \"urn:a\" }";
    assert!(one_error(signed).contains("has no effect with `assertion.key`"));
}

#[test]
fn a_thumbprint_is_a_kid_of_a_key_alone() {
    let signed = |lines: &str| {
        format!("client_auth = \"private_key_jwt\"\nassertion = {{ key = \"k\", {lines} }}")
    };
    match auth(&signed("kid_thumbprint = true")) {
        ClientAuth::PrivateKeyJwt(found) => assert_eq!(found.kid, Some(Kid::Thumbprint)),
        other => panic!("{other:?}"),
    }
    match auth(&signed("kid = \"a\", kid_thumbprint = false")) {
        ClientAuth::PrivateKeyJwt(found) => assert_eq!(found.kid, Some(Kid::Named("a".into()))),
        other => panic!("{other:?}"),
    }
    let said = one_error(&signed("kid = \"a\", kid_thumbprint = true"));
    assert!(said.contains("exclude one another"), "{said}");
    let said = one_error(
        "client_auth = \"private_key_jwt\"\nassertion = { file = \"f\", kid_thumbprint = true }",
    );
    assert!(
        said.contains("has no effect with `assertion.file`"),
        "{said}"
    );
    let said = one_error(
        "client_auth = \"client_secret_jwt\"\nclient_secret = \"s\"\nassertion = { kid_thumbprint = true }",
    );
    assert!(said.contains("not used by client_auth"), "{said}");
}

#[test]
fn basic_can_be_told_not_to_encode() {
    let secret = "client_secret = \"s\"\n";
    assert!(matches!(auth(secret), ClientAuth::SecretBasic(_)));
    for (encoding, plain) in [("form", false), ("plain", true)] {
        let found = auth(&format!("{secret}basic_encoding = \"{encoding}\""));
        assert_eq!(matches!(found, ClientAuth::SecretBasicPlain(_)), plain);
        assert_eq!(found.as_str(), "client_secret_basic");
    }
    let said = one_error(&format!(
        "{secret}client_auth = \"client_secret_post\"\nbasic_encoding = \"plain\""
    ));
    assert!(said.contains("`basic_encoding` is not used by"), "{said}");
    let with_colon = oauth2_with(&format!("{secret}basic_encoding = \"plain\""))
        .replace("client_id = \"c\"", "client_id = \"a:c\"");
    let outcome = one(&with_colon);
    assert!(
        errors(&outcome)[0]
            .message
            .contains("must not have a colon")
    );
    assert!(errors(&one(&with_colon.replace("plain", "form"))).is_empty());
}

/// Broken by `values::issuer` that accepts everything.
#[test]
fn an_issuer_that_is_none_is_told_offline() {
    let tail = "/.well-known/openid-configuration";
    for (issuer, expected) in [
        (
            format!("https://idp.example/realms/a{tail}"),
            "\"https://idp.example/realms/a\"",
        ),
        (
            format!("https://idp.example:8443{tail}"),
            "\"https://idp.example:8443\"",
        ),
        (
            "https://idp.example/.well-known/oauth-authorization-server/a/b".to_owned(),
            "\"https://idp.example/a/b\"",
        ),
        (
            "https://idp.example/{tenantid}/v2.0".to_owned(),
            "has a placeholder",
        ),
        ("idp.example/realms/a".to_owned(), "it begins with https://"),
        (
            "idp.example:8443/realms/a".to_owned(),
            "must be an https:// or http:// URL",
        ),
        ("corp".to_owned(), "is not an absolute URL"),
        ("https:///realms/a?x".to_owned(), "must not have a query"),
    ] {
        let text =
            oauth2_with("client_secret = \"s\"").replace("https://idp.example/realms/r", &issuer);
        let outcome = one(&text);
        let error = errors(&outcome)[0];
        let said = format!("{}; {}", error.message, error.help);
        assert!(said.contains(expected), "{issuer}: {said}");
    }
}
