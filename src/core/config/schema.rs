//! All keys of the configuration. Reading, suggestions, defaults and `docs/configuration.md` use
//! them.
//!
//! Each table has a file of its own, in which every key is a static with the type of its value. So
//! a wrong name or a wrong type of a key does not compile.

pub mod assertion;
pub mod audit;
pub mod http;
pub mod idp;
pub mod keystore;
pub mod limits;
pub mod profile;
pub mod refresh;
pub mod request;
pub mod rule;
pub mod secret;
pub mod server;
pub mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::spot::Spot;
use super::values::{TextRule, UrlRule};
use crate::core::profile::{AccessRule, SecretRef, UserOrGroup};

/// A table of the file.
#[derive(Debug)]
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the reference alone, which tests make, reads `doc`"
    )
)]
pub struct Table {
    /// The title as in the file, with `NAME` for a name that the user chooses.
    pub title: &'static str,
    /// The purpose of the table.
    pub doc: &'static str,
    pub keys: &'static [&'static KeySpec],
}

impl Table {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static KeySpec> {
        self.keys.iter().copied().find(|key| key.name == name)
    }
}

/// A key whose value is a `T`, whether it is in the file or not.
pub struct KeySchema<T: 'static> {
    pub spec: KeySpec,
    pub default: T,
}

/// The value of a key that holds another table. Sections are read by their key.
#[derive(Clone, Copy)]
pub struct InnerTable(pub &'static Table);

/// Gives access to the untyped part of a key: `&KEY` works where that part is wanted.
impl<T> std::ops::Deref for KeySchema<T> {
    type Target = KeySpec;

    fn deref(&self) -> &KeySpec {
        &self.spec
    }
}

/// The facts about a key that reading, suggestions and the reference need.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the reference alone, which tests make, reads all")
)]
pub struct KeySpec {
    pub name: &'static str,
    pub kind: ValueKind,
    /// The key has to be there (with `methods`: for these methods).
    pub required: bool,
    pub default: DefaultValue,
    /// The default in words, if it depends on something.
    pub default_note: &'static str,
    /// The methods that the key belongs to. Empty: all.
    pub methods: &'static [&'static str],
    pub doc: &'static str,
}

/// The default of a key as the reference shows it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the reference alone, which tests make, reads it")
)]
pub enum DefaultValue {
    None,
    Bool(bool),
    Duration(Duration),
    Integer(u32),
    Mode(u32),
    Number(f64),
    Text(&'static str),
}

/// The kind of a value.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    Text(TextRule),
    Choice(&'static [&'static str]),
    Secret,
    Bool,
    Integer(u32, u32),
    Number(f64, f64),
    Duration(Duration, Duration),
    Path,
    Url(UrlRule),
    /// A list of texts.
    Texts(TextRule),
    /// A list of texts that people may have put secrets into, although none belongs there.
    Arguments(TextRule),
    /// A user or group.
    Principal,
    /// Access rules.
    Rules,
    /// IP address and port.
    Address,
    /// File mode in octal, as text.
    Mode,
    /// Keys that the user chooses, with text.
    Map(TextRule),
    Table(&'static Table),
}

impl ValueKind {
    /// The words by which an error message names the expected value.
    pub fn expected(&self) -> &'static str {
        match self {
            ValueKind::Text(_) | ValueKind::Choice(_) => "a string",
            ValueKind::Secret => {
                "a secret: { file = \"…\" }, { credential = \"…\" }, { env = \"…\" } or a string"
            }
            ValueKind::Bool => "true or false",
            ValueKind::Integer(..) => "an integer",
            ValueKind::Number(..) => "a number",
            ValueKind::Duration(..) => "a duration as text, such as \"30s\"",
            ValueKind::Path => "a path as a string",
            ValueKind::Url(_) => "a URL as a string",
            ValueKind::Texts(_) | ValueKind::Arguments(_) => "a list of strings",
            ValueKind::Principal => "a name or a number",
            ValueKind::Rules => {
                "a list of tables, such as [{ user = \"worker\" }, { unit = \"orders@*.service\" }]"
            }
            ValueKind::Address => "an address as text, such as \"127.0.0.1:9464\"",
            ValueKind::Mode => "an octal mode as text, such as \"0660\"",
            ValueKind::Map(_) => "a table of strings",
            ValueKind::Table(_) => "a table",
        }
    }
}

/// All tables, in the order of the reference.
pub static TABLES: &[&Table] = &[
    &server::TABLE,
    &limits::TABLE,
    &audit::TABLE,
    &idp::TABLE,
    &http::TABLE,
    &tls::TABLE,
    &profile::TABLE,
    &refresh::TABLE,
    &request::TABLE,
    &assertion::TABLE,
    &keystore::TABLE,
    &secret::TABLE,
    &rule::TABLE,
];

/// The tables of `tokend.toml`, for suggestions.
pub static ROOTS: &[&str] = &["server", "audit", "idp", "profiles"];

/// The words of later versions, by key. They are refused with this reason, and so is their profile.
static NOT_YET: &[(&str, &[&str])] = &[
    ("method", &["plugin"]),
    ("grant", &["refresh_token", "token_exchange", "jwt_bearer"]),
];

/// The word of a later version, if this text is one as a value of this key.
pub fn not_yet(name: &str, text: &str) -> Option<&'static str> {
    let (_, words) = NOT_YET.iter().find(|(key, _)| *key == name)?;
    words.iter().copied().find(|word| *word == text)
}

/// Whether a line that gives a value to this key may be shown even if it cannot be parsed.
pub fn is_harmless(name: &str) -> bool {
    let mut known = TABLES.iter().filter_map(|table| table.key(name)).peekable();
    let secretive = |kind| {
        use ValueKind::{Arguments, Map, Secret, Table};
        matches!(kind, Secret | Arguments(_) | Map(_) | Table(_))
    };
    known.peek().is_some() && known.all(|key| !secretive(key.kind))
}

