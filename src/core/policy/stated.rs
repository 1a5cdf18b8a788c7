//! What the files say of a profile's access, which holds wherever it permits less than what is in
//! force: somebody who takes a caller out of `access` means it, whatever else is wrong in the same
//! edit.

use serde::{Deserialize, Serialize};

use crate::core::profile::AccessRule;

/// What a file says of a profile's `access`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stated {
    /// These rules; none: the default, root and the daemon's own user.
    Rules(Vec<AccessRule>),
    /// It cannot be read, or the profile is no longer there: nobody but root.
    RootOnly,
}

/// The newest that is known of what the files say of one profile's access. Empty: nothing has been
/// read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnDisk(Vec<Stated>);

impl OnDisk {
    /// Takes note of a look at the files. Empty: they could not be read so far that they say
    /// anything of this profile, so what they said before goes on holding. More than one: the
    /// profile is there more than once, and each of them holds.
    pub fn note(&mut self, stated: &[Stated]) {
        if !stated.is_empty() {
            self.0 = stated.to_vec();
        }
    }

    /// What has to permit beside the rules that are in force.
    pub fn beyond<'a>(&'a self, in_force: &'a [AccessRule]) -> impl Iterator<Item = &'a Stated> {
        self.0
            .iter()
            .filter(move |stated| !matches!(stated, Stated::Rules(rules) if rules == in_force))
    }
}
