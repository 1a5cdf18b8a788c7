//! A table of the file, read by its schema: unknown keys, wrong kinds and wrong single values are told here, and what
//! is right comes out typed. What keys mean together is decided elsewhere.

mod parts;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};
use url::Url;

use super::report::{Place, Report, Spot, shorten};
use super::schema::{self, Key, Kind, Table};
use super::values;
use crate::core::profile::{AccessRule, Principal, SecretRef};

/// What reading needs to know of the file.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    /// Index in the report.
    pub index: usize,
    pub path: &'a Path,
    /// Literal secrets are accepted.
    pub private: bool,
}

impl File<'_> {
    pub fn place<T>(self, spanned: &Spanned<T>) -> Place {
        Place::of(self.index, spanned.span())
    }
}

/// A value of the right kind, or the fact that there is a wrong one, which has been told.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Broken,
    Text(String),
    Texts(Vec<(String, Spot)>),
    Secret(SecretRef),
    Bool(bool),
    Integer(u64),
    Number(f64),
    Duration(Duration),
    Path(PathBuf),
    Url(Url, String),
    Principal(Principal),
    Rules(Vec<AccessRule>),
    Address(SocketAddr),
    Map(BTreeMap<String, String>),
    Table(Section),
}

/// One key that is there.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: Spot,
    pub spot: Spot,
    pub value: Value,
}

/// One table that is there.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub schema: &'static Table,
    /// The table's own name in the file.
    pub spot: Spot,
    pub entries: BTreeMap<&'static str, Entry>,
}

impl Section {
    /// A table that is not in the file: all defaults.
    pub fn absent(schema: &'static Table, spot: Spot) -> Section {
        Section {
            schema,
            spot,
            entries: BTreeMap::new(),
        }
    }

