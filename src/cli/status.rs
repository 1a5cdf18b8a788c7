//! `tokend status [PROFILE]`: prints what the daemon says about the profiles that the caller may
//! see.
//!
//! The command succeeds if the state could be shown, however bad the state is. Scripts that need to
//! know whether a profile is usable have `tokend wait --timeout 0`.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::{Duration, SystemTime};

use super::complaint::{TENTH, human};
use super::{StatusArgs, complaint, exit, print};
use crate::client::text::escaped;
use crate::client::{Client, ClientError, ServerRefusal};
use crate::proto::json::text;
use crate::proto::{GetStatusResponse, ProfileCertificate, ProfileStatus};

/// The interval between two screens of `--watch`.
const REDRAW: Duration = Duration::from_secs(1);
/// Moves the cursor home, then clears to the end of the screen. This flickers less than clearing
/// first.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Runs the command; `client` is Err when no socket could be named. Returns the exit status.
pub fn run(
    args: &StatusArgs,
    client: Result<Client, ClientError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            complaint::error(err, None, &error, None);
            return exit::code_of(&error);
        }
    };
    if args.watch {
        let clear = !args.json && io::stdout().is_terminal();
        watch(args, &client, clear, REDRAW, out, err)
    } else {
        match picture(args, &client).map(|text| print(out, &text, err)) {
            Ok(printed) => printed.err().unwrap_or(exit::DONE),
            Err(error) => failed(args, &client, &error, err),
        }
    }
}

fn failed(args: &StatusArgs, client: &Client, error: &ClientError, err: &mut dyn Write) -> u8 {
    complaint::error(err, args.profile.as_deref(), error, Some(client));
    exit::code_of(error)
}

/// Runs until interrupted, or until the reader has gone away. An absent daemon is shown like any
/// other state. A profile that does not exist ends the command.
fn watch(
    args: &StatusArgs,
    client: &Client,
    clear: bool,
    redraw: Duration,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let mut first = true;
    loop {
        let text = match picture(args, client) {
            Ok(text) => text,
            Err(error) if exit::is_final(&error) => return failed(args, client, &error, err),
            Err(error) if args.json => {
                complaint::line(err, None, &error.to_string());
                String::new()
            }
            Err(error) => format!("{}\n", escaped(&error.to_string())),
        };
        let before = match (clear, args.json || first) {
            (true, _) => CLEAR,
            (false, true) => "",
            (false, false) => "\n",
        };
        match print(out, &format!("{before}{text}"), err) {
            Ok(true) => {}
            Ok(false) => return exit::DONE,
            Err(code) => return code,
        }
        first = false;
        thread::sleep(redraw);
    }
}

/// Everything that is on screen at one moment.
fn picture(args: &StatusArgs, client: &Client) -> Result<String, ClientError> {
    let status = client.status(args.profile.as_deref(), args.timeout)?;
    if let Some(name) = &args.profile
        && !status
            .message
            .profiles
            .iter()
            .any(|profile| profile.name == *name)
    {
        return Err(ClientError::Refused(ServerRefusal {
            code: "NOT_FOUND".into(),
            reason: "PROFILE_NOT_FOUND".into(),
            message: "no such profile, or it is not for this user".into(),
            retry_after: None,
        }));
    }
    if args.json {
        return Ok(status.json + "\n");
    }
    let now = SystemTime::UNIX_EPOCH + client.clock().now().wall.0;
    Ok(render(&status.message, now))
}

/// The table, with the problems below it.
fn render(status: &GetStatusResponse, now: SystemTime) -> String {
    let mut notes = String::new();
    for line in &status.refused {
        notes.push_str(&format!("tokend.toml is not in force: {}\n", escaped(line)));
    }
    for line in &status.warnings {
        notes.push_str(&format!("warning: {}\n", escaped(line)));
    }
    let mut text = match status.profiles.is_empty() {
        true => "no profile that this user may see\n".to_owned(),
        false => table(&status.profiles),
    };
    for profile in &status.profiles {
        notes.push_str(&notes_on(profile, now));
    }
    notes.push_str(&taken(status));
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&notes);
    }
    text
}

