//! Counts denials since the last flush, and decides which of them get a record of their own.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use super::record::{self, Action, Draft, RecordedCaller};
use super::{FLUSH, Limited, PrincipalUid, principal};
use crate::caller::Peer;
use crate::core::policy::Decision;
use crate::core::time::{BootTime, Stamp, WallTime};

/// One principal may be denied under this many names per [`FLUSH`], each with a record of its own.
/// Further denials are counted together. This bounds the records that a caller can cause by asking
/// for everything.
const PER_PRINCIPAL: u32 = 256;

/// As many names as eight principals can fill. From then on, each principal has fewer names, so
/// that others who are denied something are still named.
const MANY: usize = 8 * PER_PRINCIPAL as usize;

/// The names of each principal when there are that many.
const FEW: u32 = 8;

/// The names of all principals together, about a megabyte. Denials beyond that are counted as one,
/// without a name.
const IN_ALL: usize = 4096;

/// Stands for all further names. No profile can have this name.
const OTHERS: &str = "(others)";

/// What denials that are counted together have in common. None: a caller beyond [`IN_ALL`].
type DenialKey = (Option<u32>, Action, String);

/// Denials since the last flush.
pub struct Denials {
    since: BootTime,
    /// The number of denials after the first one.
    names: HashMap<DenialKey, (RecordedCaller, u64)>,
    per_principal: HashMap<PrincipalUid, u32>,
    limited: Limited,
}

impl Denials {
    pub fn new() -> Denials {
        Denials {
            since: BootTime(Duration::ZERO),
            names: HashMap::new(),
            per_principal: HashMap::new(),
            limited: Limited::default(),
        }
    }

    /// Counts a denial. Returns the record to write at once if it is the first of its name.
    pub fn enter(
        &mut self,
        peer: &Arc<Peer>,
        action: Action,
        profile: &str,
        decision: Decision,
        now: WallTime,
    ) -> Option<Draft> {
        let (mut who, key) = self.place(peer, action, profile);
        let name = key.2.clone();
        match self.names.entry(key) {
            Slot::Occupied(mut known) => {
                known.get_mut().1 += 1;
                return None;
            }
            Slot::Vacant(new) => new.insert((who.clone(), 0)),
        };
        if name == OTHERS {
            // The record of the first one names its caller.
            who = RecordedCaller::Peer(peer.clone());
        }
        Some(Draft::denial(now, who, action, name, decision, 1))
    }

    /// The caller and the name under which a denial is counted.
    fn place(
        &mut self,
        peer: &Arc<Peer>,
        action: Action,
        profile: &str,
    ) -> (RecordedCaller, DenialKey) {
        let own = (Some(peer.caller.uid), action, record::shortened(profile));
        if self.names.contains_key(&own) {
            return (RecordedCaller::Peer(peer.clone()), own);
        }
        let principal = principal(peer);
        let full = self.names.len() >= IN_ALL;
        if !full {
            let most = match self.names.len() {
                few if few < MANY => PER_PRINCIPAL,
                _ => FEW,
            };
            let different = self.per_principal.entry(principal).or_default();
            if *different < most {
                *different += 1;
                return (RecordedCaller::Peer(peer.clone()), own);
            }
        }
        self.limited.happened(principal);
        let theirs = (Some(principal), action, OTHERS.to_owned());
        let uid = match full && !self.names.contains_key(&theirs) {
            true => None,
            false => Some(principal),
        };
        let who = RecordedCaller::Several {
            uid,
            gid: None,
            unit: None,
        };
        (who, (uid, action, OTHERS.to_owned()))
    }

    /// The counted denials, if it is time to write them.
    pub fn due(&mut self, now: Stamp) -> Vec<Draft> {
        if now.boot.since(self.since) < FLUSH {
            return Vec::new();
        }
        self.take(now)
    }

    pub fn take(&mut self, now: Stamp) -> Vec<Draft> {
        self.since = now.boot;
        self.per_principal = HashMap::new();
        std::mem::take(&mut self.names)
            .into_iter()
            .filter(|(_, (_, count))| *count > 0)
            .map(|((_, action, name), (who, count))| {
                Draft::denial(now.wall, who, action, name, Decision::Denied, count)
            })
            .collect()
    }

    /// Denials without a name of their own.
    pub fn limited(&self) -> Limited {
        self.limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Callers;
    use crate::core::policy::Caller;

    /// Denies `users` users `names` names each. Returns all records, first and counted.
    fn written(denials: &mut Denials, callers: &Callers, users: u32, names: u32) -> Vec<Draft> {
        let mut written = Vec::new();
        for uid in 0..users {
            let caller = Caller {
                uid,
                gid: uid,
                groups: Vec::new(),
                pid: None,
            };
            let peer = Arc::new(callers.known_by_ids(caller));
            for name in 0..names {
                let (action, name) = (Action::GetToken, format!("guess-{name}"));
                let now = WallTime(Duration::ZERO);
                written.extend(denials.enter(&peer, action, &name, Decision::Denied, now));
            }
        }
        let now = Stamp {
            boot: BootTime(Duration::from_secs(100)),
            wall: WallTime(Duration::from_secs(100)),
        };
        written.extend(denials.due(now));
        written
    }

    /// Broken by `place` without IN_ALL: a thousand users write a thousand times as many records as
    /// one.
    #[test]
    fn many_principals_write_no_more_records_of_denials_than_the_bound_of_all() {
        let (mut denials, callers) = (Denials::new(), Callers::default());
        let all = written(&mut denials, &callers, 1000, 300);
        let total: u64 = all.iter().map(|draft| draft.count).sum();
        assert_eq!(total, 300_000, "all are counted");
        // Each name has one record, and one more for what was counted under it.
        assert!(all.len() <= 2 * IN_ALL + 2, "{}", all.len());
        let limited = denials.limited();
        assert_eq!(limited.last, Some(999));
        assert!(limited.count > 290_000, "{limited:?}");
    }

    /// Broken by `place` without FEW: eight users who guess names take the names of all others.
    #[test]
    fn whoever_is_denied_little_is_named_while_others_guess() {
        let (mut denials, callers) = (Denials::new(), Callers::default());
        for uid in 0..1000 {
            let caller = Caller {
                uid,
                gid: uid,
                groups: Vec::new(),
                pid: None,
            };
            let peer = Arc::new(callers.known_by_ids(caller));
            let names = if uid < 20 { 1000 } else { 1 };
            for name in 0..names {
                let now = WallTime(Duration::ZERO);
                let name = format!("name-{name}");
                let first = denials.enter(&peer, Action::GetToken, &name, Decision::Denied, now);
                if uid >= 20 {
                    assert_eq!(first.expect("a record of its own").profile, name, "{uid}");
                }
            }
        }
    }
}
