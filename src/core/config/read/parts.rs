//! Values with parts: secrets, access rules, lists, and tables whose keys the user chooses.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{File, KeySpec, RawValue, hide_all, integer, obeys, table, wrong_kind};
use crate::core::config::finding::printable;
use crate::core::config::finding::shorten;
use crate::core::config::report::ConfigReport;
use crate::core::config::schema::{rule, secret};
use crate::core::config::spot::Spot;
use crate::core::config::values::{self, TextRule};
use crate::core::profile::{AccessRule, SecretRef, UserOrGroup};
use crate::core::secret::Secret;

/// The highest uid and gid are one less: the system uses the last number for "none" (`(uid_t) -1`).
const LAST_ID: u32 = u32::MAX - 1;

/// A reference to a secret, or the secret itself if the file is private.
pub(super) fn secret(
    report: &mut ConfigReport,
    file: File<'_>,
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
) -> Option<SecretRef> {
    match value.get_ref() {
        DeValue::String(text) => literal(report, file, key.name, text, spot),
        DeValue::Table(found) => reference(report, file, key.name, found, spot),
        other => {
            hide_all(report, file, value);
            report.hide(spot.place);
            wrong_kind(report, spot, key, other);
            None
        }
    }
}

/// A secret in the file itself.
fn literal(
    report: &mut ConfigReport,
    file: File<'_>,
    name: &str,
    text: &str,
    spot: &Spot,
) -> Option<SecretRef> {
    report.hide(spot.place);
    if !file.private {
        let readers = file.readers;
        let path = printable(&file.path.to_string_lossy());
        // If the readers are known, their sentence says how to keep them out.
        let (colon, or) = match readers.is_empty() {
            true => ("", format!("chmod 600 {path}, or ")),
            false => (": it ", "or ".to_owned()),
        };
        report
            .error(
                spot,
                format!(
                    "`{name}` is in the file itself, and others can read the file{colon}{readers}"
                ),
            )
            .help(format!(
                "{or}move it into a file of its own: {name} = {{ file = \"…\" }}"
            ));
        return None;
    }
    if text.is_empty() {
        report.error(spot, format!("`{name}` must not be empty"));
        return None;
    }
    Some(SecretRef::Literal(Secret::new(text.to_owned())))
}

/// A reference to the place of a secret.
fn reference(
    report: &mut ConfigReport,
    file: File<'_>,
    name: &str,
    found: &DeTable<'_>,
    spot: &Spot,
) -> Option<SecretRef> {
    let section = table(report, file, &secret::TABLE, found, spot.clone());
    if section.entries.len() != 1 || found.iter().count() != 1 {
        // A single unknown key has been reported already.
        if section.entries.len() > 1 || found.is_empty() {
            report.error(
                spot,
                format!("`{name}` needs exactly one of file, credential and env"),
            );
        }
        return None;
    }
    if let Some(path) = section.get(&secret::FILE) {
        return Some(SecretRef::File(path));
    }
    if let Some(credential) = section.get(&secret::CREDENTIAL) {
        return Some(SecretRef::Credential(credential));
    }
    let variable = section.get(&secret::ENV)?;
    report
        .warning(
            &section.spot_of(&secret::ENV),
            format!(
                "`{name}` comes from the environment, which is inherited by every child and can \
                 be read in /proc"
            ),
        )
        .help("use { file = \"…\" } or { credential = \"…\" }");
    Some(SecretRef::Env(variable))
}

/// A list of texts that each follow the rule.
pub(super) fn texts(
    report: &mut ConfigReport,
    file: File<'_>,
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    spot: &Spot,
    rule: TextRule,
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
        whole &= obeys(report, &spot, key.name, rule(text)).is_some();
        list.push((text.to_string(), spot));
    }
    whole.then_some(list)
}

/// A user or group, by name or number.
pub(super) fn principal(
    report: &mut ConfigReport,
    key: &KeySpec,
    found: &DeValue<'_>,
    spot: &Spot,
) -> Option<UserOrGroup> {
    if let DeValue::String(text) = found {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
            obeys(report, spot, key.name, values::account(text))?;
            return Some(UserOrGroup::Name(text.to_string()));
        }
        let id = text.parse::<u32>().ok().filter(|id| *id <= LAST_ID);
        if id.is_none() {
            report.error(
                spot,
                format!("`{}` must be between 0 and {LAST_ID}", key.name),
            );
        }
        return id.map(UserOrGroup::Id);
    }
    integer(report, spot, key.name, found, 0..=LAST_ID).map(UserOrGroup::Id)
}

/// Access rules. A rule with an error is left out as a whole: without its wrong key it would let in
/// more callers. None if no rule is left, which is not the same as no rules.
pub(super) fn rules(
    report: &mut ConfigReport,
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
        let section = table(report, file, &rule::TABLE, found, spot);
        let rule = AccessRule {
            user: section.get(&rule::USER),
            group: section.get(&rule::GROUP),
            unit: section.get(&rule::UNIT),
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
pub(super) fn mode(
    report: &mut ConfigReport,
    key: &KeySpec,
    text: &str,
    spot: &Spot,
) -> Option<RawValue> {
    let digits = (3..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8)
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
    mode.map(RawValue::Integer)
}

/// A table whose keys the user chooses, with texts as values.
pub(super) fn map(
    report: &mut ConfigReport,
    file: File<'_>,
    key: &KeySpec,
    found: &DeTable<'_>,
    spot: &Spot,
    rule: TextRule,
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
