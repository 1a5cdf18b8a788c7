//! Turns text into a checked [`Config`], and reports every problem at once with its place.
//!
//! There are three steps. The schema (`read`, `schema`, `values`) reads the parsed files and
//! reports what is wrong with single keys. Then `server`, `profiles`, `oauth` and `preset` decide
//! what the keys mean together. Then each problem is assigned to the profiles that it hurts, so
//! that a broken profile fails alone. This module reads no file: the texts are arguments.

mod exec;
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
mod spot;
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
use report::ConfigReport;
use spot::Owner;

/// Stands in a text for bytes that are not UTF-8. A valid TOML text never contains it.
pub const NOT_UTF_8: &str = "\0";

/// A file and its content.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SourceFile {
    /// The path. Relative paths in the file are relative to its folder.
    pub path: PathBuf,
    pub text: String,
    /// Only root and the daemon's user can read the file. Literal secrets are accepted in it.
    pub private: bool,
    /// Who else can read the file, for people, if it is not private. Empty: not checked.
    pub readers: String,
}

/// A file of `profiles.d`, or the reason why it could not be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Loaded {
    Text(SourceFile),
    /// The file could not be read.
    Unreadable {
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

/// What the files say about the access to each profile, whatever else is wrong with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessOnDisk {
    /// The statements about each profile, one for each place that names it.
    stated: BTreeMap<ProfileName, Vec<Stated>>,
    /// Every file could be read and is TOML, so a profile that is not in here is in no file.
    whole: bool,
}

impl AccessOnDisk {
    /// The statements about a profile. Empty: what could be read of the files says nothing about
    /// it. If it is certain that no file has the profile, only root may use it, should it be kept
    /// all the same.
    #[must_use]
    pub fn of(&self, name: &ProfileName) -> &[Stated] {
        match self.stated.get(name) {
            Some(stated) => stated,
            None if self.whole => &[Stated::RootOnly],
            None => &[],
        }
    }

    /// The newest statements about every profile: these, and the earlier ones for profiles about
    /// which the files, as far as they can be read, say nothing.
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

    /// The parts for a handover: the statements about every named profile, and whether all other
    /// profiles are for root only.
    #[must_use]
    pub fn parts(&self) -> (&BTreeMap<ProfileName, Vec<Stated>>, bool) {
        (&self.stated, self.whole)
    }

    /// Puts the parts from a handover together again.
    #[must_use]
    pub fn from_parts(stated: BTreeMap<ProfileName, Vec<Stated>>, whole: bool) -> AccessOnDisk {
        AccessOnDisk { stated, whole }
    }

    fn add(&mut self, name: ProfileName, stated: Stated) {
        self.stated.entry(name).or_default().push(stated);
    }
}

/// The result of reading a configuration.
#[derive(Clone, Debug)]
pub struct ConfigOutcome {
    /// None: `tokend.toml` itself cannot be used.
    pub config: Option<Config>,
    /// Every profile that can be read, whether or not it can be used. `tokend check` reports what
    /// is wrong with its files, too.
    pub readable: Vec<Profile>,
    /// What the files say about access. It holds in any case.
    pub access: AccessOnDisk,
    /// All findings, in the order of the files.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// A part of the configuration cannot be used.
    Error,
    /// The value is allowed, but unwise.
    Warning,
}

/// One problem with its place. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// The key, from the root, with dots: `profiles.orders.client_id`; empty where there is none.
    pub path: String,
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, in characters.
    pub column: u32,
    /// The number of characters on that line that are meant, at least 1.
    pub width: u32,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it. Empty if the message says it already.
    pub help: String,
    /// The profile that the problem belongs to.
    pub profile: Option<ProfileName>,
    /// The line of the file. None if the line could hold a secret.
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

/// Checks a configuration. This never fails as a whole: the outcome says what cannot be used.
#[must_use]
pub fn load(sources: &Sources) -> ConfigOutcome {
    let mut report = ConfigReport::default();
    let mut gathered = gather::gather(&mut report, sources);
    let server = server::server(&mut report, gathered.server.as_ref());
    let audit = server::audit(&mut report, gathered.audit.as_ref());
    for idp in gathered.idps.values() {
        oauth::check_idp(&mut report, idp);
    }
    // A profile in another file may refer to what was lost with a broken `tokend.toml`.
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
    let readable = built.values().flatten().cloned().collect();

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
        readable,
        access: gathered.access,
        findings: report.findings(),
    }
}

/// Finds the places in the text for problems that were found outside of it, in files that the text
/// names.
pub struct Locator {
    report: ConfigReport,
    gathered: gather::Gathered,
}

impl Locator {
    /// Parses all files once, for all problems.
    #[must_use]
    pub fn new(sources: &Sources) -> Locator {
        let mut report = ConfigReport::default();
        let gathered = gather::gather(&mut report, sources);
        Locator { report, gathered }
    }

    /// The finding for a problem, at its key of the profile or else where the profile begins. None:
    /// there is no such profile.
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

/// The file of each profile, and why files cannot be used as a whole.
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

/// The profile, or all problems that keep it from being used.
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
                finding::shorten(idp)
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