/// The used part of each limit, and the state of the audit record. Only administrators get these.
fn taken(status: &GetStatusResponse) -> String {
    let mut text = String::new();
    for limit in &status.limits {
        let reached = limit.refused.filter(|times| *times > 0);
        let used = limit.used.map(|used| format!("{used} of {}", limit.limit));
        let line = match (used, reached) {
            (None, None) => continue,
            (Some(used), None) => used,
            (Some(used), Some(times)) => format!("{used}, reached {}", often(times)),
            (None, Some(times)) => format!("{}, reached {}", limit.limit, often(times)),
        };
        text.push_str(&format!("{}: {}\n", escaped(&limit.name), escaped(&line)));
        for who in &limit.reached_by {
            text.push_str(&format!("  by {}\n", escaped(who)));
        }
    }
    if let Some(audit) = &status.audit {
        text.push_str(&format!(
            "audit records: {} written, {} lost\n",
            audit.written, audit.lost
        ));
        for line in &audit.counted_together {
            text.push_str(&format!("  counted together: {}\n", escaped(line)));
        }
    }
    text
}

fn often(times: u64) -> String {
    match times {
        1 => "once".to_owned(),
        times => format!("{times} times"),
    }
}

fn table(profiles: &[ProfileStatus]) -> String {
    let mut rows = vec![
        [
            "PROFILE",
            "METHOD",
            "STATE",
            "EXPIRES-IN",
            "NEXT",
            "LAST-ERROR",
        ]
        .map(str::to_owned),
    ];
    for profile in profiles {
        let error = profile.last_error.as_ref().map_or(String::new(), |error| {
            format!("{} {}", error.reason, error.oauth_error)
                .trim()
                .to_owned()
        });
        rows.push([
            cell(&profile.name),
            cell(&profile.method),
            cell(&profile.state),
            cell(&time(profile.expires_in)),
            cell(&time(profile.next_attempt_in)),
            cell(&error),
        ]);
    }
    let widths: [usize; 6] = std::array::from_fn(|column| {
        let width = |row: &[String; 6]| row[column].chars().count();
        rows.iter().map(width).max().unwrap_or(0)
    });
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn cell(text: &str) -> String {
    match text {
        "" => "-".into(),
        text => escaped(text).into_owned(),
    }
}

/// Formats a time that is left, or nothing if there is none. A time in the past counts as now.
fn time(left: Option<prost_types::Duration>) -> String {
    left.map_or(String::new(), |left| {
        match Duration::try_from(left).unwrap_or_default() {
            left if left < TENTH => "now".to_owned(),
            left => human(left),
        }
    })
}

/// The end of each certificate in use, and of the one on disk if that differs.
fn certificates(profile: &ProfileStatus, now: SystemTime) -> Vec<String> {
    let until = |certificate: &ProfileCertificate| {
        let end = certificate.not_after.unwrap_or_default();
        let left = SystemTime::try_from(end).ok();
        match left.and_then(|end| end.duration_since(now).ok()) {
            Some(left) => format!("until {}, {}", text(&end), human(left)),
            None => format!("until {}, which has passed", text(&end)),
        }
    };
    let of = |place: &'static str| {
        let all = profile.certificates.iter();
        all.filter(move |certificate| certificate.place == place)
    };
    of("in_use")
        .map(|used| {
            let mut line = format!("{} {}: in use {}", used.role, used.subject, until(used));
            match of("on_disk").find(|other| other.role == used.role) {
                None => line.push_str("; what is on disk cannot be used"),
                Some(other) if other.thumbprint == used.thumbprint => {}
                Some(other) => line.push_str(&format!("; on disk {}", until(other))),
            }
            line
        })
        .collect()
}

/// One line for each certificate of a profile, and one for each problem.
fn notes_on(profile: &ProfileStatus, now: SystemTime) -> String {
    let mut lines = certificates(profile, now);
    if let Some(error) = &profile.last_error {
        let mut line = error.message.clone();
        let mut facts = Vec::new();
        if error.failures > 1 {
            facts.push(format!("{} failures", error.failures));
        }
        if let Some(since) = error.since {
            let ago = SystemTime::try_from(since).ok();
            let ago = ago.and_then(|since| now.duration_since(since).ok());
            let since = text(&since);
            facts.push(match ago {
                Some(ago) => format!("since {since}, {} ago", human(ago)),
                None => format!("since {since}"),
            });
        }
        if !facts.is_empty() {
            line.push_str(&format!(" ({})", facts.join(" ")));
        }
        lines.push(line);
    }
    lines.extend(
        profile
            .warnings
            .iter()
            .map(|warning| format!("warning: {warning}")),
    );
    lines
        .iter()
        .map(|line| format!("{}: {}\n", escaped(&profile.name), escaped(line)))
        .collect()
}

#[cfg(test)]
mod tests;
