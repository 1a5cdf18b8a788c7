//! Checks the files that profiles name: whether the daemon's user can use them, whether nobody else
//! can change them, and how long their certificates last.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::accounts::{Owned, READ, UserAccount, user_name};
use super::check::Examined;
use super::daemon::Daemon;
use super::report::{DoctorReport, plural};
use crate::app::assembly::surroundings;
use crate::core::certificate::Certificate;
use crate::core::diagnostic::Scope;
use crate::core::profile::{Method, TrustSource, files};
use crate::core::time::WallTime;
use crate::files::{Interest, folders};
use crate::material;

pub const AREA: &str = "files";

/// Checks the configuration's own file and every file that a profile names.
pub fn look(report: &mut DoctorReport, config: &Path, examined: &Examined, daemon: &Daemon) {
    let daemons = daemon.user();
    let mine = UserAccount::me().uid == daemons.uid;
    let said = examined.checked.iter().flat_map(|one| {
        one.said
            .iter()
            .filter(|(_, diagnostic)| believable(diagnostic.scope, mine, daemon.answers))
            .map(move |(severity, diagnostic)| (&one.profile, *severity, diagnostic.clone()))
    });
    // Profiles that share a file share its findings.
    let mut told = HashSet::new();
    for finding in examined.located(said) {
        if told.insert(finding.message.clone()) {
            report.finding(AREA, finding);
        }
    }
    let profiles = examined.checked.iter().map(|one| &one.profile);
    let mut paths: BTreeSet<_> = profiles.flat_map(|profile| files::files(profile)).collect();
    paths.insert(std::path::absolute(config).unwrap_or_else(|_| config.to_owned()));
    let count = paths.len();
    for path in &paths {
        if !mine && let Some((place, found)) = daemons.stopped_by(path, READ) {
            let user = user_name(daemons.uid);
            report.error(
                AREA,
                "",
                format!(
                    "the daemon's user {user} cannot read {}: {} has {}",
                    path.display(),
                    place.display(),
                    found.told()
                ),
                format!(
                    "{}: a group would let everybody in who is in it",
                    if place == *path {
                        format!("run `chown {user}:root {0} && chmod 400 {0}`", place.display())
                    } else {
                        format!("give {0} to {user} (`chown {user} {0}`), or let it be passed (`chmod o+x {0}`)", place.display())
                    }
                ),
            );
        }
        owner(report, path, &daemons);
    }
    on_the_way(report, paths, &daemons);
    if !report.has_findings(AREA) {
        report.well(
            AREA,
            format!(
                "{count} file{}: user {} can read what it needs, and nobody else can change it",
                plural(count),
                user_name(daemons.uid)
            ),
        );
    }
}

/// Whether a finding is true for the daemon too. This process has other rights, another
/// environment, and none of the daemon's systemd credentials. A daemon that answers reports such
/// findings itself.
fn believable(scope: Scope, mine: bool, answers: bool) -> bool {
    match scope {
        Scope::Machine => true,
        Scope::User => mine,
        Scope::Environment => !answers,
    }
}

/// Finds out who besides the daemon can change a file that the daemon trusts.
fn owner(report: &mut DoctorReport, path: &Path, daemons: &UserAccount) {
    let Some(found) = Owned::of(path) else {
        return;
    };
    let path = path.display();
    if found.mode & 0o002 != 0 {
        report.error(
            AREA,
            "",
            format!("everybody on this machine can change {path}"),
            format!("run `chmod o-w {path}`, and look at what is in it"),
        );
    }
    if found.uid != 0 && found.uid != daemons.uid {
        report.warning(
            AREA,
            "",
            format!(
                "{path} belongs to user {}, who can read and change it",
                user_name(found.uid)
            ),
            format!(
                "run `chown {} {path}`, unless that user is meant to renew it",
                user_name(daemons.uid)
            ),
        );
    }
}

/// Reports folders in which everybody can replace one of these files.
fn on_the_way(
    report: &mut DoctorReport,
    files: BTreeSet<std::path::PathBuf>,
    daemons: &UserAccount,
) {
    let way = folders(&Interest {
        files,
        ..Interest::default()
    });
    for folder in way {
        let Some(found) = Owned::of(&folder) else {
            continue;
        };
        // In a sticky folder only the owner of an entry can replace it.
        if found.mode & 0o1002 == 0o002 {
            report.error(
                AREA,
                "",
                format!(
                    "everybody on this machine can replace files in {}, which user {} reads",
                    folder.display(),
                    user_name(daemons.uid)
                ),
                format!("run `chmod o-w {}`", folder.display()),
            );
        }
    }
}

/// Reports how long certificates last: those that profiles present, and those that they trust
/// instead of the system's.
pub fn certificates(report: &mut DoctorReport, examined: &Examined, now: WallTime) {
    const AREA: &str = "certificates";
    let mut first: Option<(Certificate, String)> = None;
    let mut told = HashSet::new();
    let mut note = |report: &mut DoctorReport, certificate: Certificate, name: &str| {
        let path = format!("profiles.{name}.{}", certificate.role);
        if let Some(message) = certificate.warning(now).map(|it| it.to_string())
            && told.insert(message.clone())
        {
            let cure = "it is taken over by itself once it is in place";
            if now > certificate.not_after {
                report.error(AREA, &path, message, cure);
            } else {
                report.warning(AREA, &path, message, cure);
            }
        }
        if first
            .as_ref()
            .is_none_or(|(known, _)| certificate.not_after < known.not_after)
        {
            first = Some((certificate, name.to_owned()));
        }
    };
    let mut bundles: Vec<&TrustSource> = Vec::new();
    for one in &examined.checked {
        let name = one.profile.name.as_str();
        for certificate in one.material.iter().flat_map(|it| it.certificates()) {
            note(report, certificate, name);
        }
        let Method::OAuth2(oauth) = &one.profile.method else {
            continue;
        };
        let trust = &oauth.idp.trust;
        if *trust == TrustSource::System || bundles.contains(&trust) {
            continue;
        }
        bundles.push(trust);
        // The profile's findings already say that the trust cannot be read.
        let Ok((_, certificates)) = material::trust(trust, &surroundings(), now) else {
            continue;
        };
        // A bundle lasts as long as its last certificate. Old ones stay in it until somebody tidies
        // up.
        if let Some(last) = certificates.into_iter().max_by_key(|it| it.not_after) {
            note(report, last, name);
        }
    }
    if report.has_findings(AREA) {
        return;
    }
    report.well(
        AREA,
        match first {
            None => "the profiles name none".into(),
            Some((next, name)) => format!(
                "the next to end is {} of {name}, {}, on {}",
                next.role,
                next.subject,
                next.end()
            ),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_this_process_cannot_see_is_not_held_against_the_daemon() {
        for (scope, mine, answers, expected) in [
            (Scope::User, true, true, true),
            (Scope::User, false, true, false),
            (Scope::User, false, false, false),
            (Scope::Environment, true, true, false),
            (Scope::Environment, true, false, true),
            (Scope::Environment, false, true, false),
            (Scope::Environment, false, false, true),
            (Scope::Machine, false, true, true),
        ] {
            assert_eq!(believable(scope, mine, answers), expected, "{scope:?}");
        }
    }
}
