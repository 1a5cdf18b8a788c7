//! Keeps the result of a change to the configuration or to a profile's files. So an operator can
//! ask for it and need not look for it in a log (trap 35).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::core::profile::ProfileName;
use crate::core::time::WallTime;

/// What a reload did to one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// The profile is served as before, and no identity provider was asked.
    Unchanged,
    /// The profile is new.
    Added,
    /// New material or another definition is in force.
    Changed,
    /// The profile is gone.
    Removed,
    /// New material or another definition is on trial. The earlier version is served until the new
    /// one has delivered.
    Staged,
    /// The identity provider rejects the new version. The earlier one is served, and the new one is
    /// tried again now and then.
    Rejected,
    /// The files cannot be used. The earlier version is served.
    Kept,
    /// The profile cannot be used and never could.
    Invalid,
}

impl ReloadOutcome {
    /// The word for this in answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ReloadOutcome::Unchanged => "unchanged",
            ReloadOutcome::Added => "added",
            ReloadOutcome::Changed => "changed",
            ReloadOutcome::Removed => "removed",
            ReloadOutcome::Staged => "staged",
            ReloadOutcome::Rejected => "rejected",
            ReloadOutcome::Kept => "kept",
            ReloadOutcome::Invalid => "invalid",
        }
    }

    /// Whether the profile is served as its files say.
    #[must_use]
    pub fn in_force(self) -> bool {
        match self {
            ReloadOutcome::Unchanged
            | ReloadOutcome::Added
            | ReloadOutcome::Changed
            | ReloadOutcome::Removed => true,
            ReloadOutcome::Staged
            | ReloadOutcome::Rejected
            | ReloadOutcome::Kept
            | ReloadOutcome::Invalid => false,
        }
    }
}

/// How a profile's files relate to what is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// `Added` or `Changed` if the files are in force.
    pub outcome: ReloadOutcome,
    /// Why the files are not in force; empty otherwise.
    pub why: String,
    /// The time since which this holds.
    pub since: WallTime,
    /// The version that was in force before has ended, so nothing is kept.
    pub nothing_left: bool,
}

impl Reloaded {
    /// The text for people. It makes sense only when the files are not in force.
    #[must_use]
    pub fn told(&self) -> String {
        let what = match self.outcome {
            _ if self.nothing_left => {
                "what is in its files now has taken over from what has ended, and has no credential yet"
            }
            ReloadOutcome::Staged | ReloadOutcome::Rejected => {
                "what is in its files now is not in force yet, its last good state is kept"
            }
            _ => "its last good state is kept",
        };
        format!("{what}: {}", self.why)
    }
}

/// The result of one reload.
#[derive(Clone, Debug)]
pub struct ReloadReport {
    /// The generation of the configuration that is in force after the reload.
    pub generation: u64,
    /// Why `tokend.toml` was not taken over. Empty: it was. Otherwise its predecessor is in force.
    pub refused: Vec<String>,
    /// Every profile, sorted by name; `Unchanged` if this reload changed nothing.
    pub profiles: Vec<(ProfileName, Reloaded)>,
    /// False while a first trial is under way.
    pub settled: bool,
}

impl ReloadReport {
    /// Whether everything is served as the files say.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.refused.is_empty()
            && self
                .profiles
                .iter()
                .all(|(_, reloaded)| reloaded.outcome.in_force())
    }
}

/// Counts the signs that files have changed, and those after which everything was read. So an
/// administrator who asks right after a change is told that it is not in force yet.
#[derive(Debug, Default)]
pub struct FileChanges {
    /// Counted by whoever watches the files.
    pub signs: Arc<AtomicU64>,
    taken_over: AtomicU64,
}

impl FileChanges {
    /// The number of signs so far.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.signs.load(Ordering::Relaxed)
    }

    /// Notes that what was to be read after so many signs is in force.
    pub fn taken_over(&self, signs: u64) {
        self.taken_over.store(signs, Ordering::Relaxed);
    }

    /// Whether there was a sign since the last reading.
    #[must_use]
    pub fn pending(&self) -> bool {
        self.seen() != self.taken_over.load(Ordering::Relaxed)
    }
}

/// An order to read everything again and to report the result. Each report replaces the one before,
/// and the first settled report is the last.
#[derive(Debug)]
pub struct Order(pub watch::Sender<Option<Arc<ReloadReport>>>);

impl Order {
    /// An order, and the receiver of its reports.
    #[must_use]
    pub fn new() -> (Order, watch::Receiver<Option<Arc<ReloadReport>>>) {
        let (sender, reports) = watch::channel(None);
        (Order(sender), reports)
    }
}
