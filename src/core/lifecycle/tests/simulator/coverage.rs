//! What the simulator met: it counts every (state × event × condition).

use std::fmt::Write;

use super::Kind;
use super::oracle::Step;
use super::world::Mode;
use crate::core::lifecycle::LifecycleState;

const KINDS: [Kind; 15] = [
    Kind::Tick,
    Kind::Read,
    Kind::Ask,
    Kind::AskTtl,
    Kind::New,
    Kind::Repeated,
    Kind::Dead,
    Kind::Unlimited,
    Kind::Transient,
    Kind::RetryAfter,
    Kind::Permanent,
    Kind::Void,
    Kind::ReportHeld,
    Kind::ReportOther,
    Kind::Again,
];

const STATES: [LifecycleState; 6] = [
    LifecycleState::Fresh,
    LifecycleState::Stale,
    LifecycleState::Fetching,
    LifecycleState::Backoff,
    LifecycleState::Rejected,
    LifecycleState::Asleep,
];

/// The state of the clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    Steady,
    /// The wall clock has run ahead, so the held credential is doubted.
    Doubt,
    /// The event was due earlier, but the machine stood still.
    Late,
}

const WEATHERS: [Weather; 3] = [Weather::Steady, Weather::Doubt, Weather::Late];

/// The modes of an issuer, then the weathers.
const CONDITIONS: usize = 8 + 3;
const ROWS: usize = 6 * 2 * 15;

#[derive(Clone)]
pub struct Coverage {
    hits: Vec<[u64; CONDITIONS]>,
}

impl Default for Coverage {
    fn default() -> Coverage {
        Coverage {
            hits: vec![[0; CONDITIONS]; ROWS],
        }
    }
}

impl Coverage {
    pub fn count(&mut self, step: &Step, mode: Mode, weather: Weather) {
        let (state, doing) = step.before;
        let row = &mut self.hits[row(state, doing, step.kind)];
        row[mode as usize] += 1;
        row[8 + weather as usize] += 1;
    }

    pub fn add(&mut self, other: &Coverage) {
        for (row, more) in self.hits.iter_mut().zip(&other.hits) {
            for (hits, more) in row.iter_mut().zip(more) {
                *hits += more;
            }
        }
    }

    /// The table, with the combinations that are missing from it or should not be in it.
    pub fn report(&self, least: u64) -> (String, Vec<String>) {
        let mut table = String::new();
        let mut wrong = Vec::new();
        let _ = write!(table, "{:<10}{:<7}{:<12}", "state", "trying", "event");
        for mode in Mode::ALL {
            let _ = write!(table, "{:>11}", format!("{mode:?}"));
        }
        for weather in WEATHERS {
            let _ = write!(table, "{:>11}", format!("{weather:?}"));
        }
        table.push('\n');
        for state in STATES {
            for doing in [false, true] {
                for kind in KINDS {
                    let hits = &self.hits[row(state, doing, kind)];
                    let reachable: Vec<bool> = (0..CONDITIONS)
                        .map(|condition| reachable(state, doing, kind, condition))
                        .collect();
                    if !reachable.contains(&true) && hits.iter().all(|hits| *hits == 0) {
                        continue;
                    }
                    let name = format!("{state:?} {doing} {kind:?}");
                    let trying = if doing { "yes" } else { "no" };
                    let _ = write!(
                        table,
                        "{:<10}{trying:<7}{:<12}",
                        format!("{state:?}"),
                        format!("{kind:?}")
                    );
                    for (condition, (hits, reachable)) in hits.iter().zip(reachable).enumerate() {
                        if reachable {
                            let _ = write!(table, "{hits:>11}");
                            if *hits < least {
                                wrong.push(format!("{name} in {}: {hits}", title(condition)));
                            }
                        } else {
                            let _ = write!(
                                table,
                                "{:>11}",
                                if *hits == 0 {
                                    "-".to_owned()
                                } else {
                                    format!("({hits})")
                                }
                            );
                            if *hits > 0 {
                                wrong.push(format!(
                                    "{name} in {}: declared unreachable, {hits}",
                                    title(condition)
                                ));
                            }
                        }
                    }
                    table.push('\n');
                }
            }
        }
        (table, wrong)
    }
}

fn title(condition: usize) -> String {
    match condition.checked_sub(8) {
        None => format!("{:?}", Mode::ALL[condition]),
        Some(weather) => format!("{:?}", WEATHERS[weather]),
    }
}

fn row(state: LifecycleState, doing: bool, kind: Kind) -> usize {
    (state as usize * 2 + usize::from(doing)) * 15 + kind as usize
}

/// Whether a combination can be met at all. It is an error to meet any other, and an error to meet
/// this one too rarely.
fn reachable(state: LifecycleState, doing: bool, kind: Kind, condition: usize) -> bool {
    let mode = Mode::ALL.get(condition).copied();
    let weather = condition
        .checked_sub(Mode::ALL.len())
        .map(|at| WEATHERS[at]);
    let served = matches!(state, LifecycleState::Fresh | LifecycleState::Stale);
    // A result counts for the mode in which the issuer was when it was asked.
    let answers: &[Mode] = match kind {
        Kind::New | Kind::Dead => &[
            Mode::Healthy,
            Mode::Slow,
            Mode::Limiting,
            Mode::Repeating,
            Mode::Odd,
            Mode::Revoking,
        ],
        Kind::Repeated => &[Mode::Repeating],
        Kind::Unlimited => &[Mode::Repeating, Mode::Odd],
        Kind::Transient => &[
            Mode::Down,
            Mode::Slow,
            Mode::Limiting,
            Mode::Repeating,
            Mode::Refusing,
        ],
        Kind::RetryAfter => &[Mode::Limiting, Mode::Repeating],
        Kind::Permanent => &[
            Mode::Slow,
            Mode::Limiting,
            Mode::Repeating,
            Mode::Odd,
            Mode::Refusing,
            Mode::Revoking,
        ],
        _ => &Mode::ALL,
    };
    let result = answers.len() < Mode::ALL.len();
    // Nothing sleeps while an attempt is in flight. Without an attempt no result is accepted.
    if state == LifecycleState::Asleep && doing || result && !doing {
        return false;
    }
    // Nothing is read where nothing is served, nor while the credential is doubted.
    if kind == Kind::Read && (!served || weather == Some(Weather::Doubt)) {
        return false;
    }
    // A token that can be repeated is alive. It goes unserved in these states only if it is
    // doubted.
    if kind == Kind::Repeated
        && matches!(
            state,
            LifecycleState::Fetching | LifecycleState::Backoff | LifecycleState::Rejected
        )
        && matches!(weather, Some(Weather::Steady | Weather::Late))
    {
        return false;
    }
    mode.is_none_or(|mode| answers.contains(&mode))
}
