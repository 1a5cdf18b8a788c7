//! Charges what callers take to their accounts. [`crate::core::account`] lies behind one lock here,
//! and no answer from memory takes that lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::error::Denial;
use super::turn::{Rounds, Share};
use crate::caller::Peer;
use crate::core::account::{
    AccountBook, AccountLimits, HeldLimit, LimitOwner, Principal, Resource, Spent, Usage,
};
use crate::core::bucket::SpentLimit;
use crate::core::policy::{Caller, Named};
use crate::core::profile::ServerLimits;
use crate::core::time::BootTime;
use crate::registry::RegistryEntry;

/// An answer longer than this, in bytes, is charged to its caller's account until it has been read.
pub const LONG_ANSWER: u64 = 64 * 1024;

/// After this many connections have closed, it is worth looking for memory that they left behind.
const MANY: u64 = 64;

/// A user with fewer connections than this, and with less than an eighth of its limit, needs no
/// accounts for its units: nobody is crowded. A unit has those connections on top of its three
/// quarters, and leaves the last eighth to the others.
const UNITS_FROM: u64 = 16;

/// A connection that has asked nothing may be closed for another's sake after this long.
const SILENCE: Duration = Duration::from_millis(300);

/// All users together may hold this many times what one user may. This applies to resources that
/// have no limit of their own for all users.
const USERS_AT_ONCE: u64 = 8;

/// One user may cause this many forced renewals at once, after a time without any. When an API
/// rotates its keys, every profile of a user is reported.
const RENEWAL_BURST: f64 = 60.0;

#[derive(Debug)]
pub struct Accounts {
    state: Mutex<AccountsState>,
    rounds: Rounds,
    many_left: Notify,
    /// A user's units get accounts of their own once the user has this many connections.
    units_from: u64,
}

#[derive(Debug)]
struct AccountsState {
    book: AccountBook,
    /// Connections that have asked nothing so far, oldest first.
    silent: BTreeMap<u64, SilentConnection>,
    next_connection: u64,
    /// The most connections that were open at a time since many had last closed.
    most: u64,
    /// What connections of one principal share.
    shared: HashMap<(u32, Option<Arc<str>>), Weak<PrincipalShared>>,
}

#[derive(Debug)]
struct SilentConnection {
    uid: u32,
    since: BootTime,
    task: AbortHandle,
}

#[derive(Debug)]
pub struct PrincipalShared {
    /// The principal's share of the thread.
    pub turns: Arc<Share>,
    /// The profiles that the principal may use, if they were determined.
    pub visible: Mutex<Option<Visible>>,
    /// Held while one of the principal's connections takes a long look at profiles.
    pub survey: tokio::sync::Mutex<()>,
}

/// The profiles that a caller may use, as one registry has them.
#[derive(Debug)]
pub struct Visible {
    /// The serial number of that registry.
    pub serial: u64,
    /// The caller whose view this is.
    pub caller: Caller,
    /// The caller's unit, if it was known.
    pub unit: Option<Arc<str>>,
    /// The entries, sorted by name. The registry owns them: this keeps nothing alive that it has
    /// dropped.
    pub entries: Vec<Weak<RegistryEntry>>,
}

/// The account of one connection's principal.
#[derive(Clone, Debug)]
pub struct PrincipalAccount {
    accounts: Arc<Accounts>,
    who: Arc<Principal>,
    shared: Arc<PrincipalShared>,
    connection: u64,
}

/// An amount that stays charged until this is dropped.
#[derive(Debug)]
pub struct Charge {
    accounts: Arc<Accounts>,
    who: Arc<Principal>,
    what: Resource,
    amount: u64,
}

/// Why a connection is closed at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", refusal(.uid, *.full))]
pub struct ConnectionLimitReached {
    /// The user who would have had the connection.
    pub uid: u32,
    /// The owner of the limit that was reached.
    pub full: LimitOwner,
}

fn refusal(uid: &u32, full: LimitOwner) -> String {
    match full {
        LimitOwner::InAll(limit) => {
            format!("all {limit} connections are taken (server.limits.connections)")
        }
        LimitOwner::User(limit) => {
            format!("uid {uid} has {limit} connections open (server.limits.connections_per_user)")
        }
        LimitOwner::Unit(limit) => format!(
            "a unit of uid {uid} has {limit} connections open, three quarters of what its user may have (server.limits.connections_per_user)"
        ),
    }
}

