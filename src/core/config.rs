//! Text → checked [`Config`], with every problem at once and the place of each.
//!
//! Three steps: the files are parsed and read by the schema (`read`, `schema`, `values`), which
//! tells what is wrong with single keys; then what keys mean together is decided (`server`,
//! `profiles`, `oauth`, `preset`); then problems are dealt out to whom they hurt, so that what
//! fails fails alone. Reads no file: texts are handed in.

mod finding;
mod gather;
mod oauth;
mod preset;
mod profiles;
mod read;
#[cfg(test)]
mod reference;
mod report;
mod salvage;
mod schema;
mod section;
mod server;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::diagnostic::Diagnostic;
use super::policy::stated::Stated;
use super::profile::{Config, Invalid, Profile, ProfileName};
use gather::RawProfile;
use report::{ConfigReport, Owner};

/// Stands in a text for bytes that are not UTF-8. No TOML has it.
pub const NOT_UTF_8: &str = "\0";

/// One file's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceFile {
    /// Where it is; relative paths in it are relative to its folder.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// Readable by nobody but root and the daemon's user: literal secrets are accepted.
    pub private: bool,
    /// Who else can read it, for people, where it is not private; empty: that was not looked at.
    pub readers: String,
}

/// A file of `profiles.d`, as far as it could be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Loaded {
    /// Read.
    Text(SourceFile),
    /// Not read.
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// Why, for people.
        why: String,
    },
}

/// All files of one configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sources {
    /// `tokend.toml`
    pub main: SourceFile,
    /// `profiles.d/*.toml`, sorted by name.
    pub fragments: Vec<Loaded>,
}

/// What the files say of each profile's access, whatever else is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessOnDisk {
    /// One for each place that names the profile.
    stated: BTreeMap<ProfileName, Vec<Stated>>,
    /// Every file could be read, and is TOML: what is not there is not there.
    whole: bool,
}

impl AccessOnDisk {
    /// Empty: the files could not be read so far that they say anything of this profile. One that
    /// is in none of them, where that is certain, is nobody's but root's if it is kept all the
    /// same.
    #[must_use]
    pub fn of(&self, name: &ProfileName) -> &[Stated] {
        match self.stated.get(name) {
            Some(stated) => stated,
            None if self.whole => &[Stated::RootOnly],
            None => &[],
        }
    }

    /// The newest that is known of every profile: this, and what was known before of those of which
    /// the files could not be read so far that they say anything.
    #[must_use]
    pub fn over(&self, before: &AccessOnDisk) -> AccessOnDisk {
        if self.whole {
            return self.clone();
        }
        let mut stated = before.stated.clone();
        stated.extend(self.stated.clone());
        AccessOnDisk {
            stated,
            whole: before.whole,
        }
    }

    /// For a handover: every profile that is named, and whether every other is nobody's but root's.
    #[must_use]
    pub fn parts(&self) -> (&BTreeMap<ProfileName, Vec<Stated>>, bool) {
        (&self.stated, self.whole)
    }

    /// Out of a handover.
    #[must_use]
    pub fn from_parts(stated: BTreeMap<ProfileName, Vec<Stated>>, whole: bool) -> AccessOnDisk {
        AccessOnDisk { stated, whole }
    }

    fn add(&mut self, name: ProfileName, stated: Stated) {
        self.stated.entry(name).or_default().push(stated);
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct ConfigOutcome {
    /// None: `tokend.toml` itself cannot be used.
    pub config: Option<Config>,
    /// What the files say of access, which holds in any case.
    pub access: AccessOnDisk,
    /// Everything that was noticed, in the order of the files.
    pub findings: Vec<Finding>,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something cannot be used.
    Error,
    /// Allowed, but unwise.
    Warning,
}

/// One problem with its place. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The key, from the root, with dots: `profiles.orders.client_id`; empty where there is none.
    pub path: String,
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it; empty where the message says it already.
    pub help: String,
    /// The profile that it belongs to.
    pub profile: Option<ProfileName>,
    /// The line of the file; None where it could hold a secret.
    pub snippet: Option<String>,
}

/// `{"findings": […]}` as `tokend check --json` prints it.
#[must_use]
pub fn findings_json(findings: &[Finding]) -> Value {
    let list: Vec<Value> = findings
        .iter()
        .map(|finding| {
            json!({
                "severity": finding.severity.as_str(),
                "path": finding.path,
                "file": finding.file.to_string_lossy(),
                "line": finding.line,
                "column": finding.column,
                "message": finding.message,
                "help": finding.help,
            })
        })
        .collect();
    json!({ "findings": list })
}

/// Checks a configuration. Never fails as a whole: what cannot be used is said in the outcome.
#[must_use]
pub fn load(sources: &Sources) -> ConfigOutcome {
    let mut report = ConfigReport::default();
    let mut gathered = gather::gather(&mut report, sources);
    let server = server::server(&mut report, gathered.server.as_ref());
    let audit = server::audit(&mut report, gathered.audit.as_ref());
    for idp in gathered.idps.values() {
        oauth::check_idp(&mut report, idp);
    }
    // What was lost with a broken tokend.toml may be just what a profile elsewhere refers to.
    let usable = !report.is_broken(gathered.main);
    let mut built: BTreeMap<&ProfileName, Option<Profile>> = BTreeMap::new();
    for (name, raw) in &gathered.profiles {
        let profile = match &raw.section {
            Some(section) if usable && !report.is_broken(raw.file) => {
                profiles::check(&mut report, &gathered, name, section)
            }
            _ => None,
        };
        built.insert(name, profile);
    }
    report.drop_doubtful();

    let config = if report.has(Severity::Error, &Owner::Main) {
        None
    } else {
        let profiles = gathered
            .profiles
            .iter()
            .map(|(name, raw)| {
                let profile = built.remove(name).flatten();
                (name.clone(), verdict(&report, name, raw, profile))
            })
            .collect();
        let (files, broken) = files(&report, &gathered);
        Some(Config {
            server,
            audit,
            profiles,
            files,
            broken,
        })
    };
    let unreadable = |fragment| matches!(fragment, &Loaded::Unreadable { .. });
    gathered.access.whole = !sources.fragments.iter().any(unreadable)
        && report.files().all(|(file, _)| !report.is_broken(file));
    ConfigOutcome {
        config,
        access: gathered.access,
        findings: report.findings(),
    }
}

/// Puts problems that were found outside of the text, in files that the text names, at their places
/// in it.
pub struct Locator {
    report: ConfigReport,
    gathered: gather::Gathered,
}

impl Locator {
    /// Parses everything, once for all problems.
    #[must_use]
    pub fn new(sources: &Sources) -> Locator {
        let mut report = ConfigReport::default();
        let gathered = gather::gather(&mut report, sources);
        Locator { report, gathered }
    }

