//! The ledger of one connection: what it has been given. If it is given the same again, that is
//! only counted.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::record::{Action, AuditEvent, Draft, RecordedCaller};
use super::{Audit, OWED, PrincipalUid, lock};
use crate::caller::Peer;
use crate::core::credential::{Credential, Fingerprint, Variant};
use crate::core::policy::Decision;
use crate::core::profile::ProfileName;
use crate::core::time::WallTime;

/// This many different credentials of one connection are remembered. With more in use, each is
/// recorded at each renewal of the ledger: too often, but never too rarely.
const LINES: usize = 16_384;

/// A credential as it is handed out.
#[derive(Clone, Copy, Debug)]
pub struct GrantedCredential<'a> {
    pub profile: &'a ProfileName,
    /// The variant of the profile that was asked for.
    pub variant: &'a Variant,
    pub credential: &'a Credential,
    /// The rule that permits it.
    pub decision: Decision,
    /// The call that asked for it.
    pub action: Action,
}

/// What one connection has been given.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Ordered by profile, variant and call. Usually there is one.
    lines: Mutex<Vec<Arc<LedgerEntry>>>,
}

/// One credential that was given to one principal. Its grants on one or many connections are
/// counted together here.
#[derive(Debug)]
pub(super) struct LedgerEntry {
    key: LedgerKey,
    scopes: Vec<String>,
    generation: u64,
    /// The first connection, and whether it is not the only one.
    peer: Arc<Peer>,
    several: AtomicBool,
    /// Set when the first grant has its record, or is owed one.
    settled: AtomicBool,
    /// Grants that have not been written.
    count: AtomicU64,
    /// The time of the first of them, in milliseconds since 1970.
    since: AtomicU64,
}

/// What grants that are counted together have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct LedgerKey {
    uid: u32,
    /// None: any group.
    gid: Option<u32>,
    /// The unit, if it is known when the grant is about to be recorded. None: any unit.
    unit: Option<Arc<str>>,
    profile: ProfileName,
    variant: Variant,
    /// None: any credential of the profile.
    fingerprint: Option<Fingerprint>,
    decision: Decision,
    action: Action,
}

impl Ledger {
    /// Counts a grant if the credential was given before. Returns whether it was.
    pub(super) fn count(&self, given: &GrantedCredential<'_>, audit: &Audit) -> bool {
        let lines = lock(&self.lines);
        let Ok(at) = lines.binary_search_by(|line| line.key.order(given)) else {
            return false;
        };
        let line = &lines[at];
        let is_it = line.key.fingerprint == Some(given.credential.fingerprint)
            && line.key.decision == given.decision;
        if is_it {
            line.count(audit);
        }
        is_it
    }

    /// Notes that the credential was given for the first time, in place of the one before it. An
    /// entry for a whole profile is not noted, because each credential of the profile is a
    /// different one.
    pub(super) fn enter(&self, line: Arc<LedgerEntry>, given: &GrantedCredential<'_>) {
        if line.key.fingerprint.is_none() {
            return;
        }
        let mut lines = lock(&self.lines);
        if lines.len() >= LINES {
            lines.clear();
        }
        match lines.binary_search_by(|other| other.key.order(given)) {
            Ok(at) => lines[at] = line,
            Err(at) => lines.insert(at, line),
        }
    }
}

impl LedgerKey {
    pub(super) fn of(peer: &Peer, given: &GrantedCredential<'_>) -> LedgerKey {
        LedgerKey {
            uid: peer.caller.uid,
            gid: Some(peer.caller.gid),
            unit: peer.unit().name().map(Arc::from),
            profile: given.profile.clone(),
            variant: given.variant.clone(),
            fingerprint: Some(given.credential.fingerprint),
            decision: given.decision,
            action: given.action,
        }
    }

