//! `method = "exec"`: the command and what it is told.

use super::preset::plain;
use super::report::ConfigReport;
use super::schema::profile;
use super::section::Section;
use crate::core::profile::exec::{AnswerFormat, Exec};

/// Checks the command of a profile.
pub(super) fn check(report: &mut ConfigReport, section: &Section) -> Option<Exec> {
    if !section.has(&profile::COMMAND) || section.is_broken(&profile::COMMAND) {
        return None;
    }
    let command = section.get(&profile::COMMAND);
    let Some((program, spot)) = command.first() else {
        report
            .error(
                &section.spot_of(&profile::COMMAND),
                "`command` must not be empty",
            )
            .help("for instance command = [\"/usr/libexec/corp-token\", \"--json\"]");
        return None;
    };
    if !program.starts_with('/') || program.ends_with('/') {
        report
            .error(
                spot,
                "`command` must begin with the absolute path of a program",
            )
            .help("it is run without a shell and is looked for in no PATH")
            .if_whole();
        return None;
    }
    Some(Exec {
        timeout: section.get(&profile::TIMEOUT),
        format: AnswerFormat::parse(section.get(&profile::FORMAT)).unwrap_or_default(),
        settings: section.get(&profile::SETTINGS),
        lifetime: section.get(&profile::LIFETIME),
        env: section.get(&profile::ENV),
        scopes: plain(section.get(&profile::SCOPES)),
        audience: section.get(&profile::AUDIENCE),
        resource: plain(section.get(&profile::RESOURCE)),
        command: plain(command),
    })
}
