//! What became of a change to the configuration or to the files of a profile: kept, so that it can
//! be asked and need not be looked for in a log (trap 35).

use std::sync::Arc;

use tokio::sync::watch;

use crate::core::profile::ProfileName;
use crate::core::time::WallTime;

/// What a reload did to one profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// It is served as before, and nobody was asked.
    Unchanged,
    /// It is new.
    Added,
    /// New material or another definition is in force.
    Changed,
    /// It is gone.
    Removed,
    /// New material or another definition is being tried; what was there is served until it has
    /// delivered.
    Staged,
    /// The identity provider rejects what is new; what was there is served, and the new is tried
    /// again now and then.
    Rejected,
    /// What is in its files cannot be used; what was there is served.
    Kept,
    /// It cannot be used and never could.
    Invalid,
}

impl ReloadOutcome {
    /// As in answers.
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

    /// Whether the files say what is served.
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

/// Where a profile stands between its files and what is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// `Added` or `Changed` for what is in force.
    pub outcome: ReloadOutcome,
    /// Why the files are not in force; empty otherwise.
    pub why: String,
    /// Since when it stands there.
    pub since: WallTime,
    /// What was in force before has ended, so that nothing is kept.
    pub nothing_left: bool,
}

impl Reloaded {
    /// For people; only where something is not in force.
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

/// What became of one reload.
#[derive(Clone, Debug)]
pub struct ReloadReport {
    /// Of the configuration that is in force after it.
    pub generation: u64,
    /// Why `tokend.toml` was not taken over; then its predecessor is in force.
    pub refused: Vec<String>,
    /// Every profile, by name; `Unchanged` where this reload changed nothing.
    pub profiles: Vec<(ProfileName, Reloaded)>,
    /// False while something is being tried for the first time.
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

/// Somebody wants everything read again, and to know what becomes of it: each report replaces the
/// one before, and the first that is settled is the last.
#[derive(Debug)]
pub struct Order(pub watch::Sender<Option<Arc<ReloadReport>>>);

impl Order {
    /// The order, and where its reports arrive.
    #[must_use]
    pub fn new() -> (Order, watch::Receiver<Option<Arc<ReloadReport>>>) {
        let (sender, reports) = watch::channel(None);
        (Order(sender), reports)
    }
}
