//! Reads a table of the file by its schema. Unknown keys, wrong kinds and wrong single values are
//! reported here; right values become typed. Other modules decide what keys mean together.

mod parts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::finding::shorten;
use super::report::ConfigReport;
use super::schema::{self, KeySpec, Table, ValueKind};
use super::section::{RawValue, Section, SectionEntry};
use super::spot::{Span, Spot};
use super::values;

/// The facts about a file that reading needs.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    /// The index of the file in the report.
    pub index: usize,
    pub path: &'a Path,
    /// Literal secrets are accepted in this file.
    pub private: bool,
    /// Who else can read the file, for people.
    pub readers: &'a str,
}

impl File<'_> {
    pub fn place<T>(self, spanned: &Spanned<T>) -> Span {
        Span::of(self.index, spanned.span())
    }
}

/// Reads one table.
pub(super) fn table(
    report: &mut ConfigReport,
    file: File<'_>,
    schema: &'static Table,
    found: &DeTable<'_>,
    spot: Spot,
) -> Section {
    let mut section = Section::absent(schema, spot);
    // A word of a later version comes with keys that only that version knows.
    let is_later = found.iter().any(|(name, value)| {
        let text = value.get_ref().as_str().unwrap_or_default();
        schema.key(name.get_ref()).is_some() && schema::not_yet(name.get_ref(), text).is_some()
    });
    for (name, value) in found {
        let key_spot = section.spot.child(name.get_ref(), file.place(name));
        let Some(key) = schema.key(name.get_ref()) else {
            if is_later {
                cut_all(report, file, value);
                continue;
            }
            let parent = section.spot.path.clone();
            unknown(
                report,
                file,
                schema,
                (name.get_ref(), &parent),
                value,
                &key_spot,
            );
            continue;
        };
        // The span of a [table] is its header. The name inside the header is the better place.
        let span = match (key.kind, value.get_ref()) {
            (ValueKind::Table(_), DeValue::Table(_)) => key_spot.place,
            _ => file.place(value),
        };
        let spot = section.spot.child(key.name, span);
        let read = read(report, file, key, value, &spot).unwrap_or(RawValue::Broken);
        let entry = SectionEntry {
            key: key_spot,
            spot,
            value: read,
        };
        section.entries.insert(key.name, entry);
    }
    for key in schema.keys {
        if key.required && key.methods.is_empty() && !section.has(key) {
            missing(report, &section, key);
        }
    }
    section
}

/// Reports that a key is missing.
pub(super) fn missing(report: &mut ConfigReport, section: &Section, key: &KeySpec) {
    let spot = section.spot_of(key);
    let help = match key.kind {
        ValueKind::Choice(all) => format!("one of {}", all.join(", ")),
        ValueKind::Secret => format!("for instance {} = {{ file = \"/path\" }}", key.name),
        _ => String::new(),
    };
    report
        .error(&spot, format!("`{}` is missing", key.name))
        .help(help)
        .if_whole();
}

/// Reports a key that the schema does not have, with the key that is probably meant.
fn unknown(
    report: &mut ConfigReport,
    file: File<'_>,
    schema: &'static Table,
    (name, parent): (&str, &str),
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) {
    cut_all(report, file, value);
    let names = schema.keys.iter().map(|key| key.name);
    let homes = schema::homes(name);
    let mut known = true;
    let help = if !homes.is_empty() {
        let homes: Vec<String> = homes.iter().map(|home| format!("`{home}`")).collect();
        format!("it is a key of {}", homes.join(", "))
    } else if let Some(nearest) = values::nearest(name, names) {
        format!("did you mean `{nearest}`?")
    } else {
        known = false;
        let names: Vec<&str> = schema.keys.iter().map(|key| key.name).collect();
        format!("known are {}", names.join(", "))
    };
    let problem = report.error(
        spot,
        format!("unknown key `{}` in `{parent}`", shorten(name)),
    );
    problem.help(help);
    if !known {
        // The text may be a piece of a secret that lost its quotes.
        problem.if_whole();
    }
}

/// Cuts all values in here out of shown lines, since an unknown key may be a misspelled
/// `client_secret`.
pub(super) fn cut_all(report: &mut ConfigReport, file: File<'_>, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (_, inner) in table {
                cut_all(report, file, inner);
            }
        }
        DeValue::Array(list) => {
            for inner in list {
                cut_all(report, file, inner);
            }
        }
        _ => report.cut(file.place(value)),
    }
}

