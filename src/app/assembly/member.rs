//! A profile that is served: the version in force, and the one that may follow it.

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

pub struct Member {
    /// The file that defines the profile.
    pub file: Option<Arc<Path>>,
    /// The version in force.
    pub live: Version,
    /// The version in the files, until it has delivered its first credential. None: that version is
    /// in force already, or it cannot be used.
    pub staged: Option<Staged>,
    /// The trial of the version in force, if that version replaced one that had ended before the
    /// trial delivered.
    pub unproven: Option<Trial>,
    /// The reason why the version in the files cannot be used.
    pub kept: Option<String>,
    /// What the files say about the profile's access, whether in force or not.
    pub on_disk: OnDisk,
    /// Since when the files permit other callers than the version in force does.
    pub access_differs_since: Option<WallTime>,
    /// Since when the files differ from what is served.
    pub differs_since: Option<WallTime>,
}

/// A definition with its material, and their handle.
pub struct Version {
    pub profile: Arc<Profile>,
    pub digest: Digest,
    pub handle: Arc<ProfileHandle>,
    /// The warnings about its files.
    pub warnings: Vec<Diagnostic>,
    /// The profile's own certificates among its files.
    pub certificates: Vec<Certificate>,
    pub in_force: InForce,
}

/// How and when a version came into force, or was staged.
#[derive(Clone, Copy)]
pub struct InForce {
    pub outcome: ReloadOutcome,
    pub since: WallTime,
    /// The number of the look at the files that brought it.
    pub look: u64,
}

pub struct Staged {
    pub version: Version,
    pub trial: Trial,
}

impl Member {
    /// Makes a member from its first version.
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

    /// Records what the files say about access. This must come last, since it compares with the
    /// version in force.
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

    /// The certificates in use and those on disk. Both are the same if nothing else is on disk. The
    /// certificates in files that cannot be used are unknown.
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

    /// False while a version makes its first attempt, or has delivered and waits for promotion.
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

    /// How the profile's files relate to what is served.
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

/// The progress of a version that has not delivered.
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
