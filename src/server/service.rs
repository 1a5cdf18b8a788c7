//! What both protocols do: look the profile up for this caller, answer from memory, and otherwise
//! ask the broker.

pub mod permit;

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};

use self::permit::{Permit, Wanted};
use super::accounts::{Accounts, Visible};
use super::answered::Answered;
use super::error::Denial;
use super::session::Session;
use crate::audit::{Action, Audit, GrantedCredential, Recorded, Unrecorded};
use crate::broker::{Answer, Asker, Broker, NoAnswer, Reported, Slot};
use crate::caller::Callers;
use crate::clock::Clock;
use crate::core::account::{Resource, Spent};
use crate::core::credential::Fingerprint;
use crate::core::policy::{Access, Caller, Decision};
use crate::core::profile::ServerLimits;
use crate::core::time::Stamp;
use crate::registry::reload::{FileChanges, Order, ReloadReport};
use crate::registry::{Current, Hidden, ProfileHealth, RegistryEntry};

/// A request gives up after its profile was replaced this many times. A reload takes longer than a
/// look-up, so one replacement is usual and more are not.
const SUCCESSORS: usize = 3;

/// Up to this many profiles are looked at on the serving thread. Each takes microseconds.
const SHORT_LOOK: usize = 64;

/// Deciding access to this many profiles takes as long as telling what is known of one.
const ENTRIES_DECIDED: usize = 32;

/// Everything that a request needs.
pub struct ApiService {
    pub registry: Current,
    /// Whether the files have changed since they were read.
    pub changes: Arc<FileChanges>,
    /// Gets what is not in memory.
    pub broker: Broker,
    pub clock: Clock,
    /// When the daemon started.
    pub started: Stamp,
    /// Finds out who connects.
    pub callers: Callers,
    /// The accounts of all principals.
    pub accounts: Arc<Accounts>,
    /// Lets one long look at profiles run at a time.
    pub surveys: Arc<Semaphore>,
    /// The limits that the daemon was started with.
    pub limits: ServerLimits,
    pub audit: Arc<Audit>,
    pub answered: Answered,
    /// Asks for everything to be read again.
    pub reload: mpsc::Sender<Order>,
    /// Becomes true when the daemon is told to end. Streams end then, so that nothing has to wait
    /// for them.
    pub stopping: watch::Receiver<bool>,
}

/// What a caller asks for.
#[derive(Debug, Default)]
pub struct CredentialRequest {
    pub profile: String,
    /// The answer lives at least this long.
    pub min_ttl: Duration,
    /// Scopes beyond the default.
    pub scopes: Vec<String>,
    /// Audience beyond the default; empty for the default.
    pub audience: String,
    /// The caller's own deadline.
    pub deadline: Option<Duration>,
}

impl ApiService {
    /// The session that the daemon itself uses for the watchdog. What other callers take is not
    /// missing to it.
    #[must_use]
    pub fn itself(&self) -> Session {
        let caller = Caller {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            groups: Vec::new(),
            pid: None,
        };
        let account = self.accounts.without_place(caller.uid, "(watchdog)");
        Session::new(self.callers.known_by_ids(caller), account)
    }

    /// The profile, if this caller may use it, and the rule that permits it.
    pub async fn permitted(
        &self,
        session: &Session,
        profile: &str,
    ) -> Option<(Arc<RegistryEntry>, Decision)> {
        let look = || {
            let registry = self.registry.load();
            registry
                .permitted(profile, session.peer.subject())
                .map(|(entry, decision)| (entry.clone(), decision))
        };
        match look() {
            Err(Hidden::NeedsUnit) => {
                session.peer.find_unit().await;
                look().ok()
            }
            outcome => outcome.ok(),
        }
    }

