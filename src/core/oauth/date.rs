//! HTTP dates (RFC 9110 §5.6.7) and `Retry-After` (§10.2.3). Untrusted text in, seconds since 1970 out.

use std::time::Duration;

/// Longest wait that is believed: ten years. The profile's own limit is far smaller; this one only keeps sums small.
const LONGEST_WAIT: u64 = 10 * 366 * 86_400;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// Seconds since 1970 of an HTTP date in any of its three forms; None for anything else and for years before 1970.
///
/// The weekday is not looked at. The two digits of an RFC 850 year mean 1970 to 2069.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let text = text.trim_ascii();
    if !text.is_ascii() {
        return None;
    }
    let (_weekday, rest) = text.split_once(' ')?;
    let fields: Vec<&str> = rest
        .split([' ', '-'])
        .filter(|field| !field.is_empty())
        .collect();
    let [first, second, third, fourth, ..] = fields[..] else {
        return None;
    };
    let (day, month, year, time) = match fields.len() {
        // Sun, 06 Nov 1994 08:49:37 GMT and Sunday, 06-Nov-94 08:49:37 GMT
        5 if fields[4] == "GMT" => (first, second, third, fourth),
        // Sun Nov  6 08:49:37 1994
        4 => (second, first, fourth, third),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)?;
    let year = match (year.len(), number(year)?) {
        (2, short) => short + if short < 70 { 2000 } else { 1900 },
        (4, long) => long,
        _ => return None,
    };
    let mut clock = time.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let day = number(day)?;
    let fits = clock.next().is_none()
        && year >= 1970
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    fits.then(|| days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// How long a `Retry-After` asks to wait. A date counts from the answer's `Date`, and from our wall clock when there
/// is none; what has passed is zero.
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

/// One to four digits.
fn number(text: &str) -> Option<u64> {
    let fits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; `month` from 0.
fn days(year: u64, month: usize, day: u64) -> u64 {
    const BEFORE: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let past = year - 1;
    let leaps = past / 4 - past / 100 + past / 400;
    // 719 162 days lie between 0001-01-01 and 1970-01-01.
    past * 365 + leaps - 719_162 + BEFORE[month] + u64::from(leap && month > 1) + day - 1
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
        ] {
            assert_eq!(parse(text), None, "{text}");
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
