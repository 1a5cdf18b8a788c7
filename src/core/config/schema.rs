//! Every key there is: the one table that reading, suggestions, defaults and `docs/configuration.md` come from.

mod idp;
mod profile;
mod server;

use std::time::Duration;

use super::values::{self, Rule, UrlRule};

pub(super) use idp::{ASSERTION, HTTP, IDP, KEYSTORE, TLS};
pub(super) use profile::{PROFILE, REFRESH, REQUEST};
pub(super) use server::{AUDIT, LIMITS, SERVER};

/// A table of the file.
#[derive(Debug)]
pub(super) struct Table {
    /// As it stands in the file, with `NAME` for what the user chooses.
    pub title: &'static str,
    /// What it is for.
    pub doc: &'static str,
    pub keys: &'static [Key],
}

impl Table {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub name: &'static str,
    pub kind: Kind,
    /// Has to be there (with `methods`: for these methods).
    pub required: bool,
    /// As it would be written in the file; empty where there is none.
    pub default: &'static str,
    /// The default in words, where it depends on something.
    pub default_note: &'static str,
    /// The methods that it belongs to; empty: all.
    pub methods: &'static [&'static str],
    pub doc: &'static str,
}

/// What a value looks like.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Text(Rule),
    Choice(&'static [&'static str]),
    Secret,
    Bool,
    Integer(u64, u64),
    Number(f64, f64),
    Duration(Duration, Duration),
    Path,
    Url(UrlRule),
    /// A list of texts.
    Texts(Rule),
    /// A program and its arguments.
    Command,
    /// A user or group.
    Principal,
    /// Access rules.
    Rules,
    /// IP address and port.
    Address,
    /// File mode in octal, as text.
    Mode,
    /// Keys that the user chooses, with text.
    Map(Rule),
    Table(&'static Table),
}

impl Kind {
    /// For the reference.
    pub fn describe(&self) -> String {
        match self {
            Kind::Text(_) => "text".into(),
            Kind::Choice(all) => all
                .iter()
                .map(|one| format!("`{one:?}`"))
                .collect::<Vec<_>>()
                .join(" or "),
            Kind::Secret => "secret".into(),
            Kind::Bool => "`true` or `false`".into(),
            Kind::Integer(low, high) => format!("integer, {low} to {high}"),
            Kind::Number(low, high) => format!("number, {low} to {high}"),
            Kind::Duration(low, high) => format!(
                "duration, {} to {}",
                humantime::format_duration(*low),
                humantime::format_duration(*high)
            ),
            Kind::Path => "path".into(),
            Kind::Url(_) => "URL".into(),
            Kind::Texts(_) => "list of texts".into(),
            Kind::Command => "list of texts: program and arguments".into(),
            Kind::Principal => "name or number".into(),
            Kind::Rules => "list of access rules".into(),
            Kind::Address => "IP address and port".into(),
            Kind::Mode => "octal mode as text".into(),
            Kind::Map(_) => "table of texts".into(),
            Kind::Table(table) => format!("table, see [{}](#{})", table.title, anchor(table.title)),
        }
    }

    /// What an error says was expected.
    pub fn expected(&self) -> &'static str {
        match self {
            Kind::Text(_) | Kind::Choice(_) => "a string",
            Kind::Secret => {
                "a secret: { file = \"…\" }, { credential = \"…\" }, { env = \"…\" } or a string"
            }
            Kind::Bool => "true or false",
            Kind::Integer(..) => "an integer",
            Kind::Number(..) => "a number",
            Kind::Duration(..) => "a duration as text, such as \"30s\"",
            Kind::Path => "a path as a string",
            Kind::Url(_) => "a URL as a string",
            Kind::Texts(_) => "a list of strings",
            Kind::Command => "a list of strings, program and arguments",
            Kind::Principal => "a name or a number",
            Kind::Rules => {
                "a list of tables, such as [{ user = \"worker\" }, { unit = \"orders@*.service\" }]"
            }
            Kind::Address => "an address as text, such as \"127.0.0.1:9464\"",
            Kind::Mode => "an octal mode as text, such as \"0660\"",
            Kind::Map(_) => "a table of strings",
            Kind::Table(_) => "a table",
        }
    }
}

/// The name of a heading in the reference's links.
pub(super) fn anchor(title: &str) -> String {
    title
        .to_lowercase()
        .replace(' ', "-")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .collect()
}

/// What `user`, `group` and `unit` of an access rule are.
pub(super) static RULE: Table = Table {
    title: "access rule",
    doc: "One entry of `access` or `admins`. Every key that is present must hold; of several entries one suffices. What cannot be known of a caller never matches.",
    keys: &[
        key(
            "user",
            Kind::Principal,
            "The caller's user, by name or by number. Text of digits alone is a number.",
        ),
        key(
            "group",
            Kind::Principal,
            "A group that the caller is in, by name or by number, supplementary groups included.",
        ),
        key(
            "unit",
            Kind::Text(values::unit),
            "The caller's systemd unit, with `*` for any text and `?` for any character.",
        ),
    ],
};

/// Where a secret is.
pub(super) static SECRET: Table = Table {
    title: "secret",
    doc: "A secret is text, or a table with exactly one of these keys. Text is accepted only in a file that nobody but root and the daemon's user can read.",
    keys: &[
        key(
            "file",
            Kind::Path,
            "A file that holds the secret and nothing else; one line break at its end is ignored. It is watched, and a change takes effect at once.",
        ),
        key(
            "credential",
            Kind::Text(values::credential),
            "The name of a systemd credential (`LoadCredential=`, `LoadCredentialEncrypted=`).",
        ),
        key(
            "env",
            Kind::Text(values::variable),
            "An environment variable of the daemon. `tokend check` warns: environments are inherited and show up in many places.",
        ),
    ],
};

/// All tables, in the reference's order.
pub(super) static TABLES: &[&Table] = &[
    &SERVER, &LIMITS, &AUDIT, &IDP, &HTTP, &TLS, &PROFILE, &REFRESH, &REQUEST, &ASSERTION,
    &KEYSTORE, &SECRET, &RULE,
];

/// The tables of `tokend.toml`, for suggestions.
pub(super) static ROOTS: &[&str] = &["server", "audit", "idp", "profiles"];

/// Whether a line that gives a value to this key may be shown even when it cannot be parsed.
pub(super) fn is_harmless(name: &str) -> bool {
    let mut known = TABLES
        .iter()
        .flat_map(|table| table.keys)
        .filter(|key| key.name == name)
        .peekable();
    known.peek().is_some()
        && known.all(|key| {
            !matches!(
                key.kind,
                Kind::Secret | Kind::Map(_) | Kind::Command | Kind::Table(_)
            )
        })
}

/// The tables that know a key of this name.
pub(super) fn homes(name: &str) -> Vec<&'static str> {
    TABLES
        .iter()
        .filter(|table| table.key(name).is_some())
        .map(|table| table.title)
        .collect()
}

const fn key(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key {
        name,
        kind,
        required: false,
        default: "",
        default_note: "",
        methods: &[],
        doc,
    }
}

impl Key {
    const fn or(mut self, default: &'static str) -> Key {
        self.default = default;
        self
    }

    const fn or_as_told(mut self, note: &'static str) -> Key {
        self.default_note = note;
        self
    }

    const fn of(mut self, methods: &'static [&'static str]) -> Key {
        self.methods = methods;
        self
    }

    const fn must(mut self) -> Key {
        self.required = true;
        self
    }
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}
