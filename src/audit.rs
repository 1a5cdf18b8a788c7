//! The record of who was given what, and who was not.
//!
//! The first grants of a credential to a principal are written before the answer leaves, one for
//! each connection; what follows is counted and written as one record within [`FLUSH`], so that an
//! answer from memory costs nothing for it, and a connection for each call writes no record for
//! each call. A denial is written at once, its repetitions likewise. What is written goes through
//! one thread, `audit`, so that a disk that hangs stops nobody who is served; what is to happen to
//! grants then is `audit.on_failure`.
//!
//! Each record has a number; a number that is missing is a record that is missing. No secret is in
//! any of them: a credential is named by its fingerprint.

mod accounts;
mod denials;
mod ledger;
mod record;
mod sink;
mod writer;

use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};

use self::accounts::AuditAccounts;
use self::denials::Denials;
use self::ledger::LedgerEntry;
pub use self::ledger::{GrantedCredential, Ledger};
pub use self::record::Action;
use self::record::Draft;
use self::writer::{Condition, WriterCommand};
use crate::caller::Peer;
use crate::clock::Clock;
use crate::core::policy::Decision;
use crate::core::profile;
use crate::core::time::{Stamp, WallTime};

/// What is counted is written this often: half of the ten seconds that are promised, the rest is
/// for the writing.
pub const FLUSH: Duration = Duration::from_secs(5);

/// With `on_failure = "deny"`, what was counted longer ago than this has been written, or nothing
/// more is counted: so much of what was given is without a record at the most when the sink begins
/// to fail.
const UNRECORDED: Duration = Duration::from_secs(1);

/// What is counted is written this often then, so that as a rule nobody has to wait for it.
const FLUSH_TO_DENY: Duration = Duration::from_millis(500);

/// A record has to be written within this time. A local disk or the journal takes a thousandth of
/// it; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Batches of records that may wait to be written: a second's worth of the fastest callers.
const QUEUE: usize = 16_384;

/// Records that are written in one piece at most.
const BATCH: usize = 256;

/// Credentials whose record could not be written that are remembered until it can, about a
/// megabyte. Beyond that they are counted as lost.
const OWED: usize = 4096;

/// Of the records that were handed over, how many were written and how many were not.
#[derive(Debug, Default)]
pub struct Counts {
    /// Written.
    pub written: AtomicU64,
    /// Not written.
    pub lost: AtomicU64,
}

/// Whose account a record is charged to.
type PrincipalUid = u32;

/// The one place that says so.
fn principal(peer: &Peer) -> PrincipalUid {
    peer.owner
}

/// What was counted together with others since its principal had as many records of its own as one
/// may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// How often.
    pub count: u64,
    /// The principal, the last time.
    pub last: Option<u32>,
}

impl Limited {
    fn happened(&mut self, principal: PrincipalUid) {
        self.count += 1;
        self.last = Some(principal);
    }
}

/// Hands records to the thread that writes them. One for the daemon.
pub struct Audit {
    clock: Clock,
    commands: mpsc::Sender<WriterCommand>,
    condition: Arc<Condition>,
    /// What has been counted and not been written. A line is here once.
    counted: Mutex<Vec<Arc<LedgerEntry>>>,
    accounts: Mutex<AuditAccounts>,
    denials: Mutex<Denials>,
    /// Somebody waits for what is counted to be written.
    due: Notify,
    /// That has been tried.
    flushed: Notify,
}

/// How a grant was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was given before: it is counted.
    Counted,
    /// It was written, or it is known that it could not be, or it was counted after others had been
    /// written; that took time.
    Written,
}

/// A grant could not be recorded, and none is to be given without its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded;