impl Accounts {
    #[must_use]
    pub fn new(limits: &ServerLimits) -> Arc<Accounts> {
        let units_from = UNITS_FROM.min(u64::from(limits.connections_per_user) / 8);
        let held = |in_all: u32, per_user: u32| HeldLimit {
            in_all: in_all.into(),
            per_user: per_user.into(),
        };
        let many = |per_user: u32| HeldLimit {
            in_all: u64::from(per_user) * USERS_AT_ONCE,
            per_user: per_user.into(),
        };
        let per_second = |number: u32| SpentLimit {
            per_second: number.into(),
            burst: number.into(),
        };
        let limits = AccountLimits {
            held: [
                held(limits.connections, limits.connections_per_user),
                held(limits.streams, limits.streams_per_user),
                many(limits.waiting_per_user),
                many(limits.half_sent_per_user),
            ],
            spent: [
                per_second(limits.requests_per_second),
                per_second(limits.profiles_per_second),
                SpentLimit {
                    per_second: f64::from(limits.forced_renewals_per_minute) / 60.0,
                    burst: RENEWAL_BURST.min(limits.forced_renewals_per_minute.into()),
                },
            ],
        };
        Arc::new(Accounts {
            state: Mutex::new(AccountsState {
                book: AccountBook::new(limits),
                silent: BTreeMap::new(),
                next_connection: 0,
                most: 0,
                shared: HashMap::new(),
            }),
            rounds: Rounds::default(),
            many_left: Notify::new(),
            units_from,
        })
    }

    /// Admits a connection of this peer. Returns its account and the charge for its place.
    ///
    /// # Errors
    /// A limit of connections is reached; the error says whose.
    pub fn admit(
        self: &Arc<Self>,
        peer: &Peer,
        named: &Named,
        now: BootTime,
    ) -> Result<(PrincipalAccount, Charge), ConnectionLimitReached> {
        let uid = peer.owner;
        let crowded = self.state().book.of_user(uid, Resource::Connections) >= self.units_from;
        let who = Principal {
            uid,
            unit: crowded.then(|| peer.unit_at_once()).flatten(),
            reserved: named.has(&peer.caller),
        };
        let mut state = self.state();
        state.book.tidy(now);
        state
            .book
            .charge(&who, Resource::Connections, 1)
            .map_err(|full| ConnectionLimitReached { uid, full })?;
        let taken = state.book.in_all(Resource::Connections);
        state.most = state.most.max(taken);
        let account = state.account(self, who);
        let place = account.charged(Resource::Connections, 1);
        Ok((account, place))
    }

    /// An account for a connection that did not come over the socket and needs no place.
    #[must_use]
    pub fn without_place(self: &Arc<Self>, uid: u32, name: &str) -> PrincipalAccount {
        let who = Principal {
            uid,
            unit: Some(name.into()),
            reserved: true,
        };
        self.state().account(self, who)
    }

    /// Closes a connection that has asked nothing, to make room for one of the refused user. If
    /// that user's own limit was reached, its own oldest silent connection goes, otherwise one of
    /// the user with the most connections. Returns whether a connection is being closed.
    pub fn make_room(&self, no_place: &ConnectionLimitReached, now: BootTime) -> bool {
        let mut state = self.state();
        let AccountsState { book, silent, .. } = &mut *state;
        let has_been = |one: &SilentConnection| now.since(one.since) >= SILENCE;
        let oldest = silent.iter().filter(|(_, one)| has_been(one));
        let found = match no_place.full {
            LimitOwner::User(_) | LimitOwner::Unit(_) => {
                oldest.clone().find(|(_, one)| one.uid == no_place.uid)
            }
            LimitOwner::InAll(_) => oldest.max_by_key(|(number, one)| {
                let connections = book.of_user(one.uid, Resource::Connections);
                (connections, std::cmp::Reverse(**number))
            }),
        };
        let Some(number) = found.map(|(number, _)| *number) else {
            return false;
        };
        if let Some(one) = silent.remove(&number) {
            one.task.abort();
        }
        true
    }

