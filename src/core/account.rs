//! Accounts: how much each principal holds and spends of the resources that all share.
//!
//! A principal is a user, or a systemd unit of a user where the unit is known. What a unit takes is
//! charged to the unit and to its user, and each has a limit. So one service cannot take all that
//! its user may have, and one user cannot take all there is. A refusal changes nothing.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::bucket::{SpentLimit, TokenBucket};
use super::time::BootTime;

/// A unit may take three quarters of its user's limit. The rest is for the user's other units.
const UNIT_SHARE: (u64, u64) = (3, 4);

/// The last eighth of each total is for principals with a reserved place.
const RESERVED_SHARE: u64 = 8;

/// Beyond this many users, or units of one user, accounts that hold nothing and owe nothing are
/// forgotten. A further unit is charged to its user's account alone.
const REMEMBERED: usize = 1024;
const UNITS_OF_A_USER: usize = 256;

/// The owner of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The user. For a subordinate uid: its owner.
    pub uid: u32,
    /// The systemd unit, where it is known.
    pub unit: Option<Arc<str>>,
    /// Whether the principal has a reserved place: root, the daemon's user, and callers that an
    /// access rule names. They may take the last part of each total.
    pub reserved: bool,
}

/// A resource that is held until it is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    Connections,
    /// Streams that stay open: WatchToken, Health.Watch, reflection.
    Streams,
    /// Calls that wait for a credential.
    Waiting,
    /// Memory of calls that are not whole, and of long answers that are not read yet, in bytes.
    Bytes,
}

/// A resource that is spent and comes back with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Spent {
    /// Calls that are not answered from memory.
    Requests,
    /// Profiles that lists, readiness, status and metrics look at.
    Profiles,
    /// Renewals that `min_ttl` or a report of rejection forced.
    Renewals,
}

const HELD: [Resource; 4] = [
    Resource::Connections,
    Resource::Streams,
    Resource::Waiting,
    Resource::Bytes,
];
const SPENT: [Spent; 3] = [Spent::Requests, Spent::Profiles, Spent::Renewals];

/// How much may be held at the same time.
#[derive(Clone, Copy, Debug)]
pub struct HeldLimit {
    /// The limit for everybody together.
    pub in_all: u64,
    /// The limit for one user.
    pub per_user: u64,
}

/// The limits of every account.
#[derive(Clone, Copy, Debug)]
pub struct AccountLimits {
    /// In the order of [`Resource`].
    pub held: [HeldLimit; HELD.len()],
    /// In the order of [`Spent`].
    pub spent: [SpentLimit; SPENT.len()],
}

/// The limit that has been reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitOwner {
    /// The limit for everybody, less the reserved part.
    InAll(u64),
    /// The user's limit.
    User(u64),
    /// The unit's share of its user's limit.
    Unit(u64),
}

/// All accounts.
#[derive(Debug)]
pub struct AccountBook {
    limits: AccountLimits,
    in_all: [u64; HELD.len()],
    refused_in_all: [u64; HELD.len()],
    refused_held: [u64; HELD.len()],
    refused_spent: [u64; SPENT.len()],
    users: HashMap<u32, User>,
}

#[derive(Debug)]
struct User {
    own: Account,
    units: HashMap<Arc<str>, Account>,
}

#[derive(Debug)]
struct Account {
    held: [u64; HELD.len()],
    buckets: [TokenBucket; SPENT.len()],
    refused_held: [u64; HELD.len()],
    refused_spent: [u64; SPENT.len()],
}

/// What a principal holds, and how often it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub uid: u32,
    /// The unit. None: the user with all its units.
    pub unit: Option<Arc<str>>,
    /// In the order of [`Resource`].
    pub held: [u64; HELD.len()],
    /// How often a limit on holding was reached, in the order of [`Resource`].
    pub refused_held: [u64; HELD.len()],
    /// How often a limit on spending was reached, in the order of [`Spent`].
    pub refused_spent: [u64; SPENT.len()],
}

impl Usage {
    /// How often this resource was refused.
    #[must_use]
    pub fn refused_held(&self, what: Resource) -> u64 {
        self.refused_held[what as usize]
    }

    /// How often spending this was refused.
    #[must_use]
    pub fn refused_spent(&self, what: Spent) -> u64 {
        self.refused_spent[what as usize]
    }

