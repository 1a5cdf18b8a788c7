//! Profiles whose callers are refused for want of a credential: an error when it begins, a reminder
//! while it lasts, and how long it was when it is over.

use std::collections::HashMap;
use std::time::Duration;

use tracing::{error, info, warn};

use super::ProfileId;
use crate::core::lifecycle::{Lifecycle, LifecycleState, Trouble};
use crate::core::profile::ProfileName;
use crate::core::time::{BootTime, Stamp};

/// Between two reminders: often enough for whoever looks at the end of the log, and few lines for
/// an outage of a night.
pub const REMINDER: Duration = Duration::from_secs(5 * 60);

/// By profile, since a repaired one gets another handle, and that ends the outage of the one
/// before.
#[derive(Default)]
pub struct Outages {
    in_force: HashMap<ProfileName, ProfileId>,
    lasting: HashMap<ProfileName, Outage>,
    /// Lines about beginnings and ends so far.
    pub told: u64,
}

struct Outage {
    since: Stamp,
    trouble: Trouble,
    told_at: BootTime,
}

impl Outages {
    /// From now on this handle decides what callers get; one that is merely tried refuses nobody.
    pub fn in_force(&mut self, profile: &ProfileName, handle: ProfileId) {
        self.in_force.insert(profile.clone(), handle);
    }

    /// The handle is gone.
    pub fn forget(&mut self, profile: &ProfileName, handle: ProfileId) {
        if self.in_force.get(profile) == Some(&handle) {
            self.in_force.remove(profile);
            self.lasting.remove(profile);
        }
    }

    /// Says what is new of a profile.
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
            // Nobody has asked for long: nobody is refused.
            (LifecycleState::Asleep, _) => drop(self.lasting.remove(profile)),
            // What comes decides.
            (LifecycleState::Fetching | LifecycleState::Backoff | LifecycleState::Rejected, _) => {}
        }
    }

    /// Says again what has lasted for long.
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
    /// For people.
    fn lasted(&self, now: Stamp) -> String {
        let seconds = Duration::from_secs(now.boot.since(self.since.boot).as_secs());
        humantime::format_duration(seconds).to_string()
    }
}
