//! Moments in answers, by this machine's wall clock.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use crate::core::time::{Stamp, WallTime};

/// More seconds since 1970 than this are milliseconds, or nonsense.
const LATEST: u64 = 100_000_000_000;

/// A moment: RFC 3339, or seconds since 1970 as a number or as digits. None: neither of these.
pub(super) fn moment(value: &Value) -> Option<WallTime> {
    let seconds = |seconds: u64| (seconds < LATEST).then(|| WallTime(Duration::from_secs(seconds)));
    match value {
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => seconds(whole),
            (None, Some(float)) if float >= 0.0 => seconds(float as u64),
            // Before 1970: it has passed.
            _ => Some(WallTime(Duration::ZERO)),
        },
        Value::String(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            seconds(text.parse().ok()?)
        }
        Value::String(text) => rfc_3339(text),
        _ => None,
    }
}

/// RFC 3339 §5.6, with any offset.
fn rfc_3339(text: &str) -> Option<WallTime> {
    let text = text.trim();
    if !text.is_ascii()
        || !(20..=40).contains(&text.len())
        || !b"Tt ".contains(&text.as_bytes()[10])
    {
        return None;
    }
    let (local, ahead) = match text.strip_suffix(['Z', 'z']) {
        Some(local) => (local, 0),
        None => {
            let (local, offset) = text.split_at(text.len() - 6);
            let (sign, offset) = offset.split_at(1);
            let (hours, minutes) = offset.split_once(':')?;
            let number = |text: &str, below: i64| -> Option<i64> {
                let digits = text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits)?;
                (number < below).then_some(number)
            };
            let ahead = (number(hours, 24)? * 60 + number(minutes, 60)?) * 60;
            (
                local,
                match sign {
                    "+" => ahead,
                    "-" => -ahead,
                    _ => return None,
                },
            )
        }
    };
    let utc = format!("{}T{}Z", &local[..10], &local[11..]);
    let local = humantime::parse_rfc3339(&utc).ok()?;
    let since = local.duration_since(UNIX_EPOCH).ok()?;
    let by = Duration::from_secs(ahead.unsigned_abs());
    Some(WallTime(if ahead > 0 {
        since.saturating_sub(by)
    } else {
        since + by
    }))
}

/// What is left until `end`, counted from `asked_at`. Zero: it has passed. If the wall clock was
/// set while the plugin ran, its two readings say different things, and the smaller counts.
pub(super) fn left(end: WallTime, asked_at: Stamp, now: Stamp) -> Duration {
    let left_now = end.since(now.wall);
    if left_now.is_zero() {
        return Duration::ZERO;
    }
    let took = now.boot.since(asked_at.boot);
    end.since(asked_at.wall).min(left_now.saturating_add(took))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::time::BootTime;

    #[test]
    fn moments_in_every_form_and_nothing_else() {
        let at = |value: Value| moment(&value).map(|at| at.0.as_secs());
        for text in [
            "2026-11-24T03:29:00Z",
            "2026-11-24t03:29:00z",
            "2026-11-24 03:29:00.999Z",
            "2026-11-24T04:29:00+01:00",
            "2026-11-23T22:59:00.5-04:30",
            "1795490940",
        ] {
            assert_eq!(at(json!(text)), Some(1_795_490_940), "{text}");
        }
        assert_eq!(at(json!(1_795_490_940)), Some(1_795_490_940));
        assert_eq!(at(json!(1_795_490_940.7)), Some(1_795_490_940));
        assert_eq!(at(json!(-5)), Some(0));
        for value in [
            json!("2026-11-24T03:29:00"),
            json!("2026-13-24T03:29:00Z"),
            json!("2026-11-24T03:29:00+1:00"),
            json!("2026-11-24T03:29:00+25:00"),
            json!("2026-11-24T03:29:00é01:00"),
            json!("+026-11-24T03:29:00Z"),
            json!("tomorrow"),
            json!(""),
            json!(true),
            // Milliseconds: as seconds they would make a token that never ends.
            json!(1_795_490_940_000_u64),
            json!("99999999999999999999999"),
        ] {
            assert_eq!(at(value.clone()), None, "{value}");
        }
    }

    #[test]
    fn a_clock_that_is_set_meanwhile_lengthens_nothing() {
        let stamp = |boot, wall| Stamp {
            boot: BootTime(Duration::from_secs(boot)),
            wall: WallTime(Duration::from_secs(wall)),
        };
        let end = WallTime(Duration::from_secs(1_000));
        let left = |asked, now| left(end, asked, now).as_secs();
        assert_eq!(left(stamp(10, 900), stamp(15, 905)), 100);
        assert_eq!(left(stamp(10, 600), stamp(15, 905)), 100, "set forward");
        assert_eq!(left(stamp(10, 900), stamp(15, 700)), 100, "set back");
        assert_eq!(left(stamp(10, 900), stamp(15, 1_000)), 0);
    }
}
