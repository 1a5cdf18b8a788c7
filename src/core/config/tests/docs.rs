//! Tests that the reference and the example are complete and true.

use super::*;
use crate::core::config::reference::markdown;
use crate::core::config::schema::TABLES;

const EXAMPLE: &str = include_str!("../../../../docs/tokend.example.toml");

#[test]
fn the_reference_is_what_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    if std::env::var_os("TOKEND_BLESS").is_some() {
        std::fs::write(&path, markdown()).expect("docs/ can be written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/configuration.md is there");
    assert!(
        written == markdown(),
        "docs/configuration.md is not what the schema says; regenerate it: TOKEND_BLESS=1 cargo test --lib core::config"
    );
}

/// The example with its commented-out lines, profile by profile.
fn uncommented() -> String {
    EXAMPLE
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if rest.starts_with('[') || rest.contains(" = ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}

#[test]
fn the_example_has_no_errors() {
    let outcome = one(EXAMPLE);
    assert!(errors(&outcome).is_empty(), "{:#?}", outcome.findings);
    assert!(config(&outcome).profiles.len() >= 7);
    // The warnings are about the environment variable and the target without authentication, both
    // intended, and about Basic.
    assert_eq!(warnings(&outcome).len(), 3, "{:#?}", outcome.findings);
}

#[test]
fn what_the_example_has_commented_out_is_known_too() {
    let outcome = one(&uncommented());
    for error in errors(&outcome) {
        assert!(error.message.contains("exclude one another"), "{error}");
    }
}

#[test]
fn the_example_names_every_key() {
    let text = uncommented();
    let (document, errors) = toml::de::DeTable::parse_recoverable(&text);
    assert!(errors.is_empty(), "{errors:?}");
    let mut seen = std::collections::BTreeSet::new();
    let mut open = Vec::new();
    for (root, value) in document.get_ref() {
        let table = value.get_ref().as_table().expect("a table");
        match root.get_ref().as_ref() {
            "idp" => open.extend(table.values().map(|v| ("idp.NAME", v))),
            "profiles" => open.extend(table.values().map(|v| ("profiles.NAME", v))),
            "server" => open.push(("server", value)),
            _ => open.push(("audit", value)),
        }
    }
    while let Some((title, value)) = open.pop() {
        for (name, value) in value.get_ref().as_table().into_iter().flatten() {
            let name: &str = name.get_ref();
            seen.insert((title, name.to_owned()));
            match (name, value.get_ref()) {
                ("limits", _) => open.push(("server.limits", value)),
                ("keystore" | "truststore", _) => open.push(("keystore", value)),
                ("access" | "admins", list) => {
                    let list = list.as_array().expect("a list");
                    open.extend(list.iter().map(|rule| ("access rule", rule)));
                }
                (_, toml::de::DeValue::Table(_)) => {
                    let title = TABLES.iter().map(|t| t.title).find(|t| *t == name);
                    open.push((title.unwrap_or("secret"), value));
                }
                _ => {}
            }
        }
    }
    for table in TABLES {
        for key in table.keys {
            assert!(
                seen.contains(&(table.title, key.name.to_owned())),
                "{}.{}",
                table.title,
                key.name
            );
        }
    }
}
