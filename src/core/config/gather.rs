//! Reads all files into the tables of one configuration. The schema of each table reads it, and
//! each table knows who is hurt by its problems.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::printable;
use super::finding::shorten;
use super::read::{self, File};
use super::report::ConfigReport;
use super::schema::{self, ROOTS, audit, server};
use super::section::Section;
use super::spot::{Owner, Span, Spot};
use super::{AccessOnDisk, Loaded, NOT_UTF_8, SourceFile, Sources, salvage, values};
use crate::core::policy::stated::Stated;
use crate::core::profile::ProfileName;

/// At most this many syntax errors of one file are reported. A file that is no TOML at all could
/// have thousands.
const MOST_SYNTAX_ERRORS: usize = 20;

/// The content of all files.
#[derive(Default)]
pub(super) struct Gathered {
    /// Index of `tokend.toml` in the report.
    pub main: usize,
    pub server: Option<Section>,
    pub audit: Option<Section>,
    pub idps: BTreeMap<String, Section>,
    pub profiles: BTreeMap<ProfileName, RawProfile>,
    pub access: AccessOnDisk,
}

/// A profile as its file states it.
pub(super) struct RawProfile {
    /// Index of its file in the report.
    pub file: usize,
    /// None: only the name is known.
    pub section: Option<Section>,
    /// Where the file names the profile.
    place: Span,
}

/// Reads all files.
pub(super) fn gather(report: &mut ConfigReport, sources: &Sources) -> Gathered {
    let mut gathered = Gathered::default();
    gathered.main = read_file(report, &mut gathered, &sources.main, true);
    for fragment in &sources.fragments {
        match fragment {
            Loaded::Text(source) => {
                read_file(report, &mut gathered, source, false);
            }
            Loaded::Unreadable { path, why } => {
                let file = report.add_file(path.clone(), String::new());
                let spot = root(file, false);
                report
                    .error(&spot, format!("cannot be read: {}", printable(why)))
                    .help("its profiles are not available until it can be read");
            }
        }
    }
    gathered
}

/// The spot of a file as a whole.
fn root(file: usize, main: bool) -> Spot {
    Spot {
        owner: if main { Owner::Main } else { Owner::File(file) },
        path: String::new(),
        place: Span::of(file, 0..0),
    }
}

fn read_file(
    report: &mut ConfigReport,
    gathered: &mut Gathered,
    source: &SourceFile,
    main: bool,
) -> usize {
    let index = report.add_file(source.path.clone(), source.text.clone());
    let file = File {
        index,
        path: &source.path,
        private: source.private,
        readers: &source.readers,
    };
    let root = root(index, main);
    let (document, errors) = DeTable::parse_recoverable(&source.text);
    let spot_at = |span| Spot {
        place: Span::of(index, span),
        ..root.clone()
    };
    // This comes first because other errors may follow from it.
    if let Some(at) = source.text.find(NOT_UTF_8) {
        report.syntax_error(&spot_at(at..at + 1), "here it is not UTF-8 text");
    }
    for error in errors.iter().take(MOST_SYNTAX_ERRORS) {
        let end = source.text.len();
        let spot = spot_at(error.span().unwrap_or(end..end));
        report.syntax_error(&spot, error.message());
    }
    for (key, value) in document.get_ref() {
        let name: &str = key.get_ref();
        let spot = root.child(name, file.place(key));
        match (name, value.get_ref()) {
            ("server" | "audit", _) if !main => {
                read::cut_all(report, file, value);
                report
                    .error(
                        &spot,
                        format!("[{name}] cannot stand in a file of profiles.d"),
                    )
                    .help("it belongs into tokend.toml");
            }
            ("server", DeValue::Table(found)) => {
                gathered.server = Some(read::table(report, file, &server::TABLE, found, spot));
            }
            ("audit", DeValue::Table(found)) => {
                gathered.audit = Some(read::table(report, file, &audit::TABLE, found, spot));
            }
            ("idp", DeValue::Table(found)) => idps(report, gathered, file, found, &spot),
            ("profiles", DeValue::Table(found)) => profiles(report, gathered, file, found, &spot),
            ("server" | "audit" | "idp" | "profiles", other) => {
                read::cut_all(report, file, value);
                report.error(
                    &spot,
                    format!(
                        "`{name}` must be a table, it is of type {}",
                        other.type_str()
                    ),
                );
            }
            _ => {
                read::cut_all(report, file, value);
                unknown_root(report, name, &spot);
            }
        }
    }
    if !errors.is_empty() {
        names_in_headers(gathered, file, &source.text);
        for (name, stated) in salvage::access(source) {
            gathered.access.add(name, stated);
        }
    }
    index
}

