//! The support matrix of Camunda 8 over `tokend check`, cell by cell, and the configurations of
//! docs/camunda.md.

use std::collections::BTreeMap;

use serde_json::Value;
use tokend_issuer::certificates::{Authority, ClientOptions};
use tokend_issuer::clock::WallClock;

use crate::harness::Place;

/// The expected result of a cell.
enum Cell {
    /// Accepted, with this many warnings, and with this default target.
    Works(usize, Option<&'static str>),
    /// Refused: the reason, and what to use instead.
    Not(&'static str, &'static str),
}
use Cell::{Not, Works};

const LOCAL: Option<&str> = Some("http://localhost:8080");
const METHODS: [(&str, &str); 4] = [
    ("none", "method = \"none\"\n"),
    (
        "basic",
        "method = \"basic\"\nusername = \"demo\"\npassword = { file = \"password\" }\n",
    ),
    (
        "oidc",
        "method = \"oauth2\"\nclient_id = \"orders\"\nclient_secret = { file = \"secret\" }\n",
    ),
    (
        "x509",
        "method = \"oauth2\"\nclient_id = \"orders\"\nclient_auth = \"tls_client_auth\"\n\
         tls = { certificate = \"orders.pem\", key = \"orders.key\" }\n",
    ),
];
const ISSUER: &str = "issuer = \"https://keycloak.example/realms/camunda-platform\"\n";

/// Distribution, what a profile must contain besides, and the result for each method.
const MATRIX: [(&str, &str, [Cell; 4]); 4] = [
    (
        "camunda-8-run",
        ISSUER,
        [
            Works(0, LOCAL),
            Works(1, LOCAL),
            Works(0, LOCAL),
            Works(1, LOCAL),
        ],
    ),
    (
        "camunda-docker-compose",
        ISSUER,
        [
            Works(0, LOCAL),
            Works(1, LOCAL),
            Works(0, LOCAL),
            Works(1, LOCAL),
        ],
    ),
    (
        "camunda-helm",
        ISSUER,
        [
            Works(0, None),
            Works(1, None),
            Works(0, None),
            Works(1, None),
        ],
    ),
    (
        "camunda-saas",
        "",
        [
            Not("no unauthenticated access", "method = \"oauth2\""),
            Not("does not take Basic", "method = \"oauth2\""),
            Works(0, None),
            Not(
                "X.509 client certificates are for self-managed",
                "client_secret = ",
            ),
        ],
    ),
];

fn place() -> Place {
    let place = Place::new();
    let authority = Authority::new("ca", &WallClock::system()).expect("an authority");
    let pair = authority
        .client("orders", &ClientOptions::default())
        .expect("a certificate");
    place.write("idp-ca.pem", authority.certificate_pem());
    place.write("orders.pem", &pair.certificate_pem);
    place.secret("orders.key", pair.key_pem());
    place.secret("assertion.key", pair.key_pem());
    place.secret("password", "the-password-of-demo");
    place.secret("orders.password", "the-password-of-demo");
    place.secret("secret", "the-secret-of-orders");
    place.secret("orders.secret", "the-secret-of-orders");
    place
}

/// Exit status and findings of `tokend check` on this configuration.
fn check(place: &Place, config: &str) -> (Option<i32>, Vec<Value>) {
    place.write("tokend.toml", config);
    let ran = place.run(&["check", "--json"]);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let findings = report["findings"].as_array().expect("findings").clone();
    (ran.code, findings)
}

#[test]
fn every_distribution_with_every_way_in() {
    let place = place();
    for (preset, besides, cells) in &MATRIX {
        for ((name, method), cell) in METHODS.iter().zip(cells) {
            let besides = if method.contains("oauth2") {
                besides
            } else {
                ""
            };
            let config = format!("[profiles.orders]\npreset = \"{preset}\"\n{method}{besides}");
            let (code, findings) = check(&place, &config);
            match cell {
                Works(warnings, target) => {
                    assert_eq!(code, Some(0), "{preset} {name}: {findings:?}");
                    assert_eq!(findings.len(), *warnings, "{preset} {name}: {findings:?}");
                    assert!(
                        findings
                            .iter()
                            .all(|finding| finding["severity"] == "warning")
                    );
                    if let Some(target) = target.filter(|_| !method.contains("oauth2")) {
                        let daemon = Place::new();
                        daemon.secret("password", "the-password-of-demo");
                        let daemon = daemon.serve(&config);
                        let ran = daemon.place.run(&["token", "orders", "--json"]);
                        let answer: Value = serde_json::from_str(&ran.out).expect("JSON");
                        assert_eq!(answer["target"], *target, "{preset} {name}");
                    }
                }
                Not(why, instead) => {
                    assert_eq!(code, Some(1), "{preset} {name}: {findings:?}");
                    let said = |part: &str| {
                        findings.iter().any(|finding| {
                            finding["severity"] == "error"
                                && format!("{} {}", finding["message"], finding["help"])
                                    .replace('\\', "")
                                    .contains(part)
                        })
                    };
                    assert!(said(why), "{preset} {name}: {findings:?}");
                    assert!(said(instead), "{preset} {name}: {findings:?}");
                }
            }
        }
    }
}

/// The blocks of docs/camunda.md that are files, by name.
fn documented() -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let mut name = None;
    for line in include_str!("../../docs/camunda.md").lines() {
        if let Some(file) = line.strip_prefix("```toml ") {
            assert!(found.insert(file, String::new()).is_none(), "{file}: twice");
            name = Some(file);
        } else if line.starts_with("```") {
            name = None;
        } else if let Some(name) = name {
            let text = found.entry(name).or_default();
            text.push_str(line);
            text.push('\n');
        }
    }
    found
}

/// `tests/e2e/run` covers the rest, with real servers and real work.
#[test]
fn what_the_documentation_shows_passes_the_check() {
    let place = place();
    let files = documented();
    assert_eq!(files.len(), 12, "{:?}", files.keys());
    for (file, config) in &files {
        // Keystores are made with Java's own tools in `tests/e2e/run`.
        if config.contains("keystore") {
            continue;
        }
        let (code, findings) = check(&place, config);
        assert_eq!(code, Some(0), "{file}: {findings:?}");
        assert!(config.contains("access = "), "{file}");
    }
}