    /// The problem at its key of the profile, or where the profile begins. None: there is no such
    /// profile.
    #[must_use]
    pub fn locate(
        &mut self,
        profile: &ProfileName,
        severity: Severity,
        diagnostic: &Diagnostic,
    ) -> Option<Finding> {
        let mut section = self.gathered.profiles.get(profile)?.section.as_ref()?;
        let mut name = diagnostic.key.as_str();
        while let Some((outer, inner)) = name.split_once('.')
            && let Some(table) = section.table_at(outer)
        {
            (section, name) = (table, inner);
        }
        let spot = match name.split('.').next() {
            None | Some("") => section.spot.clone(),
            Some(name) => section.spot_at(name),
        };
        let message = diagnostic.to_string();
        self.report.forget();
        match severity {
            Severity::Error => self.report.error(&spot, message),
            Severity::Warning => self.report.warning(&spot, message),
        };
        self.report.findings().pop()
    }
}

/// Which file each profile is in, and why files cannot be used as a whole.
fn files(
    report: &ConfigReport,
    gathered: &gather::Gathered,
) -> (
    BTreeMap<ProfileName, Arc<Path>>,
    BTreeMap<Arc<Path>, String>,
) {
    let paths: Vec<Arc<Path>> = report.files().map(|(_, path)| path.into()).collect();
    let files = gathered
        .profiles
        .iter()
        .map(|(name, raw)| (name.clone(), paths[raw.file].clone()))
        .collect();
    let broken = paths
        .iter()
        .enumerate()
        .filter_map(|(index, path)| {
            let problem = report.of(Severity::Error, &Owner::File(index)).next()?;
            Some((path.clone(), report.finding(problem).one_line()))
        })
        .collect();
    (files, broken)
}

/// The profile, or everything that keeps it from being used.
fn verdict(
    report: &ConfigReport,
    name: &ProfileName,
    raw: &RawProfile,
    profile: Option<Profile>,
) -> Result<Arc<Profile>, Invalid> {
    let own = Owner::Profile(name.clone());
    let idp = raw
        .section
        .as_ref()
        .and_then(|section| section.get(&schema::profile::IDP))
        .map(Owner::Idp);
    let hurt_by = [Some(own), Some(Owner::File(raw.file)), idp];
    let told = |severity| {
        hurt_by
            .iter()
            .flatten()
            .flat_map(move |owner| report.of(severity, owner))
    };
    let errors: Vec<String> = told(Severity::Error)
        .map(|problem| match &problem.spot.owner {
            Owner::Idp(idp) => format!(
                "{} (in [idp.{}])",
                report.finding(problem).one_line(),
                report::shorten(idp)
            ),
            _ => report.finding(problem).one_line(),
        })
        .collect();
    match profile {
        Some(mut profile) if errors.is_empty() => {
            profile.warnings = told(Severity::Warning)
                .map(|problem| problem.message.clone())
                .collect();
            Ok(Arc::new(profile))
        }
        _ => Err(Invalid {
            message: if errors.is_empty() {
                "it could not be read; see the findings of its file".into()
            } else {
                errors.join("\n")
            },
            method: raw
                .section
                .as_ref()
                .and_then(|section| section.get(&schema::profile::METHOD))
                .unwrap_or_default()
                .to_owned(),
            access: raw
                .section
                .as_ref()
                .map(|section| section.get(&schema::profile::ACCESS))
                .unwrap_or_default(),
        }),
    }
}
