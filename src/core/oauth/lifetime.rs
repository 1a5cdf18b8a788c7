//! How long a token lives, from all that the issuer states (RFC 6749 §5.1 `expires_in`, RFC 7519
//! §4.1.4 `exp`).

use std::time::Duration;

use serde_json::Value;

use super::jwt::JwtClaims;
use crate::core::credential::Lifetime;
use crate::core::time::WallTime;

/// No token is believed to live longer than a year. Longer claims are cut, not refused: the renewal
/// then comes early, which does no harm.
pub const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// `Date` has whole seconds: the answer may be up to this much younger than it says.
const DATE_RESOLUTION: u64 = 1;

/// A `Date` further than this from the local clock is believed only where `iat` or `expires_in`
/// bounds the result. Caches hand out old dates, and some servers send 1970.
const PLAUSIBLE: u64 = 3600;

/// Why there is no usable lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeError {
    /// `expires_in` is zero or negative.
    ExpiresIn,
    /// `expires_in` is not a number.
    NotANumber,
    /// `exp` has passed.
    Expired,
    /// `exp` has passed on one of two clocks: the local one, and the issuer's according to `Date`.
    ExpiredByOne {
        /// It has passed on the local clock; otherwise according to `Date`.
        ours: bool,
        /// The difference between the two clocks.
        apart: Duration,
    },
}

/// The life of a token, counted from the moment `asked_at`. With several claims, the earliest end
/// counts. The life is never zero.
///
/// `exp` is a moment on the issuer's clock. `Date` tells that clock, so `exp - Date` holds whatever
/// the local clock says. Without a `Date` two bounds remain, `exp - iat` and `exp` on the local
/// wall clock, and the smaller counts. The first alone would revive an old token that the issuer
/// hands out again (trap 16); the second alone trusts a clock that can be wrong (trap 18). With
/// `exp` and `Date` alone, and a `Date` more than an hour from the local clock, it is unknown which
/// of the two is wrong, so the smaller counts.
///
/// # Errors
/// The token cannot be used any more, or it is unknown whether it can.
pub fn lifetime(
    expires_in: Option<&Value>,
    facts: Option<&JwtClaims>,
    date: Option<u64>,
    asked_at: WallTime,
) -> Result<Lifetime, LifetimeError> {
    let told = expires_in.map(parse).transpose()?.flatten();
    let read = match facts {
        Some(facts) => facts
            .expires
            .map(|exp| remaining(exp, facts, date, told.is_some(), asked_at))
            .transpose()?,
        None => None,
    };
    if read.is_some_and(|left| left.is_zero()) {
        return Err(LifetimeError::Expired);
    }
    Ok(match told.into_iter().chain(read).min() {
        Some(left) => Lifetime::For(left.min(LONGEST)),
        None => Lifetime::Unknown,
    })
}

fn remaining(
    exp: u64,
    facts: &JwtClaims,
    date: Option<u64>,
    told: bool,
    asked_at: WallTime,
) -> Result<Duration, LifetimeError> {
    let by_ours = Duration::from_secs(exp).saturating_sub(asked_at.0);
    let by_clock = match date {
        None => by_ours,
        Some(date) => {
            let by_date =
                Duration::from_secs(exp.saturating_sub(date).saturating_sub(DATE_RESOLUTION));
            let apart = date.abs_diff(asked_at.0.as_secs());
            if told || facts.issued.is_some() || apart <= PLAUSIBLE {
                by_date
            } else if by_ours.is_zero() != by_date.is_zero() {
                return Err(LifetimeError::ExpiredByOne {
                    ours: by_ours.is_zero(),
                    apart: Duration::from_secs(apart),
                });
            } else {
                by_ours.min(by_date)
            }
        }
    };
    Ok(match facts.issued {
        Some(issued) => by_clock.min(Duration::from_secs(exp.saturating_sub(issued))),
        None => by_clock,
    })
}

