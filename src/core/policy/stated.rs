//! What the files say about a profile's access. It holds wherever it permits less than the rules in
//! force: an operator who takes a caller out of `access` means it, whatever else is wrong in the
//! same edit.

use serde::{Deserialize, Serialize};

use crate::core::profile::AccessRule;

/// What a file says about a profile's `access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stated {
    /// These rules. No rules: the default, root and the daemon's own user.
    Rules(Vec<AccessRule>),
    /// `access` cannot be read, or the profile is no longer there. Only root may use it.
    RootOnly,
}

/// The newest statements of the files about one profile's access. Empty: no file has been read so
/// far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk(Vec<Stated>);

impl OnDisk {
    /// Takes in the result of reading the files. Empty: what could be read says nothing about this
    /// profile, so the earlier statements still hold. Several: the profile is there several times,
    /// and each statement holds.
    pub fn note(&mut self, stated: &[Stated]) {
        if !stated.is_empty() {
            self.0 = stated.to_vec();
        }
    }

    /// The statements that have to permit besides the rules in force.
    pub fn beyond<'a>(&'a self, in_force: &'a [AccessRule]) -> impl Iterator<Item = &'a Stated> {
        self.0
            .iter()
            .filter(move |stated| !matches!(stated, Stated::Rules(rules) if rules == in_force))
    }
}
