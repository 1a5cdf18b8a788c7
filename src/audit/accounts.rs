//! What each principal has been given lately, on all its connections together, and which of it gets
//! a record of its own: so that a connection for each call does not write a record for each call.
//!
//! Looked at when a connection is given a credential for the first time; what follows of the same
//! is the connection's ledger's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::ledger::{GrantedCredential, LedgerEntry, LedgerKey};
use super::{Limited, PrincipalUid, principal};
use crate::caller::Peer;
use crate::core::time::BootTime;

/// How long a number of records of their own lasts, and what is not given again within that time is
/// forgotten.
const INTERVAL: Duration = Duration::from_secs(10);

/// Connections of one principal that have a record of their own in an [`INTERVAL`] for the same
/// credential. Workers that keep their connections, and several processes of one user, are told
/// apart; what is beyond is counted together.
const FEW: u32 = 8;

/// Such records of one principal in an [`INTERVAL`] for all credentials together, beyond the first
/// of each.
const PER_PRINCIPAL: u32 = 256;

/// Credentials of one principal that are counted each by itself, a few hundred bytes each. What is
/// beyond is counted by profile, so that which profile it was is never lost.
const LINES_PER_PRINCIPAL: usize = 512;

/// Credentials of all principals, about ten megabytes. What is beyond is not remembered, and so
/// recorded for each connection.
const LINES_IN_ALL: usize = 16_384;

/// Of all principals.
pub struct AuditAccounts {
    /// When the [`INTERVAL`] began.
    began: BootTime,
    lines: usize,
    of: HashMap<PrincipalUid, AuditAccount>,
    limited: Limited,
}

#[derive(Default)]
struct AuditAccount {
    lines: HashMap<LedgerKey, AuditEntry>,
    /// Records that were its own since the [`INTERVAL`] began, but for the first of each
    /// credential.
    own: u32,
}

struct AuditEntry {
    line: Arc<LedgerEntry>,
    own: u32,
    /// Whether it was given to a connection since the [`INTERVAL`] began.
    used: bool,
}

impl AuditAccounts {
    /// Nobody has been given anything.
    pub fn new() -> AuditAccounts {
        AuditAccounts {
            began: BootTime(Duration::ZERO),
            lines: 0,
            of: HashMap::new(),
            limited: Limited::default(),
        }
    }

    /// Where what is given to this connection for the first time is counted, and whether it gets a
    /// record of its own before.
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
        // Nobody is given anything on the word that it will be counted with what has no record yet
        // itself.
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

    /// Begins another [`INTERVAL`] when it is time: what was not given in the last one, and no
    /// connection has, is forgotten.
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