/// Reads an integer, a number with a fraction (rounded down) or a text of digits, as some issuers
/// send it (trap 38).
fn parse(value: &Value) -> Result<Option<Duration>, LifetimeError> {
    let seconds = match value {
        Value::Null => return Ok(None),
        // `as` saturates: negative is zero, too large is the largest.
        Value::Number(number) => number
            .as_u64()
            .or_else(|| number.as_f64().map(|float| float as u64))
            .ok_or(LifetimeError::NotANumber)?,
        Value::String(text) if negative(text) => 0,
        // Only digits that are too many for u64 fail to parse.
        Value::String(text) if digits(text) => text.parse().unwrap_or(u64::MAX),
        _ => return Err(LifetimeError::NotANumber),
    };
    if seconds == 0 {
        return Err(LifetimeError::ExpiresIn);
    }
    Ok(Some(Duration::from_secs(seconds)))
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn negative(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(digits)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ASKED: WallTime = WallTime(Duration::from_millis(1_000_000_250));

    fn of(expires_in: Value) -> Result<Lifetime, LifetimeError> {
        lifetime(Some(&expires_in), None, None, ASKED)
    }

    fn secs(seconds: u64) -> Result<Lifetime, LifetimeError> {
        Ok(Lifetime::For(Duration::from_secs(seconds)))
    }

    #[test]
    fn trap_38_expires_in_in_every_shape() {
        assert_eq!(of(json!(300)), secs(300));
        assert_eq!(of(json!("300")), secs(300));
        assert_eq!(of(json!(299.99)), secs(299));
        assert_eq!(of(json!(null)), Ok(Lifetime::Unknown));
        assert_eq!(lifetime(None, None, None, ASKED), Ok(Lifetime::Unknown));
        for dead in [
            json!(0),
            json!(-1),
            json!(0.9),
            json!(-1e300),
            json!("0"),
            json!("-5"),
        ] {
            assert_eq!(of(dead.clone()), Err(LifetimeError::ExpiresIn), "{dead}");
        }
        for nonsense in [
            json!("soon"),
            json!(""),
            json!("3600s"),
            json!("1e3"),
            json!(" 5"),
            json!(true),
            json!([3600]),
            json!({}),
        ] {
            assert_eq!(
                of(nonsense.clone()),
                Err(LifetimeError::NotANumber),
                "{nonsense}"
            );
        }
        for endless in [
            json!(3_153_600_000_u64),
            json!(u64::MAX),
            json!(1e300),
            json!("99999999999999999999999999"),
        ] {
            assert_eq!(of(endless.clone()), Ok(Lifetime::For(LONGEST)), "{endless}");
        }
    }

    fn facts(expires: u64, issued: Option<u64>) -> JwtClaims {
        JwtClaims {
            expires: Some(expires),
            issued,
            ..JwtClaims::default()
        }
    }

    /// Broken by `exp` measured on the local clock where there is a `Date`.
    #[test]
    fn trap_18_exp_is_measured_on_the_issuers_clock() {
        // The issuer is a day ahead, or the daemon is a day behind: both give the same result.
        let date = Some(1_086_400);
        let of = |facts, date| lifetime(None, Some(&facts), date, ASKED);
        assert_eq!(of(facts(1_086_700, None), date), secs(299));
        assert_eq!(of(facts(1_086_700, Some(1_086_400)), date), secs(299));
        // The age of an old token that is handed out again does not count twice.
        assert_eq!(of(facts(1_086_410, Some(1_080_000)), date), secs(9));
        // A Date that lags cannot stretch it.
        assert_eq!(of(facts(1_000_300, Some(1_000_000)), Some(0)), secs(300));
        for exp in [1_086_401, 1_086_400] {
            let by_date = LifetimeError::ExpiredByOne {
                ours: false,
                apart: Duration::from_secs(86_400),
            };
            assert_eq!(of(facts(exp, None), date), Err(by_date), "{exp}");
        }
        assert_eq!(of(facts(5, None), date), Err(LifetimeError::Expired));
    }

    /// Broken by a `Date` that is believed however wrong it is.
    #[test]
    fn trap_18_a_date_that_cannot_be_right_makes_no_token_immortal() {
        let of = |exp, date| lifetime(None, Some(&facts(exp, None)), Some(date), ASKED);
        let by_ours = |apart| {
            Err(LifetimeError::ExpiredByOne {
                ours: true,
                apart: Duration::from_secs(apart),
            })
        };
        // A date of 1970, and an answer from a cache.
        assert_eq!(of(999_900, 0), by_ours(1_000_000));
        assert_eq!(of(999_900, 990_000), by_ours(10_000));
        let left = Ok(Lifetime::For(Duration::from_millis(99_750)));
        assert_eq!(of(1_000_100, 0), left);
        // A `Date` within an hour is believed.
        assert_eq!(of(999_900, 996_400), secs(3499));
        // The other claims bound it.
        let told = json!(60);
        let both = lifetime(Some(&told), Some(&facts(999_900, None)), Some(0), ASKED);
        assert_eq!(both, secs(60));
    }

    #[test]
    fn without_date_the_smaller_bound_counts() {
        let of = |facts| lifetime(None, Some(&facts), None, ASKED);
        let left = Duration::from_millis(99_750);
        assert_eq!(of(facts(1_000_100, None)), Ok(Lifetime::For(left)));
        assert_eq!(of(facts(1_000_100, Some(990_000))), Ok(Lifetime::For(left)));
        assert_eq!(of(facts(9_000_060, Some(9_000_000))), secs(60));
        assert_eq!(of(facts(1_000_000, None)), Err(LifetimeError::Expired));
        assert_eq!(
            of(facts(1_000_100, Some(1_000_100))),
            Err(LifetimeError::Expired)
        );
        assert_eq!(of(facts(u64::MAX, None)), Ok(Lifetime::For(LONGEST)));
    }

    #[test]
    fn with_both_the_earlier_counts() {
        let of = |expires_in: u64, exp| {
            lifetime(
                Some(&json!(expires_in)),
                Some(&facts(exp, None)),
                Some(1_000_000),
                ASKED,
            )
        };
        assert_eq!(of(300, 1_003_600), secs(300));
        assert_eq!(of(3600, 1_000_300), secs(299));
        assert_eq!(of(300, 999_999), Err(LifetimeError::Expired));
    }
}