    /// Whether the principal has reached any limit.
    #[must_use]
    pub fn was_refused(&self) -> bool {
        self.refused_held
            .iter()
            .chain(&self.refused_spent)
            .any(|count| *count > 0)
    }
}

impl AccountBook {
    /// A book without any account.
    #[must_use]
    pub fn new(limits: AccountLimits) -> AccountBook {
        AccountBook {
            limits,
            in_all: [0; HELD.len()],
            refused_in_all: [0; HELD.len()],
            refused_held: [0; HELD.len()],
            refused_spent: [0; SPENT.len()],
            users: HashMap::new(),
        }
    }

    /// Charges what a principal is about to hold.
    ///
    /// # Errors
    /// The [`LimitOwner`] whose limit has been reached. Then nothing is charged.
    pub fn charge(
        &mut self,
        who: &Principal,
        what: Resource,
        amount: u64,
    ) -> Result<(), LimitOwner> {
        let at = what as usize;
        let limit = self.limits.held[at];
        let in_all = if who.reserved {
            limit.in_all
        } else {
            limit.in_all - limit.in_all / RESERVED_SHARE
        };
        let of_unit = unit_share(limit.per_user);
        let taken = self.in_all[at];
        let user = opened(&mut self.users, who);
        let refused = if user.own.held[at].saturating_add(amount) > limit.per_user {
            Some(LimitOwner::User(limit.per_user))
        } else if user
            .unit(who)
            .is_some_and(|unit| unit.held[at].saturating_add(amount) > of_unit)
        {
            Some(LimitOwner::Unit(of_unit))
        } else {
            (taken.saturating_add(amount) > in_all).then_some(LimitOwner::InAll(in_all))
        };
        if let Some(full) = refused {
            for account in user.accounts(who) {
                account.refused_held[at] += 1;
            }
            match full {
                LimitOwner::InAll(_) => self.refused_in_all[at] += 1,
                LimitOwner::User(_) | LimitOwner::Unit(_) => self.refused_held[at] += 1,
            }
            return Err(full);
        }
        for account in user.accounts(who) {
            account.held[at] += amount;
        }
        self.in_all[at] += amount;
        Ok(())
    }

    /// Gives back what was charged.
    pub fn release(&mut self, who: &Principal, what: Resource, amount: u64) {
        let at = what as usize;
        self.in_all[at] = self.in_all[at].saturating_sub(amount);
        if let Some(user) = self.users.get_mut(&who.uid) {
            for account in user.accounts(who) {
                account.held[at] = account.held[at].saturating_sub(amount);
            }
        }
    }

    /// Whether the principal may spend now, and if not, when. The price is known only afterwards
    /// and is charged by [`AccountBook::spend`].
    ///
    /// # Errors
    /// The time until the principal may spend.
    pub fn may_spend(
        &mut self,
        who: &Principal,
        what: Spent,
        now: BootTime,
    ) -> Result<(), Duration> {
        let at = what as usize;
        let limit = self.limits.spent[at];
        let user = opened(&mut self.users, who);
        let wait = user
            .accounts(who)
            .enumerate()
            .map(|(depth, account)| account.buckets[at].wait(limit.of(depth), now))
            .max()
            .unwrap_or_default();
        if wait.is_zero() {
            return Ok(());
        }
        for account in user.accounts(who) {
            account.refused_spent[at] += 1;
        }
        self.refused_spent[at] += 1;
        Err(wait)
    }

    /// Charges what was spent. The part beyond the limit is owed, and has to come back before the
    /// next time.
    pub fn spend(&mut self, who: &Principal, what: Spent, amount: u64, now: BootTime) {
        let at = what as usize;
        let limit = self.limits.spent[at];
        let user = opened(&mut self.users, who);
        for (depth, account) in user.accounts(who).enumerate() {
            account.buckets[at].spend(limit.of(depth), amount, now);
        }
    }

    /// When there are too many accounts, forgets those that hold nothing and owe nothing. The
    /// refusals of these accounts are forgotten too, but the totals remain.
    pub fn tidy(&mut self, now: BootTime) {
        if self.users.len() < REMEMBERED {
            return;
        }
        let limits = self.limits;
        self.users.retain(|_, user| {
            user.units.retain(|_, unit| !unit.is_idle(&limits, 1, now));
            !(user.units.is_empty() && user.own.is_idle(&limits, 0, now))
        });
    }

