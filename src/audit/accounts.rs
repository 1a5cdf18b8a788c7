//! Remembers what each principal has been given lately, on all its connections together, and
//! decides which grants get a record of their own. So a client that opens a connection for each
//! call does not cause a record for each call.
//!
//! It is asked when a connection is given a credential for the first time. The connection's ledger
//! counts later grants of the same credential.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{GrantedCredential, LedgerEntry, LedgerKey};
use super::{Limited, PrincipalUid, principal};
use crate::caller::Peer;
use crate::core::time::BootTime;

/// Limits on records of one's own apply to one interval of this length. A credential that is not
/// given again within an interval is forgotten.
const INTERVAL: Duration = Duration::from_secs(10);

/// In one [`INTERVAL`], this many connections of one principal get a record of their own for the
/// same credential. So workers that keep their connections, and several processes of one user, can
/// be told apart. Grants to further connections are counted together.
const FEW: u32 = 8;

/// In one [`INTERVAL`], one principal gets this many such records for all credentials together,
/// beyond the first of each.
const PER_PRINCIPAL: u32 = 256;

/// This many credentials of one principal are counted separately, at a few hundred bytes each.
/// Further ones are counted by profile, so that the profile is never lost.
const LINES_PER_PRINCIPAL: usize = 512;

/// This many credentials of all principals are remembered, which takes about ten megabytes. Further
/// ones are not remembered, so each connection gets a record for them.
const LINES_IN_ALL: usize = 16_384;

/// The audit accounts of all principals.
pub struct AuditAccounts {
    /// The beginning of the [`INTERVAL`].
    began: BootTime,
    lines: usize,
    of: HashMap<PrincipalUid, AuditAccount>,
    limited: Limited,
}

#[derive(Default)]
struct AuditAccount {
    lines: HashMap<LedgerKey, AuditEntry>,
    /// Separate records since the [`INTERVAL`] began, without the first of each credential.
    own: u32,
}

struct AuditEntry {
    line: Arc<LedgerEntry>,
    own: u32,
    /// Whether a connection was given the credential since the [`INTERVAL`] began.
    used: bool,
}

impl AuditAccounts {
    pub fn new() -> AuditAccounts {
        AuditAccounts {
            began: BootTime(Duration::ZERO),
            lines: 0,
            of: HashMap::new(),
            limited: Limited::default(),
        }
    }

    /// The entry that counts what this connection is given for the first time, and whether the
    /// grant gets a record of its own before.
    pub fn enter(
        &mut self,
        peer: &Arc<Peer>,
        given: &GrantedCredential<'_>,
        now: BootTime,
    ) -> (Arc<LedgerEntry>, bool) {
        self.turn(now);
        let principal = principal(peer);
        let mut key = LedgerKey::of(peer, given);
        let account = self.of.get(&principal);
        let has = |key: &LedgerKey| account.is_some_and(|account| account.lines.contains_key(key));
        let many = account.is_some_and(|account| account.lines.len() >= LINES_PER_PRINCIPAL);
        if many && !has(&key) {
            key = LedgerKey::of_profile(principal, given);
        }
        let new = !has(&key);
        if new && self.lines >= LINES_IN_ALL {
            let key = LedgerKey::of(peer, given);
            return (Arc::new(LedgerEntry::new(key, peer.clone(), given)), true);
        }
        self.lines += usize::from(new);
        let account = self.of.entry(principal).or_default();
        let entry = account
            .lines
            .entry(key)
            .or_insert_with_key(|key| AuditEntry {
                line: Arc::new(LedgerEntry::new(key.clone(), peer.clone(), given)),
                own: 0,
                used: true,
            });
        entry.used = true;
        entry.line.share(peer);
        // A grant must not be promised to be counted with a credential whose own first record is
        // still missing.
        let first = !entry.line.is_settled();
        let own = first || (entry.own < FEW && account.own < PER_PRINCIPAL);
        if own {
            entry.own += 1;
            account.own += u32::from(!first);
        } else {
            self.limited.happened(principal);
        }
        (entry.line.clone(), own)
    }

    /// Begins another [`INTERVAL`] when it is time. Forgets what was not given in the last one and
    /// is in no connection's ledger.
    pub fn turn(&mut self, now: BootTime) {
        if now.since(self.began) < INTERVAL {
            return;
        }
        self.began = now;
        for account in self.of.values_mut() {
            account.own = 0;
            account.lines.retain(|_, entry| {
                let stays = entry.used || Arc::strong_count(&entry.line) > 1;
                (entry.used, entry.own) = (false, 0);
                stays
            });
        }
        self.of.retain(|_, account| !account.lines.is_empty());
        self.lines = self.of.values().map(|account| account.lines.len()).sum();
    }

    #[cfg(test)]
    pub fn remembered(&self) -> usize {
        self.lines
    }

    /// Connections whose first grant was counted without a record of its own.
    pub fn limited(&self) -> Limited {
        self.limited
    }
}
