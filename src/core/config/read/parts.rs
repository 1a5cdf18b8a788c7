//! Values with parts: secrets, access rules, lists, tables that the user fills.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{File, Key, Value, hide_all, integer, obeys, table, wrong_kind};
use crate::core::config::report::{Report, Spot, shorten};
use crate::core::config::schema::{RULE, SECRET};
use crate::core::config::values::{self, Rule};
use crate::core::profile::{AccessRule, Principal, SecretRef};
use crate::core::secret::Secret;

/// The highest uid and gid are the system's way to say "none" (`(uid_t) -1`).
const LAST_ID: u64 = u32::MAX as u64 - 1;

/// A secret's reference, or the secret itself in a file that is private.
pub(super) fn secret(
    report: &mut Report,
    file: File<'_>,
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) -> Option<SecretRef> {
    match value.get_ref() {
        DeValue::String(text) => {
            report.hide(spot.place);
            if !file.private {
                let readers = file.readers;
                let file = super::super::finding::printable(&file.path.to_string_lossy());
                report
                    .error(
                        spot,
                        format!(
                            "`{}` is in the file itself, and others can read the file{}{readers}",
                            key.name,
                            if readers.is_empty() { "" } else { ": it " }
                        ),
                    )
                    .help(format!(
                        "{}move it into a file of its own: {} = {{ file = \"…\" }}",
                        // Otherwise the readers' sentence says how to keep them out.
                        if readers.is_empty() {
                            format!("chmod 600 {file}, or ")
                        } else {
                            "or ".into()
                        },
                        key.name
                    ));
                return None;
            }
            if text.is_empty() {
                report.error(spot, format!("`{}` must not be empty", key.name));
                return None;
            }
            Some(SecretRef::Literal(Secret::new(text.to_string())))
        }
        DeValue::Table(found) => {
            let section = table(report, file, &SECRET, found, spot.clone());
            if section.entries.len() != 1 || found.iter().count() != 1 {
                // An unknown key alone has been told already.
                if section.entries.len() > 1 || found.is_empty() {
                    report.error(
                        spot,
                        format!(
                            "`{}` needs exactly one of file, credential and env",
                            key.name
                        ),
                    );
                }
                return None;
            }
            if let Some(path) = section.path("file") {
                return Some(SecretRef::File(path));
            }
            if let Some(name) = section.text("credential") {
                return Some(SecretRef::Credential(name));
            }
            let name = section.text("env")?;
            report
                .warning(
                    &section.spot_of("env"),
                    format!(
                        "`{}` comes from the environment, which is inherited by every child and can be read in /proc",
                        key.name
                    ),
                )
                .help("use { file = \"…\" } or { credential = \"…\" }");
            Some(SecretRef::Env(name))
        }
        other => {
            hide_all(report, file, value);
            report.hide(spot.place);
            wrong_kind(report, spot, key, other);
            None
        }
    }
}

/// A list of texts that each keep a rule.
pub(super) fn texts(
    report: &mut Report,
    file: File<'_>,
    key: &Key,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
    rule: Option<Rule>,
) -> Option<Vec<(String, Spot)>> {
    let mut list = Vec::new();
    let mut whole = true;
    for (index, item) in value.get_ref().as_array()?.iter().enumerate() {
        let spot = spot.item(index, file.place(item));
        let DeValue::String(text) = item.get_ref() else {
            hide_all(report, file, item);
            report.error(
                &spot,
                format!(
                    "`{}`: expected strings in the list, found {}",
                    key.name,
                    item.get_ref().type_str()
                ),
            );
            whole = false;
            continue;
        };
        if let Some(rule) = rule {
            whole &= obeys(report, &spot, key.name, rule(text)).is_some();
        }
        list.push((text.to_string(), spot));
    }
    whole.then_some(list)
}

/// A user or group by name or number.
pub(super) fn principal(
    report: &mut Report,
    key: &Key,
    found: &DeValue<'_>,
    spot: &Spot,
) -> Option<Principal> {
    if let DeValue::String(text) = found {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            obeys(report, spot, key.name, values::account(text))?;
            return Some(Principal::Name(text.to_string()));
        }
        let id = text
            .parse::<u64>()
            .ok()
            .filter(|id| *id <= LAST_ID)
            .and_then(|id| u32::try_from(id).ok());
        if id.is_none() {
            report.error(
                spot,
                format!("`{}` must be between 0 and {LAST_ID}", key.name),
            );
        }
        return id.map(Principal::Id);
    }
    let id = integer(report, spot, key.name, found, 0..=LAST_ID)?;
    u32::try_from(id).ok().map(Principal::Id)
}

/// Access rules. A rule with anything wrong in it is left out whole: without its wrong key it would let in more. None where
/// nothing is left, which is not the same as no rules.
pub(super) fn rules(
    report: &mut Report,
    file: File<'_>,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) -> Option<Vec<AccessRule>> {
    let mut rules = Vec::new();
    let written = value.get_ref().as_array()?;
    for (index, item) in written.iter().enumerate() {
        let spot = spot.item(index, file.place(item));
        let DeValue::Table(found) = item.get_ref() else {
            hide_all(report, file, item);
            report
                .error(
                    &spot,
                    format!(
                        "an access rule is a table, found {}",
                        item.get_ref().type_str()
                    ),
                )
                .help("for instance { user = \"worker\" }");
            continue;
        };
        if found.is_empty() {
            report
                .error(&spot, "an access rule without a key would let nobody in")
                .help("at least one of user, group and unit");
            continue;
        }
        let section = table(report, file, &RULE, found, spot);
        let rule = AccessRule {
            user: section.principal("user"),
            group: section.principal("group"),
            unit: section.text("unit"),
        };
        let parts = [
            rule.user.is_some(),
            rule.group.is_some(),
            rule.unit.is_some(),
        ];
        if parts.iter().filter(|there| **there).count() == found.iter().count() {
            rules.push(rule);
        }
    }
    (written.is_empty() || !rules.is_empty()).then_some(rules)
}

/// A file mode.
pub(super) fn mode(report: &mut Report, key: &Key, text: &str, spot: &Spot) -> Option<Value> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u64::from_str_radix(text, 8)
        .ok()
        .filter(|mode| digits && *mode <= 0o777);
    if mode.is_none() {
        report
            .error(
                spot,
                format!("`{}` cannot be \"{}\"", key.name, shorten(text)),
            )
            .help("three or four octal digits up to \"0777\", such as \"0660\"")
            .if_whole();
    }
    mode.map(Value::Integer)
}

/// Keys that the user chooses, with text.
pub(super) fn map(
    report: &mut Report,
    file: File<'_>,
    key: &Key,
    found: &DeTable<'_>,
    spot: &Spot,
    rule: Rule,
) -> Option<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    let mut whole = true;
    for (name, value) in found {
        let name_spot = spot.child(name.get_ref(), file.place(name));
        if let Err(wrong) = rule(name.get_ref()) {
            whole = false;
            report
                .error(&name_spot, format!("`{}` {}", key.name, wrong.message))
                .help(wrong.help)
                .if_whole();
        }
        if let DeValue::String(text) = value.get_ref() {
            map.insert(name.get_ref().to_string(), text.to_string());
            continue;
        }
        let found = value.get_ref().type_str();
        report
            .error(
                &spot.child(name.get_ref(), file.place(value)),
                format!("`{}`: expected a string, found {found}", key.name),
            )
            .if_whole();
        whole = false;
    }
    whole.then_some(map)
}
