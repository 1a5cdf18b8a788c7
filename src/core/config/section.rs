//! What has been read: typed tables, which know their place.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::report::Spot;
use super::schema::{self, KeySchema, KeySpec, Table};
use crate::core::policy::stated::Stated;
use crate::core::profile::{AccessRule, SecretRef, UserOrGroup};

/// A value of the right kind, or the fact that there is a wrong one, which has been told.
#[derive(Clone, Debug)]
pub(super) enum RawValue {
    Broken,
    Text(String),
    Choice(&'static str),
    Texts(Vec<(String, Spot)>),
    Secret(SecretRef),
    Bool(bool),
    Integer(u32),
    Number(f64),
    Duration(Duration),
    Path(PathBuf),
    Url(Url, String),
    Principal(UserOrGroup),
    Rules(Vec<AccessRule>),
    Address(SocketAddr),
    Map(BTreeMap<String, String>),
    Table(Section),
}

/// One key that is there.
#[derive(Clone, Debug)]
pub(super) struct SectionEntry {
    pub key: Spot,
    pub spot: Spot,
    pub value: RawValue,
}

/// One table that is there.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub schema: &'static Table,
    /// The table's own name in the file.
    pub spot: Spot,
    pub entries: BTreeMap<&'static str, SectionEntry>,
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
    pub fn given(&self, key: &KeySpec) -> Option<&SectionEntry> {
        let own = self.schema.key(key.name);
        debug_assert!(
            own.is_some_and(|own| std::ptr::eq(own, key)),
            "`{}` is no key of `{}`",
            key.name,
            self.schema.title
        );
        self.entries.get(key.name)
    }

    /// Whether it is written, be it right or wrong.
    pub fn has(&self, key: &KeySpec) -> bool {
        self.given(key).is_some()
    }

    /// Where the value stands, or else the table.
    pub fn spot_of(&self, key: &KeySpec) -> Spot {
        self.spot_at(key.name)
    }

    /// As [`Section::spot_of`], for a name that comes from elsewhere.
    pub fn spot_at(&self, name: &str) -> Spot {
        match self.entries.get(name) {
            Some(entry) => entry.spot.clone(),
            None => self.spot.child(name, self.spot.place),
        }
    }

    /// Whether a value is there that could not be read.
    pub fn is_broken(&self, key: &KeySpec) -> bool {
        let value = self.given(key).map(|entry| &entry.value);
        matches!(value, Some(RawValue::Broken))
    }

    /// The value as written, else the default. A broken value counts as absent: it has been told.
    pub fn get<T: Clone>(&self, key: &KeySchema<T>) -> T {
        self.given(key)
            .and_then(|entry| (key.take)(&entry.value))
            .unwrap_or_else(|| key.default.clone())
    }

    /// As it is written, for URLs that are only passed on.
    pub fn url_text(&self, key: &KeySchema<Option<Url>>) -> Option<String> {
        match self.given(key).map(|entry| &entry.value) {
            Some(RawValue::Url(_, text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// The table under this key, where one is written.
    pub fn table(&self, key: &KeySchema<Option<Section>>) -> Option<&Section> {
        self.table_at(key.name)
    }

    /// As [`Section::table`], for a name that comes from elsewhere.
    pub fn table_at(&self, name: &str) -> Option<&Section> {
        match self.entries.get(name).map(|entry| &entry.value) {
            Some(RawValue::Table(section)) => Some(section),
            _ => None,
        }
    }

    /// The table under this key, all defaults where none is written.
    pub fn table_or_absent(
        &self,
        key: &KeySchema<Option<Section>>,
        schema: &'static Table,
    ) -> Section {
        self.get(key)
            .unwrap_or_else(|| Section::absent(schema, self.spot_of(key)))
    }

    /// `access` of a profile as the file states it.
    pub fn stated_access(&self) -> Stated {
        if self.is_broken(&schema::profile::ACCESS) {
            Stated::RootOnly
        } else {
            Stated::Rules(self.get(&schema::profile::ACCESS))
        }
    }
}
