//! Which URLs stay on this machine, and what makes the identity of a credential.

use super::*;
use crate::core::config::{SourceFile, Sources, load};

#[test]
fn loopback_is_what_cannot_leave_the_machine() {
    for (text, expected) in [
        ("http://127.0.0.1:8080", true),
        ("http://127.255.0.9/", true),
        ("http://[::1]:1/", true),
        ("http://LOCALHOST/x", true),
        ("http://localhost.example/", false),
        ("http://128.0.0.1/", false),
        ("http://0.0.0.0/", false),
        ("http://127.0.0.1.example/", false),
    ] {
        let url = url::Url::parse(text).expect("a URL");
        assert_eq!(is_loopback(&url), expected, "{text}");
    }
}

const BASE: &str = "issuer = \"https://idp.example/r\"\nclient_id = \"c\"\n\
    client_secret = { file = \"/s\" }\nscopes = [\"a\", \"b\"]\n";

fn oauth2(lines: &str) -> Profile {
    let outcome = load(&Sources {
        main: SourceFile {
            path: "/etc/tokend/tokend.toml".into(),
            text: format!("[profiles.p]\nmethod = \"oauth2\"\n{lines}"),
            private: true,
            readers: String::new(),
        },
        fragments: Vec::new(),
    });
    match outcome.config.as_ref().and_then(|it| it.profiles.get("p")) {
        Some(Ok(profile)) => profile.as_ref().clone(),
        _ => panic!("{lines}: {:#?}", outcome.findings),
    }
}

/// Broken by `credential_identity` that leaves out one of the parts, and by one that includes the
/// material or how it is got.
#[test]
fn whom_as_whom_and_for_what_and_nothing_else_is_the_identity() {
    let base = oauth2(BASE);
    let with = |line: &str| BASE.to_owned() + line;
    for (other, same) in [
        (BASE.replace("/r\"", "/q\""), false),
        (BASE.replace("issuer =", "token_url ="), false),
        (BASE.replace("\"c\"", "\"d\""), false),
        (BASE.replace("\"a\", \"b\"", "\"ab\""), false),
        (with("client_auth = \"client_secret_post\"\n"), false),
        (with("audience = \"x\"\n"), false),
        (with("resource = [\"https://x\"]\n"), false),
        (with("target = \"https://x\"\n"), false),
        (with("extra = { x = \"y\" }\n"), false),
        (BASE.replace("/s\"", "/t\""), true),
        (with("access = [{ user = 1 }]\n"), true),
        (with("refresh = { eager = false }\n"), true),
    ] {
        let profile = oauth2(&other);
        assert_eq!(profile.same_identity(&base), same, "{other}");
        assert_eq!(profile.identity() == base.identity(), same, "{other}");
    }
}

/// A credential that the version before kept under another identity is dropped, and the profile
/// asks anew. A change to how the identity is written has the same effect once more, and belongs in
/// the changelog.
#[test]
fn the_identity_stays_the_same_from_version_to_version() {
    let identity = oauth2(BASE).identity().expect("it asks somebody");
    let hex: String = identity.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        hex,
        "afb8ae9fc3ca602b972188b30247c435d0ac724962e4d8b40ac8356c931bace4"
    );
}