    /// Completes when many connections have closed that were open at the same time. Short
    /// connections that follow one another do not count: each reuses the memory of the one before.
    pub async fn many_left(&self) {
        self.many_left.notified().await;
    }

    #[must_use]
    pub fn rounds(&self) -> &Rounds {
        &self.rounds
    }

    /// Asks `ask` of the account book.
    pub fn book<T>(&self, ask: impl FnOnce(&AccountBook) -> T) -> T {
        ask(&self.state().book)
    }

    /// At most `most` accounts that have reached a limit, those with the most refusals first.
    #[must_use]
    pub fn refused(&self, most: usize) -> Vec<Usage> {
        let mut usages = self.book(AccountBook::usages);
        usages.retain(Usage::was_refused);
        let refusals = |usage: &Usage| -> u64 {
            let counts = usage.refused_held.iter().chain(&usage.refused_spent);
            counts.sum()
        };
        usages.sort_by_key(|usage| std::cmp::Reverse(refusals(usage)));
        usages.truncate(most);
        usages
    }

    fn state(&self) -> MutexGuard<'_, AccountsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self, who: &Principal, what: Resource, amount: u64) {
        let mut state = self.state();
        state.book.release(who, what, amount);
        if what == Resource::Connections {
            let taken = state.book.in_all(what);
            if state.most - taken >= MANY {
                state.most = taken;
                self.many_left.notify_one();
            }
        }
    }
}

impl AccountsState {
    fn account(&mut self, accounts: &Arc<Accounts>, who: Principal) -> PrincipalAccount {
        let key = (who.uid, who.unit.clone());
        let known = self.shared.get(&key).and_then(Weak::upgrade);
        let shared = known.unwrap_or_else(|| {
            // Principals that have left keep nothing.
            self.shared.retain(|_, shared| shared.strong_count() > 0);
            let shared = Arc::new(PrincipalShared {
                turns: Arc::default(),
                visible: Mutex::default(),
                survey: tokio::sync::Mutex::default(),
            });
            self.shared.insert(key, Arc::downgrade(&shared));
            shared
        });
        self.next_connection += 1;
        PrincipalAccount {
            accounts: accounts.clone(),
            who: Arc::new(who),
            shared,
            connection: self.next_connection,
        }
    }
}

impl PrincipalAccount {
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.who.uid
    }

    /// What all connections of this principal share.
    #[must_use]
    pub fn shared(&self) -> &PrincipalShared {
        &self.shared
    }

    /// Notes the task of a connection that has asked nothing yet.
    pub fn is_silent(&self, task: AbortHandle, since: BootTime) {
        let uid = self.who.uid;
        let silent = SilentConnection { uid, since, task };
        self.accounts.state().silent.insert(self.connection, silent);
    }

    /// Notes that the connection has asked something, or has ended.
    pub fn has_asked(&self) {
        self.accounts.state().silent.remove(&self.connection);
    }

    /// Charges what is about to be held.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, which names the limit.
    pub fn charge(&self, what: Resource, amount: u64) -> Result<Charge, Denial> {
        let charged = self.accounts.state().book.charge(&self.who, what, amount);
        charged.map_err(|full| Denial::account_full(what, full))?;
        Ok(self.charged(what, amount))
    }

    /// Checks that the account may spend now.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED, which names the limit and when the account may spend again.
    pub fn may_spend(&self, what: Spent, now: BootTime) -> Result<(), Denial> {
        let may = self.accounts.state().book.may_spend(&self.who, what, now);
        may.map_err(|after| Denial::account_spent(what, after))
    }

    pub fn spend(&self, what: Spent, amount: u64, now: BootTime) {
        self.accounts
            .state()
            .book
            .spend(&self.who, what, amount, now);
    }

    fn charged(&self, what: Resource, amount: u64) -> Charge {
        Charge {
            accounts: self.accounts.clone(),
            who: self.who.clone(),
            what,
            amount,
        }
    }
}

impl Charge {
    /// Charges more to the same account.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED. What was charged before stays charged.
    pub fn more(&mut self, amount: u64) -> Result<(), Denial> {
        let mut state = self.accounts.state();
        let charged = state.book.charge(&self.who, self.what, amount);
        charged.map_err(|full| Denial::account_full(self.what, full))?;
        self.amount += amount;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.accounts.release(&self.who, self.what, self.amount);
    }
}
