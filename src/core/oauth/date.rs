//! HTTP dates (RFC 9110 §5.6.7) and `Retry-After` (§10.2.3): untrusted text becomes seconds since
//! 1970.

use std::time::{Duration, UNIX_EPOCH};

/// The longest wait that is believed: ten years. The profile's own limit is far smaller; this one
/// only keeps sums small.
const LONGEST_WAIT: u64 = 10 * 366 * 86_400;

/// The seconds since 1970 of an HTTP date in any of its three forms. None for any other text and
/// for years before 1970.
///
/// A date that contradicts itself (a wrong weekday, the 30th of February) is no date: it is unknown
/// which part is wrong, and a wrong `Date` would move the end of a token. The two digits of an RFC
/// 850 year mean 1970 to 2069.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let date = httpdate::parse_http_date(text).ok()?;
    let since = date.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs())
}

/// How long a `Retry-After` asks the client to wait. A date counts from the answer's `Date`, or
/// from the local wall clock if there is none. A date in the past gives zero.
#[must_use]
pub fn retry_after(text: &str, date: Option<u64>, now: Duration) -> Option<Duration> {
    let text = text.trim_ascii();
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number too large for u64 fails here.
        text.parse().unwrap_or(u64::MAX)
    } else {
        parse(text)?.saturating_sub(date.unwrap_or(now.as_secs()))
    };
    Some(Duration::from_secs(seconds.min(LONGEST_WAIT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_and_nothing_else() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            " Sun, 06 Nov 1994 08:49:37 GMT ",
        ] {
            assert_eq!(parse(text), Some(784_111_777), "{text}");
        }
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
            ("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_208_000),
            ("Fri, 01 Mar 2024 00:00:00 GMT", 1_709_251_200),
            ("Tue, 24 Nov 2026 03:29:00 GMT", 1_795_490_940),
            ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "now",
            "Sun, 06 Nov 1994 08:49:37 CET",
            "Sun, 32 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:37:00 GMT",
            "Sun, 06 Nov 199999 08:49:37 GMT",
            "Sun, 06 Növ 1994 08:49:37 GMT",
            "Sun, -6 Nov 1994 08:49 GMT",
            // This date is a Sunday.
            "Mon, 06 Nov 1994 08:49:37 GMT",
            "Wed, 30 Feb 2022 08:49:37 GMT",
            "Sun, 06 Nov 1994 08:49:60 GMT",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_damaged_date_never_panics() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Wednesday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            for at in 0..text.len() {
                let _ = parse(&text[..at]);
                for byte in (0..128).map(char::from) {
                    let _ = parse(&format!("{}{byte}{}", &text[..at], &text[at + 1..]));
                    let _ = parse(&format!("{}{byte}{}", &text[..at], &text[at..]));
                }
            }
        }
    }

    #[test]
    fn retry_after_in_both_forms() {
        let now = Duration::from_secs(784_111_000);
        let wait = |text, date| retry_after(text, date, now).map(|wait| wait.as_secs());
        assert_eq!(wait("120", None), Some(120));
        assert_eq!(wait("0", None), Some(0));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(wait(date, None), Some(777));
        assert_eq!(wait(date, Some(784_111_770)), Some(7));
        assert_eq!(wait(date, Some(784_111_790)), Some(0));
        assert_eq!(wait("99999999999999999999999", None), Some(LONGEST_WAIT));
        for nonsense in ["", "-1", "1.5", "soon", "१२"] {
            assert_eq!(wait(nonsense, None), None, "{nonsense}");
        }
    }
}