    /// The key for everything that the principal is given of the profile.
    pub(super) fn of_profile(principal: PrincipalUid, given: &GrantedCredential<'_>) -> LedgerKey {
        LedgerKey {
            uid: principal,
            gid: None,
            unit: None,
            profile: given.profile.clone(),
            variant: Variant::default(),
            fingerprint: None,
            decision: given.decision,
            action: given.action,
        }
    }

    /// Compares by the order of entries in a ledger.
    fn order(&self, given: &GrantedCredential<'_>) -> Order {
        self.profile
            .cmp(given.profile)
            .then_with(|| self.variant.cmp(given.variant))
            .then_with(|| self.action.cmp(&given.action))
    }
}

impl LedgerEntry {
    pub(super) fn new(
        key: LedgerKey,
        peer: Arc<Peer>,
        given: &GrantedCredential<'_>,
    ) -> LedgerEntry {
        let exact = key.fingerprint.is_some();
        let scopes: &[String] = match exact {
            true => &given.credential.scopes,
            false => &[],
        };
        LedgerEntry {
            scopes: scopes.to_vec(),
            generation: given.credential.generation,
            peer,
            several: AtomicBool::new(!exact),
            settled: AtomicBool::new(false),
            count: AtomicU64::new(0),
            since: AtomicU64::new(0),
            key,
        }
    }

    /// Notes that this connection is counted here too.
    pub(super) fn share(&self, peer: &Arc<Peer>) {
        if !Arc::ptr_eq(peer, &self.peer) {
            self.several.store(true, Ordering::Relaxed);
        }
    }

    /// Notes that the first grant has its record, or is owed one. From here on further grants may
    /// be counted.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Counts one more grant. An entry with a count is in the list of what has to be written, once.
    pub(super) fn count(self: &Arc<Self>, audit: &Audit) {
        if self.count.fetch_add(1, Ordering::Relaxed) == 0 {
            let now = u64::try_from(audit.now().0.as_millis()).unwrap_or(u64::MAX);
            self.since.store(now, Ordering::Relaxed);
            self.clone().owe(audit, 0);
        }
    }

    /// Adds to the count and puts the entry into the list of what has to be written. While nothing
    /// can be written, the list is bounded.
    pub(super) fn owe(self: Arc<Self>, audit: &Audit, count: u64) {
        let before = self.count.fetch_add(count, Ordering::Relaxed);
        if count > 0 && before > 0 {
            // The credential was given again meanwhile, so the entry is in the list.
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

    /// Returns the count and resets it.
    pub(super) fn take(&self) -> u64 {
        self.count.swap(0, Ordering::Relaxed)
    }

    /// The record of the counted grants.
    pub(super) fn draft(&self, at: WallTime, count: u64) -> Draft {
        let key = &self.key;
        let who = match self.several.load(Ordering::Relaxed) {
            false => RecordedCaller::Peer(self.peer.clone()),
            true => RecordedCaller::Several {
                uid: Some(key.uid),
                gid: key.gid,
                unit: key.unit.clone(),
            },
        };
        let since = self.since.load(Ordering::Relaxed);
        Draft {
            at,
            since: (since > 0).then(|| WallTime(Duration::from_millis(since))),
            event: AuditEvent::Grant,
            action: key.action,
            who,
            profile: key.profile.to_string(),
            scopes: self.scopes.clone(),
            audience: key.variant.audience.clone(),
            decision: key.decision,
            credential: key.fingerprint.map(|one| (one, self.generation)),
            count,
        }
    }
}

impl GrantedCredential<'_> {
    /// The record of this one grant.
    pub(super) fn draft(&self, at: WallTime, peer: &Arc<Peer>) -> Draft {
        Draft {
            at,
            since: None,
            event: AuditEvent::Grant,
            action: self.action,
            who: RecordedCaller::Peer(peer.clone()),
            profile: self.profile.to_string(),
            scopes: self.credential.scopes.clone(),
            audience: self.variant.audience.clone(),
            decision: self.decision,
            credential: Some((self.credential.fingerprint, self.credential.generation)),
            count: 1,
        }
    }
}
