//! The record of who was given what, and who was not.
//!
//! The first grant of a credential on a connection is written before the answer leaves; what follows of the same is counted
//! and written as one record within [`FLUSH`], so that an answer from memory costs nothing for it. A denial is written at once,
//! its repetitions likewise. What is written goes through one thread, `audit`, so that a disk that hangs stops nobody who
//! is served; what is to happen to grants then is `audit.on_failure`.
//!
//! Each record has a number; a number that is missing is a record that is missing. No secret is in any of them: a credential
//! is named by its fingerprint.

mod ledger;
mod record;
mod sink;
mod writer;

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::ledger::Line;
pub use self::ledger::{Given, Ledger};
pub use self::record::Action;
use self::record::Draft;
use self::writer::{Command, Condition};
use crate::caller::Peer;
use crate::clock::Clock;
use crate::core::policy::Decision;
use crate::core::profile;
use crate::core::time::WallTime;

/// What is counted is written this often: half of the ten seconds that are promised, the rest is for the writing.
pub const FLUSH: Duration = Duration::from_secs(5);

/// A record has to be written within this time. A local disk or the journal takes a thousandth of it; what takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Batches of records that may wait to be written: a second's worth of the fastest callers.
const QUEUE: usize = 16_384;

/// Records that are written in one piece at most.
const BATCH: usize = 256;

/// Credentials whose record could not be written that are remembered until it can, about a megabyte. Beyond that they are
/// counted as lost.
const OWED: usize = 4096;

/// Names that one user may be denied under in the time of one [`FLUSH`], each with a record of its own; what is beyond is
/// counted together. It bounds what somebody who asks for everything can write.
const DENIALS_PER_USER: u32 = 256;

/// Stands for the names beyond. It is no name of a profile.
const OTHERS: &str = "(others)";

/// Of the records that were handed over, how many were written and how many were not.
#[derive(Debug, Default)]
pub struct Counts {
    /// Written.
    pub written: AtomicU64,
    /// Not written.
    pub lost: AtomicU64,
}

/// Hands records to the thread that writes them. One for the daemon.
pub struct Audit {
    clock: Clock,
    commands: mpsc::Sender<Command>,
    condition: Arc<Condition>,
    /// What has been counted and not been written. A line is here once.
    counted: Mutex<Vec<Arc<Line>>>,
    denied: Mutex<Denied>,
}

#[derive(Default)]
struct Denied {
    /// How often since the last flush beyond the first time.
    names: HashMap<(u32, Action, String), (Arc<Peer>, u64)>,
    per_user: HashMap<u32, u32>,
}

/// How a grant was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It was given before: it is counted.
    Counted,
    /// It was written, or it is known that it could not be; that took time.
    Written,
}

/// A grant could not be recorded, and none is to be given without its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded;

impl Audit {
    /// Starts the thread. That nothing can be written is no reason not to start; it is told by [`Audit::trouble`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(clock: Clock, settings: &profile::Audit) -> io::Result<Arc<Audit>> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let condition = Arc::new(Condition::new(settings.deny_on_failure));
        writer::start(clock.clone(), settings.clone(), condition.clone(), inbox)?;
        Ok(Arc::new(Audit {
            clock,
            commands,
            condition,
            counted: Mutex::default(),
            denied: Mutex::default(),
        }))
    }

    /// Takes other settings over, from the next record on.
    pub async fn configure(&self, settings: &profile::Audit) {
        self.condition.set_deny(settings.deny_on_failure);
        self.send(Command::Configure(settings.clone())).await;
    }

    /// Opens the file anew: somebody has moved it away.
    pub fn reopen(&self) {
        let _ = self.commands.try_send(Command::Reopen);
    }

    /// What an operator has to know; None: records are written.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.condition.trouble()
    }

    /// What has become of the records.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        self.condition.counts()
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
        given: Given<'_>,
    ) -> Result<Recorded, Unrecorded> {
        // With a sink that fails, nobody is to be given anything on the word that it will be counted.
        if !self.condition.denies_now() && ledger.count(&given, self) {
            return Ok(Recorded::Counted);
        }
        self.granted_first(ledger, Line::new(peer.clone(), &given))
            .await
    }

    async fn granted_first(&self, ledger: &Ledger, line: Line) -> Result<Recorded, Unrecorded> {
        let line = Arc::new(line);
        let written = self.write_now(line.draft(self.now(), 1)).await;
        if !written {
            if self.condition.denies() {
                return Err(Unrecorded);
            }
            // It is written when that is possible again.
            line.count(self);
        }
        ledger.enter(line);
        Ok(Recorded::Written)
    }

    /// Records that somebody was not given what was asked for. The answer does not wait for it.
    pub fn denied(&self, peer: &Arc<Peer>, action: Action, profile: &str, decision: Decision) {
        let uid = peer.caller.uid;
        let name = record::shortened(profile);
        let mut denied = lock(&self.denied);
        let Denied { names, per_user } = &mut *denied;
        let mut key = (uid, action, name);
        if !names.contains_key(&key) {
            let different = per_user.entry(uid).or_default();
            if *different >= DENIALS_PER_USER {
                key.2 = OTHERS.to_owned();
            }
            *different = different.saturating_add(1);
        }
        let name = key.2.clone();
        match names.entry(key) {
            Slot::Occupied(mut known) => {
                known.get_mut().1 += 1;
                return;
            }
            Slot::Vacant(new) => new.insert((peer.clone(), 0)),
        };
        drop(denied);
        let draft = Draft::denial(self.now(), peer.clone(), action, name, decision, 1);
        if self
            .commands
            .try_send(Command::Write(vec![draft], None))
            .is_err()
        {
            self.condition.overflowed(1);
        }
    }

    fn now(&self) -> WallTime {
        self.clock.now().wall
    }

    /// Writes what has been counted, now and every [`FLUSH`].
    pub async fn flush_for_ever(&self) {
        let mut tick = tokio::time::interval(FLUSH);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.flush().await;
        }
    }

    async fn flush(&self) {
        let now = self.now();
        let mut counted = std::mem::take(&mut *lock(&self.counted)).into_iter();
        loop {
            let batch: Vec<(Arc<Line>, u64)> = counted
                .by_ref()
                .take(BATCH)
                .map(|line| (line.clone(), line.take()))
                .collect();
            if batch.is_empty() {
                break;
            }
            let drafts = batch.iter().map(|(line, count)| line.draft(now, *count));
            let written = self.write(drafts.collect()).await;
            if written < batch.len() {
                let unwritten = batch.into_iter().skip(written);
                unwritten.for_each(|(line, count)| line.owe(self, count));
                counted.for_each(|line| {
                    let count = line.take();
                    line.owe(self, count);
                });
                break;
            }
        }
        let denied = std::mem::take(&mut *lock(&self.denied));
        let denials: Vec<Draft> = denied
            .names
            .into_iter()
            .filter(|(_, (_, count))| *count > 0)
            .map(|((_, action, name), (peer, count))| {
                Draft::denial(now, peer, action, name, Decision::Denied, count)
            })
            .collect();
        if !denials.is_empty() {
            self.send(Command::Write(denials, None)).await;
        }
    }

    /// Writes everything that is there, and that the daemon ends. Bounded by `within`.
    pub async fn finish(&self, within: Duration) {
        let ending = async {
            self.flush().await;
            let (done, told) = oneshot::channel();
            self.send(Command::Finish(done)).await;
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
        self.send(Command::Write(drafts, Some(done))).await;
        told.await.unwrap_or(0)
    }

    async fn send(&self, command: Command) {
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
