//! What one connection has been given: what is the same again is counted, and nothing else happens.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::record::{Action, Draft, Event};
use super::{Audit, OWED, lock};
use crate::caller::Peer;
use crate::core::credential::{Credential, Fingerprint, Variant};
use crate::core::policy::Decision;
use crate::core::profile::ProfileName;
use crate::core::time::WallTime;

/// Different credentials that are remembered of one connection. With more in use, each is recorded at each renewal of the
/// ledger, which is too much and never too little.
const LINES: usize = 16_384;

/// A credential as it is handed out.
#[derive(Clone, Copy, Debug)]
pub struct Given<'a> {
    /// Of this profile.
    pub profile: &'a ProfileName,
    /// As which of its credentials it was asked for.
    pub variant: &'a Variant,
    /// The credential.
    pub credential: &'a Credential,
    /// What permits it.
    pub decision: Decision,
    /// How it was asked for.
    pub action: Action,
}

/// What one connection has been given.
#[derive(Debug, Default)]
pub struct Ledger {
    /// By profile and variant; as a rule there is one.
    lines: Mutex<Vec<Arc<Line>>>,
}

/// One credential, given to one connection.
#[derive(Debug)]
pub(super) struct Line {
    peer: Arc<Peer>,
    profile: ProfileName,
    variant: Variant,
    scopes: Vec<String>,
    fingerprint: Fingerprint,
    generation: u64,
    decision: Decision,
    action: Action,
    /// How often it was given and that was not written.
    count: AtomicU64,
    /// Since when, in milliseconds since 1970.
    since: AtomicU64,
}

impl Ledger {
    /// Counts it, if it was given before.
    pub(super) fn count(&self, given: &Given<'_>, audit: &Audit) -> bool {
        let lines = lock(&self.lines);
        let Ok(at) = lines.binary_search_by(|line| line.order(given.profile, given.variant)) else {
            return false;
        };
        let line = &lines[at];
        let is_it =
            line.fingerprint == given.credential.fingerprint && line.decision == given.decision;
        if is_it {
            line.count(audit);
        }
        is_it
    }

    /// Notes that it was given for the first time, in place of the credential before it.
    pub(super) fn enter(&self, line: Arc<Line>) {
        let mut lines = lock(&self.lines);
        if lines.len() >= LINES {
            lines.clear();
        }
        match lines.binary_search_by(|other| other.order(&line.profile, &line.variant)) {
            Ok(at) => lines[at] = line,
            Err(at) => lines.insert(at, line),
        }
    }
}

impl Line {
    pub(super) fn new(peer: Arc<Peer>, given: &Given<'_>) -> Line {
        Line {
            peer,
            profile: given.profile.clone(),
            variant: given.variant.clone(),
            scopes: given.credential.scopes.clone(),
            fingerprint: given.credential.fingerprint,
            generation: given.credential.generation,
            decision: given.decision,
            action: given.action,
            count: AtomicU64::new(0),
            since: AtomicU64::new(0),
        }
    }

    fn order(&self, profile: &ProfileName, variant: &Variant) -> Order {
        self.profile
            .cmp(profile)
            .then_with(|| self.variant.cmp(variant))
    }

    /// Once more. What has been counted is in the list of what is to be written, once.
    pub(super) fn count(self: &Arc<Self>, audit: &Audit) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let now = u64::try_from(audit.now().0.as_millis()).unwrap_or(u64::MAX);
            self.since.store(now, Ordering::Relaxed);
            self.clone().owe(audit, 0);
        }
    }

    /// It is to be written, so often more than is counted. While nothing can be written, only so much is remembered.
    pub(super) fn owe(self: Arc<Self>, audit: &Audit, count: u64) {
        let before = self.count.fetch_add(count, Ordering::Relaxed);
        if count > 0 && before > 0 {
            // Given again meanwhile, so it is in the list.
            return;
        }
        let mut counted = lock(&audit.counted);
        if counted.len() >= OWED && audit.condition.fails() {
            drop(counted);
            audit.condition.overflowed(self.take());
        } else {
            counted.push(self);
        }
    }

    /// How often it was given. From here on counting begins anew.
    pub(super) fn take(&self) -> u64 {
        self.count.swap(0, Ordering::Relaxed)
    }

    pub(super) fn draft(&self, at: WallTime, count: u64) -> Draft {
        let since = self.since.load(Ordering::Relaxed);
        Draft {
            at,
            since: (since > 0).then(|| WallTime(Duration::from_millis(since))),
            event: Event::Grant,
            action: self.action,
            peer: self.peer.clone(),
            profile: self.profile.to_string(),
            scopes: self.scopes.clone(),
            audience: self.variant.audience.clone(),
            decision: self.decision,
            credential: Some((self.fingerprint, self.generation)),
            count,
        }
    }
}
