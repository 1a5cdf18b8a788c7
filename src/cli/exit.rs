//! The exit status. Every command has the same ones, and scripts rely on them.

use crate::client::ClientError;

/// Done.
pub const DONE: u8 = 0;
/// There are findings, or a part failed.
pub const FINDINGS: u8 = 1;
/// The command line is wrong. clap uses the same status.
pub const USAGE: u8 = 2;
/// The profile is unknown or not permitted.
pub const NOT_FOUND: u8 = 3;
/// Upstream unavailable, deadline or rate: asking again may help.
pub const UNAVAILABLE: u8 = 4;
/// Upstream rejected, profile invalid, `min_ttl` impossible, login needed: somebody has to repair
/// something.
pub const REJECTED: u8 = 5;
/// The daemon is not reachable.
pub const UNREACHABLE: u8 = 6;
/// Only admins may do this.
pub const NOT_ADMIN: u8 = 7;
/// The configuration cannot be used (EX_CONFIG of sysexits.h).
pub const CONFIG: u8 = 78;

/// The exit status for an error.
#[must_use]
pub fn code_of(error: &ClientError) -> u8 {
    match error {
        ClientError::Unreachable { .. }
        | ClientError::Unbelieved { .. }
        | ClientError::Closed(_)
        | ClientError::Nonsense { .. } => UNREACHABLE,
        ClientError::TimedOut(_) => UNAVAILABLE,
        ClientError::Refused(refusal) => match refusal.code.as_str() {
            "NOT_FOUND" => NOT_FOUND,
            "UNAVAILABLE" | "DEADLINE_EXCEEDED" | "RESOURCE_EXHAUSTED" => UNAVAILABLE,
            "FAILED_PRECONDITION" | "OUT_OF_RANGE" => REJECTED,
            "INVALID_ARGUMENT" => USAGE,
            "PERMISSION_DENIED" => NOT_ADMIN,
            // This is INTERNAL, or a code of a daemon of another version.
            _ => FINDINGS,
        },
    }
}

/// Whether asking again is useless as long as nobody changes the question or the configuration.
#[must_use]
pub fn is_final(error: &ClientError) -> bool {
    matches!(code_of(error), NOT_FOUND | NOT_ADMIN | USAGE)
}