/// The tables that have a key of this name.
pub fn homes(name: &str) -> Vec<&'static str> {
    TABLES
        .iter()
        .filter(|table| table.key(name).is_some())
        .map(|table| table.title)
        .collect()
}

const fn text(name: &'static str, rule: TextRule, doc: &'static str) -> KeySchema<Option<String>> {
    optional(name, ValueKind::Text(rule), doc)
}

/// One of a few words, or none.
const fn choice(
    name: &'static str,
    all: &'static [&'static str],
    doc: &'static str,
) -> KeySchema<Option<&'static str>> {
    optional(name, ValueKind::Choice(all), doc)
}

/// One of a few words.
const fn choice_or(
    name: &'static str,
    all: &'static [&'static str],
    default: &'static str,
    doc: &'static str,
) -> KeySchema<&'static str> {
    let shown = DefaultValue::Text(default);
    key(name, ValueKind::Choice(all), default, shown, doc)
}

const fn secret(name: &'static str, doc: &'static str) -> KeySchema<Option<SecretRef>> {
    optional(name, ValueKind::Secret, doc)
}

const fn flag(name: &'static str, default: bool, doc: &'static str) -> KeySchema<bool> {
    let shown = DefaultValue::Bool(default);
    key(name, ValueKind::Bool, default, shown, doc)
}

const fn integer(
    name: &'static str,
    low: u32,
    high: u32,
    default: u32,
    doc: &'static str,
) -> KeySchema<u32> {
    let shown = DefaultValue::Integer(default);
    key(name, ValueKind::Integer(low, high), default, shown, doc)
}

/// The permissions of a file.
const fn mode(name: &'static str, default: u32, doc: &'static str) -> KeySchema<u32> {
    let shown = DefaultValue::Mode(default);
    key(name, ValueKind::Mode, default, shown, doc)
}

const fn number(
    name: &'static str,
    low: f64,
    high: f64,
    default: f64,
    doc: &'static str,
) -> KeySchema<f64> {
    let shown = DefaultValue::Number(default);
    key(name, ValueKind::Number(low, high), default, shown, doc)
}

const fn duration(
    name: &'static str,
    low: Duration,
    high: Duration,
    default: Duration,
    doc: &'static str,
) -> KeySchema<Duration> {
    let shown = DefaultValue::Duration(default);
    key(name, ValueKind::Duration(low, high), default, shown, doc)
}

const fn path(name: &'static str, doc: &'static str) -> KeySchema<Option<PathBuf>> {
    optional(name, ValueKind::Path, doc)
}

const fn url(name: &'static str, rule: UrlRule, doc: &'static str) -> KeySchema<Option<Url>> {
    optional(name, ValueKind::Url(rule), doc)
}

/// The texts of a list, each with its place.
type Listed = Vec<(String, Spot)>;

/// A list of texts.
const fn texts(name: &'static str, rule: TextRule, doc: &'static str) -> KeySchema<Listed> {
    list(name, ValueKind::Texts(rule), doc)
}

const fn list(name: &'static str, kind: ValueKind, doc: &'static str) -> KeySchema<Listed> {
    key(name, kind, Vec::new(), DefaultValue::None, doc)
}

const fn principal(name: &'static str, doc: &'static str) -> KeySchema<Option<UserOrGroup>> {
    optional(name, ValueKind::Principal, doc)
}

/// A list of access rules.
const fn rules(name: &'static str, doc: &'static str) -> KeySchema<Vec<AccessRule>> {
    let kind = ValueKind::Rules;
    key(name, kind, Vec::new(), DefaultValue::None, doc)
}

const fn address(name: &'static str, doc: &'static str) -> KeySchema<Option<SocketAddr>> {
    optional(name, ValueKind::Address, doc)
}

/// A table whose keys the user chooses and that follow this rule.
const fn map(
    name: &'static str,
    rule: TextRule,
    doc: &'static str,
) -> KeySchema<BTreeMap<String, String>> {
    let kind = ValueKind::Map(rule);
    key(name, kind, BTreeMap::new(), DefaultValue::None, doc)
}

const fn table(
    name: &'static str,
    table: &'static Table,
    doc: &'static str,
) -> KeySchema<InnerTable> {
    let (kind, inner) = (ValueKind::Table(table), InnerTable(table));
    key(name, kind, inner, DefaultValue::None, doc)
}

/// A key without a default.
const fn optional<T>(
    name: &'static str,
    kind: ValueKind,
    doc: &'static str,
) -> KeySchema<Option<T>> {
    key(name, kind, None, DefaultValue::None, doc)
}

const fn key<T>(
    name: &'static str,
    kind: ValueKind,
    default: T,
    shown: DefaultValue,
    doc: &'static str,
) -> KeySchema<T> {
    let spec = KeySpec {
        name,
        kind,
        required: false,
        default: shown,
        default_note: "",
        methods: &[],
        doc,
    };
    KeySchema { spec, default }
}

impl<T> KeySchema<T> {
    const fn or_as_told(mut self, note: &'static str) -> KeySchema<T> {
        self.spec.default_note = note;
        self
    }

    const fn of(mut self, methods: &'static [&'static str]) -> KeySchema<T> {
        self.spec.methods = methods;
        self
    }

    const fn must(mut self) -> KeySchema<T> {
        self.spec.required = true;
        self
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn minutes(n: u64) -> Duration {
    seconds(n * 60)
}

const fn hours(n: u64) -> Duration {
    minutes(n * 60)
}
