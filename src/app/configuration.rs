//! Reads the configuration's files for the daemon, and logs what there is to say about them.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::error::StartError;
use super::{load, privacy};
use crate::core::config::{self, AccessOnDisk, Finding, Severity, Sources};
use crate::core::profile::Config;
use crate::readers::AccessScan;

/// The path of the configuration, and the socket that takes precedence over its `socket`.
pub struct Plan {
    pub config: PathBuf,
    pub socket: Option<PathBuf>,
}

/// A usable configuration, with the findings about it.
pub struct Read {
    pub config: Config,
    /// What the files say about each profile's access.
    pub access: AccessOnDisk,
    pub findings: Vec<Finding>,
    /// The digest of the files that this was read from.
    pub seen: Vec<u8>,
    /// The texts of the files.
    pub sources: Sources,
}

/// Reads the texts of the files.
pub fn sources(path: &Path, readers: &AccessScan) -> Result<Sources, StartError> {
    load::sources(path, privacy::daemon_uid(), readers)
        .map_err(|error| StartError::ConfigFile(error.to_string()))
}

/// Parses the texts of the files.
pub fn understood(sources: Sources) -> Result<Read, StartError> {
    let mut outcome = config::load(&sources);
    match outcome.config.take() {
        Some(config) => Ok(Read {
            config,
            access: outcome.access,
            findings: outcome.findings,
            seen: load::digest(&sources),
            sources,
        }),
        None => Err(StartError::Config(Box::new(outcome))),
    }
}

/// Reads the files, and finds out who else could read them. Unless the service manager holds the
/// socket, these same files say whom the socket lets in.
pub fn read(
    path: &Path,
    inherited: Option<&UnixListener>,
) -> Result<(Read, AccessScan), StartError> {
    let readers = privacy::look(inherited, None)?;
    let read = understood(sources(path, &readers)?)?;
    let meant = privacy::look(inherited, Some(&read.config.server))?;
    if meant.is_like(&readers) {
        return Ok((read, readers));
    }
    Ok((understood(sources(path, &meant)?)?, meant))
}

/// Logs the findings that belong to no profile: files that cannot be used, and keys outside of
/// profiles.
pub fn say(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.profile.is_none()) {
        match finding.severity {
            Severity::Error => error!("{}", worded(finding)),
            Severity::Warning => warn!("{}", worded(finding)),
        }
    }
}

/// Formats a finding as one line of the log.
pub fn worded(finding: &Finding) -> String {
    let mut line = finding.one_line();
    if !finding.help.is_empty() {
        line.push_str("; ");
        line.push_str(&finding.help);
    }
    line
}

/// Reads the files again, and parses them unless their digest is still `before`. With a socket of
/// its own, the daemon could not start while the socket's group is unknown. It takes over only what
/// a restart could begin with, so an unknown group is an error here too.
pub fn look(
    path: &Path,
    before: &[u8],
    readers: &AccessScan,
    own_socket: bool,
) -> Option<(Vec<u8>, Result<Read, StartError>)> {
    match sources(path, readers) {
        // The digest is empty because the files may be readable again, unchanged, at the next look.
        Err(error) => Some((Vec::new(), Err(error))),
        Ok(sources) => {
            let now = load::digest(&sources);
            (now != before).then(|| match understood(sources) {
                Ok(read) if own_socket => match known_group(&read) {
                    Ok(()) => (now, Ok(read)),
                    // The digest is empty because the group may be known at the next look.
                    Err(error) => (Vec::new(), Err(error)),
                },
                outcome => (now, outcome),
            })
        }
    }
}

fn known_group(read: &Read) -> Result<(), StartError> {
    let group = read.config.server.socket_group.as_ref();
    group.map(privacy::group).transpose().map(|_| ())
}

/// The reasons why the files cannot be used, one line for each.
pub fn lines(error: &StartError) -> Vec<String> {
    match error {
        StartError::Config(outcome) => outcome.findings.iter().map(worded).collect(),
        error => vec![error.to_string()],
    }
}

/// Logs, once, why the files cannot be used and what follows from that.
pub fn refuse(error: &StartError, said: &mut Vec<String>, so: &str) -> Vec<String> {
    let lines = lines(error);
    if lines != *said {
        for line in &lines {
            error!("{line}");
        }
        warn!("the configuration cannot be used; {so}");
        said.clone_from(&lines);
    }
    lines
}
