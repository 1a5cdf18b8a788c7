//! What has been denied since the last flush, and what of it has a record of its own.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Duration;

use super::record::{self, Action, Draft, RecordedCaller};
use super::{FLUSH, Limited, PrincipalUid, principal};
use crate::caller::Peer;
use crate::core::policy::Decision;
use crate::core::time::{BootTime, Stamp, WallTime};

/// Names that one principal may be denied under in the time of one [`FLUSH`], each with a record of
/// its own; what is beyond is counted together. It bounds what somebody who asks for everything can
/// write.
const PER_PRINCIPAL: u32 = 256;

/// As much as eight principals can fill. Whoever else is denied something then has fewer names, and
/// is still named.
const MANY: usize = 8 * PER_PRINCIPAL as usize;

/// Names of each principal while there are so many.
const FEW: u32 = 8;

/// Of all principals together, about a megabyte. What is beyond is counted without a name, as one.
const IN_ALL: usize = 4096;

/// Stands for the names beyond. It is no name of a profile.
const OTHERS: &str = "(others)";

/// What is the same for all that are counted together. None: somebody beyond [`IN_ALL`].
type DenialKey = (Option<u32>, Action, String);

/// Denials since the last flush.
pub struct Denials {
    since: BootTime,
    /// How often since then beyond the first time.
    names: HashMap<DenialKey, (RecordedCaller, u64)>,
    per_principal: HashMap<PrincipalUid, u32>,
    limited: Limited,
}

impl Denials {
    /// None yet.
    pub fn new() -> Denials {
        Denials {
            since: BootTime(Duration::ZERO),
            names: HashMap::new(),
            per_principal: HashMap::new(),
            limited: Limited::default(),
        }
    }

    /// Counts it. What of it is to be written at once: it is the first of its name.
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
            // The first of them is somebody.
            who = RecordedCaller::Peer(peer.clone());
        }
        Some(Draft::denial(now, who, action, name, decision, 1))
    }

    /// Under whose and what name it is counted.
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

    /// What has been counted, if it is time for that.
    pub fn due(&mut self, now: Stamp) -> Vec<Draft> {
        if now.boot.since(self.since) < FLUSH {
            return Vec::new();
        }
        self.take(now)
    }

    /// What has been counted.
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

    /// What is written of so many denials of each of these users, first and counted.
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

    /// Broken by `place` without IN_ALL: a thousand users write a thousand times as much as one.
    #[test]
    fn many_principals_write_no_more_records_of_denials_than_the_bound_of_all() {
        let (mut denials, callers) = (Denials::new(), Callers::new());
        let all = written(&mut denials, &callers, 1000, 300);
        let total: u64 = all.iter().map(|draft| draft.count).sum();
        assert_eq!(total, 300_000, "all are counted");
        // Each name once, and once more for what was counted under it.
        assert!(all.len() <= 2 * IN_ALL + 2, "{}", all.len());
        let limited = denials.limited();
        assert_eq!(limited.last, Some(999));
        assert!(limited.count > 290_000, "{limited:?}");
    }

    /// Broken by `place` without FEW: eight who guess take the names of everybody else.
    #[test]
    fn whoever_is_denied_little_is_named_while_others_guess() {
        let (mut denials, callers) = (Denials::new(), Callers::new());
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
