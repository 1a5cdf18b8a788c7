//! `tokend check`: everything that can be known without serving, and with `--online` one real request per profile.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::assembly::surroundings;
use super::load;
use crate::cli::paths::default_config;
use crate::cli::{CheckArgs, exit, print};
use crate::clock::Clock;
use crate::core::config::{self, Finding, Locator, Severity, findings_json};
use crate::core::credential::Variant;
use crate::core::failure::Failure;
use crate::core::profile::{Config, Profile};
use crate::material;
use crate::provider::{self, Provider, Shared};

/// Requests of `--online` at the same time.
const AT_ONCE: usize = 8;

pub fn run(args: &CheckArgs) -> u8 {
    let path = match args.config.clone().map_or_else(default_config, Ok) {
        Ok(path) => path,
        Err(why) => {
            eprintln!("tokend: {why}");
            return exit::CONFIG;
        }
    };
    let (findings, config) = check(&path, args.online);
    let text = if args.json {
        format!("{}\n", findings_json(&findings))
    } else {
        told(&path, &findings, config.as_ref(), args.online)
    };
    // Whoever has read enough changes nothing of the verdict.
    if let Err(code) = print(&mut io::stdout(), &text, &mut io::stderr()) {
        return code;
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
        let mut checked: Vec<Checked> = config
            .profiles
            .values()
            .flatten()
            .map(check_profile)
            .collect();
        if online {
            ask_providers(&mut checked);
        }
        // Most configurations have nothing that would have to be located.
        let mut locator = None;
        for one in checked {
            for (severity, message) in one.said {
                // What is said of material begins with the key that names it.
                let key = message.split(':').next().unwrap_or_default();
                findings.extend(
                    locator
                        .get_or_insert_with(|| Locator::new(&sources))
                        .locate(&one.profile.name, key, severity, &message),
                );
            }
        }
    }
    (findings, outcome.config)
}

/// A profile and what its files gave reason to say.
struct Checked {
    profile: Arc<Profile>,
    said: Vec<(Severity, String)>,
    provider: Option<Arc<dyn Provider>>,
}

fn check_profile(profile: &Arc<Profile>) -> Checked {
    let clock = Clock::system();
    let mut checked = Checked {
        profile: profile.clone(),
        said: Vec::new(),
        provider: None,
    };
    let material = match material::read(profile, &surroundings(), clock.now().wall) {
        Ok(material) => material,
        Err(problems) => {
            let errors = problems.into_iter();
            checked
                .said
                .extend(errors.map(|problem| (Severity::Error, problem)));
            return checked;
        }
    };
    let now = clock.now().wall;
    let ending = material.certificates().into_iter();
    let ending = ending.filter_map(|certificate| certificate.warning(now));
    let warnings = material.warnings.iter().cloned().chain(ending);
    checked
        .said
        .extend(warnings.map(|warning| (Severity::Warning, warning)));
    match provider::build(profile, material, &Shared::new(clock)) {
        Ok(provider) => checked.provider = Some(provider),
        Err(failure) => checked.said.push((Severity::Error, failure.message)),
    }
    checked
}

/// One real attempt each, some at once; what is said stays with its profile, whoever answers first.
fn ask_providers(checked: &mut [Checked]) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            for one in checked {
                let message = format!("cannot start a request: {error}");
                one.said.push((Severity::Error, message));
            }
            return;
        }
    };
    runtime.block_on(async {
        let places = Arc::new(Semaphore::new(AT_ONCE));
        let mut attempts = JoinSet::new();
        for (index, one) in checked.iter().enumerate() {
            let Some(provider) = one.provider.clone() else {
                continue;
            };
            let (profile, places) = (one.profile.clone(), places.clone());
            attempts.spawn(async move {
                let _place = places.acquire_owned().await;
                (index, fetch(&profile, provider.as_ref()).await)
            });
        }
        while let Some(ended) = attempts.join_next().await {
            match ended {
                Ok((_, Ok(()))) => {}
                Ok((index, Err(failure))) => {
                    checked[index].said.push((Severity::Error, failure.message));
                }
                // Nothing cancels an attempt, and one that panicked must not look like one that went well.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    });
}

/// One real attempt, with the deadline that the daemon would give it.
async fn fetch(profile: &Profile, provider: &dyn Provider) -> Result<(), Failure> {
    let deadline = super::assembly::deadline(&profile.method);
    tokio::time::timeout(deadline, provider.fetch(&Variant::default()))
        .await
        .unwrap_or_else(|_| {
            Err(Failure::transient(format!(
                "no credential within {} s",
                deadline.as_secs()
            )))
        })
        .map(|_| ())
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

fn told(path: &Path, findings: &[Finding], config: Option<&Config>, online: bool) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    for finding in findings {
        let _ = writeln!(text, "{finding}\n");
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let profiles = config.map_or(0, |config| config.profiles.len());
    let _ = writeln!(
        text,
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
    text
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
