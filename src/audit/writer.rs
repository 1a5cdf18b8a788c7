//! The thread that writes, and what is known of how it goes.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use super::record::{Draft, Record};
use super::sink::Sink;
use super::{BATCH, Counts, UNRECORDED, lock};
use crate::clock::Clock;
use crate::core::profile;
use crate::core::repeated::Repeated;
use crate::core::time::BootTime;

/// What the thread is told.
pub enum WriterCommand {
    /// Write these; who waits is told how many were, and sees to the others.
    Write(Vec<Draft>, Option<oneshot::Sender<usize>>),
    Reopen,
    /// See whether records can be written again.
    TryAgain,
    Configure(profile::AuditSettings),
    /// Nothing comes after this.
    Finish(oneshot::Sender<()>),
}

/// How it goes, in one byte, which is looked at with each grant.
pub struct Condition {
    flags: AtomicU8,
    /// What was counted before this has been written, in milliseconds on the boot clock.
    caught_up: AtomicU64,
    why: Mutex<Option<String>>,
    said: Mutex<LoggedTrouble>,
    counts: Counts,
    clock: Clock,
}

/// What the log has been told. Callers that fill a disk or a queue, and let it empty again, would
/// fill the log.
#[derive(Debug, Default)]
struct LoggedTrouble {
    why: Option<String>,
    lines: Repeated<()>,
}

/// `on_failure = "deny"`
const DENY: u8 = 1;
/// The last record was not written.
const FAILS: u8 = 2;
/// It takes so long that nobody waits for it.
const HANGS: u8 = 4;
/// The thread has been told to try again, and has not done so.
const TRIES: u8 = 8;

impl Condition {
    pub fn new(clock: Clock, deny: bool) -> Condition {
        Condition {
            flags: AtomicU8::new(if deny { DENY } else { 0 }),
            caught_up: AtomicU64::new(0),
            why: Mutex::default(),
            said: Mutex::default(),
            counts: Counts::default(),
            clock,
        }
    }

    pub fn set_deny(&self, deny: bool) {
        self.set(DENY, deny);
    }

    /// Whether no grant may go without its record.
    pub fn denies(&self) -> bool {
        self.has(DENY)
    }

    /// Whether a grant may go on the word that it will be recorded. With `deny` not while that
    /// fails, and not while something that was counted more than [`UNRECORDED`] ago has not been
    /// written: nobody would know yet that it fails.
    #[inline]
    pub fn may_count(&self, clock: &Clock) -> bool {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags & DENY == 0 {
            return true;
        }
        let caught_up = Duration::from_millis(self.caught_up.load(Ordering::Relaxed));
        flags & (FAILS | HANGS) == 0 && clock.now().boot.since(BootTime(caught_up)) < UNRECORDED
    }

    /// What was counted before `at` has been written.
    pub fn caught_up(&self, at: BootTime) {
        let at = u64::try_from(at.0.as_millis()).unwrap_or(u64::MAX);
        self.caught_up.fetch_max(at, Ordering::Relaxed);
    }

    /// Whether nothing can be written now.
    pub fn fails(&self) -> bool {
        self.has(FAILS)
    }

    pub fn hangs(&self) -> bool {
        self.has(HANGS)
    }

    /// Whether no grant goes, as far as is known: the next record may be written.
    pub fn refuses(&self) -> bool {
        let flags = self.flags.load(Ordering::Relaxed);
        flags & DENY != 0 && flags & (FAILS | HANGS) != 0
    }

    /// Whether the thread is to be told to try again: it may hang, and what it is told may then not
    /// become more and more.
    pub fn try_again(&self) -> bool {
        self.flags.fetch_or(TRIES, Ordering::Relaxed) & TRIES == 0
    }

    /// Somebody has waited in vain.
    pub fn hang(&self, patience: Duration) {
        if !self.has(HANGS) {
            self.fail(format!(
                "no record was written within {} s",
                patience.as_secs()
            ));
        }
        self.set(HANGS, true);
    }

    /// Grants or denials will not be recorded, since too many wait for it.
    pub fn overflowed(&self, lost: u64) {
        self.counts.lost.fetch_add(lost, Ordering::Relaxed);
        if !self.has(FAILS) {
            self.fail("too many records wait to be written".to_owned());
        }
    }

    /// The thread is gone, which a panic in it alone can do.
    pub fn gone(&self) {
        self.fail("the thread that writes them has ended".to_owned());
        self.set(HANGS, true);
    }

