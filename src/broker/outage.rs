//! Outages: profiles whose callers are refused because there is no credential. The log gets an
//! error when an outage begins, a reminder while it lasts, and its length when it is over.

use std::collections::HashMap;
use std::time::Duration;

use tracing::{error, info, warn};

use super::ProfileId;
use crate::core::lifecycle::{Lifecycle, LifecycleState, Trouble};
use crate::core::profile::ProfileName;
use crate::core::time::{BootTime, Stamp, in_seconds};

/// The time between two reminders. An operator who looks at the end of the log sees one, and an
/// outage of a night makes few lines.
pub const REMINDER: Duration = Duration::from_secs(5 * 60);

/// Outages are kept by profile, because a repaired profile gets another handle, and that ends the
/// outage of the handle before.
#[derive(Default)]
pub struct Outages {
    in_force: HashMap<ProfileName, ProfileId>,
    lasting: HashMap<ProfileName, Outage>,
    /// The number of lines about beginnings and ends so far.
    pub told: u64,
}

struct Outage {
    since: Stamp,
    trouble: Trouble,
    told_at: BootTime,
}

impl Outages {
    /// From now on this handle decides what callers get. A handle that is merely tried refuses
    /// nobody.
    pub fn in_force(&mut self, profile: &ProfileName, handle: ProfileId) {
        self.in_force.insert(profile.clone(), handle);
    }

    /// Forgets a handle that is gone.
    pub fn forget(&mut self, profile: &ProfileName, handle: ProfileId) {
        if self.in_force.get(profile) == Some(&handle) {
            self.in_force.remove(profile);
            self.lasting.remove(profile);
        }
    }

    /// Logs what has changed for a profile.
    pub fn look(&mut self, profile: &ProfileName, handle: ProfileId, life: &Lifecycle, now: Stamp) {
        if self.in_force.get(profile) != Some(&handle) {
            return;
        }
        match (life.state(now), life.trouble()) {
            (LifecycleState::Backoff | LifecycleState::Rejected, Some(trouble)) => {
                if let Some(outage) = self.lasting.get_mut(profile) {
                    if outage.trouble.failures != trouble.failures {
                        outage.trouble = trouble.clone();
                    }
                    return;
                }
                self.told += 1;
                let (failure, had_one) = (&trouble.failure, life.held().is_some());
                error!(
                    %profile,
                    error = failure.message,
                    oauth_error = failure.oauth_error,
                    kind = ?failure.kind,
                    failures = trouble.failures,
                    failing_since = %trouble.since.wall,
                    "cannot get a credential, and {}: all callers of this profile are refused from now on",
                    match had_one {
                        true => "the last one has ended",
                        false => "there has been none yet",
                    }
                );
                let outage = Outage {
                    since: now,
                    trouble: trouble.clone(),
                    told_at: now.boot,
                };
                self.lasting.insert(profile.clone(), outage);
            }
            (LifecycleState::Fresh | LifecycleState::Stale, _) => {
                if let Some(outage) = self.lasting.remove(profile) {
                    self.told += 1;
                    info!(
                        %profile,
                        outage = outage.lasted(now),
                        since = %outage.since.wall,
                        failures = outage.trouble.failures,
                        "credential obtained again: callers are served"
                    );
                }
            }
            // No caller has asked for long, so no caller is refused.
            (LifecycleState::Asleep, _) => drop(self.lasting.remove(profile)),
            // The next result decides.
            (LifecycleState::Fetching | LifecycleState::Backoff | LifecycleState::Rejected, _) => {}
        }
    }

    /// Logs again the outages that have lasted for long.
    pub fn remind(&mut self, now: Stamp) {
        for (profile, outage) in &mut self.lasting {
            if now.boot.since(outage.told_at) < REMINDER {
                continue;
            }
            outage.told_at = now.boot;
            let failure = &outage.trouble.failure;
            warn!(
                %profile,
                error = failure.message,
                oauth_error = failure.oauth_error,
                outage = outage.lasted(now),
                since = %outage.since.wall,
                failures = outage.trouble.failures,
                "still no credential: all callers of this profile are refused"
            );
        }
    }
}

impl Outage {
    /// The length of the outage, for people.
    fn lasted(&self, now: Stamp) -> String {
        in_seconds(now.boot.since(self.since.boot))
    }
}
