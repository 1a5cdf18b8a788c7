//! `[profiles.NAME]`: what its keys mean together.

use super::gather::Gathered;
use super::oauth;
use super::preset::{self, Preset};
use super::read;
use super::report::Report;
use super::schema::{REFRESH, REQUEST};
use super::section::Section;
use crate::core::profile::is_loopback;
use crate::core::profile::{Method, Profile, ProfileName, Refresh, Request};

/// Checks a profile. None, or any error that is told, means that it cannot be used.
pub(super) fn check(
    report: &mut Report,
    gathered: &Gathered,
    name: &ProfileName,
    section: &Section,
) -> Option<Profile> {
    let method = section.given_text("method")?;
    let preset = section.given_text("preset").and_then(Preset::parse);
    belongs(report, section, method);
    if let Some(preset) = preset {
        preset.check_method(report, section, method);
        preset.check_target(report, section);
    }
    let target = section
        .url_text("target")
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
                        &section.spot_of("method"),
                        "this server hashes the password at every request and takes only a few requests per second",
                    )
                    .help("use method = \"oauth2\" for more");
            }
            basic(section)
        }
        "static" => section
            .secret("token")
            .map(|token| Method::Static { token }),
        "oauth2" => {
            oauth::check(report, gathered, section, preset).map(|it| Method::OAuth2(Box::new(it)))
        }
        other => {
            report.error(
                &section.spot_of("method"),
                format!("method = \"{other}\" is not supported by this version of tokend"),
            );
            None
        }
    };
    Some(Profile {
        name: name.clone(),
        target,
        method: method?,
        access: section.rules("access"),
        refresh: refresh(section),
        request: request(section),
        refuse_bound_tokens: section.text("bound_tokens").as_deref() == Some("refuse"),
        warnings: Vec::new(),
    })
}

/// Keys of other methods are mistakes, and a method's own keys may have to be there.
fn belongs(report: &mut Report, section: &Section, method: &str) {
    for key in section.schema.keys {
        let own = key.methods.is_empty() || key.methods.contains(&method);
        match section.given(key.name) {
            Some(entry) if !own => {
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
                    .help("remove it, or change the method");
            }
            None if own && key.required && !key.methods.is_empty() => {
                read::missing(report, section, key);
            }
            _ => {}
        }
    }
}

/// Calls without a credential are for the own machine, unless somebody says that he means it.
fn unauthenticated(report: &mut Report, section: &Section) {
    let Some(target) = section.url("target") else {
        return;
    };
    if is_loopback(&target) {
        return;
    }
    let spot = section.spot_of("target");
    if section.flag("allow_remote_without_auth") {
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
        username: section.text("username")?,
        password: section.secret("password")?,
    })
}

fn refresh(profile: &Section) -> Refresh {
    let absent = Section::absent(&REFRESH, profile.spot.clone());
    let section = profile.table("refresh").unwrap_or(&absent);
    Refresh {
        at: section.number("at"),
        jitter: section.number("jitter"),
        margin: section.duration("margin"),
        min_interval: section.duration("min_interval"),
        retry_after_max: section.duration("retry_after_max"),
        default_lifetime: section.duration("default_lifetime"),
        eager: section.flag("eager"),
    }
}

fn request(profile: &Section) -> Request {
    let absent = Section::absent(&REQUEST, profile.spot.clone());
    let section = profile.table("request").unwrap_or(&absent);
    Request {
        scopes: preset::plain(section.texts("scopes")),
        audiences: preset::plain(section.texts("audiences")),
    }
}
