//! `[profiles.NAME]`: what its keys mean together.

use super::gather::Gathered;
use super::preset::{self, Preset};
use super::read;
use super::report::ConfigReport;
use super::schema::{self, profile, refresh, request};
use super::section::Section;
use super::{exec, oauth};
use crate::core::profile::is_loopback;
use crate::core::profile::{Method, Profile, ProfileName, Refresh, RequestSettings};

/// Checks a profile. The profile cannot be used if this returns None or reports an error.
pub(super) fn check(
    report: &mut ConfigReport,
    gathered: &Gathered,
    name: &ProfileName,
    section: &Section,
) -> Option<Profile> {
    let method = section.get(&profile::METHOD)?;
    let preset = section.get(&profile::PRESET).and_then(Preset::parse);
    belongs(report, section, method);
    if let Some(preset) = preset {
        preset.check_method(report, section, method);
        preset.check_target(report, section);
    }
    let target = section
        .url_text(&profile::TARGET)
        .or_else(|| Some(preset?.default_target()?.to_owned()));
    let method = match method {
        "none" => {
            unauthenticated(report, section);
            Some(Method::None)
        }
        "basic" => {
            if preset.is_some_and(Preset::hashes_passwords) {
                report
                    .warning(
                        &section.spot_of(&profile::METHOD),
                        "this server hashes the password at every request and takes only a few requests per second",
                    )
                    .help("use method = \"oauth2\" for more");
            }
            basic(section)
        }
        "static" => section
            .get(&profile::TOKEN)
            .map(|token| Method::Static { token }),
        "oauth2" => {
            oauth::check(report, gathered, section, preset).map(|it| Method::OAuth2(Box::new(it)))
        }
        "exec" => exec::check(report, section).map(|it| Method::Exec(Box::new(it))),
        // It is a word of a later version, which has been reported.
        _ => None,
    };
    Some(Profile {
        name: name.clone(),
        target,
        method: method?,
        access: section.get(&profile::ACCESS),
        refresh: refresh(section),
        request: request(section),
        refuse_bound_tokens: section.get(&profile::BOUND_TOKENS) == "refuse",
        warnings: Vec::new(),
    })
}

/// Reports keys of other methods, and missing keys of this method.
fn belongs(report: &mut ConfigReport, section: &Section, method: &str) {
    for key in section.schema.keys {
        let own = key.methods.is_empty() || key.methods.contains(&method);
        match section.given(key) {
            Some(entry) if !own => {
                let elsewhere = schema::homes(key.name).into_iter();
                let elsewhere: Vec<String> = elsewhere
                    .filter(|home| *home != section.schema.title)
                    .map(|home| format!("it is a key of `{home}`, too; "))
                    .collect();
                let methods: Vec<String> =
                    key.methods.iter().map(|one| format!("\"{one}\"")).collect();
                report
                    .error(
                        &entry.key,
                        format!(
                            "`{}` belongs to method = {}, but the method is \"{method}\"",
                            key.name,
                            methods.join(" or ")
                        ),
                    )
                    .help(format!(
                        "{}remove it, or change the method",
                        elsewhere.concat()
                    ));
            }
            None if own && key.required && !key.methods.is_empty() => {
                read::missing(report, section, key);
            }
            _ => {}
        }
    }
}

/// Refuses calls without a credential to another machine, unless the configuration allows them.
fn unauthenticated(report: &mut ConfigReport, section: &Section) {
    let Some(target) = section.get(&profile::TARGET) else {
        return;
    };
    if is_loopback(&target) {
        return;
    }
    let spot = section.spot_of(&profile::TARGET);
    if section.get(&profile::ALLOW_REMOTE_WITHOUT_AUTH) {
        report.warning(
            &spot,
            "this target is not on this machine, and is called without authentication",
        );
    } else {
        report
            .error(
                &spot,
                "method = \"none\" with a target that is not on this machine",
            )
            .help("choose another method, or say allow_remote_without_auth = true");
    }
}

fn basic(section: &Section) -> Option<Method> {
    Some(Method::Basic {
        username: section.get(&profile::USERNAME)?,
        password: section.get(&profile::PASSWORD)?,
    })
}

fn refresh(profile: &Section) -> Refresh {
    let section = profile.table_or_absent(&profile::REFRESH);
    Refresh {
        at: section.get(&refresh::AT),
        jitter: section.get(&refresh::JITTER),
        margin: section.get(&refresh::MARGIN),
        min_interval: section.get(&refresh::MIN_INTERVAL),
        retry_after_max: section.get(&refresh::RETRY_AFTER_MAX),
        default_lifetime: section.get(&refresh::DEFAULT_LIFETIME),
        eager: section.get(&refresh::EAGER),
    }
}

fn request(profile: &Section) -> RequestSettings {
    let section = profile.table_or_absent(&profile::REQUEST);
    RequestSettings {
        scopes: preset::plain(section.get(&request::SCOPES)),
        audiences: preset::plain(section.get(&request::AUDIENCES)),
    }
}
