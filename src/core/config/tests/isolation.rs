//! A broken profile fails alone.

use super::*;

const GOOD: &str = "[profiles.good]\nmethod = \"none\"\n";

#[test]
fn tokend_toml_itself() {
    for text in [
        "[server]\nx = 1\n",
        "[audit]\nsink = 1\n",
        "[server.limits]\nconnections = 0\n",
        "what = 1\n",
        "[server\n",
        "\u{0}",
    ] {
        let outcome = one(&format!("{text}{GOOD}"));
        assert!(outcome.config.is_none(), "{text}");
        assert!(!errors(&outcome).is_empty(), "{text}");
    }
}

#[test]
fn a_bad_profile_hurts_no_other() {
    let outcome = one(&format!(
        "{GOOD}[profiles.bad]\nmethod = \"oauth2\"\nclient_id = 5\naccess = [{{ user = \"a\" }}, {{ user = \"b\", gruop = \"c\" }}]\n[profiles.\"b c\"]\n"
    ));
    profile(&outcome, "good");
    let bad = invalid(&outcome, "bad");
    assert_eq!(bad.method, "oauth2");
    // Without its misspelled key the rule would let in more callers.
    assert_eq!(bad.access.len(), 1);
    let lines: Vec<&str> = bad.message.lines().collect();
    assert!(
        lines.contains(
            &"/etc/tokend/tokend.toml:5:13: `client_id`: expected a string, found an integer"
        ),
        "{lines:#?}"
    );
    assert!(lines.len() >= 3, "{lines:#?}");
    assert!(
        lines
            .iter()
            .all(|line| line.starts_with("/etc/tokend/tokend.toml:")),
        "{lines:#?}"
    );
}

#[test]
fn a_bad_idp_hurts_those_who_use_it() {
    let user = |name: &str, idp: &str| {
        format!(
            "[profiles.{name}]\nmethod = \"oauth2\"\nidp = \"{idp}\"\nclient_id = \"c\"\nclient_auth = \"none\"\n"
        )
    };
    let outcome = one(&format!(
        "[idp.a]\nissuer = \"https://a.example\"\nmax_in_flight = -1\n[idp.b]\nissuer = \"https://b.example\"\n{}{}",
        user("one", "a"),
        user("two", "b")
    ));
    profile(&outcome, "two");
    let message = &invalid(&outcome, "one").message;
    assert!(
        message.contains("tokend.toml:3:17: `max_in_flight`"),
        "{message}"
    );
    assert!(message.contains("[idp.a]"), "{message}");
    assert_eq!(errors(&outcome).len(), 1);
}

#[test]
fn profiles_that_share_a_problem_tell_it_once() {
    let outcome = one(concat!(
        "[idp.a]\nissuer = \"http://a.example\"\n",
        "[profiles.one]\nmethod = \"oauth2\"\nidp = \"a\"\nclient_id = \"c\"\nclient_auth = \"none\"\n",
        "[profiles.two]\nmethod = \"oauth2\"\nidp = \"a\"\nclient_id = \"c\"\nclient_auth = \"none\"\n",
    ));
    assert_eq!(errors(&outcome).len(), 1);
    assert_eq!(
        invalid(&outcome, "one").message,
        invalid(&outcome, "two").message
    );
}

#[test]
fn a_fragment_holds_profiles_and_idps_only() {
    let text = "[server]\nsocket = \"/x\"\n[profiles.inside]\nmethod = \"none\"\n";
    let outcome = many(GOOD, &[("profiles.d/a.toml", text)]);
    profile(&outcome, "good");
    assert!(
        invalid(&outcome, "inside")
            .message
            .contains("[server] cannot stand in a file of profiles.d")
    );
    assert_eq!(errors(&outcome).len(), 1);
}

#[test]
fn a_fragment_that_is_not_toml_names_its_profiles() {
    let text = "[profiles.before]\nmethod = \"none\"\naccess = [{ user = \"w\" }]\n[profiles.broken]\nmethod = \n= = =\n\"\"\"\n[profiles.after.tls]\n";
    let outcome = many(GOOD, &[("profiles.d/a.toml", text)]);
    profile(&outcome, "good");
    for name in ["before", "broken", "after"] {
        assert!(
            invalid(&outcome, name).message.contains("not TOML"),
            "{name}"
        );
    }
    assert_eq!(invalid(&outcome, "before").method, "none");
    assert_eq!(invalid(&outcome, "before").access.len(), 1);
    assert!(
        errors(&outcome)
            .iter()
            .all(|e| e.message.starts_with("not TOML")),
        "{:#?}",
        outcome.findings
    );
}

#[test]
fn an_idp_in_a_fragment_that_is_not_toml() {
    let outcome = many(
        &oauth2_with("idp = \"x\"\nclient_auth = \"none\""),
        &[("profiles.d/a.toml", "[idp.x]\nmax_in_flight = \n")],
    );
    let message = &invalid(&outcome, "p").message;
    assert!(
        message.contains("[idp.x] at /etc/tokend/profiles.d/a.toml:1:6 cannot be used"),
        "{message}"
    );
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn a_fragment_that_cannot_be_read_is_told() {
    let outcome = load(&Sources {
        main: file("tokend.toml", GOOD),
        fragments: vec![Loaded::Unreadable {
            path: "/etc/tokend/profiles.d/a.toml".into(),
            why: "permission denied".into(),
        }],
    });
    profile(&outcome, "good");
    let found = errors(&outcome)[0];
    assert_eq!(found.message, "cannot be read: permission denied");
    assert_eq!((found.line, found.column), (1, 1));
}

#[test]
fn the_same_profile_twice_is_neither() {
    let outcome = many(
        GOOD,
        &[(
            "profiles.d/a.toml",
            "\n[profiles.good]\nmethod = \"none\"\n",
        )],
    );
    let message = &invalid(&outcome, "good").message;
    assert!(
        message.contains("/etc/tokend/profiles.d/a.toml:2:11"),
        "{message}"
    );
    assert!(
        message.contains("and at /etc/tokend/tokend.toml:1:11"),
        "{message}"
    );
}

#[test]
fn the_same_idp_twice() {
    let idp = "[idp.x]\nissuer = \"https://x.example\"\n";
    let text = "[profiles.p]\nmethod = \"oauth2\"\nidp = \"x\"\nclient_id = \"c\"\nclient_auth = \"none\"\n";
    let outcome = many(&format!("{idp}{text}"), &[("profiles.d/a.toml", idp)]);
    assert!(
        invalid(&outcome, "p")
            .message
            .contains("[idp.x] is there twice")
    );
}

#[test]
fn findings_name_their_profile() {
    let outcome = one("[profiles.bad]\n");
    assert_eq!(
        errors(&outcome)[0].profile.as_ref().map(|p| p.as_str()),
        Some("bad")
    );
    assert_eq!(errors(&outcome)[0].path, "profiles.bad.method");
}