    /// The key as written.
    pub fn given(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// Whether it is written, be it right or wrong.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// Where the value stands, or else the table.
    pub fn spot_of(&self, name: &str) -> Spot {
        match self.entries.get(name) {
            Some(entry) => entry.spot.clone(),
            None => self.spot.child(name, self.spot.place),
        }
    }

    /// Whether a value is there that could not be read.
    pub fn is_broken(&self, name: &str) -> bool {
        matches!(
            self.entries.get(name),
            Some(Entry {
                value: Value::Broken,
                ..
            })
        )
    }

    /// The value as written, else the schema's default. A broken value counts as absent: it has been told.
    fn value(&self, name: &str) -> Option<Value> {
        match self.entries.get(name).map(|entry| &entry.value) {
            Some(Value::Broken) | None => default_of(self.schema.key(name)?),
            Some(value) => Some(value.clone()),
        }
    }

    pub fn text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The text as written, not the default; None where it is wrong.
    pub fn given_text(&self, name: &str) -> Option<&str> {
        match self.entries.get(name).map(|entry| &entry.value) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// As it is written, for URLs that are only passed on.
    pub fn url_text(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::Url(_, text) => Some(text),
            _ => None,
        }
    }

    pub fn url(&self, name: &str) -> Option<Url> {
        match self.value(name)? {
            Value::Url(url, _) => Some(url),
            _ => None,
        }
    }

    pub fn texts(&self, name: &str) -> Vec<(String, Spot)> {
        match self.value(name) {
            Some(Value::Texts(texts)) => texts,
            _ => Vec::new(),
        }
    }

    pub fn secret(&self, name: &str) -> Option<SecretRef> {
        match self.value(name)? {
            Value::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    pub fn path(&self, name: &str) -> Option<PathBuf> {
        match self.value(name)? {
            Value::Path(path) => Some(path),
            _ => None,
        }
    }

    pub fn principal(&self, name: &str) -> Option<Principal> {
        match self.value(name)? {
            Value::Principal(principal) => Some(principal),
            _ => None,
        }
    }

    pub fn rules(&self, name: &str) -> Vec<AccessRule> {
        match self.value(name) {
            Some(Value::Rules(rules)) => rules,
            _ => Vec::new(),
        }
    }

    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        match self.value(name)? {
            Value::Address(address) => Some(address),
            _ => None,
        }
    }

    pub fn map(&self, name: &str) -> BTreeMap<String, String> {
        match self.value(name) {
            Some(Value::Map(map)) => map,
            _ => BTreeMap::new(),
        }
    }

    pub fn flag(&self, name: &str) -> bool {
        matches!(self.value(name), Some(Value::Bool(true)))
    }

    /// 0 where neither file nor schema has one: a test holds the schema to having one wherever this is asked.
    pub fn integer(&self, name: &str) -> u64 {
        match self.value(name) {
            Some(Value::Integer(n)) => n,
            _ => 0,
        }
    }

    /// As [`Section::integer`], for values whose range fits.
    pub fn small(&self, name: &str) -> u32 {
        u32::try_from(self.integer(name)).unwrap_or(u32::MAX)
    }

    pub fn number(&self, name: &str) -> f64 {
        match self.value(name) {
            Some(Value::Number(n)) => n,
            _ => 0.0,
        }
    }

    pub fn duration(&self, name: &str) -> Duration {
        match self.value(name) {
            Some(Value::Duration(duration)) => duration,
            _ => Duration::ZERO,
        }
    }

    /// The table under this key, where one is written.
    pub fn table(&self, name: &str) -> Option<&Section> {
        match self.entries.get(name).map(|entry| &entry.value) {
            Some(Value::Table(section)) => Some(section),
            _ => None,
        }
    }
}

/// The default that the schema states.
pub(super) fn default_of(key: &Key) -> Option<Value> {
    if key.default.is_empty() {
        return None;
    }
    let text = key.default.trim_matches('"');
    match key.kind {
        Kind::Duration(..) => humantime::parse_duration(text).ok().map(Value::Duration),
        Kind::Integer(..) => text.parse().ok().map(Value::Integer),
        Kind::Number(..) => text.parse().ok().map(Value::Number),
        Kind::Bool => text.parse().ok().map(Value::Bool),
        Kind::Choice(all) => all.contains(&text).then(|| Value::Text(text.to_owned())),
        Kind::Mode => u64::from_str_radix(text, 8).ok().map(Value::Integer),
        _ => None,
    }
}

/// Reads one table.
pub(super) fn table(
    report: &mut Report,
    file: File<'_>,
    schema: &'static Table,
    found: &DeTable<'_>,
    spot: Spot,
) -> Section {
    let mut section = Section::absent(schema, spot);
    for (name, value) in found {
        let key_spot = section.spot.child(name.get_ref(), file.place(name));
        let Some(key) = schema.key(name.get_ref()) else {
            unknown(report, file, schema, name.get_ref(), value, &key_spot);
            continue;
        };
        // The span of a [table] is its header; its name in there is the better place.
        let span = match (key.kind, value.get_ref()) {
            (Kind::Table(_), DeValue::Table(_)) => key_spot.place,
            _ => file.place(value),
        };
        let spot = section.spot.child(key.name, span);
        let read = read(report, file, key, value, &spot).unwrap_or(Value::Broken);
        let entry = Entry {
            key: key_spot,
            spot,
            value: read,
        };
        section.entries.insert(key.name, entry);
    }
    for key in schema.keys {
        if key.required && key.methods.is_empty() && !section.has(key.name) {
            missing(report, &section, key);
        }
    }
    section
}

/// Tells that a key has to be there.
pub(super) fn missing(report: &mut Report, section: &Section, key: &Key) {
    let spot = section.spot_of(key.name);
    let help = match key.kind {
        Kind::Choice(all) => format!("one of {}", all.join(", ")),
        Kind::Secret => format!("for instance {} = {{ file = \"/path\" }}", key.name),
        Kind::Command => format!("for instance {} = [\"/path/to/program\"]", key.name),
        _ => String::new(),
    };
    report
        .error(&spot, format!("`{}` is missing", key.name))
        .help(help)
        .if_whole();
}

/// Tells of a key that the schema does not have, with the one that is probably meant.
fn unknown(
    report: &mut Report,
    file: File<'_>,
    schema: &'static Table,
    name: &str,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) {
    cut_all(report, file, value);
    let names = schema.keys.iter().map(|key| key.name);
    let homes = schema::homes(name);
    let help = if !homes.is_empty() {
        let homes: Vec<String> = homes.iter().map(|home| format!("`{home}`")).collect();
        format!("it is a key of {}", homes.join(", "))
    } else if let Some(nearest) = values::nearest(name, names) {
        format!("did you mean `{nearest}`?")
    } else {
        String::new()
    };
    report
        .error(
            spot,
            format!("unknown key `{}` in `{}`", shorten(name), schema.title),
        )
        .help(help);
}

/// Cuts all values in here out of what is shown: an unknown key may be a misspelled `client_secret`.
pub(super) fn cut_all(report: &mut Report, file: File<'_>, value: &Spanned<DeValue<'_>>) {
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

/// Keeps the lines of all values in here from being shown.
fn hide_all(report: &mut Report, file: File<'_>, value: &Spanned<DeValue<'_>>) {
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

/// Reads one value; None when it is wrong, which has been told.
fn read(
    report: &mut Report,
    file: File<'_>,
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) -> Option<Value> {
    let found = value.get_ref();
    let read = match (key.kind, found) {
        (Kind::Text(rule), DeValue::String(text)) => {
            obeys(report, spot, key.name, rule(text))?;
            Value::Text(text.to_string())
        }
        (Kind::Choice(all), DeValue::String(text)) => choice(report, spot, key.name, all, text)?,
        (Kind::Secret, _) => Value::Secret(parts::secret(report, file, key, value, spot)?),
        (Kind::Bool, DeValue::Boolean(flag)) => Value::Bool(*flag),
        (Kind::Integer(low, high), DeValue::Integer(_)) => {
            Value::Integer(integer(report, spot, key.name, found, low..=high)?)
        }
        (Kind::Number(low, high), DeValue::Integer(_) | DeValue::Float(_)) => {
            number(report, spot, key.name, found, low, high)?
        }
        (Kind::Duration(low, high), DeValue::String(text)) => {
            duration(report, spot, key.name, text, low, high)?
        }
        (Kind::Duration(..), DeValue::Integer(n)) => {
            report
                .error(
                    spot,
                    format!(
                        "`{}`: expected a duration as text, such as \"30s\", found an integer",
                        key.name
                    ),
                )
                .help(format!("a unit is needed: {} = \"{n}s\"", key.name));
            return None;
        }
        (Kind::Path, DeValue::String(text)) => {
            obeys(report, spot, key.name, values::path(text))?;
            Value::Path(resolve(file, text))
        }
        (Kind::Url(rule), DeValue::String(text)) => {
            if text.contains('@') {
                report.hide(spot.place);
            }
            let url = obeys(report, spot, key.name, values::url(text, rule))?;
            Value::Url(url, text.to_string())
        }
        (Kind::Texts(rule), DeValue::Array(_)) => {
            Value::Texts(parts::texts(report, file, key, value, spot, Some(rule))?)
        }
        (Kind::Command, DeValue::Array(list)) => {
            hide_all(report, file, value);
            if list.is_empty() {
                report.error(spot, format!("`{}` must not be empty", key.name));
                return None;
            }
            Value::Texts(parts::texts(report, file, key, value, spot, None)?)
        }
        (Kind::Principal, DeValue::String(_) | DeValue::Integer(_)) => {
            Value::Principal(parts::principal(report, key, found, spot)?)
        }
        (Kind::Rules, DeValue::Array(_)) => Value::Rules(parts::rules(report, file, value, spot)),
        (Kind::Address, DeValue::String(text)) => match text.parse() {
            Ok(address) => Value::Address(address),
            Err(_) => {
                report
                    .error(
                        spot,
                        format!("`{}` is not an IP address with a port", key.name),
                    )
                    .help("for instance \"127.0.0.1:9464\"");
                return None;
            }
        },
        (Kind::Mode, DeValue::String(text)) => parts::mode(report, key, text, spot)?,
        (Kind::Map(rule), DeValue::Table(map)) => {
            hide_all(report, file, value);
            Value::Map(parts::map(report, file, key, map, spot, rule)?)
        }
        (Kind::Table(schema), DeValue::Table(inner)) => {
            Value::Table(table(report, file, schema, inner, spot.clone()))
        }
        _ => {
            hide_all(report, file, value);
            wrong_kind(report, spot, key, found);
            return None;
        }
    };
    Some(read)
}

/// Tells that a value has the wrong kind, without the value.
fn wrong_kind(report: &mut Report, spot: &Spot, key: &Key, found: &DeValue<'_>) {
    let article = match found {
        DeValue::Integer(_) | DeValue::Array(_) => "an",
        _ => "a",
    };
    let help = match (key.kind, found) {
        (Kind::Texts(_) | Kind::Command | Kind::Rules, DeValue::String(_) | DeValue::Table(_)) => {
            format!("put it into brackets: {} = […]", key.name)
        }
        (Kind::Mode, DeValue::Integer(_)) => {
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

/// Tells of a rule that is not kept.
fn obeys<T>(
    report: &mut Report,
    spot: &Spot,
    name: &str,
    outcome: Result<T, values::Wrong>,
) -> Option<T> {
    match outcome {
        Ok(value) => Some(value),
        Err(wrong) => {
            report
                .error(spot, format!("`{name}` {}", wrong.message))
                .help(wrong.help);
            None
        }
    }
}

/// A path of the file, relative to where the file stands.
fn resolve(file: File<'_>, text: &str) -> PathBuf {
    match file.path.parent() {
        Some(folder) => folder.join(text),
        None => PathBuf::from(text),
    }
}

fn choice(
    report: &mut Report,
    spot: &Spot,
    name: &str,
    all: &'static [&'static str],
    text: &str,
) -> Option<Value> {
    if all.contains(&text) {
        return Some(Value::Text(text.to_owned()));
    }
    let list = format!("one of {}", all.join(", "));
    let help = match values::nearest(text, all.iter().copied()) {
        Some(nearest) => format!("did you mean \"{nearest}\"? It is {list}"),
        None => list,
    };
    report
        .error(spot, format!("`{name}` cannot be \"{}\"", shorten(text)))
        .help(help);
    None
}

fn integer(
    report: &mut Report,
    spot: &Spot,
    name: &str,
    found: &DeValue<'_>,
    range: std::ops::RangeInclusive<u64>,
) -> Option<u64> {
    let number = found
        .as_integer()
        .and_then(|n| i128::from_str_radix(n.as_str(), n.radix()).ok())
        .and_then(|n| u64::try_from(n).ok())
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
    report: &mut Report,
    spot: &Spot,
    name: &str,
    found: &DeValue<'_>,
    low: f64,
    high: f64,
) -> Option<Value> {
    let text = match found {
        DeValue::Float(n) => n.as_str(),
        DeValue::Integer(n) if n.radix() == 10 => n.as_str(),
        _ => "",
    };
    match text.parse::<f64>() {
        Ok(n) if (low..=high).contains(&n) => Some(Value::Number(n)),
        _ => {
            report.error(spot, format!("`{name}` must be between {low} and {high}"));
            None
        }
    }
}

fn duration(
    report: &mut Report,
    spot: &Spot,
    name: &str,
    text: &str,
    low: Duration,
    high: Duration,
) -> Option<Value> {
    let Ok(duration) = humantime::parse_duration(text) else {
        report
            .error(
                spot,
                format!("`{name}` is not a duration: \"{}\"", shorten(text)),
            )
            .help("a number with a unit, such as \"30s\", \"500ms\" or \"1h 30m\"");
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
    Some(Value::Duration(duration))
}