    /// How much all principals hold together.
    #[must_use]
    pub fn in_all(&self, what: Resource) -> u64 {
        self.in_all[what as usize]
    }

    /// The most that one user holds.
    #[must_use]
    pub fn of_one_user(&self, what: Resource) -> u64 {
        self.users
            .values()
            .map(|user| user.own.held[what as usize])
            .max()
            .unwrap_or(0)
    }

    /// How much this user holds.
    #[must_use]
    pub fn of_user(&self, uid: u32, what: Resource) -> u64 {
        self.users
            .get(&uid)
            .map_or(0, |user| user.own.held[what as usize])
    }

    /// How often the limit for everybody was reached.
    #[must_use]
    pub fn refused_in_all(&self, what: Resource) -> u64 {
        self.refused_in_all[what as usize]
    }

    /// How often a user or a unit had reached its limit on holding.
    #[must_use]
    pub fn refused_held(&self, what: Resource) -> u64 {
        self.refused_held[what as usize]
    }

    /// How often a user or a unit had reached its limit on spending.
    #[must_use]
    pub fn refused_spent(&self, what: Spent) -> u64 {
        self.refused_spent[what as usize]
    }

    /// The usage of every account, sorted by user and unit.
    #[must_use]
    pub fn usages(&self) -> Vec<Usage> {
        let mut usages: Vec<Usage> = self
            .users
            .iter()
            .flat_map(|(uid, user)| {
                let units = user.units.iter().map(|(unit, it)| (Some(unit.clone()), it));
                std::iter::once((None, &user.own))
                    .chain(units)
                    .map(|(unit, account)| Usage {
                        uid: *uid,
                        unit,
                        held: account.held,
                        refused_held: account.refused_held,
                        refused_spent: account.refused_spent,
                    })
            })
            .collect();
        usages.sort_unstable_by(|a, b| (a.uid, &a.unit).cmp(&(b.uid, &b.unit)));
        usages
    }
}

/// The accounts of the user, with one for the unit if there is room for it.
fn opened<'a>(users: &'a mut HashMap<u32, User>, who: &Principal) -> &'a mut User {
    let user = users.entry(who.uid).or_insert_with(|| User {
        own: Account::new(),
        units: HashMap::new(),
    });
    if let Some(unit) = &who.unit
        && !user.units.contains_key(unit)
        && user.units.len() < UNITS_OF_A_USER
    {
        user.units.insert(unit.clone(), Account::new());
    }
    user
}

impl User {
    fn unit(&self, who: &Principal) -> Option<&Account> {
        self.units.get(who.unit.as_ref()?)
    }

    /// The account of the user, and that of the unit.
    fn accounts(&mut self, who: &Principal) -> impl Iterator<Item = &mut Account> {
        let unit = who.unit.as_ref().and_then(|unit| self.units.get_mut(unit));
        std::iter::once(&mut self.own).chain(unit)
    }
}

impl Account {
    fn new() -> Account {
        Account {
            held: [0; HELD.len()],
            // A new bucket is full, like one that nobody has spent from for long.
            buckets: [TokenBucket::full(); SPENT.len()],
            refused_held: [0; HELD.len()],
            refused_spent: [0; SPENT.len()],
        }
    }

    fn is_idle(&mut self, limits: &AccountLimits, depth: usize, now: BootTime) -> bool {
        self.held == [0; HELD.len()]
            && SPENT.iter().all(|what| {
                let limit = limits.spent[*what as usize].of(depth);
                self.buckets[*what as usize].is_full(limit, now)
            })
    }
}

impl SpentLimit {
    /// The limit of the user (0) or of a unit (1).
    fn of(self, depth: usize) -> SpentLimit {
        if depth == 0 {
            return self;
        }
        let share = UNIT_SHARE.0 as f64 / UNIT_SHARE.1 as f64;
        SpentLimit {
            per_second: self.per_second * share,
            burst: (self.burst * share).max(1.0),
        }
    }
}

fn unit_share(of: u64) -> u64 {
    (of * UNIT_SHARE.0 / UNIT_SHARE.1).max(1)
}
