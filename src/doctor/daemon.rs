//! Asks the running daemon, and reports what it says about itself.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::accounts::{UserAccount, user_name};
use super::report::{DoctorReport, plural};
use crate::cli::complaint::{self, REPAIR};
use crate::client::{Client, ClientError};
use crate::clock::Clock;
use crate::proto::{GetStatusResponse, ProfileStatus};
use crate::socket::bind;

pub const AREA: &str = "daemon";

/// At most this many profiles are named. Further ones are only counted.
const NAMED: usize = 10;

/// What could be found out about the daemon.
#[derive(Debug, Default)]
pub struct Daemon {
    /// Its process in this pid namespace. None: no daemon answers, or the kernel does not tell.
    pub pid: Option<i32>,
    /// Its user: that of the process, else the owner of the socket or its folder. None if nothing
    /// tells.
    pub who: Option<UserAccount>,
    /// True if it answers.
    pub answers: bool,
}

impl Daemon {
    /// Its user, or else this process's user.
    pub fn user(&self) -> UserAccount {
        self.who.clone().unwrap_or_else(UserAccount::me)
    }
}

/// Asks the daemon at `socket`.
pub fn look(report: &mut DoctorReport, socket: &Path, timeout: Duration) -> Daemon {
    let client = Client::new(socket.to_owned(), Clock::system());
    match client.status(None, timeout) {
        Ok(status) => {
            let status = status.message;
            let daemon = running(socket, &status);
            tell(report, socket, &status, &daemon);
            daemon
        }
        Err(error) => {
            let cure = complaint::cure(&error, None, None).unwrap_or_default();
            report.error(AREA, "server.socket", error.to_string(), cure);
            // Another program listens there, so neither its process nor its user counts.
            if matches!(error, ClientError::Unbelieved { .. }) {
                return Daemon::default();
            }
            let listener = bind::listener(socket);
            Daemon {
                pid: listener.map(|it| it.pid.as_raw_nonzero().get()),
                who: guess(socket),
                answers: false,
            }
        }
    }
}

/// The user of the daemon that answers at `socket`. None if none answers, or the answer is not
/// credible.
pub fn user(socket: &Path, timeout: Duration) -> Option<u32> {
    let client = Client::new(socket.to_owned(), Clock::system());
    let status = client.status(None, timeout).ok()?.message;
    Some(running(socket, &status).who?.uid)
}

fn running(socket: &Path, status: &GetStatusResponse) -> Daemon {
    let listener = bind::listener(socket);
    // The listener of a socket from the service manager is the service manager.
    let pid = listener
        .map(|it| it.pid.as_raw_nonzero().get())
        .filter(|pid| *pid != 1)
        .or(i32::try_from(status.pid).ok().filter(|pid| *pid != 0));
    let who = pid
        .and_then(UserAccount::of_process)
        .or_else(|| Some(UserAccount::of_uid(listener?.uid.as_raw())));
    Daemon {
        pid,
        who,
        answers: true,
    }
}

/// The user of a daemon that is not running: the owner of the socket that it left behind. If there
/// is none, a user's own daemon has that user, and root can tell it by the folder.
fn guess(socket: &Path) -> Option<UserAccount> {
    let left = std::fs::symlink_metadata(socket).map(|found| found.uid());
    let me = UserAccount::me();
    if let Ok(uid) = left {
        return Some(UserAccount::of_uid(uid));
    }
    if me.uid != 0 {
        return Some(me);
    }
    let folder = socket.parent().and_then(|it| std::fs::metadata(it).ok());
    Some(UserAccount::of_uid(folder?.uid())).filter(|who| who.uid != 0)
}

