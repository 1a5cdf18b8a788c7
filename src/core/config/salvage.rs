//! Finds what a file that is not TOML still says about each profile's `access`. After a mistake
//! anywhere in a file, a caller whom the file no longer names must not be served any more. So each
//! profile's part is read by itself. After a mistake in `access` itself, only root may use the
//! profile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::SourceFile;
use super::read::{self, File};
use super::report::ConfigReport;
use super::schema::profile;
use super::spot::{Owner, Span, Spot};
use crate::core::policy::stated::Stated;
use crate::core::profile::ProfileName;

/// Every profile about whose access the text says something.
pub(super) fn access(source: &SourceFile) -> Vec<(ProfileName, Stated)> {
    let mut told = Vec::new();
    for (owner, part) in parts(&source.text) {
        let (document, errors) = DeTable::parse_recoverable(&part);
        let broken: Vec<usize> = errors
            .iter()
            .map(|error| line_of(&part, error.span().map_or(part.len(), |span| span.start)))
            .collect();
        let found = document.get_ref().get("profiles").map(Spanned::get_ref);
        for (key, value) in found.and_then(DeValue::as_table).into_iter().flatten() {
            if let Some(name) = ProfileName::parse(key.get_ref())
                && owner.as_ref().is_none_or(|owner| *owner == name)
            {
                told.push((name, of_profile(source, &part, &broken, value)));
            }
        }
        if let Some(name) = owner
            && mentions(&part)
            && !told.iter().any(|(other, _)| *other == name)
        {
            told.push((name, Stated::RootOnly));
        }
    }
    told
}

/// The text of each profile, with all its tables. The text outside of profiles has no name.
fn parts(text: &str) -> BTreeMap<Option<ProfileName>, String> {
    let mut parts: BTreeMap<Option<ProfileName>, String> = BTreeMap::new();
    let mut owner = None;
    for line in text.split_inclusive('\n') {
        let start = line.trim_start();
        let is_header =
            start.starts_with('[') || start.starts_with("profiles") && !start.contains('=');
        let mut line = line.to_owned();
        if is_header {
            owner = named_in(start);
            if let Some(name) = &owner
                && DeTable::parse(&line).is_err()
            {
                // A bracket is missing.
                line = format!("[profiles.\"{name}\"]\n");
            }
        }
        parts.entry(owner.clone()).or_default().push_str(&line);
    }
    parts
}

/// The profile that a header names, whether the header is complete or not.
fn named_in(header: &str) -> Option<ProfileName> {
    let rest = header.trim_start_matches(['[', ' ', '\t']);
    let rest = rest.trim_start_matches(['"', '\'']);
    let rest = rest.strip_prefix("profiles")?;
    let rest = rest.trim_start_matches(['"', '\'', ' ', '\t']);
    let rest = rest.strip_prefix('.')?.trim_start();
    let name = match rest.strip_prefix(['"', '\'']) {
        Some(quoted) => quoted.split(['"', '\'', ']']).next(),
        None => rest.split(['.', ']', ' ', '\t', '\r', '\n']).next(),
    };
    ProfileName::parse(name?)
}

fn of_profile(
    source: &SourceFile,
    part: &str,
    broken: &[usize],
    value: &Spanned<DeValue<'_>>,
) -> Stated {
    let DeValue::Table(table) = value.get_ref() else {
        return Stated::RootOnly;
    };
    let Some((key, access)) = table.get_key_value("access") else {
        // A key that the parser has not reached may be there if the text mentions it.
        let sure = broken.is_empty() || !mentions(part);
        return if sure {
            Stated::Rules(Vec::new())
        } else {
            Stated::RootOnly
        };
    };
    let whole = key.span().start..end_of(access);
    let lines = line_of(part, whole.start)..=line_of(part, whole.end);
    if broken.iter().any(|line| lines.contains(line)) || twice(part, &whole) {
        return Stated::RootOnly;
    }
    stated(&source.path, table)
}

/// What the table of a profile says about its access. Errors in it are reported elsewhere.
pub(super) fn stated(path: &Path, table: &DeTable<'_>) -> Stated {
    let mut report = ConfigReport::default();
    let file = File {
        index: report.add_file(path.to_owned(), String::new()),
        path,
        private: false,
        readers: "",
    };
    let spot = Spot {
        owner: Owner::Nobody,
        path: String::new(),
        place: Span::of(file.index, 0..0),
    };
    read::table(&mut report, file, &profile::TABLE, table, spot).stated_access()
}

/// The end of a value. The span of an array of tables covers its first header only.
fn end_of(value: &Spanned<DeValue<'_>>) -> usize {
    let inner = match value.get_ref() {
        DeValue::Table(table) => table.iter().map(|(_, inner)| end_of(inner)).max(),
        DeValue::Array(list) => list.iter().map(end_of).max(),
        _ => None,
    };
    inner.unwrap_or(0).max(value.span().end)
}

/// Whether there is another `access` outside of this one. Then it is unknown which one is meant.
fn twice(part: &str, known: &Range<usize>) -> bool {
    let rest = part.get(known.end..).unwrap_or_default();
    rest.lines()
        .skip(1)
        .any(|line| is_access(line) && !line.trim_start().starts_with('['))
}

fn mentions(part: &str) -> bool {
    part.lines().any(is_access)
}

/// Whether a line gives a value to `access`, or seems to.
fn is_access(line: &str) -> bool {
    let line = line.trim_start();
    line.contains(".access")
        || line.contains("{ access")
        || line.contains("{access")
        || line.contains(", access")
        || line.trim_start_matches(['"', '\'']).starts_with("access")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}
