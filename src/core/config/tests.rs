//! What configurations mean, and which errors a wrong one gives.

mod bad;
mod clients;
mod docs;
mod good;
mod isolation;
mod noise;
mod presets;
mod revocation;
mod secrets;

use std::path::Path;

use super::{ConfigOutcome, Finding, Loaded, Severity, SourceFile, Sources, load};
use crate::core::profile::{Config, Invalid, Method, OAuth2, Profile};

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile {
        path: Path::new("/etc/tokend").join(path),
        text: text.to_owned(),
        private: true,
        readers: String::new(),
    }
}

fn one(text: &str) -> ConfigOutcome {
    many(text, &[])
}

fn many(text: &str, fragments: &[(&str, &str)]) -> ConfigOutcome {
    load(&Sources {
        main: file("tokend.toml", text),
        fragments: fragments
            .iter()
            .map(|(path, text)| Loaded::Text(file(path, text)))
            .collect(),
    })
}

fn errors(outcome: &ConfigOutcome) -> Vec<&Finding> {
    let is_error = |finding: &&Finding| finding.severity == Severity::Error;
    outcome.findings.iter().filter(is_error).collect()
}

fn warnings(outcome: &ConfigOutcome) -> Vec<&Finding> {
    let is_warning = |finding: &&Finding| finding.severity == Severity::Warning;
    outcome.findings.iter().filter(is_warning).collect()
}

#[track_caller]
fn config(outcome: &ConfigOutcome) -> &Config {
    match &outcome.config {
        Some(config) => config,
        None => panic!("no configuration: {:#?}", outcome.findings),
    }
}

#[track_caller]
fn profile<'o>(outcome: &'o ConfigOutcome, name: &str) -> &'o Profile {
    match config(outcome).profiles.get(name) {
        Some(Ok(profile)) => profile,
        other => panic!("profile {name}: {other:#?}"),
    }
}

#[track_caller]
fn invalid<'o>(outcome: &'o ConfigOutcome, name: &str) -> &'o Invalid {
    match config(outcome).profiles.get(name) {
        Some(Err(invalid)) => invalid,
        other => panic!("profile {name}: {other:#?}"),
    }
}

#[track_caller]
fn oauth2<'o>(outcome: &'o ConfigOutcome, name: &str) -> &'o OAuth2 {
    match &profile(outcome, name).method {
        Method::OAuth2(oauth2) => oauth2,
        other => panic!("profile {name}: {other:#?}"),
    }
}

/// A complete profile, with further lines.
fn oauth2_with(lines: &str) -> String {
    format!(
        "[profiles.p]\nmethod = \"oauth2\"\nissuer = \"https://idp.example/realms/r\"\nclient_id = \"c\"\n{lines}\n"
    )
}
