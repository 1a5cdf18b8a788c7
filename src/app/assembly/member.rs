//! A profile that is served: what is in force, and what may follow it.

use std::path::Path;
use std::sync::Arc;

use super::trial::Trial;
use crate::broker::ProfileHandle;
use crate::core::certificate::Certificate;
use crate::core::diagnostic::Diagnostic;
use crate::core::failure::FailureKind;
use crate::core::policy::stated::{OnDisk, Stated};
use crate::core::profile::Profile;
use crate::core::time::WallTime;
use crate::material::Digest;
use crate::registry::ProfileLocation;
use crate::registry::reload::{ReloadOutcome, Reloaded};

/// A profile that is served.
pub struct Member {
    /// Where it is defined.
    pub file: Option<Arc<Path>>,
    /// What is in force.
    pub live: Version,
    /// What is in the files now, until it has delivered its first credential. None: that is what is
    /// in force, or it cannot be used.
    pub staged: Option<Staged>,
    /// The trial of what is in force, where it has taken over from what had ended and had not
    /// delivered then.
    pub unproven: Option<Trial>,
    /// Why what is in the files now cannot be used.
    pub kept: Option<String>,
    /// What the files say of its access, be that in force or not.
    pub on_disk: OnDisk,
    /// Since when that permits other callers than what is in force.
    pub access_differs_since: Option<WallTime>,
    /// Since when the files say something else than what is served.
    pub differs_since: Option<WallTime>,
}

/// A definition with its material, and the handle that both have been given.
pub struct Version {
    pub profile: Arc<Profile>,
    pub digest: Digest,
    pub handle: Arc<ProfileHandle>,
    /// What its files gave reason to say.
    pub warnings: Vec<Diagnostic>,
    /// The own certificates among its files.
    pub certificates: Vec<Certificate>,
    pub in_force: InForce,
}

/// How and when a version came into force, or was staged.
#[derive(Clone, Copy)]
pub struct InForce {
    pub outcome: ReloadOutcome,
    pub since: WallTime,
    /// Which look at the files it was.
    pub look: u64,
}

/// A version that is being tried.
pub struct Staged {
    pub version: Version,
    pub trial: Trial,
}

impl Member {
    /// One that is new.
    pub fn new(live: Version) -> Member {
        Member {
            file: None,
            live,
            staged: None,
            unproven: None,
            kept: None,
            on_disk: OnDisk::default(),
            access_differs_since: None,
            differs_since: None,
        }
    }

    /// Takes note of what the files say of its access. To be done last: what is in force counts.
    pub fn note_access(&mut self, stated: &[Stated], now: WallTime) {
        self.on_disk.note(stated);
        let differs = self
            .on_disk
            .beyond(&self.live.profile.access)
            .next()
            .is_some();
        let since = self.access_differs_since.unwrap_or(now);
        self.access_differs_since = differs.then_some(since);
    }

    /// The certificates that are in use, and those that are on disk; the same where nothing else is
    /// there. Of files that cannot be used nobody knows.
    pub fn certificates(&self) -> Vec<(ProfileLocation, Certificate)> {
        let on_disk = match (&self.staged, &self.kept) {
            (Some(staged), _) => staged.version.certificates.as_slice(),
            (None, None) => self.live.certificates.as_slice(),
            (None, Some(_)) => &[],
        };
        let in_use = self.live.certificates.iter();
        in_use
            .map(|one| (ProfileLocation::InUse, one.clone()))
            .chain(
                on_disk
                    .iter()
                    .map(|one| (ProfileLocation::OnDisk, one.clone())),
            )
            .collect()
    }

    /// Whether nothing is being tried for the first time, nor has delivered and is about to be
    /// promoted.
    pub fn is_settled(&self) -> bool {
        let unproven = self.unproven.as_ref().filter(|_| self.is_unproven());
        unproven.is_none_or(Trial::was_tried)
            && self.staged.as_ref().is_none_or(|staged| {
                staged.trial.was_tried() && staged.version.handle.own().view().answer.is_none()
            })
    }

    fn is_unproven(&self) -> bool {
        self.unproven.is_some() && self.live.handle.own().view().answer.is_none()
    }

    /// Where it stands between its files and what is served.
    pub fn reloaded(&self) -> Reloaded {
        let in_force = self.live.in_force;
        let since = match self.differs_since {
            Some(since) if self.kept.is_some() || self.staged.is_some() || self.is_unproven() => {
                since
            }
            _ => in_force.since,
        };
        let (outcome, why) = match (&self.kept, &self.staged) {
            (Some(why), _) => (ReloadOutcome::Kept, why.clone()),
            (None, Some(staged)) => tried(&staged.version.handle),
            (None, None) if self.is_unproven() => tried(&self.live.handle),
            (None, None) => (in_force.outcome, String::new()),
        };
        Reloaded {
            outcome,
            why,
            since,
            nothing_left: self.is_unproven(),
        }
    }
}

/// How far a version has come that has not delivered.
fn tried(handle: &ProfileHandle) -> (ReloadOutcome, String) {
    let view = handle.own().view();
    match &view.trouble {
        None => (
            ReloadOutcome::Staged,
            "its first credential has not come yet".to_owned(),
        ),
        Some(trouble) => (
            match trouble.failure.kind {
                FailureKind::Permanent => ReloadOutcome::Rejected,
                FailureKind::Transient => ReloadOutcome::Staged,
            },
            trouble.failure.message.clone(),
        ),
    }
}
