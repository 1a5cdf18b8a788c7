//! Typed tables as they were read, with their places.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::schema::{self, InnerTable, KeySchema, KeySpec, Table};
use super::spot::Spot;
use crate::core::policy::stated::Stated;
use crate::core::profile::{AccessRule, SecretRef, UserOrGroup};

/// A value of the right kind, or a mark for a wrong value, which has been reported.
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

/// The type of a key's value.
pub(super) trait FromRaw: Clone {
    /// None for a value of another kind, which no key of this type has.
    fn from_raw(value: &RawValue) -> Option<Self>;
}

macro_rules! from_raw {
    ($($kind:ident: $type:ty,)*) => {$(
        impl FromRaw for $type {
            fn from_raw(value: &RawValue) -> Option<$type> {
                match value {
                    RawValue::$kind(value, ..) => Some(Clone::clone(value)),
                    _ => None,
                }
            }
        }
    )*};
}

from_raw! {
    Text: String,
    Choice: &'static str,
    Texts: Vec<(String, Spot)>,
    Secret: SecretRef,
    Bool: bool,
    Integer: u32,
    Number: f64,
    Duration: Duration,
    Path: PathBuf,
    Url: Url,
    Principal: UserOrGroup,
    Rules: Vec<AccessRule>,
    Address: SocketAddr,
    Map: BTreeMap<String, String>,
}

impl<T: FromRaw> FromRaw for Option<T> {
    fn from_raw(value: &RawValue) -> Option<Option<T>> {
        T::from_raw(value).map(Some)
    }
}

/// A key that is in the file.
#[derive(Clone, Debug)]
pub(super) struct SectionEntry {
    pub key: Spot,
    pub spot: Spot,
    pub value: RawValue,
}

/// A table.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub schema: &'static Table,
    /// Where the file names the table.
    pub spot: Spot,
    pub entries: BTreeMap<&'static str, SectionEntry>,
}

impl Section {
    /// A table that is not in the file, with all defaults.
    pub fn absent(schema: &'static Table, spot: Spot) -> Section {
        Section {
            schema,
            spot,
            entries: BTreeMap::new(),
        }
    }

    /// The key as written in the file.
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

    /// Whether the key is in the file, right or wrong.
    pub fn has(&self, key: &KeySpec) -> bool {
        self.given(key).is_some()
    }

    /// The place of the value, or else of the table.
    pub fn spot_of(&self, key: &KeySpec) -> Spot {
        self.spot_at(key.name)
    }

    /// Like [`Section::spot_of`], for a name from elsewhere.
    pub fn spot_at(&self, name: &str) -> Spot {
        match self.entries.get(name) {
            Some(entry) => entry.spot.clone(),
            None => self.spot.child(name, self.spot.place),
        }
    }

    /// Whether the key has a value that could not be read.
    pub fn is_broken(&self, key: &KeySpec) -> bool {
        let value = self.given(key).map(|entry| &entry.value);
        matches!(value, Some(RawValue::Broken))
    }

    /// The value in the file, else the default. A broken value counts as absent: it has been
    /// reported.
    pub fn get<T: FromRaw>(&self, key: &KeySchema<T>) -> T {
        self.given(key)
            .and_then(|entry| T::from_raw(&entry.value))
            .unwrap_or_else(|| key.default.clone())
    }

    /// The text of a URL as written, for URLs that are only passed on.
    pub fn url_text(&self, key: &KeySchema<Option<Url>>) -> Option<String> {
        match self.given(key).map(|entry| &entry.value) {
            Some(RawValue::Url(_, text)) => Some(text.clone()),
            _ => None,
        }
    }

    /// The table under this key, if there is one.
    pub fn table(&self, key: &KeySchema<InnerTable>) -> Option<&Section> {
        self.table_at(key.name)
    }

    /// Like [`Section::table`], for a name from elsewhere.
    pub fn table_at(&self, name: &str) -> Option<&Section> {
        match self.entries.get(name).map(|entry| &entry.value) {
            Some(RawValue::Table(section)) => Some(section),
            _ => None,
        }
    }

    /// The table under this key, with all defaults if there is none.
    pub fn table_or_absent(&self, key: &KeySchema<InnerTable>) -> Section {
        match self.table(key) {
            Some(section) => section.clone(),
            None => Section::absent(key.default.0, self.spot_of(key)),
        }
    }

    /// The `access` of a profile as the file states it.
    pub fn stated_access(&self) -> Stated {
        if self.is_broken(&schema::profile::ACCESS) {
            Stated::RootOnly
        } else {
            Stated::Rules(self.get(&schema::profile::ACCESS))
        }
    }
}