impl Audit {
    /// Starts the thread. That nothing can be written is no reason not to start; it is told by
    /// [`Audit::trouble`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(clock: Clock, settings: &profile::AuditSettings) -> io::Result<Arc<Audit>> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let condition = Arc::new(Condition::new(clock.clone(), settings.deny_on_failure));
        writer::start(clock.clone(), settings.clone(), condition.clone(), inbox)?;
        Ok(Arc::new(Audit::new(clock, commands, condition)))
    }

    fn new(
        clock: Clock,
        commands: mpsc::Sender<WriterCommand>,
        condition: Arc<Condition>,
    ) -> Audit {
        Audit {
            clock,
            commands,
            condition,
            counted: Mutex::default(),
            accounts: Mutex::new(AuditAccounts::new()),
            denials: Mutex::new(Denials::new()),
            due: Notify::new(),
            flushed: Notify::new(),
        }
    }

    /// Takes other settings over, from the next record on.
    pub async fn configure(&self, settings: &profile::AuditSettings) {
        self.condition.set_deny(settings.deny_on_failure);
        self.send(WriterCommand::Configure(settings.clone())).await;
    }

    /// Opens the file anew: somebody has moved it away.
    pub fn reopen(&self) {
        let _ = self.commands.try_send(WriterCommand::Reopen);
    }

    /// What an operator has to know; None: records are written.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.condition.trouble()
    }

    /// Whether nobody is given a credential now, since its record could not be written.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.condition.refuses()
    }

    /// What has become of the records.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.condition.counts()
    }

    /// Grants and denials that have no record of their own for a limit's sake.
    #[must_use]
    pub fn limited(&self) -> (Limited, Limited) {
        let grants = lock(&self.accounts).limited();
        (grants, lock(&self.denials).limited())
    }

    /// Records that a credential is about to be handed out.
    ///
    /// # Errors
    /// When it must not be.
    #[inline]
    pub async fn granted(
        &self,
        ledger: &Ledger,
        peer: &Arc<Peer>,
        given: GrantedCredential<'_>,
    ) -> Result<Recorded, Unrecorded> {
        // With a sink that fails, nobody is to be given anything on the word that it will be
        // counted.
        if self.may_count() && ledger.count(&given, self) {
            return Ok(Recorded::Counted);
        }
        self.granted_first(ledger, peer, given).await
    }

    async fn granted_first(
        &self,
        ledger: &Ledger,
        peer: &Arc<Peer>,
        given: GrantedCredential<'_>,
    ) -> Result<Recorded, Unrecorded> {
        let waited = self.catch_up().await;
        let may_count = self.may_count();
        if waited && may_count && ledger.count(&given, self) {
            return Ok(Recorded::Written);
        }
        let now = self.clock.now();
        let (line, own) = lock(&self.accounts).enter(peer, &given, now.boot);
        if may_count && !own {
            line.count(self);
            ledger.enter(line, &given);
            return Ok(match waited {
                true => Recorded::Written,
                false => Recorded::Counted,
            });
        }
        if !self.write_now(given.draft(now.wall, peer)).await {
            if self.condition.denies() {
                return Err(Unrecorded);
            }
            // It is written when that is possible again.
            line.count(self);
        }
        line.settle();
        ledger.enter(line, &given);
        Ok(Recorded::Written)
    }

    /// Whether a grant may go on the word that it will be recorded.
    #[inline]
    fn may_count(&self) -> bool {
        self.condition.may_count(&self.clock)
    }

    /// Waits until what was counted too long ago has been written, or could not be; all wait for
    /// the same attempt. Whether there was anything to wait for.
    async fn catch_up(&self) -> bool {
        if self.may_count() || self.condition.fails() || self.condition.hangs() {
            return false;
        }
        let flushed = self.flushed.notified();
        self.due.notify_one();
        if tokio::time::timeout(PATIENCE, flushed).await.is_err() {
            self.condition.hang(PATIENCE);
        }
        true
    }

    /// Records that somebody was not given what was asked for. The answer does not wait for it.
    pub fn denied(&self, peer: &Arc<Peer>, action: Action, profile: &str, decision: Decision) {
        let draft = lock(&self.denials).enter(peer, action, profile, decision, self.now());
        if let Some(draft) = draft
            && self
                .commands
                .try_send(WriterCommand::Write(vec![draft], None))
                .is_err()
        {
            self.condition.overflowed(1);
        }
    }

    fn now(&self) -> WallTime {
        self.clock.now().wall
    }

    /// Writes what has been counted, now, when somebody waits for it, and every [`FLUSH`]; with
    /// `deny` more often.
    pub async fn flush_for_ever(&self) {
        loop {
            let denials = lock(&self.denials).due(self.clock.now());
            self.flush(denials).await;
            // Who is refused may be told by readiness not to come again, and then nobody's record
            // would find out that it can be written.
            if self.condition.refuses() && self.condition.try_again() {
                let _ = self.commands.try_send(WriterCommand::TryAgain);
            }
            let pause = match self.condition.denies() {
                true => FLUSH_TO_DENY,
                false => FLUSH,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.due.notified() => {}
            }
        }
    }

    async fn flush(&self, denials: Vec<Draft>) {
        let began = self.clock.now();
        lock(&self.accounts).turn(began.boot);
        if self.flush_grants(began).await {
            self.condition.caught_up(began.boot);
        }
        self.flushed.notify_waiters();
        if !denials.is_empty() {
            self.send(WriterCommand::Write(denials, None)).await;
        }
    }

    /// Whether all that had been counted was written.
    async fn flush_grants(&self, now: Stamp) -> bool {
        let mut counted = std::mem::take(&mut *lock(&self.counted)).into_iter();
        loop {
            let batch: Vec<(Arc<LedgerEntry>, u64)> = counted
                .by_ref()
                .take(BATCH)
                .map(|line| (line.clone(), line.take()))
                .collect();
            if batch.is_empty() {
                return true;
            }
            let drafts = batch
                .iter()
                .map(|(line, count)| line.draft(now.wall, *count));
            let written = self.write(drafts.collect()).await;
            if written < batch.len() {
                let unwritten = batch.into_iter().skip(written);
                unwritten.for_each(|(line, count)| line.owe(self, count));
                counted.for_each(|line| {
                    let count = line.take();
                    line.owe(self, count);
                });
                return false;
            }
        }
    }

    /// Writes everything that is there, and that the daemon ends. Bounded by `within`.
    pub async fn finish(&self, within: Duration) {
        let ending = async {
            let denials = lock(&self.denials).take(self.clock.now());
            self.flush(denials).await;
            let (done, told) = oneshot::channel();
            self.send(WriterCommand::Finish(done)).await;
            // An error means that it has ended already.
            let _ = told.await;
        };
        let _ = tokio::time::timeout(within, ending).await;
    }

    /// Whether it has been written. A sink that hangs is waited for once, not by everybody.
    async fn write_now(&self, draft: Draft) -> bool {
        if self.condition.hangs() {
            return false;
        }
        match tokio::time::timeout(PATIENCE, self.write(vec![draft])).await {
            Ok(written) => written > 0,
            Err(_) => {
                self.condition.hang(PATIENCE);
                false
            }
        }
    }

    /// How many of them were written, from the first.
    async fn write(&self, drafts: Vec<Draft>) -> usize {
        let (done, told) = oneshot::channel();
        self.send(WriterCommand::Write(drafts, Some(done))).await;
        told.await.unwrap_or(0)
    }

    async fn send(&self, command: WriterCommand) {
        if self.commands.send(command).await.is_err() {
            self.condition.gone();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
