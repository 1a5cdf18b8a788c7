//! The reference of all keys as Markdown, made from the schema: `docs/configuration.md`.

use super::schema::{DefaultValue, KeySpec, TABLES, ValueKind};

/// The whole text of the reference.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for table in TABLES {
        text.push_str(&format!("\n## {}\n\n{}\n\n", table.title, table.doc));
        text.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        for key in table.keys {
            text.push_str(&row(key));
        }
    }
    text
}

fn row(key: &KeySpec) -> String {
    let default = if key.required {
        "required".to_owned()
    } else if !key.default_note.is_empty() {
        key.default_note.to_owned()
    } else {
        default(key.default)
    };
    let mut doc = key.doc.to_owned();
    if !key.methods.is_empty() {
        let methods: Vec<String> = key.methods.iter().map(|one| format!("`{one}`")).collect();
        doc.push_str(&format!(" Only with `method` {}.", methods.join(" or ")));
    }
    format!(
        "| `{}` | {} | {default} | {doc} |\n",
        key.name,
        kind(key.kind)
    )
}

/// A default as it would be written in the file.
fn default(value: DefaultValue) -> String {
    match value {
        DefaultValue::None => "none".to_owned(),
        DefaultValue::Bool(flag) => format!("`{flag}`"),
        DefaultValue::Duration(time) => format!("`\"{}\"`", humantime::format_duration(time)),
        DefaultValue::Integer(number) => format!("`{number}`"),
        DefaultValue::Mode(mode) => format!("`\"{mode:04o}\"`"),
        DefaultValue::Number(number) => format!("`{number}`"),
        DefaultValue::Text(word) => format!("`{word:?}`"),
    }
}

/// The kind of a value, in words.
fn kind(kind: ValueKind) -> String {
    match kind {
        ValueKind::Text(_) => "text".into(),
        ValueKind::Choice(all) => all
            .iter()
            .map(|one| format!("`{one:?}`"))
            .collect::<Vec<_>>()
            .join(" or "),
        ValueKind::Secret => "secret".into(),
        ValueKind::Bool => "`true` or `false`".into(),
        ValueKind::Integer(low, high) => format!("integer, {low} to {high}"),
        ValueKind::Number(low, high) => format!("number, {low} to {high}"),
        ValueKind::Duration(low, high) => format!(
            "duration, {} to {}",
            humantime::format_duration(low),
            humantime::format_duration(high)
        ),
        ValueKind::Path => "path".into(),
        ValueKind::Url(_) => "URL".into(),
        ValueKind::Texts(_) | ValueKind::Arguments(_) => "list of texts".into(),
        ValueKind::Principal => "name or number".into(),
        ValueKind::Rules => "list of access rules".into(),
        ValueKind::Address => "IP address and port".into(),
        ValueKind::Mode => "octal mode as text".into(),
        ValueKind::Map(_) => "table of texts".into(),
        ValueKind::Table(table) => {
            format!("table, see [{}](#{})", table.title, anchor(table.title))
        }
    }
}

/// The anchor of a heading, for links to it.
fn anchor(title: &str) -> String {
    title
        .to_lowercase()
        .replace(' ', "-")
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
        .collect()
}

const HEAD: &str = "\
# Configuration reference

<!-- Generated from src/core/config/schema/. Regenerate: TOKEND_BLESS=1 cargo test --lib core::config -->

`/etc/tokend/tokend.toml`, and every `*.toml` in the folder `profiles.d` beside it; not root: the same names under
`$XDG_CONFIG_HOME/tokend/`. [tokend.example.toml](tokend.example.toml) shows every key in use. `tokend check` tells all
problems at once, each with its place.

- Unknown keys are errors.
- Durations are text with a unit: `\"30s\"`, `\"500ms\"`, `\"1h 30m\"`.
- Relative paths are relative to the file they stand in.
- `[server]` and `[audit]` stand in `tokend.toml` alone. What is wrong there, and a `tokend.toml` that is not TOML, makes
  the whole configuration unusable: nothing changes on reload, a restart by systemd serves what was in force before, and any
  other start has nothing to serve (exit status 78 without `tokend.socket`). What is wrong in a profile or an `[idp.NAME]`
  makes that profile, or the profiles that use it, unusable, and no other. A file of `profiles.d` that cannot be read or
  is not TOML makes its own profiles unusable.
- The same profile in two files is an error, and neither of the two is used.
";