    pub fn trouble(&self) -> Option<String> {
        lock(&self.why).as_ref().map(|why| {
            let then = match self.denies() {
                true => "nobody is given a credential until they can (audit.on_failure = \"deny\")",
                false => "credentials are handed out without (audit.on_failure = \"continue\")",
            };
            format!("[audit] records are not written: {why}; {then}")
        })
    }

    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Relaxed) & flag != 0
    }

    fn set(&self, flag: u8, on: bool) {
        if on {
            self.flags.fetch_or(flag, Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flag, Ordering::Relaxed);
        }
    }

    /// Why records are not written, as the log was told.
    #[cfg(test)]
    pub fn said(&self) -> Option<String> {
        lock(&self.said).why.clone()
    }

    /// What the sink has answered.
    pub fn outcome(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.works(),
            Err(why) => {
                self.set(HANGS, false);
                self.fail(why);
            }
        }
    }

    /// Said when it begins, and when the reason is another; not more often than such lines may be.
    fn fail(&self, why: String) {
        *lock(&self.why) = Some(why.clone());
        self.set(FAILS, true);
        let mut said = lock(&self.said);
        if said.why.as_ref() != Some(&why)
            && let Some(left_out) = said.lines.say((), self.clock.now().boot)
        {
            said.why = Some(why);
            drop(said);
            if let Some(trouble) = self.trouble() {
                error!(left_out, "{trouble}");
            }
        }
    }

    fn works(&self) {
        if self.flags.load(Ordering::Relaxed) & (FAILS | HANGS) == 0 {
            return;
        }
        self.set(FAILS | HANGS, false);
        *lock(&self.why) = None;
        // Of what was not said nothing has to be taken back.
        if lock(&self.said).why.take().is_some() {
            info!("[audit] records are written again");
        }
    }
}

/// Starts the thread.
pub fn start(
    clock: Clock,
    settings: profile::AuditSettings,
    condition: Arc<Condition>,
    inbox: mpsc::Receiver<WriterCommand>,
) -> io::Result<()> {
    let writer = Writer {
        clock,
        sink: Sink::new(&settings.sink),
        settings,
        condition,
        seq: 0,
        told: 0,
    };
    std::thread::Builder::new()
        .name("audit".into())
        .spawn(move || writer.run(inbox))?;
    Ok(())
}

struct Writer {
    clock: Clock,
    settings: profile::AuditSettings,
    sink: Sink,
    condition: Arc<Condition>,
    /// Of the last record that was written.
    seq: u64,
    /// What was lost when that was last told.
    told: u64,
}

impl Writer {
    fn run(mut self, mut inbox: mpsc::Receiver<WriterCommand>) {
        let version = json!(env!("CARGO_PKG_VERSION"));
        let daemon = json!(std::process::id());
        self.own("start", vec![("version", version), ("daemon", daemon)]);
        let mut commands = Vec::with_capacity(BATCH);
        while inbox.blocking_recv_many(&mut commands, BATCH) > 0 {
            let mut batches = Vec::new();
            for command in commands.drain(..) {
                match command {
                    WriterCommand::Write(drafts, waiting) => batches.push((drafts, waiting)),
                    other => {
                        // In the order in which they came.
                        self.write(std::mem::take(&mut batches));
                        if let WriterCommand::Finish(done) = other {
                            self.own("stop", Vec::new());
                            let _ = done.send(());
                            return;
                        }
                        self.obey(other);
                    }
                }
            }
            self.write(batches);
        }
    }

    fn obey(&mut self, command: WriterCommand) {
        match command {
            WriterCommand::Configure(settings) if settings.sink != self.settings.sink => {
                self.own("stop", Vec::new());
                self.sink = Sink::new(&settings.sink);
                self.settings = settings;
                self.own("start", Vec::new());
            }
            WriterCommand::Configure(settings) => self.settings = settings,
            WriterCommand::Reopen => self.sink.reopen(),
            WriterCommand::TryAgain => {
                self.condition.set(TRIES, false);
                // Somebody's record may have been written since.
                if self.condition.refuses() {
                    self.own("resume", Vec::new());
                }
            }
            WriterCommand::Write(..) | WriterCommand::Finish(_) => {}
        }
    }

    fn write(&mut self, batches: Vec<(Vec<Draft>, Option<oneshot::Sender<usize>>)>) {
        let mut records = Vec::new();
        let mut waiting = Vec::new();
        for (drafts, who) in batches {
            waiting.push((drafts.len(), who));
            for draft in drafts {
                let seq = self.seq + 1 + records.len() as u64;
                records.push(draft.finished(seq));
            }
        }
        if records.is_empty() {
            return;
        }
        let mut done = self.put(&records);
        for (count, who) in waiting {
            let mine = count.min(done);
            done -= mine;
            match who {
                // Who has gone away need not be told.
                Some(who) => drop(who.send(mine)),
                None => {
                    let lost = (count - mine) as u64;
                    self.condition
                        .counts()
                        .lost
                        .fetch_add(lost, Ordering::Relaxed);
                }
            }
        }
    }

    /// A record about the records.
    fn own(&mut self, event: &str, more: Vec<(&'static str, serde_json::Value)>) {
        let record = Record::own(self.clock.now().wall, self.seq + 1, event, more);
        self.put(&[record]);
    }

    /// Writes them, and says how many. What was lost before is told as soon as anything can be.
    fn put(&mut self, records: &[Record]) -> usize {
        let (done, outcome) = self.sink.write(records);
        let counts = self.condition.counts();
        counts.written.fetch_add(done as u64, Ordering::Relaxed);
        let lost = counts.lost.load(Ordering::Relaxed);
        // Numbers of what was not written are used by what comes next: none is missing that was not
        // taken away.
        self.seq += done as u64;
        let works = outcome.is_ok();
        self.condition
            .outcome(outcome.map_err(|why| why.to_string()));
        if works && lost > self.told {
            let records = json!(lost - self.told);
            self.told = lost;
            self.own("lost", vec![("records", records)]);
        }
        done
    }
}
