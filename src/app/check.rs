//! `tokend check`: everything that can be known without serving, and with `--online` one real request per profile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::assembly::surroundings;
use super::load;
use crate::cli::paths::default_config;
use crate::cli::{CheckArgs, exit};
use crate::clock::Clock;
use crate::core::config::{self, Finding, Severity, Sources, findings_json};
use crate::core::credential::Variant;
use crate::core::failure::Failure;
use crate::core::profile::{Config, Profile};
use crate::material;
use crate::provider::{self, Shared};

pub fn run(args: &CheckArgs) -> u8 {
    let path = match args.config.clone().map_or_else(default_config, Ok) {
        Ok(path) => path,
        Err(why) => {
            eprintln!("tokend: {why}");
            return exit::CONFIG;
        }
    };
    let (findings, config) = check(&path, args.online);
    if args.json {
        println!("{}", findings_json(&findings));
    } else {
        tell(&path, &findings, config.as_ref(), args.online);
    }
    let errors = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    match (config, errors) {
        (None, _) => exit::CONFIG,
        (Some(_), true) => exit::FINDINGS,
        (Some(_), false) => exit::DONE,
    }
}

fn check(path: &Path, online: bool) -> (Vec<Finding>, Option<Config>) {
    let sources = match load::sources(path) {
        Ok(sources) => sources,
        Err(error) => {
            return (vec![unreadable(path, error.to_string())], None);
        }
    };
    let outcome = config::load(&sources);
    let mut findings = outcome.findings;
    if let Some(config) = &outcome.config {
        for profile in config.profiles.values().flatten() {
            check_profile(&sources, profile, online, &mut findings);
        }
    }
    (findings, outcome.config)
}

fn check_profile(
    sources: &Sources,
    profile: &Arc<Profile>,
    online: bool,
    findings: &mut Vec<Finding>,
) {
    let clock = Clock::system();
    // What is said of material begins with the key that names it.
    let mut say = |severity, message: &str| {
        let key = message.split(':').next().unwrap_or_default();
        findings.extend(config::locate(
            sources,
            &profile.name,
            key,
            severity,
            message,
        ));
    };
    let material = match material::read(profile, &surroundings(), clock.now().wall) {
        Ok(material) => material,
        Err(problems) => {
            for problem in problems {
                say(Severity::Error, &problem);
            }
            return;
        }
    };
    for warning in &material.warnings {
        say(Severity::Warning, warning);
    }
    let provider = match provider::build(profile, material, &Shared::new(clock)) {
        Ok(provider) => provider,
        Err(failure) => {
            return say(Severity::Error, &failure.message);
        }
    };
    if online && let Err(failure) = fetch(profile, provider.as_ref()) {
        say(Severity::Error, &failure.message);
    }
}

/// One real attempt, with the deadline that the daemon would give it.
fn fetch(profile: &Profile, provider: &dyn provider::Provider) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::transient(format!("cannot start a request: {error}")))?;
    let deadline = super::assembly::deadline(&profile.method);
    runtime.block_on(async {
        tokio::time::timeout(deadline, provider.fetch(&Variant::default()))
            .await
            .unwrap_or_else(|_| {
                Err(Failure::transient(format!(
                    "no credential within {} s",
                    deadline.as_secs()
                )))
            })
            .map(|_| ())
    })
}

fn unreadable(path: &Path, message: String) -> Finding {
    Finding {
        severity: Severity::Error,
        path: String::new(),
        file: PathBuf::from(path),
        line: 1,
        column: 1,
        message,
        help: String::new(),
        profile: None,
        snippet: None,
    }
}

fn tell(path: &Path, findings: &[Finding], config: Option<&Config>, online: bool) {
    for finding in findings {
        println!("{finding}\n");
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let profiles = config.map_or(0, |config| config.profiles.len());
    println!(
        "{}: {profiles} profile{}, {} error{}, {} warning{}{}",
        path.display(),
        plural(profiles),
        count(Severity::Error),
        plural(count(Severity::Error)),
        count(Severity::Warning),
        plural(count(Severity::Warning)),
        if online {
            ""
        } else {
            " (no identity provider was asked: --online does)"
        },
    );
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
