//! `tokend doctor`: looks for the usual faults, and says of each finding what to do about it.
//!
//! It reports every check, even the good ones, since an operator wants to know what was checked. It
//! changes nothing and asks for no token (`tokend check --online` does that). It asks all identity
//! providers at the same time, beside everything else, so that none of them delays the rest.

mod accounts;
mod callers;
mod check;
mod clocks;
mod daemon;
mod files;
mod machine;
mod plugin;
mod providers;
mod report;
mod socket;
mod units;
mod watching;

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use self::check::Examined;
use self::report::{DoctorReport, plural};
use crate::app;
use crate::cli::paths::{default_config, default_socket};
use crate::cli::{Command, DoctorArgs, exit, print};
use crate::clock::Clock;
use crate::core::config::{Finding, Severity};

const AREA: &str = "configuration";

/// Runs `tokend check`, `tokend doctor` or `tokend plugin`. None for any other command.
#[must_use]
pub fn run(command: &Command) -> Option<ExitCode> {
    match command {
        Command::Check(args) => Some(check::run(args).into()),
        Command::Doctor(args) => Some(doctor(args).into()),
        Command::Plugin(args) => Some(plugin::run(args).into()),
        _ => None,
    }
}

fn doctor(args: &DoctorArgs) -> u8 {
    let path = match args.config.clone().map_or_else(default_config, Ok) {
        Ok(path) => path,
        Err(why) => {
            eprintln!("tokend: {why}");
            return exit::CONFIG;
        }
    };
    let examined = check::examine(&path, owner(args));
    let mut report = DoctorReport::default();
    configuration(&mut report, &path, &examined);
    let usable = usable(&examined);
    let report = look(args, &path, usable, report);

    let text = if args.json {
        format!("{}\n", report.json())
    } else {
        report.text()
    };
    // A reader that has gone away does not change the verdict.
    if let Err(code) = print(&mut io::stdout(), &text, &mut io::stderr()) {
        return code;
    }
    match (usable, report.findings().next()) {
        (None, _) => exit::CONFIG,
        (Some(_), Some(_)) => exit::FINDINGS,
        (Some(_), None) => exit::DONE,
    }
}

/// The user besides root that may own the configuration: this process's user, or for root the
/// daemon's user, if a credible daemon answers.
fn owner(args: &DoctorArgs) -> u32 {
    let me = app::privacy::daemon_uid();
    let daemons = || daemon::user(&socket(args, None).ok()?, args.timeout);
    (me == 0).then(daemons).flatten().unwrap_or(me)
}

fn usable(examined: &Result<Examined, Box<Finding>>) -> Option<&Examined> {
    examined
        .as_ref()
        .ok()
        .filter(|examined| examined.outcome.config.is_some())
}

/// Checks everything but the configuration itself, as far as the configuration allows.
fn look(
    args: &DoctorArgs,
    path: &Path,
    examined: Option<&Examined>,
    mut report: DoctorReport,
) -> DoctorReport {
    let config = examined.and_then(|examined| examined.outcome.config.as_ref());
    let asking = (!args.offline)
        .then(|| examined.map(providers::ways))
        .flatten()
        .map(|ways| {
            let timeout = args.timeout;
            std::thread::spawn(move || providers::look(ways, timeout))
        });
    match socket(args, examined) {
        Ok(socket) => {
            let daemon = daemon::look(&mut report, &socket, args.timeout);
            socket::look(&mut report, config, &socket, &daemon);
            if let Some(examined) = examined {
                rest(&mut report, path, examined, &socket, &daemon);
            }
        }
        Err(why) => report.error(
            daemon::AREA,
            "server.socket",
            why,
            "let --socket or TOKEND_SOCKET name it",
        ),
    }
    match asking.map(std::thread::JoinHandle::join) {
        Some(Ok(asked)) => report.append(asked),
        // A panic must not look like a check without findings.
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None if args.offline => report.well(providers::AREA, "not looked at: --offline".into()),
        None => {}
    }
    report
}

fn rest(
    report: &mut DoctorReport,
    path: &Path,
    examined: &Examined,
    socket: &Path,
    daemon: &daemon::Daemon,
) {
    let Some(config) = &examined.outcome.config else {
        return;
    };
    callers::look(report, config, socket, daemon);
    units::look(report, config, daemon);
    files::look(report, path, examined, daemon);
    files::certificates(report, examined, Clock::system().now().wall);
    watching::look(report, path, config, daemon);
    machine::look(report, config, examined.names("audit"), daemon);
}

/// Finds the socket as the daemon does, unless `--socket` is given.
fn socket(args: &DoctorArgs, examined: Option<&Examined>) -> Result<PathBuf, String> {
    let configured = || {
        examined
            .and_then(|examined| examined.outcome.config.as_ref())
            .and_then(|config| config.server.socket.clone())
    };
    let environment = || {
        std::env::var_os("TOKEND_SOCKET")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
    };
    let named = args.socket.clone().or_else(environment).or_else(configured);
    named
        .map_or_else(default_socket, Ok)
        .map_err(|error| error.to_string())
}

/// Reports each error. Warnings are about deliberate choices, so they are only counted and are no
/// findings here.
fn configuration(
    report: &mut DoctorReport,
    path: &Path,
    examined: &Result<Examined, Box<Finding>>,
) {
    let examined = match examined {
        Ok(examined) => examined,
        Err(finding) => return report.finding(AREA, (**finding).clone()),
    };
    let (errors, warnings): (Vec<&Finding>, Vec<&Finding>) = examined
        .outcome
        .findings
        .iter()
        .partition(|finding| finding.severity == Severity::Error);
    for finding in &errors {
        report.finding(AREA, (*finding).clone());
    }
    let Some(config) = &examined.outcome.config else {
        return;
    };
    let (profiles, count) = (config.profiles.len(), warnings.len());
    let hint = match count {
        0 => "",
        _ => ", which `tokend check` shows",
    };
    if errors.is_empty() {
        report.well(
            AREA,
            format!(
                "{}: {profiles} profile{}, {count} warning{}{hint}",
                path.display(),
                plural(profiles),
                plural(count)
            ),
        );
    }
}
