//! `tokend check`: checks everything that can be known without serving. With `--online` it makes
//! one real request per profile.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::app::assembly::surroundings;
use crate::app::{self, load, privacy};
use crate::cli::paths::default_config;
use crate::cli::{CheckArgs, exit, print};
use crate::clock::Clock;
use crate::core::config::{
    self, ConfigOutcome, Finding, Locator, Severity, Sources, findings_json,
};
use crate::core::credential::Variant;
use crate::core::diagnostic::Diagnostic;
use crate::core::plugin::request::FetchPurpose;
use crate::core::profile::{Config, Method, Profile};
use crate::material::{self, Material, Surroundings};
use crate::provider::oauth2::proxy;
use crate::provider::{self, Provider, Shared};
use crate::readers::AccessScan;

use super::accounts::{UserAccount, user_name};
use super::clocks;
use super::report::plural;

/// At most this many requests of `--online` run at the same time.
const AT_ONCE: usize = 8;

pub fn run(args: &CheckArgs) -> u8 {
    let path = match args.config.clone().map_or_else(default_config, Ok) {
        Ok(path) => path,
        Err(why) => {
            eprintln!("tokend: {why}");
            return exit::CONFIG;
        }
    };
    let judge = || check(&path, args.online);
    // What root can read, the daemon may not be able to.
    let daemon = daemon(&path);
    let as_daemon = daemon.as_ref().and_then(|user| user.act(judge).ok());
    let user = daemon.filter(|_| as_daemon.is_some());
    let (findings, config) = as_daemon.unwrap_or_else(judge);
    let text = if args.json {
        format!("{}\n", findings_json(&findings))
    } else {
        told(&path, &findings, config.as_ref(), args.online, user)
    };
    // A reader that has gone away does not change the verdict.
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

/// The daemon's user, if this process is root and the daemon is not.
fn daemon(path: &Path) -> Option<UserAccount> {
    let me = app::privacy::daemon_uid();
    let uid = (me == 0).then(|| read(path, me).ok())??.readers.daemon();
    (uid != 0).then(|| UserAccount::of_uid(uid))
}

fn check(path: &Path, online: bool) -> (Vec<Finding>, Option<Config>) {
    let mut examined = match examine(path, app::privacy::daemon_uid()) {
        Ok(examined) => examined,
        Err(finding) => return (vec![*finding], None),
    };
    if online {
        ask_providers(&mut examined.checked);
    }
    let mut findings = std::mem::take(&mut examined.outcome.findings);
    let said = examined.checked.iter().flat_map(|one| {
        let ending = one.ending.iter().cloned();
        let said = one.said.iter().cloned();
        said.chain(ending.map(|warning| (Severity::Warning, warning)))
            .map(move |(severity, diagnostic)| (&one.profile, severity, diagnostic))
    });
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    let wrong = findings.iter().filter(|finding| is_error(finding));
    let wrong: BTreeSet<String> = wrong.map(|finding| finding.path.clone()).collect();
    let more = examined.located(said).into_iter();
    // A key that is wrong in the configuration is not wrong once more for what its file lacks.
    findings.extend(more.filter(|it| !is_error(it) || !wrong.contains(&it.path)));
    (findings, examined.outcome.config)
}

/// The configuration, the findings about it, and its profiles with the findings about their files.
pub struct Examined {
    sources: Sources,
    pub outcome: ConfigOutcome,
    pub checked: Vec<Checked>,
}

impl Examined {
    /// Whether `tokend.toml` has this table. If so, its defaults are a deliberate choice.
    pub fn names(&self, table: &str) -> bool {
        toml::from_str::<toml::Table>(&self.sources.main.text)
            .is_ok_and(|read| read.contains_key(table))
    }

    /// Findings about the files that the configuration names, with their places in the
    /// configuration.
    pub fn located<'a>(
        &self,
        said: impl IntoIterator<Item = (&'a Arc<Profile>, Severity, Diagnostic)>,
    ) -> Vec<Finding> {
        // The locator is made on demand, since most configurations have no such findings.
        let mut locator = None;
        said.into_iter()
            .filter_map(|(profile, severity, diagnostic)| {
                locator
                    .get_or_insert_with(|| Locator::new(&self.sources))
                    .locate(&profile.name, severity, &diagnostic)
            })
            .collect()
    }
}

/// Reads everything and asks nobody. The configuration may belong to root or to the user `us`.
///
/// # Errors
/// When `tokend.toml` cannot be read.
pub fn examine(path: &Path, us: u32) -> Result<Examined, Box<Finding>> {
    let ConfigFiles {
        readers,
        sources,
        mut outcome,
    } = read(path, us)?;
    let surroundings = surroundings().with_readers(readers).for_one_look();
    let usable = |name| {
        let config = outcome.config.as_ref();
        config.is_some_and(|config| config.profiles.get(name).is_some_and(Result::is_ok))
    };
    // The files of a profile that cannot be used are looked at too, so that all that is wrong is
    // told at once.
    let checked = outcome
        .readable
        .iter()
        .map(|profile| check_profile(profile, usable(&profile.name), &surroundings))
        .collect();
    outcome.readable = Vec::new();
    Ok(Examined {
        sources,
        outcome,
        checked,
    })
}

/// The configuration, and who can read the files.
struct ConfigFiles {
    readers: AccessScan,
    sources: Sources,
    outcome: ConfigOutcome,
}

fn read(path: &Path, us: u32) -> Result<ConfigFiles, Box<Finding>> {
    let read = |readers: &AccessScan| match load::sources(path, whose(us, readers), readers) {
        Ok(sources) => Ok((config::load(&sources), sources)),
        Err(error) => Err(Box::new(unreadable(path, error.to_string()))),
    };
    // The files whose readers are checked also say where the socket is and whom it lets in.
    let mut readers = privacy::look_from_outside(None);
    let (mut outcome, mut sources) = read(&readers)?;
    let server = outcome.config.as_ref().map(|config| &config.server);
    let meant = privacy::look_from_outside(server);
    if !meant.is_like(&readers) {
        readers = meant;
        (outcome, sources) = read(&readers)?;
    }
    Ok(ConfigFiles {
        readers,
        sources,
        outcome,
    })
}

/// The user besides root that may own the configuration. Root checks for the daemon's user, as far
/// as that is known.
fn whose(us: u32, readers: &AccessScan) -> u32 {
    if us == 0 { readers.daemon() } else { us }
}

/// A profile, and the findings about its files.
pub struct Checked {
    pub profile: Arc<Profile>,
    /// The findings about its files, without those in `ending`.
    pub said: Vec<(Severity, Diagnostic)>,
    /// Warnings about certificates that end soon.
    pub ending: Vec<Diagnostic>,
    /// None if its files cannot be used.
    pub material: Option<Material>,
    provider: Option<Arc<dyn Provider>>,
}

impl Checked {
    /// Records that the profile as a whole cannot be used.
    fn fail(&mut self, message: String) {
        let diagnostic = Diagnostic::of_profile(message);
        self.said.push((Severity::Error, diagnostic));
    }
}

fn check_profile(profile: &Profile, usable: bool, surroundings: &Surroundings) -> Checked {
    let clock = Clock::system();
    let mut checked = Checked {
        profile: Arc::new(profile.clone()),
        said: Vec::new(),
        ending: Vec::new(),
        material: None,
        provider: None,
    };
    let material = match material::read(profile, surroundings, clock.now().wall) {
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
    let certificates = material.certificates().into_iter();
    checked.ending = certificates.filter_map(|it| it.warning(now)).collect();
    let warnings = material.warnings.iter().cloned();
    checked
        .said
        .extend(warnings.map(|warning| (Severity::Warning, warning)));
    checked.material = Some(material.clone());
    if let Method::OAuth2(oauth) = &profile.method
        && let Some(remark) = proxy::remark(&oauth.idp)
    {
        checked.said.push((Severity::Warning, remark));
    }
    if !usable {
        return checked;
    }
    match provider::build(profile, material, &Shared::new(clock)) {
        Ok(provider) => checked.provider = Some(provider),
        Err(failure) => checked.fail(failure.message),
    }
    checked
}

/// Makes one real attempt per profile, several at a time. The findings keep the order of the
/// profiles, whichever answers first.
fn ask_providers(checked: &mut [Checked]) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            for one in checked {
                one.fail(format!("cannot start a request: {error}"));
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
            let places = places.clone();
            attempts.spawn(async move {
                let _place = places.acquire_owned().await;
                let outcome = provider::attempt(
                    provider.as_ref(),
                    &Variant::default(),
                    FetchPurpose::default(),
                )
                .await;
                (index, outcome)
            });
        }
        while let Some(ended) = attempts.join_next().await {
            match ended {
                Ok((index, outcome)) => {
                    let one = &mut checked[index];
                    if let Err(failure) = outcome {
                        one.fail(failure.message);
                    }
                    let remarks = one.provider.iter().flat_map(|it| it.remarks());
                    let remarks = remarks.map(|remark| (Severity::Warning, remark));
                    one.said.extend(remarks);
                    let skew = one.provider.iter().find_map(|it| it.clock_skew());
                    one.said.extend(skew.and_then(clocks::differs));
                }
                // Nothing cancels an attempt. A panic must not look like success.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    });
}

fn unreadable(path: &Path, message: String) -> Finding {
    Finding {
        severity: Severity::Error,
        path: String::new(),
        file: PathBuf::from(path),
        line: 1,
        column: 1,
        width: 1,
        message,
        help: String::new(),
        profile: None,
        snippet: None,
    }
}

fn told(
    path: &Path,
    findings: &[Finding],
    config: Option<&Config>,
    online: bool,
    user: Option<UserAccount>,
) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
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
        "{}: {profiles} profile{}, {} error{}, {} warning{}{}{}",
        path.display(),
        plural(profiles),
        count(Severity::Error),
        plural(count(Severity::Error)),
        count(Severity::Warning),
        plural(count(Severity::Warning)),
        user.map_or(String::new(), |user| format!(
            ", for the daemon's user {}",
            user_name(user.uid)
        )),
        if online {
            ""
        } else {
            " (no identity provider was asked: --online does)"
        },
    );
    text
}