/// Hides the lines of all values in here.
fn hide_all(report: &mut ConfigReport, file: File<'_>, value: &Spanned<DeValue<'_>>) {
    match value.get_ref() {
        DeValue::Table(table) => {
            for (_, inner) in table {
                hide_all(report, file, inner);
            }
        }
        DeValue::Array(list) => {
            for inner in list {
                hide_all(report, file, inner);
            }
        }
        _ => report.hide(file.place(value)),
    }
}

/// Reads one value. None if it is wrong; that has been reported.
fn read(
    report: &mut ConfigReport,
    file: File<'_>,
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) -> Option<RawValue> {
    let found = value.get_ref();
    let read = match (key.kind, found) {
        (ValueKind::Text(rule), DeValue::String(text)) => {
            obeys(report, spot, key.name, rule(text))?;
            RawValue::Text(text.to_string())
        }
        (ValueKind::Choice(all), DeValue::String(text)) => {
            choice(report, spot, key.name, all, text)?
        }
        (ValueKind::Secret, _) => RawValue::Secret(parts::secret(report, file, key, value, spot)?),
        (ValueKind::Bool, DeValue::Boolean(flag)) => RawValue::Bool(*flag),
        (ValueKind::Integer(low, high), DeValue::Integer(_)) => {
            RawValue::Integer(integer(report, spot, key.name, found, low..=high)?)
        }
        (ValueKind::Number(low, high), DeValue::Integer(_) | DeValue::Float(_)) => {
            number(report, spot, key.name, found, low, high)?
        }
        (ValueKind::Duration(low, high), DeValue::String(text)) => {
            duration(report, spot, key.name, text, low, high)?
        }
        (ValueKind::Duration(..), DeValue::Integer(n)) => {
            without_unit(report, spot, key.name, n.as_str());
            return None;
        }
        (ValueKind::Path, DeValue::String(text)) => {
            obeys(report, spot, key.name, values::path(text))?;
            RawValue::Path(resolve(file, text))
        }
        (ValueKind::Url(rule), DeValue::String(text)) => {
            if text.contains('@') {
                report.hide(spot.place);
            }
            let url = obeys(report, spot, key.name, values::url(text, rule))?;
            RawValue::Url(url, text.to_string())
        }
        (ValueKind::Texts(rule), DeValue::Array(_)) => {
            RawValue::Texts(parts::texts(report, file, key, value, spot, rule)?)
        }
        (ValueKind::Arguments(rule), DeValue::Array(_)) => {
            hide_all(report, file, value);
            RawValue::Texts(parts::texts(report, file, key, value, spot, rule)?)
        }
        (ValueKind::Principal, DeValue::String(_) | DeValue::Integer(_)) => {
            RawValue::Principal(parts::principal(report, key, found, spot)?)
        }
        (ValueKind::Rules, DeValue::Array(_)) => {
            RawValue::Rules(parts::rules(report, file, value, spot)?)
        }
        (ValueKind::Address, DeValue::String(text)) => address(report, spot, key.name, text)?,
        (ValueKind::Mode, DeValue::String(text)) => parts::mode(report, key, text, spot)?,
        (ValueKind::Map(rule), DeValue::Table(map)) => {
            hide_all(report, file, value);
            RawValue::Map(parts::map(report, file, key, map, spot, rule)?)
        }
        (ValueKind::Table(schema), DeValue::Table(inner)) => {
            RawValue::Table(table(report, file, schema, inner, spot.clone()))
        }
        _ => {
            hide_all(report, file, value);
            wrong_kind(report, spot, key, found);
            return None;
        }
    };
    Some(read)
}

/// Reports that a value has the wrong kind, without the value.
fn wrong_kind(report: &mut ConfigReport, spot: &Spot, key: &KeySpec, found: &DeValue<'_>) {
    let article = match found {
        DeValue::Integer(_) | DeValue::Array(_) => "an",
        _ => "a",
    };
    let help = match (key.kind, found) {
        (
            ValueKind::Texts(_) | ValueKind::Arguments(_) | ValueKind::Rules,
            DeValue::String(_) | DeValue::Table(_),
        ) => format!("put it into brackets: {} = […]", key.name),
        (ValueKind::Mode, DeValue::Integer(_)) => {
            "in quotes, since TOML has no octal number that begins with 0 alone".into()
        }
        _ => String::new(),
    };
    report
        .error(
            spot,
            format!(
                "`{}`: expected {}, found {article} {}",
                key.name,
                key.kind.expected(),
                found.type_str()
            ),
        )
        .help(help);
}