/// Reports a key at the root that is no known table.
fn unknown_root(report: &mut ConfigReport, name: &str, spot: &Spot) {
    let nearest = values::nearest(name, ROOTS.iter().copied());
    let problem = report.error(spot, format!("unknown key `{}`", shorten(name)));
    match nearest {
        Some(nearest) => problem.help(format!("did you mean [{nearest}]?")),
        None => problem
            .help(format!("known are {}", ROOTS.join(", ")))
            .if_whole(),
    };
}

fn idps(
    report: &mut ConfigReport,
    gathered: &mut Gathered,
    file: File<'_>,
    found: &DeTable<'_>,
    spot: &Spot,
) {
    for (key, value) in found {
        let name: &str = key.get_ref();
        let mut spot = spot.child(name, file.place(key));
        spot.owner = Owner::Idp(name.to_owned());
        if let Some(first) = gathered.idps.get(name) {
            read::cut_all(report, file, value);
            let first = report.describe(first.spot.place);
            report
                .error(&spot, format!("[idp.{}] is there twice", shorten(name)))
                .help(format!("the other one is at {first}"));
            continue;
        }
        let section = match table_of(report, file, value, &spot) {
            Some(table) => read::table(report, file, &schema::idp::TABLE, table, spot),
            None => Section::absent(&schema::idp::TABLE, spot),
        };
        gathered.idps.insert(name.to_owned(), section);
    }
}

fn profiles(
    report: &mut ConfigReport,
    gathered: &mut Gathered,
    file: File<'_>,
    found: &DeTable<'_>,
    spot: &Spot,
) {
    // `salvage` finds more in a file that is not TOML.
    let whole = !report.is_broken(file.index);
    for (key, value) in found {
        let text: &str = key.get_ref();
        let mut spot = spot.child(text, file.place(key));
        let Some(name) = ProfileName::parse(text) else {
            spot.owner = Owner::Nobody;
            read::cut_all(report, file, value);
            report
                .error(
                    &spot,
                    format!("\"{}\" cannot be the name of a profile", shorten(text)),
                )
                .help("1 to 128 of A-Z a-z 0-9 . _ -, the first a letter or digit")
                .if_whole();
            continue;
        };
        spot.owner = Owner::Profile(name.clone());
        if let Some(first) = gathered.profiles.get(&name) {
            read::cut_all(report, file, value);
            let first = report.describe(first.place);
            // Each of several statements holds.
            if whole {
                let stated = match value.get_ref() {
                    DeValue::Table(table) => salvage::stated(file.path, table),
                    _ => Stated::RootOnly,
                };
                gathered.access.add(name.clone(), stated);
            }
            report
                .error(
                    &spot,
                    format!("profile `{name}` is there twice: here and at {first}"),
                )
                .help("neither of them is used until one of them has another name");
            continue;
        }
        let place = spot.place;
        let section = table_of(report, file, value, &spot)
            .map(|table| read::table(report, file, &schema::profile::TABLE, table, spot));
        if whole {
            let stated = section.as_ref().map(Section::stated_access);
            let stated = stated.unwrap_or(Stated::RootOnly);
            gathered.access.add(name.clone(), stated);
        }
        gathered.profiles.insert(
            name,
            RawProfile {
                file: file.index,
                section,
                place,
            },
        );
    }
}

fn table_of<'t, 'i>(
    report: &mut ConfigReport,
    file: File<'_>,
    value: &'t Spanned<DeValue<'i>>,
    spot: &Spot,
) -> Option<&'t DeTable<'i>> {
    if let DeValue::Table(table) = value.get_ref() {
        return Some(table);
    }
    read::cut_all(report, file, value);
    report.error(
        spot,
        format!(
            "must be a table, it is of type {}",
            value.get_ref().type_str()
        ),
    );
    None
}

/// Notes profiles whose headers the parser did not reach. They are reported as broken, not as
/// unknown.
fn names_in_headers(gathered: &mut Gathered, file: File<'_>, text: &str) {
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let place = Span::of(file.index, offset..offset + line.len());
        offset += line.len();
        if !line.trim_start().starts_with('[') {
            continue;
        }
        let Ok(header) = DeTable::parse(line) else {
            continue;
        };
        let Some(DeValue::Table(found)) = header.get_ref().get("profiles").map(Spanned::get_ref)
        else {
            continue;
        };
        for (key, _) in found {
            if let Some(name) = ProfileName::parse(key.get_ref()) {
                gathered.profiles.entry(name).or_insert(RawProfile {
                    file: file.index,
                    section: None,
                    place,
                });
            }
        }
    }
}
