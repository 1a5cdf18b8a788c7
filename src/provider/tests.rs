use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;
use crate::core::credential::{Lifetime, Scheme};
use crate::core::failure::FailureKind;
use crate::core::profile::{ProfileName, Refresh, RequestSettings, SecretRef};
use crate::core::time::{BootTime, Stamp, WallTime};
use crate::material::{self, Surroundings};

const NOW: u64 = 1_795_490_940;

fn shared() -> Shared {
    Shared::new(Clock::given(|| Stamp {
        boot: BootTime(Duration::from_secs(100)),
        wall: WallTime(Duration::from_secs(NOW)),
    }))
}

fn profile(method: Method) -> Profile {
    Profile {
        name: ProfileName::parse("p").unwrap(),
        target: None,
        method,
        access: Vec::new(),
        refresh: Refresh::default(),
        request: RequestSettings::default(),
        refuse_bound_tokens: false,
        warnings: Vec::new(),
    }
}

fn literal(text: &str) -> SecretRef {
    SecretRef::Literal(Secret::new(text.into()))
}

fn made(profile: &Profile) -> Result<Arc<dyn Provider>, Failure> {
    let now = WallTime(Duration::from_secs(NOW));
    build(
        profile,
        material::read(profile, &Surroundings::default(), now).unwrap(),
        &shared(),
    )
}

async fn fetch(profile: &Profile) -> Result<Issued, Failure> {
    made(profile)?.fetch(&Variant::default()).await
}

fn token(text: &str) -> Profile {
    profile(Method::Static {
        token: literal(text),
    })
}

fn jwt(claims: &str) -> String {
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test]
async fn none_has_nothing_and_never_expires() {
    let issued = fetch(&profile(Method::None)).await.unwrap();
    assert!(issued.token.is_empty());
    assert_eq!(issued.scheme, Scheme::None);
    assert_eq!(issued.lifetime, Lifetime::Unlimited);
}

#[tokio::test]
async fn basic_is_rfc_7617_in_utf_8() {
    let basic = |username: &str, password: &str| {
        profile(Method::Basic {
            username: username.into(),
            password: literal(password),
        })
    };
    // The examples of RFC 7617 §2 and §2.1.
    for (username, password, expected) in [
        ("Aladdin", "open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ("test", "123£", "dGVzdDoxMjPCow=="),
        ("demo", "a:b", &STANDARD.encode("demo:a:b")),
    ] {
        let issued = fetch(&basic(username, password)).await.unwrap();
        assert_eq!(issued.token.expose(), expected);
        assert_eq!(issued.scheme, Scheme::Basic);
        assert_eq!(issued.lifetime, Lifetime::Unlimited);
    }
    assert!(made(&basic("a:b", "p")).is_err());
}

#[tokio::test]
async fn a_static_token_lives_as_long_as_it_says() {
    let issued = fetch(&token("opaque")).await.unwrap();
    assert_eq!(issued.token.expose(), "opaque");
    assert_eq!(issued.scheme, Scheme::Bearer);
    assert_eq!(issued.lifetime, Lifetime::Unlimited);
    let life = |claims: String| async move { fetch(&token(&jwt(&claims))).await };
    let issued = life(format!(r#"{{"exp":{}}}"#, NOW + 60)).await.unwrap();
    assert_eq!(issued.lifetime, Lifetime::For(Duration::from_secs(60)));
    let issued = life(r#"{"sub":"x"}"#.into()).await.unwrap();
    assert_eq!(issued.lifetime, Lifetime::Unlimited);
    for exp in [NOW, NOW - 1, 0] {
        let failure = life(format!(r#"{{"exp":{exp}}}"#)).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(
            failure.message.contains("has expired"),
            "{}",
            failure.message
        );
    }
}

#[test]
fn trap_38_a_static_token_that_splits_a_header() {
    for bad in ["Bearer abc", "tök", "a b"] {
        let failure = made(&token(bad)).err().unwrap();
        assert_eq!(failure.kind, FailureKind::Permanent);
        assert!(!failure.message.contains(bad), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_bound_static_token_is_served_or_refused() {
    let mut bound = token(&jwt(r#"{"cnf":{"x5t#S256":"abc"}}"#));
    assert_eq!(
        fetch(&bound).await.unwrap().confirmation.as_deref(),
        Some("abc")
    );
    bound.refuse_bound_tokens = true;
    assert!(made(&bound).is_err());
}

#[test]
fn trap_1_material_of_another_profile_is_no_empty_credential() {
    let now = WallTime(Duration::from_secs(NOW));
    let empty = || material::read(&profile(Method::None), &Surroundings::default(), now).unwrap();
    assert!(build(&token("t"), empty(), &shared()).is_err());
    let basic = profile(Method::Basic {
        username: "u".into(),
        password: literal("p"),
    });
    assert!(build(&basic, empty(), &shared()).is_err());
}