/// Reports a rule that is broken. In a file that cannot be parsed, a text may be anything, a secret
/// included. So this function and those below report nothing that could repeat a text of such a
/// file.
fn obeys<T>(
    report: &mut ConfigReport,
    spot: &Spot,
    name: &str,
    outcome: Result<T, values::ValueError>,
) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(wrong) => {
            report
                .error(spot, format!("`{name}` {}", wrong.message))
                .help(wrong.help)
                .if_whole();
            None
        }
    }
}

/// A path from the file, relative to the file's folder.
fn resolve(file: File<'_>, text: &str) -> PathBuf {
    match file.path.parent() {
        Some(folder) => folder.join(text),
        None => PathBuf::from(text),
    }
}

fn choice(
    report: &mut ConfigReport,
    spot: &Spot,
    name: &str,
    all: &'static [&'static str],
    text: &str,
) -> Option<RawValue> {
    if let Some(word) = all.iter().find(|word| **word == text) {
        return Some(RawValue::Choice(word));
    }
    if let Some(word) = schema::not_yet(name, text) {
        let help = match all {
            [only] => format!("only \"{only}\" is"),
            _ => String::new(),
        };
        report
            .error(
                spot,
                format!("{name} = \"{word}\" is not supported by this version of tokend"),
            )
            .help(help)
            .if_whole();
        return Some(RawValue::Choice(word));
    }
    let list = format!("one of {}", all.join(", "));
    let help = match values::nearest(text, all.iter().copied()) {
        Some(nearest) => format!("did you mean \"{nearest}\"? It is {list}"),
        None => list,
    };
    report
        .error(spot, format!("`{name}` cannot be \"{}\"", shorten(text)))
        .help(help)
        .if_whole();
    None
}

fn integer(
    report: &mut ConfigReport,
    spot: &Spot,
    name: &str,
    found: &DeValue<'_>,
    range: std::ops::RangeInclusive<u32>,
) -> Option<u32> {
    let number = found
        .as_integer()
        .and_then(|n| i128::from_str_radix(n.as_str(), n.radix()).ok())
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| range.contains(n));
    if number.is_none() {
        report.error(
            spot,
            format!(
                "`{name}` must be between {} and {}",
                range.start(),
                range.end()
            ),
        );
    }
    number
}

fn number(
    report: &mut ConfigReport,
    spot: &Spot,
    name: &str,
    found: &DeValue<'_>,
    low: f64,
    high: f64,
) -> Option<RawValue> {
    let text = match found {
        DeValue::Float(n) => n.as_str(),
        DeValue::Integer(n) if n.radix() == 10 => n.as_str(),
        _ => "",
    };
    match text.parse::<f64>() {
        Ok(n) if (low..=high).contains(&n) => Some(RawValue::Number(n)),
        _ => {
            report.error(spot, format!("`{name}` must be between {low} and {high}"));
            None
        }
    }
}

/// Reports that a duration needs a unit.
fn without_unit(report: &mut ConfigReport, spot: &Spot, name: &str, number: &str) {
    report
        .error(
            spot,
            format!("`{name}`: expected a duration as text, such as \"30s\", found an integer"),
        )
        .help(format!("a unit is needed: {name} = \"{number}s\""));
}

fn address(report: &mut ConfigReport, spot: &Spot, name: &str, text: &str) -> Option<RawValue> {
    let address = text.parse().ok();
    if address.is_none() {
        report
            .error(spot, format!("`{name}` is not an IP address with a port"))
            .help("for instance \"127.0.0.1:9464\"");
    }
    address.map(RawValue::Address)
}

fn duration(
    report: &mut ConfigReport,
    spot: &Spot,
    name: &str,
    text: &str,
    low: Duration,
    high: Duration,
) -> Option<RawValue> {
    let Ok(duration) = humantime::parse_duration(text) else {
        report
            .error(
                spot,
                format!("`{name}` is not a duration: \"{}\"", shorten(text)),
            )
            .help("a number with a unit, such as \"30s\", \"500ms\" or \"1h 30m\"")
            .if_whole();
        return None;
    };
    if !(low..=high).contains(&duration) {
        report.error(
            spot,
            format!(
                "`{name}` must be between {} and {}",
                humantime::format_duration(low),
                humantime::format_duration(high)
            ),
        );
        return None;
    }
    Some(RawValue::Duration(duration))
}
