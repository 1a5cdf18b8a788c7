//! Records who was given which credential, and who was refused.
//!
//! The first grants of a credential to a principal are written before the answer leaves, one for
//! each connection. Later grants are counted and written as one record within [`FLUSH`]. So an
//! answer from memory costs nothing for the record, and a client that opens a connection for each
//! call does not cause a record for each call. A denial is written at once, its repetitions are
//! counted likewise. One thread, `audit`, does all writing, so a disk that hangs stops no caller.
//! `audit.on_failure` says what happens to grants then.
//!
//! Each record has a number; a missing number is a missing record. No record contains a secret: a
//! credential is named by its fingerprint.

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

/// Counts are written this often. That is half of the ten seconds that are promised; the rest is
/// for the writing.
pub const FLUSH: Duration = Duration::from_secs(5);

/// With `on_failure = "deny"`, grants are counted only while everything counted longer ago than
/// this has been written. So when the sink begins to fail, the grants of at most this time have no
/// record.
const UNRECORDED: Duration = Duration::from_secs(1);

/// With `deny`, counts are written this often, so that normally no caller waits for it.
const FLUSH_TO_DENY: Duration = Duration::from_millis(500);

/// A record has to be written within this time, otherwise the sink hangs. A local disk or the
/// journal takes a thousandth of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// This many batches of records may wait to be written: a second's worth of the fastest callers.
const QUEUE: usize = 16_384;

/// The most records that are written in one piece.
const BATCH: usize = 256;

/// This many credentials whose record could not be written are remembered until it can be, which
/// takes about a megabyte. Grants beyond that are counted as lost.
const OWED: usize = 4096;

/// How many of the records that were handed over were written, and how many were not.
#[derive(Debug, Default)]
pub struct Counts {
    pub written: AtomicU64,
    pub lost: AtomicU64,
}

/// The user whose account a record is charged to.
type PrincipalUid = u32;

/// The only place that decides whose account that is.
fn principal(peer: &Peer) -> PrincipalUid {
    peer.owner
}

/// Events that were counted together with others, because their principal already had as many
/// records of its own as it may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limited {
    /// The number of such events.
    pub count: u64,
    /// The principal of the latest one.
    pub last: Option<u32>,
}

impl Limited {
    fn happened(&mut self, principal: PrincipalUid) {
        self.count += 1;
        self.last = Some(principal);
    }
}

/// Hands records to the thread that writes them. The daemon has one.
pub struct Audit {
    clock: Clock,
    commands: mpsc::Sender<WriterCommand>,
    condition: Arc<Condition>,
    /// Entries with counts that have not been written. Each entry is here once.
    counted: Mutex<Vec<Arc<LedgerEntry>>>,
    accounts: Mutex<AuditAccounts>,
    denials: Mutex<Denials>,
    /// Notified when a caller waits for counts to be written.
    due: Notify,
    /// Notified when writing them has been attempted.
    flushed: Notify,
}

/// How a grant was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// The credential had been given before, so the grant was counted.
    Counted,
    /// Recording took time: the grant was written, or is known to be unwritable, or was counted
    /// after others had been written.
    Written,
}

/// The grant could not be recorded, and no grant may go without its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded;

impl Audit {
    /// Starts the thread. The daemon also starts if nothing can be written; [`Audit::trouble`]
    /// tells that.
    ///
    /// # Errors
    /// The system gives no thread.
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

    /// Takes over other settings, from the next record on.
    pub async fn configure(&self, settings: &profile::AuditSettings) {
        self.condition.set_deny(settings.deny_on_failure);
        self.send(WriterCommand::Configure(settings.clone())).await;
    }

    /// Reopens the file, because it was moved away.
    pub fn reopen(&self) {
        let _ = self.commands.try_send(WriterCommand::Reopen);
    }

    /// What an operator has to know. None: records are written.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.condition.trouble()
    }

    /// Whether no caller gets a credential now, because the record could not be written.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.condition.refuses()
    }

    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.condition.counts()
    }

    /// Grants and denials that have no record of their own because of a limit.
    #[must_use]
    pub fn limited(&self) -> (Limited, Limited) {
        let grants = lock(&self.accounts).limited();
        (grants, lock(&self.denials).limited())
    }

    /// Records that a credential is about to be handed out.
    ///
    /// # Errors
    /// The credential must not be handed out.
    #[inline]
    pub async fn granted(
        &self,
        ledger: &Ledger,
        peer: &Arc<Peer>,
        given: GrantedCredential<'_>,
    ) -> Result<Recorded, Unrecorded> {
        // While the sink fails, no grant may go on the promise that it will be counted.
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
            // The count is written when that is possible again.
            line.count(self);
        }
        line.settle();
        ledger.enter(line, &given);
        Ok(Recorded::Written)
    }

    /// Whether a grant may go on the promise that it will be recorded.
    #[inline]
    fn may_count(&self) -> bool {
        self.condition.may_count(&self.clock)
    }

    /// Waits until what was counted too long ago has been written or could not be. All callers wait
    /// for the same attempt. Returns whether there was anything to wait for.
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

    /// Records a denial. The answer does not wait for that.
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

    /// Writes all counts now, whenever a caller waits for it, and every [`FLUSH`]; more often with
    /// `deny`.
    pub async fn flush_for_ever(&self) {
        loop {
            let denials = lock(&self.denials).due(self.clock.now());
            self.flush(denials).await;
            // While callers are refused, readiness may keep all of them away. Then no caller's
            // record would find out that records can be written again, so the thread is told to
            // try.
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

    /// Writes all grants that have been counted. Returns whether all were written.
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

    /// Writes everything that is there, and a record that the daemon ends. Takes at most `within`.
    pub async fn finish(&self, within: Duration) {
        let ending = async {
            let denials = lock(&self.denials).take(self.clock.now());
            self.flush(denials).await;
            let (done, told) = oneshot::channel();
            self.send(WriterCommand::Finish(done)).await;
            // An error means that the thread has already ended.
            let _ = told.await;
        };
        let _ = tokio::time::timeout(within, ending).await;
    }

    /// Writes a record at once. Returns whether it was written. Only one caller waits for a sink
    /// that hangs.
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

    /// Writes records in their order. Returns how many of them were written.
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
