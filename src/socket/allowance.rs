//! Limits how many frames a connection may send that serve no call.
//!
//! PING, SETTINGS, PRIORITY, WINDOW_UPDATE, frames of unknown types and DATA without bytes cost the
//! sender nothing, and nothing in HTTP/2 limits them. Honest clients send such frames too: a PING
//! to measure the line, a WINDOW_UPDATE for what they have read, a RST_STREAM for a call that
//! nobody waits for any more. But the frames of honest clients go with calls and with the answers
//! sent to them, and both of these earn frames. All other frames are paid from a bucket that fills
//! with time.

use std::time::Duration;

/// What a frame costs, in bytes of answers: a client that is sent this many bytes may send one
/// frame for them. Clients send at most one WINDOW_UPDATE and one PING for each message, and no
/// message with its status is shorter than this.
const FRAME: u64 = 32;

/// The frames that a call earns beside its answer: for its message, which may come in parts, and
/// its end.
const PER_CALL: u64 = 8;

/// The frames that a client has sent since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// HEADERS frames, which begin calls.
    pub calls: u32,
    /// All other frames.
    pub others: u32,
}

/// What one connection may still send.
#[derive(Debug)]
pub struct Allowance {
    /// The size of the bucket, in bytes like everything here.
    most: u64,
    left: u64,
    /// The time up to which the bucket has been filled.
    filled: Duration,
}

/// The client has sent more than it may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("more frames than calls and answers account for (server.limits.control_frames_per_second)")]
pub struct Exceeded;

impl Allowance {
    /// Allows this many frames per second, and as many at once. `now` counts from an arbitrary
    /// moment, the same for every call.
    #[must_use]
    pub fn new(per_second: u32, now: Duration) -> Allowance {
        let most = u64::from(per_second) * FRAME;
        Allowance {
            most,
            left: most,
            filled: now,
        }
    }

    /// Notes that this many bytes have been sent to the client.
    pub fn sent(&mut self, bytes: usize) {
        self.earn(bytes as u64);
    }

    /// Pays for what the client has sent. The clock is read only when the rest does not suffice.
    ///
    /// # Errors
    /// The client has sent more than it may.
    pub fn pay(&mut self, tally: Tally, now: impl FnOnce() -> Duration) -> Result<(), Exceeded> {
        let earned = u64::from(tally.calls) * PER_CALL * FRAME;
        let price = u64::from(tally.others) * FRAME;
        self.earn(earned.saturating_sub(price));
        let price = price.saturating_sub(earned);
        if price > self.left {
            let now = now();
            let passed = now.saturating_sub(self.filled).min(Duration::from_secs(1));
            self.filled = now;
            self.earn(self.most * u64::from(passed.subsec_micros()) / 1_000_000);
            if passed.as_secs() > 0 {
                self.left = self.most;
            }
        }
        self.left = self.left.checked_sub(price).ok_or(Exceeded)?;
        Ok(())
    }

    fn earn(&mut self, bytes: u64) {
        self.left = self.most.min(self.left.saturating_add(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER_SECOND: u32 = 100;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn others(others: u32) -> Tally {
        Tally { calls: 0, others }
    }

    #[test]
    fn there_is_a_seconds_worth_and_no_more() {
        let mut allowance = Allowance::new(PER_SECOND, at(0));
        assert_eq!(
            allowance.pay(others(100), || unreachable!("there is enough")),
            Ok(())
        );
        assert_eq!(allowance.pay(others(50), || at(500)), Ok(()));
        assert_eq!(allowance.pay(others(1), || at(500)), Err(Exceeded));
        assert_eq!(allowance.pay(others(101), || at(3_600_000)), Err(Exceeded));
        let mut allowance = Allowance::new(PER_SECOND, at(0));
        assert_eq!(allowance.pay(others(100), || at(0)), Ok(()));
        assert_eq!(allowance.pay(others(100), || at(1000)), Ok(()));
        assert_eq!(
            allowance.pay(others(1), || at(999)),
            Err(Exceeded),
            "time does not run back"
        );
    }

    /// Sends what honest clients send for each call, at any speed. The clock is never read.
    #[test]
    fn calls_and_answers_earn_what_goes_with_them() {
        for (tally, answered) in [
            // The message, a WINDOW_UPDATE for stream and connection, and a PING.
            (
                Tally {
                    calls: 1,
                    others: 4,
                },
                60,
            ),
            // The message in parts and a RST_STREAM before any answer.
            (
                Tally {
                    calls: 1,
                    others: 8,
                },
                0,
            ),
            // The same for as many as may be in flight.
            (
                Tally {
                    calls: 256,
                    others: 256 * 8,
                },
                0,
            ),
            // An event of a stream: no call, but an answer.
            (others(3), 100),
        ] {
            let mut allowance = Allowance::new(PER_SECOND, at(0));
            for _ in 0..100_000 {
                allowance.sent(answered);
                let paid = allowance.pay(tally, || unreachable!("time is not needed"));
                assert_eq!(paid, Ok(()), "{tally:?}");
            }
        }
    }

    /// Every PING is answered, and its answer is not worth the next.
    #[test]
    fn answers_to_a_flood_do_not_earn_it() {
        for answer in [0, 9, 17] {
            let mut allowance = Allowance::new(PER_SECOND, at(0));
            let flood = (0..1000).take_while(|_| {
                allowance.sent(answer);
                allowance.pay(others(1), || at(0)).is_ok()
            });
            assert!(flood.count() < 300, "{answer}");
        }
    }
}
