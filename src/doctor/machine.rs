//! Checks what the machine gives the daemon: descriptors, and a journal if one is wanted.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::daemon::Daemon;
use super::report::DoctorReport;
use crate::core::profile::{AuditSink, Config};

/// The socket on which the journal takes entries (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";

/// Descriptors per connection: its socket, and its process until the unit has been looked up.
const PER_CONNECTION: u64 = 2;

/// Descriptors for everything but callers: files that are being read, identity providers, event
/// queues.
const OTHERS: u64 = 100;

/// Checks limits and the journal. `audited`: the configuration has `[audit]`.
pub fn look(report: &mut DoctorReport, config: &Config, audited: bool, daemon: &Daemon) {
    descriptors(report, config, daemon);
    journal(report, config, audited, daemon);
}

fn descriptors(report: &mut DoctorReport, config: &Config, daemon: &Daemon) {
    const AREA: &str = "limits";
    let needed = u64::from(config.server.limits.connections) * PER_CONNECTION + OTHERS;
    let limit = daemon
        .pid
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok())
        .and_then(|text| open_files(&text));
    match limit {
        None => report.well(
            AREA,
            "the daemon's limit of open files is not known while it does not run".into(),
        ),
        Some(limit) if limit < needed => report.warning(
            AREA,
            "server.limits.connections",
            format!(
                "the daemon may open {limit} files, and [server.limits] connections = {} need {needed}: callers are \
                 refused before that limit is reached",
                config.server.limits.connections
            ),
            format!("set LimitNOFILE={needed} or more in its unit and restart it, or lower `connections`"),
        ),
        Some(limit) => report.well(AREA, format!("{limit} open files, {needed} are needed")),
    }
}

/// The soft limit of open files (proc_pid_limits(5)).
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn journal(report: &mut DoctorReport, config: &Config, audited: bool, daemon: &Daemon) {
    const AREA: &str = "journal";
    let audits = audited && config.audit.sink == AuditSink::Journald;
    let logs = daemon
        .pid
        .and_then(|pid| fs::read(format!("/proc/{pid}/cmdline")).ok())
        .is_some_and(|line| logs_to_journal(&line));
    let (key, who) = match (audits, logs) {
        (true, _) => ("audit.sink", "[audit] writes to the journal"),
        (false, true) => ("", "the daemon logs to the journal (--log-format journald)"),
        (false, false) => return,
    };
    let there = fs::metadata(Path::new(JOURNAL)).is_ok_and(|it| it.file_type().is_socket());
    if there {
        report.well(AREA, format!("{who}, and {JOURNAL} is there"));
    } else {
        report.error(
            AREA,
            key,
            format!("{who}, and {JOURNAL} is not there: what is written is lost"),
            "start systemd-journald, mount /run/systemd/journal into the container, or use `sink = \"file\"` and \
             --log-format json",
        );
    }
}

/// Whether a command line logs to the journal. /proc/PID/cmdline ends each argument with a zero
/// byte.
fn logs_to_journal(line: &[u8]) -> bool {
    let arguments: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    arguments.contains(&&b"--log-format=journald"[..])
        || arguments
            .windows(2)
            .any(|pair| pair == [&b"--log-format"[..], &b"journald"[..]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_what_counts() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max processes             7                    8                    processes \n\
                    Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(open_files("Max processes 1 1 processes"), None);
    }

    #[test]
    fn a_daemon_that_logs_to_the_journal_says_so_on_its_command_line() {
        assert!(logs_to_journal(b"tokend\0serve\0--log-format\0journald\0"));
        assert!(logs_to_journal(b"tokend\0serve\0--log-format=journald\0"));
        assert!(!logs_to_journal(b"tokend\0serve\0--log-format\0json\0"));
        assert!(!logs_to_journal(b"tokend\0serve\0--config\0journald\0"));
    }
}
