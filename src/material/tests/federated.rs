//! Assertions that another program makes: the facts in them, and the warnings about them.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::core::oauth::federated::{JWT_BEARER, JWT_SPIFFE};

fn jwt(claims: &str) -> String {
    format!(
        "eyJhbGciOiJSUzI1NiJ9.{}.c2ln",
        URL_SAFE_NO_PAD.encode(claims)
    )
}

/// An assertion that is an hour old and valid for another hour.
fn whole() -> String {
    let now = NOW.0.as_secs();
    let (iat, exp) = (now - 3600, now + 3600);
    jwt(&format!(
        r#"{{"iss":"https://k","sub":"ns:sa","aud":["a"],"iat":{iat},"exp":{exp}}}"#
    ))
}

fn named(text: &str, kind: &str) -> Result<Material, Vec<String>> {
    let folder = Folder::new();
    let path = folder.write("assertion", text);
    let method = ClientAuth::PrivateKeyJwt(Assertion {
        source: Some(AssertionSource::File {
            path,
            kind: kind.into(),
        }),
        algorithm: None,
        kid: None,
        x5t: false,
        audience: None,
        lifetime: Duration::from_secs(60),
    });
    of(&oauth2(method, None, TrustSource::System))
}

#[test]
fn a_ready_assertion_is_a_secret_that_ends() {
    let material = named(&format!("{}\n", whole()), JWT_BEARER).unwrap();
    assert_eq!(material.warnings, []);
    match &material.assertion {
        Some(AssertionMaterial::Ready(ready)) => assert_eq!(ready.assertion.expose(), whole()),
        other => panic!("{other:?}"),
    }
    let told = &material.certificates()[0];
    assert_eq!((told.role, told.is_assertion), ("assertion.file", true));
    assert_eq!(told.subject, "ns:sa (of https://k)");
    // A tenth of two hours is twelve minutes.
    let minutes = |n: u64| NOW.plus(Duration::from_secs(n * 60));
    assert_eq!(told.warning(minutes(47)), None);
    let late = told.warning(minutes(49)).expect("late").message;
    assert!(
        late.contains("the assertion of ns:sa") && late.contains("a tenth"),
        "{late}"
    );
    assert!(
        told.warning(minutes(60))
            .expect("ended")
            .message
            .contains("has expired")
    );
}

/// Broken by leaving out any of the checks.
#[test]
fn what_is_no_assertion_or_none_any_more_is_an_error() {
    let now = NOW.0.as_secs();
    let ended = |exp: u64| {
        let message = only(named(
            &jwt(&format!(r#"{{"sub":"s","exp":{exp}}}"#)),
            JWT_BEARER,
        ));
        assert!(message.starts_with("assertion.file: "), "{message}");
        assert!(message.contains("has expired on"), "{message}");
    };
    ended(now);
    ended(1_000_000_000);
    let half = &whole()[..20];
    let message = only(named(half, JWT_BEARER));
    assert!(message.contains("is no JWT"), "{message}");
    assert!(!message.contains(half), "{message}");
    // It is sent all the same: the identity provider may know better.
    for none in ["a-client-secret", "a.b.c", "<html></html>"] {
        let message = texts(&named(none, JWT_BEARER).unwrap().warnings).join("");
        assert!(message.contains("is no JWT"), "{message}");
        assert!(!message.contains(none), "{message}");
    }
    assert!(
        named(
            "<saml/>",
            "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"
        )
        .is_ok()
    );
}

#[test]
fn missing_claims_are_warned_of() {
    let said = |claims: &str, kind| texts(&named(&jwt(claims), kind).unwrap().warnings).join("");
    let exp = NOW.0.as_secs() + 60;
    let svid = format!(r#"{{"sub":"spiffe://t/a","aud":"k","exp":{exp}}}"#);
    assert_eq!(said(&svid, JWT_SPIFFE), "");
    assert!(said(&svid, JWT_BEARER).contains("lacks iss,"));
    assert!(said("{}", JWT_BEARER).contains("lacks iss, sub, aud, exp,"));
}
