//! What has been read: typed tables, which know their place and their schema's defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::report::Spot;
use super::schema::{Key, Kind, Table};
use crate::core::policy::stated::Stated;
use crate::core::profile::{AccessRule, Principal, SecretRef};

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

    /// `access` of a profile as the file states it.
    pub fn stated_access(&self) -> Stated {
        if self.is_broken("access") {
            Stated::RootOnly
        } else {
            Stated::Rules(self.rules("access"))
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