    /// Looks at every profile that this caller may use, or at every profile if `all` says so,
    /// sorted by name. The caller's account pays for it. A long look does not run on the serving
    /// thread.
    pub async fn survey<T: Send + 'static>(
        self: &Arc<Self>,
        session: &Session,
        all: bool,
        look: impl FnOnce(&ApiService, &[Arc<RegistryEntry>]) -> T + Send + 'static,
    ) -> Result<T, Denial> {
        let started = self.clock.now().boot;
        session.account.may_spend(Spent::Profiles, started)?;
        // Administrators are told the state of every profile, and the reason with it.
        if !all && let Some(why) = self.closed() {
            return Err(why);
        }
        let entries = if all {
            self.registry.load().all().into_iter().cloned().collect()
        } else {
            self.visible(session).await
        };
        session
            .account
            .spend(Spent::Profiles, 1 + entries.len() as u64, started);
        if entries.len() <= SHORT_LOOK {
            return Ok(look(self, &entries));
        }
        // One at a time, for each principal and in all: requests for credentials need the
        // processor.
        let _own = session.account.shared().survey.lock().await;
        let turn = self.surveys.clone().acquire_owned().await;
        let service = self.clone();
        let looked = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            look(&service, &entries)
        });
        // This task cannot be cancelled, and a panic has already been reported where it happened.
        looked.await.map_err(|_| Denial::stopping())
    }

    /// The profiles that this caller may use, sorted by name. They are determined once for each
    /// principal and registry.
    async fn visible(&self, session: &Session) -> Vec<Arc<RegistryEntry>> {
        if self.registry.load().needs(session.peer.unit()) {
            session.peer.find_unit().await;
        }
        let registry = self.registry.load();
        let subject = session.peer.subject();
        let unit = subject.unit.name();
        let mut last = session
            .account
            .shared()
            .visible
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = &*last
            && seen.serial == registry.serial
            && seen.caller.is_same_principal(subject.caller)
            && seen.unit.as_deref() == unit
        {
            return seen.entries.iter().filter_map(Weak::upgrade).collect();
        }
        let entries: Vec<Arc<RegistryEntry>> =
            registry.visible(subject).into_iter().cloned().collect();
        *last = Some(Visible {
            serial: registry.serial,
            caller: subject.caller.clone(),
            unit: unit.map(Arc::from),
            entries: entries.iter().map(Arc::downgrade).collect(),
        });
        drop(last);
        // The cost of that, counted in profiles that are looked at.
        let took = registry.len() / ENTRIES_DECIDED;
        session
            .account
            .spend(Spent::Profiles, took as u64, self.clock.now().boot);
        entries
    }

    /// The reason why nothing can be served, if there is one.
    pub fn closed(&self) -> Option<Denial> {
        self.registry.load().closed.as_deref().map(Denial::closed)
    }

    /// The denial for a caller who may not use the profile. An administrator is told whether it
    /// exists.
    pub fn absent(&self, profile: &str, admin: bool) -> Denial {
        let registry = self.registry.load();
        if let Some(why) = registry.closed.as_deref() {
            return Denial::closed(why);
        }
        if !admin {
            return Denial::not_found(profile);
        }
        let Some(entry) = registry.get(profile) else {
            let pending = self.changes.pending();
            return Denial::not_defined(profile, pending, !registry.refused.is_empty());
        };
        let rules: Vec<String> = std::iter::once(&entry.access)
            .chain(&entry.also)
            .map(Access::named_ones)
            .collect();
        Denial::not_named(profile, &rules.join(" and, as its files say now, "))
    }

    /// Whether callers get a credential of the profile and the record of it can be written.
    pub fn available(&self, entry: &RegistryEntry, now: Stamp) -> bool {
        !self.audit.refuses() && entry.available(now)
    }

    pub async fn is_admin(&self, session: &Session) -> bool {
        let look = || {
            let registry = self.registry.load();
            registry.admins.administers(session.peer.subject())
        };
        match look() {
            Decision::NeedsUnit => {
                session.peer.find_unit().await;
                look().permits()
            }
            decision => decision.permits(),
        }
    }

    /// Refuses every caller that is not an administrator.
    pub async fn for_admins(&self, session: &Session, action: Action) -> Result<(), Denial> {
        if self.is_admin(session).await {
            return Ok(());
        }
        self.audit
            .denied(&session.peer, action, "", Decision::Denied);
        Err(Denial::not_admin())
    }

    /// The profile, if this caller may use it, for a caller that wants something of it.
    pub async fn entry(
        &self,
        session: &Session,
        profile: &str,
        action: Action,
    ) -> Result<(Arc<RegistryEntry>, Decision), Denial> {
        if profile.is_empty() {
            return Err(Denial::bad_request(
                "the request names no profile: set `profile`",
            ));
        }
        if let Some(found) = self.permitted(session, profile).await {
            return Ok(found);
        }
        if let Some(why) = self.closed() {
            return Err(why);
        }
        self.audit
            .denied(&session.peer, action, profile, Decision::Denied);
        Err(self.absent(profile, self.is_admin(session).await))
    }

    /// The permit for this credential, if the profile works.
    pub async fn permit(&self, session: &Session, wanted: Wanted<'_>) -> Result<Permit, Denial> {
        let action = wanted.action;
        let (entry, decision) = self.entry(session, wanted.profile, action).await?;
        let handle = match &entry.health {
            ProfileHealth::Managed(handle) => handle.clone(),
            ProfileHealth::Invalid(why) => return Err(Denial::invalid(wanted.profile, why)),
        };
        let variant = permit::variant(&entry, wanted).inspect_err(|_| {
            let profile = entry.name.as_str();
            self.audit
                .denied(&session.peer, action, profile, Decision::Denied);
        })?;
        Ok(Permit {
            entry,
            handle,
            variant,
            decision,
            action,
        })
    }

    /// Attempts something with a permit. If the profile has been replaced meanwhile, attempts it
    /// once more with a new permit, because the successor may already be in force.
    async fn with_permit<T, Attempt>(
        &self,
        session: &Session,
        wanted: Wanted<'_>,
        mut attempt: impl FnMut(Permit) -> Attempt,
    ) -> Result<T, Denial>
    where
        Attempt: Future<Output = Result<Result<T, NoAnswer>, Denial>>,
    {
        for _ in 0..SUCCESSORS {
            let permit = self.permit(session, wanted).await?;
            match attempt(permit).await? {
                Err(NoAnswer::Gone) => {}
                outcome => return outcome.map_err(|why| Denial::of(wanted.profile, why)),
            }
        }
        Err(Denial::of(wanted.profile, NoAnswer::Gone))
    }

    /// A credential of the profile, and the moment at which it was judged.
    pub async fn token(
        &self,
        session: &Session,
        ask: CredentialRequest,
    ) -> Result<(Arc<Answer>, Arc<RegistryEntry>, Stamp), Denial> {
        let outcome = self
            .with_permit(session, Wanted::from(&ask), |permit| {
                self.token_on(permit, session, &ask)
            })
            .await;
        if let Err(denial) = &outcome {
            self.answered.refused(denial.reason());
        }
        outcome
    }

    async fn token_on(
        &self,
        mut permit: Permit,
        session: &Session,
        ask: &CredentialRequest,
    ) -> Result<Result<(Arc<Answer>, Arc<RegistryEntry>, Stamp), NoAnswer>, Denial> {
        let now = self.clock.now();
        if let Some(answer) = permit.in_memory(ask.min_ttl, now) {
            let now = self.record(session, permit.given(&answer), now).await?;
            self.answered.from_memory();
            return Ok(Ok((answer, permit.entry, now)));
        }
        self.admit(session)?;
        let _waiting = session.account.charge(Resource::Waiting, 1)?;
        if permit.in_memory(Duration::ZERO, now).is_some() {
            // A live credential exists, so wanting another means wanting a renewal.
            session.account.may_spend(Spent::Renewals, now.boot)?;
        }
        let variant = permit.variant.clone();
        let asked = self
            .broker
            .ask(&permit.handle, variant, ask.min_ttl, self.asker(session));
        let answer = match ask.deadline {
            Some(deadline) => tokio::time::timeout(deadline, asked)
                .await
                .map_err(|_| Denial::deadline(&ask.profile))?,
            None => asked.await,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        // The caller's access may have changed during the wait.
        (permit.entry, permit.decision) = self.entry(session, &ask.profile, permit.action).await?;
        // The answer was right when it was sent, but time may have passed on the way here.
        let now = self.clock.now();
        let now = self.record(session, permit.given(&answer), now).await?;
        if !answer.credential.lives(now, Duration::ZERO) {
            return Err(Denial::too_late(&ask.profile));
        }
        self.answered.after_waiting();
        Ok(Ok((answer, permit.entry, now)))
    }

    /// Records that a credential is about to be handed out. If recording has taken time, the
    /// credential is judged again. Returns the moment of the judgement.
    pub async fn record(
        &self,
        session: &Session,
        given: GrantedCredential<'_>,
        now: Stamp,
    ) -> Result<Stamp, Denial> {
        match self
            .audit
            .granted(&session.ledger, &session.peer, given)
            .await
        {
            Ok(Recorded::Counted) => Ok(now),
            Ok(Recorded::Written) => {
                let now = self.clock.now();
                if given.credential.lives(now, Duration::ZERO) {
                    Ok(now)
                } else {
                    Err(Denial::too_late(given.profile.as_str()))
                }
            }
            Err(Unrecorded) => Err(Denial::unrecorded(given.profile.as_str())),
        }
    }

    /// Has everything read again, and waits at most this long for trials.
    pub async fn reload(
        &self,
        session: &Session,
        wait: Duration,
    ) -> Result<Arc<ReloadReport>, Denial> {
        self.for_admins(session, Action::Reload).await?;
        self.admit(session)?;
        let (order, mut reports) = Order::new();
        let mut stopping = self.stopping.clone();
        let settled = async {
            if self.reload.send(order).await.is_ok() {
                // An error means that the sender is gone; the last report counts.
                let _ = reports
                    .wait_for(|report| report.as_ref().is_some_and(|report| report.settled))
                    .await;
            }
        };
        tokio::select! {
            // A finished report is passed on, even if the daemon is ending.
            biased;
            _ = tokio::time::timeout(wait, settled) => {}
            _ = stopping.wait_for(|stop| *stop) => return Err(Denial::stopping()),
        }
        let last = reports.borrow().clone();
        last.ok_or_else(Denial::still_reading)
    }

    /// Counts a request that the broker has to handle.
    fn admit(&self, session: &Session) -> Result<(), Denial> {
        let now = self.clock.now().boot;
        session.account.may_spend(Spent::Requests, now)?;
        session.account.spend(Spent::Requests, 1, now);
        Ok(())
    }

    /// The account on which the broker is asked.
    fn asker(&self, session: &Session) -> Asker {
        let (account, clock) = (session.account.clone(), self.clock.clone());
        Asker {
            uid: Some(account.uid()),
            pays: Some(Arc::new(move || {
                account.spend(Spent::Renewals, 1, clock.now().boot);
            })),
        }
    }

    /// Notes that an API refused a credential.
    pub async fn report(
        &self,
        session: &Session,
        profile: &str,
        fingerprint: &str,
    ) -> Result<Reported, Denial> {
        let wanted = Wanted::default_of(profile, Action::ReportRejected);
        self.with_permit(session, wanted, |permit| async move {
            let fingerprint = Fingerprint::parse(fingerprint).ok_or_else(|| {
                Denial::bad_request(
                    "`fingerprint` is not one of tokend's: send the field of the credential as it is",
                )
            })?;
            self.admit(session)?;
            if permit.handle.publishes(fingerprint) {
                let now = self.clock.now().boot;
                session.account.may_spend(Spent::Renewals, now)?;
            }
            let asker = self.asker(session);
            Ok(self.broker.report(&permit.handle, fingerprint, asker).await)
        })
        .await
    }

    /// The slot to watch, for a stream that has not watched it before.
    pub async fn first_slot(
        &self,
        session: &Session,
        wanted: Wanted<'_>,
    ) -> Result<Arc<Slot>, Denial> {
        let profile = Wanted::default_of(wanted.profile, wanted.action);
        self.permit(session, profile).await?;
        self.admit(session)?;
        self.slot(session, wanted).await
    }

    /// The slot to watch. Watching wakes a sleeping profile. The caller did not cause it when
    /// another version replaces the profile, so it is not charged for that.
    pub async fn slot(&self, session: &Session, wanted: Wanted<'_>) -> Result<Arc<Slot>, Denial> {
        self.with_permit(session, wanted, |permit| async move {
            let Permit {
                handle, variant, ..
            } = permit;
            Ok(self
                .broker
                .slot(&handle, variant, self.asker(session))
                .await)
        })
        .await
    }
}
