//! Secrets never appear in messages, however the file is broken around them.

use super::*;
use crate::core::config::findings_json;

const SECRET: &str = "hunter2-hunter2";

/// All texts of an outcome that a person could be shown.
fn shown(outcome: &ConfigOutcome) -> String {
    let mut text = findings_json(&outcome.findings).to_string();
    for finding in &outcome.findings {
        text.push_str(&format!("{finding}\n{finding:?}\n{}\n", finding.one_line()));
    }
    text.push_str(&format!("{:?}", outcome.config));
    text
}

/// Texts in the place of a secret, with `S` for the secret itself.
const VALUES: &[&str] = &[
    "\"S\"",
    "'S'",
    "\"\"\"\nS\n\"\"\"",
    "\"S",
    "S",
    "S\"",
    "'S",
    "\"\"\"S",
    "[\"S\"]",
    "[\"S\"",
    "{ file = \"S }",
    "{ fiel = \"S\" }",
    "{ S = 1 ",
    "\"a\\qS\"",
    "\"x\" S",
    "\"S\" 'y'",
    "\"x\nS\"",
    "\"x\nS = 1",
    "{ file = [\"S\"] }",
    "\n\"S\"",
    "= \"S\"",
    "\"https://a:S@b\"",
];

/// Places of secrets, and places where they end up by mistake.
const KEYS: &[&str] = &[
    "client_secret",
    "client_sceret",
    "clientSecret",
    "extra.x",
    "extra",
    "tls.key_password",
    "tls.keystore.password",
    "tls.truststore",
    "assertion.key_password",
    "password",
    "token",
    "settings.x",
    "command",
    "token_url",
    "what",
    "tls",
    "refresh",
    "scopes.x",
];

#[test]
fn in_no_finding_and_no_debug() {
    for private in [true, false] {
        for &key in KEYS {
            for &value in VALUES {
                // A text in the place of a URL is no secret, but the part of a URL before an @ may
                // be one.
                if key == "token_url" && !value.contains('@') {
                    continue;
                }
                let value = value.replace('S', SECRET);
                for text in [
                    format!("[profiles.p]\nmethod = \"oauth2\"\n{key} = {value}\nscopes = 5\n"),
                    format!("[profiles.p]\n{key} = {value}\n[idp.x\n"),
                    format!(
                        "profiles.p = {{ method = \"none\", x = 1, {key} = {value}, y = 2 }}\n"
                    ),
                    format!("{key} = {value}\n"),
                    format!("[profiles.p.{key}]\n{key} = {value}\n[idp]\nx = 1\n"),
                ] {
                    let mut main = file("tokend.toml", &text);
                    main.private = private;
                    let fragments = vec![Loaded::Text(main.clone())];
                    let empty = file("other.toml", "");
                    for sources in [
                        Sources {
                            main: main.clone(),
                            fragments: Vec::new(),
                        },
                        Sources {
                            main: empty,
                            fragments,
                        },
                    ] {
                        let outcome = load(&sources);
                        let shown = shown(&outcome);
                        let at = shown.find(SECRET);
                        assert!(at.is_none(), "{text}\n{:#?}", outcome.findings);
                        assert!(!outcome.findings.is_empty(), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn literal_secrets_need_a_private_file() {
    let mut main = file("tokend.toml", &oauth2_with("client_secret = \"hunter2\""));
    main.private = false;
    let outcome = load(&Sources {
        main,
        fragments: Vec::new(),
    });
    let errors = errors(&outcome);
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].help.contains("chmod 600 /etc/tokend/tokend.toml"),
        "{}",
        errors[0].help
    );
    assert_eq!((errors[0].line, errors[0].column), (5, 17));
    assert_eq!(errors[0].snippet, None);
}

#[test]
fn the_environment_is_warned_of() {
    let outcome = one(&oauth2_with("client_secret = { env = \"SECRET\" }"));
    assert_eq!(warnings(&outcome).len(), 1);
    assert_eq!(profile(&outcome, "p").warnings.len(), 1);
    assert!(warnings(&outcome)[0].help.contains("credential"));
}

#[test]
fn lines_without_secrets_are_shown() {
    let outcome = one("[profiles.p]\nmethod = \"oauth\"\nclientsecret = \"x\"\n");
    let snippets: Vec<_> = outcome
        .findings
        .iter()
        .map(|f| f.snippet.as_deref())
        .collect();
    assert_eq!(
        snippets,
        [Some("method = \"oauth\""), Some("clientsecret = …")]
    );
    let outcome = one("[server]\nsocket = /run/x\n");
    assert_eq!(
        outcome.findings[0].snippet.as_deref(),
        Some("socket = /run/x")
    );
}

#[test]
fn a_lost_line_break_does_not_show_the_secret_of_the_next_line() {
    for line in [
        format!("client_id = client_secret = {SECRET}"),
        format!("username = \"demopassword = \"{SECRET}\""),
        format!("username = \"demo\"\"{SECRET}\""),
        format!("username = \"demo # {SECRET}"),
        format!("issuer = \"https://u:{SECRET}@idp.example"),
    ] {
        let outcome = one(&format!("[profiles.p]\n{line}\n"));
        assert!(!outcome.findings.is_empty(), "{line}");
        assert!(!shown(&outcome).contains(SECRET), "{:#?}", outcome.findings);
    }
}
