//! Prints errors to standard error: what is wrong, with which profile, and what to do about it.

use std::io::Write;
use std::time::Duration;

use crate::client::text::escaped;
use crate::client::{Client, ClientError, ServerRefusal};

/// Time limit for finding the names of other profiles. They are only an extra hint in an error.
const NAMES_TIMEOUT: Duration = Duration::from_secs(1);
/// At most this many names are printed. More would be no help.
const NAMES_SHOWN: usize = 10;
/// The shortest time that is told in numbers.
pub const TENTH: Duration = Duration::from_millis(100);

/// The cure where the identity provider rejects a profile. The message says what it suspects.
pub const REPAIR: &str = "repair its secret, certificate or configuration, or what the identity provider has registered: a change here is tried at once";

/// Prints `tokend: PROFILE: message` on one line, whatever the message contains. If standard error
/// cannot be written to, nothing is printed.
pub fn line(err: &mut dyn Write, profile: Option<&str>, message: &str) {
    let profile = profile.map_or(String::new(), |name| format!("{}: ", escaped(name)));
    let _ = writeln!(err, "tokend: {profile}{}", escaped(message));
}

/// Prints the error and its cure.
pub fn error(
    err: &mut dyn Write,
    profile: Option<&str>,
    error: &ClientError,
    client: Option<&Client>,
) {
    line(err, profile, &error.to_string());
    if let Some(cure) = cure(error, profile, client) {
        let _ = writeln!(err, "  help: {}", escaped(&cure));
    }
}

/// The cure for an error, if there is one.
#[must_use]
pub fn cure(error: &ClientError, profile: Option<&str>, client: Option<&Client>) -> Option<String> {
    match error {
        ClientError::Unreachable { cure, .. } | ClientError::Unbelieved { cure, .. } => {
            Some(cure.clone())
        }
        ClientError::Closed(_) => {
            Some("look at the daemon's log; it may be full or about to end".into())
        }
        ClientError::Nonsense { .. } => Some(
            "let TOKEND_SOCKET or --socket name the socket of a daemon of the same version".into(),
        ),
        ClientError::TimedOut(_) => {
            Some("the daemon is there, and this takes it longer: try a longer --timeout; `journalctl -u tokend` shows what it is waiting for".into())
        }
        ClientError::Refused(refusal) => refused(refusal, profile, client),
    }
}

fn refused(
    refusal: &ServerRefusal,
    profile: Option<&str>,
    client: Option<&Client>,
) -> Option<String> {
    let status = match profile {
        Some(profile) => format!("`tokend status {profile}`"),
        None => "`tokend status`".to_owned(),
    };
    let wait = refusal.retry_after.map(human);
    match (refusal.code.as_str(), refusal.reason.as_str()) {
        ("NOT_FOUND", _) => others(client),
        (_, "CONFIGURATION_UNUSABLE") => {
            Some("`tokend check` shows all that is to be repaired".into())
        }
        (_, "AUDIT_UNAVAILABLE") => Some(
            "it is tried again by itself; `tokend doctor` shows an administrator the cure".into(),
        ),
        ("UNAVAILABLE" | "DEADLINE_EXCEEDED", _) => Some(match wait {
            Some(wait) => {
                format!("it is tried again in {wait}; {status} shows since when it fails")
            }
            None => format!("it is being tried; {status} shows more"),
        }),
        ("RESOURCE_EXHAUSTED", _) => Some(match wait {
            Some(wait) => {
                format!("ask again in {wait}; an administrator can raise a limit that is too low")
            }
            None => {
                "ask for less at a time; an administrator can raise a limit that is too low".into()
            }
        }),
        ("FAILED_PRECONDITION", "PROFILE_INVALID") => {
            Some("`tokend check` shows what is wrong with its configuration".into())
        }
        ("FAILED_PRECONDITION", _) => Some(REPAIR.into()),
        ("OUT_OF_RANGE", _) => Some("ask for a shorter --min-ttl".into()),
        ("PERMISSION_DENIED", _) => Some("`admins` in [server] names who may".into()),
        _ => None,
    }
}

/// The names that the caller may use. The daemon tells each caller only its own.
fn others(client: Option<&Client>) -> Option<String> {
    let names = client
        .and_then(|client| client.profiles(NAMES_TIMEOUT).ok())
        .unwrap_or_default();
    if names.is_empty() {
        return None;
    }
    let more = if names.len() > NAMES_SHOWN {
        ", …"
    } else {
        ""
    };
    Some(format!(
        "this user may use: {}{more}",
        names[..names.len().min(NAMES_SHOWN)].join(", ")
    ))
}

/// Formats a duration for people: the two largest units, as `3h 20m`. Below a minute it uses
/// seconds, and below ten seconds one decimal. "In 0s" would say that it is over.
#[must_use]
pub fn human(duration: Duration) -> String {
    if duration < TENTH {
        return "less than 0.1s".to_owned();
    }
    let seconds = duration.as_secs();
    if seconds < 10 {
        let tenths = duration.as_millis() / 100;
        return match tenths % 10 {
            0 => format!("{seconds}s"),
            rest => format!("{seconds}.{rest}s"),
        };
    }
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let pair = |large: u64, unit: &str, small: u64, next: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit} {small}{next}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => pair(minutes, "m", seconds % 60, "s"),
        (0, _, _) => pair(hours, "h", minutes, "m"),
        _ => pair(days, "d", hours, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (seconds, text) in [
            (0.0, "less than 0.1s"),
            (0.04, "less than 0.1s"),
            (2.5, "2.5s"),
            (9.99, "9.9s"),
            (10.9, "10s"),
            (60.0, "1m"),
            (3192.0, "53m 12s"),
            (3600.0, "1h"),
            (12_000.0, "3h 20m"),
            (86_400.0, "1d"),
            (180_000.0, "2d 2h"),
        ] {
            assert_eq!(human(Duration::from_secs_f64(seconds)), text);
        }
    }

    #[test]
    fn what_others_say_cannot_draw_on_the_terminal() {
        let mut err = Vec::new();
        line(&mut err, Some("p\x1b[1m"), "bad\r\nthing \u{9b}2J");
        assert_eq!(
            String::from_utf8(err).unwrap(),
            "tokend: p\\u{1b}[1m: bad\\r\\nthing \\u{9b}2J\n"
        );
    }
}
