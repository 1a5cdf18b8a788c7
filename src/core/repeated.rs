//! Log lines that callers can cause as often as they like. A line is logged once, then once per
//! interval with the number of lines that were left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use super::time::BootTime;

/// A line is logged again after this time at the earliest.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// The most keys that are remembered at a time, which is a few kilobytes. Further keys share one
/// place, so that many principals cannot fill the log either.
const REMEMBERED: usize = 256;

/// Lines of several kinds, by key. A key is as a rule the kind of the line and who causes it.
#[derive(Debug)]
pub struct Repeated<K> {
    said: HashMap<K, LastLine>,
    beyond: Option<LastLine>,
}

#[derive(Clone, Copy, Debug)]
struct LastLine {
    at: BootTime,
    left_out: u64,
}

impl<K> Default for Repeated<K> {
    fn default() -> Self {
        Repeated {
            said: HashMap::new(),
            beyond: None,
        }
    }
}

impl<K: Eq + Hash> Repeated<K> {
    /// Whether to log the line now. If so, returns the number of lines that were left out since it
    /// was last logged. None: the line is left out, and counted.
    pub fn say(&mut self, key: K, now: BootTime) -> Option<u64> {
        if !self.said.contains_key(&key) {
            if self.said.len() >= REMEMBERED {
                self.forget(now);
            }
            if self.said.len() < REMEMBERED {
                let new = LastLine {
                    at: now,
                    left_out: 0,
                };
                self.said.insert(key, new);
                return Some(0);
            }
        }
        let place = match self.said.get_mut(&key) {
            Some(known) => known,
            None => match &mut self.beyond {
                Some(beyond) => beyond,
                new => {
                    *new = Some(LastLine {
                        at: now,
                        left_out: 0,
                    });
                    return Some(0);
                }
            },
        };
        if now.since(place.at) < INTERVAL {
            place.left_out += 1;
            return None;
        }
        place.at = now;
        Some(std::mem::take(&mut place.left_out))
    }

    /// Makes room for other keys. The lines left out under the removed keys are counted with the
    /// next line of the shared place.
    fn forget(&mut self, now: BootTime) {
        let mut left_out = 0;
        self.said.retain(|_, said| {
            let stays = now.since(said.at) < INTERVAL;
            left_out += if stays { 0 } else { said.left_out };
            stays
        });
        if let Some(beyond) = &mut self.beyond {
            beyond.left_out += left_out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(1000 + seconds))
    }

    /// Broken by `say` that always says.
    #[test]
    fn a_line_is_said_once_per_interval_with_the_number_of_those_left_out() {
        let mut lines = Repeated::default();
        assert_eq!(lines.say(("full", 1), at(0)), Some(0));
        for _ in 0..1000 {
            assert_eq!(lines.say(("full", 1), at(59)), None);
        }
        // Lines of another principal or another kind are still logged.
        assert_eq!(lines.say(("full", 2), at(59)), Some(0));
        assert_eq!(lines.say(("unknown", 1), at(59)), Some(0));
        assert_eq!(lines.say(("full", 1), at(60)), Some(1000));
        assert_eq!(lines.say(("full", 1), at(61)), None);
        assert_eq!(lines.say(("full", 1), at(120)), Some(1));
    }

    /// Broken by `say` that ignores REMEMBERED.
    #[test]
    fn many_principals_share_one_place_and_are_forgotten() {
        let mut lines = Repeated::default();
        let said = |lines: &mut Repeated<u32>, from, now| {
            (from..from + 10_000)
                .filter(|uid| lines.say(*uid, at(now)).is_some())
                .count()
        };
        assert_eq!(said(&mut lines, 0, 0), REMEMBERED + 1);
        assert!(lines.said.len() <= REMEMBERED);
        assert_eq!(lines.say(99_999, at(1)), None);
        // The interval of all keys is over, so there is room for others.
        assert_eq!(said(&mut lines, 20_000, 60), REMEMBERED + 1);
        assert!(lines.said.len() <= REMEMBERED);
    }
}
