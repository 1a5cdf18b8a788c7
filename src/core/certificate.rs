//! Facts about a certificate, and when to warn that it ends.

use std::time::Duration;

use super::diagnostic::Diagnostic;
use super::time::WallTime;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The daemon warns this many days before the end: there is time to order a new certificate, time
/// to hurry, and time to drop everything else.
const DAYS: [u32; 3] = [30, 7, 1];

/// The daemon warns when less than this part of a federated assertion's life is left. A kubelet
/// writes the next assertion when a fifth is left, SPIRE when half is left.
const SHARE_OF_ASSERTION: u32 = 10;

/// A certificate that lives for less than three times the first of [`DAYS`] is replaced by a
/// machine when about a third of its lifetime is left. If less than this part is left, the machine
/// has failed.
const SHARE: u32 = 3;

/// Facts about a client's own certificate or a federated assertion, for people and for `status`.
/// None of them is secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// It is an assertion that another program makes. An assertion ends and is renewed as
    /// certificates are.
    pub is_assertion: bool,
    /// The configuration key that names it, for instance `tls.certificate`.
    pub role: &'static str,
    /// The subject, for instance `O=Example, CN=billing`. Characters that a terminal should not see
    /// are replaced.
    pub subject: String,
    /// `x5t#S256`: base64url of the SHA-256 of the whole certificate (RFC 8705 §3.1).
    pub thumbprint: String,
    /// The first second in which it is valid.
    pub not_before: WallTime,
    /// The last second in which it is valid.
    pub not_after: WallTime,
}

impl Certificate {
    /// Warns that the certificate has ended or ends soon. None while there is time. The words
    /// change only when a threshold is passed, so that a log of news repeats none of them.
    #[must_use]
    pub fn warning(&self, now: WallTime) -> Option<Diagnostic> {
        let Certificate { role, subject, .. } = self;
        let ending = self.ending(now)?;
        let message = match self.is_assertion {
            false => format!("the certificate of {subject} {ending}: put a new one in place"),
            true => format!(
                "the assertion of {subject} {ending}: see whether whoever renews it still does"
            ),
        };
        Some(Diagnostic::new(*role, message))
    }

    /// Says that a certificate has expired or expires soon, without advice: for certificates that
    /// the client does not replace itself.
    #[must_use]
    pub fn ending(&self, now: WallTime) -> Option<String> {
        let end = self.end();
        if now > self.not_after {
            return Some(format!("has expired on {end}"));
        }
        let left = self.not_after.since(now);
        let (share, part) = match self.is_assertion {
            false => (SHARE, "a third"),
            true => (SHARE_OF_ASSERTION, "a tenth"),
        };
        let late = self.not_after.since(self.not_before) / share;
        let days = DAYS
            .into_iter()
            .filter(|days| DAY * *days <= late && left < DAY * *days)
            .min();
        let soon = match days {
            Some(1) => "within a day".to_owned(),
            Some(days) => format!("in less than {days} days"),
            None if late < DAY * DAYS[0] && left < late => {
                format!("in less than {part} of its lifetime, so what replaces it is late")
            }
            None => return None,
        };
        Some(format!("expires on {end}, {soon}"))
    }

    /// The last valid second, as RFC 3339.
    #[must_use]
    pub fn end(&self) -> String {
        humantime::format_rfc3339_seconds(std::time::UNIX_EPOCH + self.not_after.0).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The warning for a certificate with this lifetime when this much is left, both in hours.
    fn said(lifetime: u64, left: u64) -> Option<String> {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let start = WallTime(hours(500_000));
        let certificate = Certificate {
            is_assertion: false,
            role: "tls.certificate",
            subject: "CN=it".into(),
            thumbprint: String::new(),
            not_before: start,
            not_after: start.plus(hours(lifetime)),
        };
        let warning = certificate.warning(start.plus(hours(lifetime - left)));
        warning.map(|it| it.to_string())
    }

    #[test]
    fn a_long_one_is_mentioned_30_and_7_days_and_a_day_before_its_end() {
        let year = 365 * 24;
        for (left, soon) in [
            (31 * 24, None),
            (29 * 24, Some("in less than 30 days")),
            (8 * 24, Some("in less than 30 days")),
            (6 * 24, Some("in less than 7 days")),
            (23, Some("within a day")),
        ] {
            let text = said(year, left);
            assert_eq!(text.is_some(), soon.is_some(), "{left}: {text:?}");
            if let (Some(text), Some(soon)) = (text, soon) {
                assert!(text.contains(soon), "{left}: {text}");
                assert!(
                    text.starts_with("tls.certificate: ") && text.contains("CN=it"),
                    "{text}"
                );
            }
        }
        assert_eq!(said(year, 29 * 24), said(year, 8 * 24), "said once");
    }

    #[test]
    fn a_short_one_at_a_third_of_its_lifetime() {
        let third = Some("a third of its lifetime");
        for (lifetime, left, soon) in [
            (1, 1, None),
            (24, 9, None),
            (24, 7, third),
            // 60 days: no warning before 20 days are left.
            (60 * 24, 21 * 24, None),
            (60 * 24, 19 * 24, third),
            (60 * 24, 6 * 24, Some("in less than 7 days")),
        ] {
            let text = said(lifetime, left);
            assert_eq!(
                text.is_some(),
                soon.is_some(),
                "{lifetime}, {left}: {text:?}"
            );
            assert!(text.unwrap_or_default().contains(soon.unwrap_or_default()));
        }
    }

    #[test]
    fn one_that_has_ended_is_told_from_one_that_will() {
        let certificate = Certificate {
            is_assertion: false,
            role: "tls.keystore",
            subject: "CN=it".into(),
            thumbprint: String::new(),
            not_before: WallTime(Duration::ZERO),
            not_after: WallTime(Duration::from_secs(10)),
        };
        let text = certificate.warning(WallTime(Duration::from_secs(11)));
        assert!(
            text.expect("said")
                .message
                .contains("has expired on 1970-01-01T00:00:10Z")
        );
    }
}
