//! Compares the clock of an identity provider with this machine's.

use std::time::Duration;

use super::report::DoctorReport;
use crate::cli::complaint::human;
use crate::core::config::Severity;
use crate::core::credential::{SKEW_WORTH_TELLING, skewed};
use crate::core::diagnostic::Diagnostic;

pub const AREA: &str = "clock";

const CURE: &str = "if other machines agree with it, set this one's (`timedatectl set-ntp true`, or `chronyc makestep`); \
                    else tell the identity provider's operator";

/// Largest tolerable difference of clocks, in seconds. Beyond it most issuers refuse assertions,
/// and tokens are expired on arrival or outlive what their issuer thinks.
const SKEW_INTOLERABLE: u64 = 300;

/// The finding of `tokend check --online` about the clock of a profile's identity provider, which
/// is `skew` seconds ahead. None: it is near enough.
pub fn differs(skew: i64) -> Option<(Severity, Diagnostic)> {
    let severity = match skew.unsigned_abs() > SKEW_INTOLERABLE {
        true => Severity::Error,
        false => Severity::Warning,
    };
    skewed(skew).map(|message| (severity, Diagnostic::of_profile(message)))
}

/// Reports how the clock of `at` compares; it is `skew` seconds ahead.
pub fn compare(report: &mut DoctorReport, at: &str, skew: i64) {
    let off = skew.unsigned_abs();
    if off <= SKEW_WORTH_TELLING {
        return report.well(AREA, format!("within {off} s of that of {at}"));
    }
    let side = if skew > 0 { "ahead of" } else { "behind" };
    let message = format!(
        "the clock of {at} is {} {side} this machine's",
        human(Duration::from_secs(off))
    );
    if off > SKEW_INTOLERABLE {
        report.error(AREA, "", message, CURE);
    } else {
        report.warning(AREA, "", message, CURE);
    }
}