fn tell(report: &mut DoctorReport, socket: &Path, status: &GetStatusResponse, daemon: &Daemon) {
    let own = env!("CARGO_PKG_VERSION");
    let user = daemon
        .who
        .as_ref()
        .map(|who| format!(", user {}", user_name(who.uid)));
    let pid = daemon.pid.map(|pid| format!(", pid {pid}"));
    report.well(
        AREA,
        format!(
            "{} answers: version {}{}{}, {} profile{}",
            socket.display(),
            status.version,
            pid.unwrap_or_default(),
            user.unwrap_or_default(),
            status.profiles.len(),
            plural(status.profiles.len()),
        ),
    );
    if status.version != own {
        report.warning(
            AREA,
            "",
            format!(
                "the daemon is version {}, and this program is {own}",
                status.version
            ),
            "restart the daemon (systemctl restart tokend), or use the program that belongs to it",
        );
    }
    // The daemon tells only administrators about its record.
    if status.audit.is_none() {
        report.warning(
            AREA,
            "server.admins",
            "this user is no administrator: the daemon tells only of the profiles that this user may use",
            "run it as root or as the daemon's user, or let `admins` in [server] name this user",
        );
    }
    for line in &status.refused {
        report.error(
            AREA,
            "",
            format!("tokend.toml is not in force: {line}"),
            match status.config_generation {
                0 => "repair it; there is nothing before it, so every caller is refused until then",
                _ => "repair it; what was in force before is served until then",
            },
        );
    }
    let refused = status.profiles.iter().find(|it| unrecorded(it));
    let refuses = refused.is_some() || status.audit.as_ref().is_some_and(|audit| audit.refuses);
    if let (Some(profile), None) = (refused, &status.audit) {
        let why = profile.warnings.first().cloned().unwrap_or_default();
        report.error(AREA, "audit", why, "ask an administrator of the daemon");
    }
    for line in &status.warnings {
        if refuses && line.starts_with("[audit]") {
            report.error(
                AREA,
                "audit",
                line.clone(),
                "make room, or make the folder or journal writable for the daemon's user: it is tried again every half second; `[audit] on_failure = \"continue\"` would hand credentials out without a record",
            );
            continue;
        }
        report.warning(
            AREA,
            "",
            line.clone(),
            "see the daemon's log for when it began",
        );
    }
    profiles(report, &status.profiles, refuses);
}

/// Whether the profile has a credential but callers are refused all the same.
fn unrecorded(it: &ProfileStatus) -> bool {
    !it.available && matches!(it.state.as_str(), "fresh" | "stale" | "asleep")
}

/// Reports on the profiles. `refuses`: all are unavailable because nothing can be recorded, which
/// is reported already.
fn profiles(report: &mut DoctorReport, all: &[ProfileStatus], refuses: bool) {
    let has_one = |it: &ProfileStatus| it.available || (refuses && unrecorded(it));
    let unavailable: Vec<&ProfileStatus> = all.iter().filter(|it| !has_one(it)).collect();
    for profile in unavailable.iter().take(NAMED) {
        let why = match &profile.last_error {
            Some(error) => format!(": {}", error.message),
            None => String::new(),
        };
        report.error(
            AREA,
            &format!("profiles.{}", profile.name),
            format!(
                "profile {} has no credential ({}){why}",
                profile.name, profile.state
            ),
            cure(&profile.state, &profile.name),
        );
    }
    if let Some(more) = unavailable
        .len()
        .checked_sub(NAMED)
        .filter(|more| *more > 0)
    {
        report.error(
            AREA,
            "",
            format!("{more} more profile{} without a credential", plural(more)),
            "`tokend status` shows all of them",
        );
    }
    for profile in all.iter().filter(|it| has_one(it)) {
        let path = format!("profiles.{}", profile.name);
        let status = format!("`tokend status {}` shows since when", profile.name);
        if let Some(error) = &profile.last_error {
            report.warning(
                AREA,
                &path,
                format!(
                    "profile {} cannot be renewed ({}): {}",
                    profile.name, profile.state, error.message
                ),
                format!("what it has is served until it expires; {status}"),
            );
        } else if let Some(reload) = &profile.reload
            && matches!(reload.outcome.as_str(), "staged" | "rejected" | "kept")
        {
            report.warning(
                AREA,
                &path,
                format!(
                    "profile {}: its files are not in force ({}): {}",
                    profile.name, reload.outcome, reload.message
                ),
                format!("its last good state is served; {status}"),
            );
        }
    }
}

fn cure(state: &str, name: &str) -> String {
    match state {
        "invalid" => "`tokend check` says where it is to be repaired".into(),
        "rejected" => REPAIR.into(),
        "fetching" => "ask again in a moment".into(),
        _ => {
            format!("it is tried again by itself; `tokend status {name}` shows since when it fails")
        }
    }
}
