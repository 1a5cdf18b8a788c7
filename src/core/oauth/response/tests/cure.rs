//! The advice for a refused client: it fits how the client proves its identity, with the likeliest
//! cause first.

use super::*;
use crate::core::oauth::response::cure::Shown;
use crate::core::profile::client_auth::{Assertion, AssertionSource, Audience, Kid};

fn refused(suspects: Suspects<'_>) -> String {
    let endpoint = Url::parse("https://idp.example/token").unwrap();
    let asked = Asked {
        endpoint: &endpoint,
        at: &crate::core::oauth::withhold::place(&endpoint),
        suspects,
        scopes: &[],
        refuse_bound: false,
        secrets: &[],
        asked_at: stamp(NOW),
        now: stamp(NOW),
    };
    let refused = judge(&answer(401, br#"{"error":"invalid_client"}"#), &asked);
    permanent(refused.map(|granted| granted.issued))
}

fn assertion(source: Option<AssertionSource>) -> Assertion {
    Assertion {
        source,
        algorithm: None,
        kid: None,
        x5t: false,
        audience: None,
        lifetime: Duration::from_secs(60),
    }
}

fn by_key() -> Assertion {
    assertion(Some(AssertionSource::Pem {
        key: "key".into(),
        key_password: None,
        certificate: None,
    }))
}

fn secret() -> SecretRef {
    SecretRef::Env("UNUSED".into())
}

#[test]
fn the_cure_knows_the_client_authentication() {
    for (client_auth, expected) in [
        (ClientAuth::PrivateKeyJwt(by_key()), "assertion"),
        (
            ClientAuth::SecretJwt(secret(), assertion(None)),
            "client_secret",
        ),
        (ClientAuth::Tls, "tls.certificate"),
        (ClientAuth::None, "public client"),
    ] {
        let message = refused(suspects(&client_auth));
        assert!(message.contains(expected), "{message}");
    }
}

/// Broken by an `other_audience` that is empty.
#[test]
fn the_audience_that_was_not_tried_comes_first_unless_somebody_chose_one() {
    let first = |assertion: Assertion, issuer_known| {
        let auth = ClientAuth::PrivateKeyJwt(assertion);
        let message = refused(Suspects {
            issuer_known,
            ..suspects(&auth)
        });
        let (_, cure) = message.split_once("its assertion: ").expect("a cure");
        cure.to_owned()
    };
    let cure = first(by_key(), true);
    assert!(
        cure.starts_with("set assertion.audience = \"token_endpoint\" first"),
        "{cure}"
    );
    let cure = first(by_key(), false);
    assert!(
        cure.starts_with("set assertion.audience to the issuer's URL first"),
        "{cure}"
    );
    for chosen in [
        Audience::Issuer,
        Audience::TokenEndpoint,
        Audience::Named("a".into()),
    ] {
        let mut assertion = by_key();
        assertion.audience = Some(chosen);
        let cure = first(assertion, true);
        assert!(
            cure.starts_with("check client_id") && cure.contains("assertion.audience"),
            "{cure}"
        );
    }
}

#[test]
fn advice_that_does_not_apply_is_not_given() {
    let mut ready = assertion(Some(AssertionSource::File {
        path: "a".into(),
        kind: "urn:a".into(),
    }));
    let message = refused(suspects(&ClientAuth::PrivateKeyJwt(ready.clone())));
    for strange in ["kid", "x5t", "assertion.audience", "key registered"] {
        assert!(!message.contains(strange), "{strange}: {message}");
    }
    assert!(
        message.contains("assertion.file") && message.contains("iss, sub and aud"),
        "{message}"
    );
    ready.source = by_key().source;
    ready.x5t = true;
    let message = refused(suspects(&ClientAuth::PrivateKeyJwt(ready.clone())));
    assert!(
        message.contains("x5t") && !message.contains("kid"),
        "{message}"
    );
    ready.x5t = false;
    ready.kid = Some(Kid::Thumbprint);
    let message = refused(suspects(&ClientAuth::PrivateKeyJwt(ready)));
    assert!(
        message.contains("kid") && !message.contains("x5t"),
        "{message}"
    );
}

/// Broken by an `other_encoding` that is empty.
#[test]
fn an_encoding_is_suspected_where_it_makes_a_difference() {
    for (auth, plain, expected) in [
        (ClientAuth::SecretBasic(secret()), true, ""),
        (ClientAuth::SecretBasicPlain(secret()), true, ""),
        (ClientAuth::SecretPost(secret()), false, ""),
        (
            ClientAuth::SecretBasic(secret()),
            false,
            "set basic_encoding = \"plain\" first",
        ),
        (
            ClientAuth::SecretBasicPlain(secret()),
            false,
            "remove basic_encoding",
        ),
    ] {
        let message = refused(Suspects {
            plain,
            ..suspects(&auth)
        });
        let (_, cure) = message.split_once("client id or secret: ").expect("a cure");
        let expected = if expected.is_empty() {
            "check client_id"
        } else {
            expected
        };
        assert!(cure.starts_with(expected), "{message}");
    }
}

/// Broken by a `certificate` without `first`.
#[test]
fn a_chain_that_may_be_taken_for_another_kind_is_told_to_be_one() {
    for (auth, chain, expected) in [
        (
            ClientAuth::Tls,
            1,
            "tls.keystore is a chain of one certificate, which some take for a self-signed",
        ),
        (ClientAuth::Tls, 2, "CN=it: check client_id, tls.keystore"),
        (
            ClientAuth::SelfSignedTls,
            1,
            "CN=it: check client_id, tls.keystore",
        ),
        (
            ClientAuth::SelfSignedTls,
            3,
            "tls.keystore is a chain of 3 certificates",
        ),
    ] {
        let certificate = Some(Shown {
            role: "tls.keystore",
            subject: "CN=it",
            chain,
        });
        let message = refused(Suspects {
            certificate,
            ..suspects(&auth)
        });
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("its certificate of CN=it"), "{message}");
    }
}
