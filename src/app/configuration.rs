//! The configuration in its files, read for the daemon, and what the log says of it.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use tracing::{error, warn};

use super::error::StartError;
use super::{load, privacy};
use crate::core::config::{self, AccessOnDisk, Finding, Severity, Sources};
use crate::core::profile::Config;
use crate::readers::AccessScan;

/// Where the configuration is and which socket wins over its `socket`.
pub struct Plan {
    pub config: PathBuf,
    pub socket: Option<PathBuf>,
}

/// A configuration that can be used, and what there is to say about it.
pub struct Read {
    pub config: Config,
    /// What the files say of each profile's access.
    pub access: AccessOnDisk,
    pub findings: Vec<Finding>,
    /// Names the files that say so.
    pub seen: Vec<u8>,
    /// Their texts.
    pub sources: Sources,
}

/// Reads the text of the files.
pub fn sources(path: &Path, readers: &AccessScan) -> Result<Sources, StartError> {
    load::sources(path, privacy::daemon_uid(), readers)
        .map_err(|error| StartError::ConfigFile(error.to_string()))
}

/// What the files say.
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

/// Reads the files, and says who else could. Whom the socket lets in stands in the very files whose
/// readers are looked at, unless the service manager holds it.
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

/// Logs what no profile says for itself: files that cannot be used, and keys outside of profiles.
pub fn say(findings: &[Finding]) {
    for finding in findings.iter().filter(|finding| finding.profile.is_none()) {
        match finding.severity {
            Severity::Error => error!("{}", worded(finding)),
            Severity::Warning => warn!("{}", worded(finding)),
        }
    }
}

/// A finding as one line of the log.
pub fn worded(finding: &Finding) -> String {
    let mut line = finding.one_line();
    if !finding.help.is_empty() {
        line.push_str("; ");
        line.push_str(&finding.help);
    }
    line
}

/// What names the files now and what they say, unless they are those of `before`: what was
/// understood of them holds then. With a socket of its own the daemon could not start where nobody
/// knows the socket's group: what is taken over is what a restart can begin with.
pub fn look(
    path: &Path,
    before: &[u8],
    readers: &AccessScan,
    own_socket: bool,
) -> Option<(Vec<u8>, Result<Read, StartError>)> {
    match sources(path, readers) {
        // It may be readable again, as it was, at the next look.
        Err(error) => Some((Vec::new(), Err(error))),
        Ok(sources) => {
            let now = load::digest(&sources);
            (now != before).then(|| match understood(sources) {
                Ok(read) if own_socket => match known_group(&read) {
                    Ok(()) => (now, Ok(read)),
                    // It may be known at the next look.
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

/// Why files cannot be used, a line for each thing.
pub fn lines(error: &StartError) -> Vec<String> {
    match error {
        StartError::Config(outcome) => outcome.findings.iter().map(worded).collect(),
        error => vec![error.to_string()],
    }
}

/// Says, once, why the files cannot be used, and what that leads to.
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
