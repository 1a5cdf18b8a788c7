//! The thread that writes records, and what is known of its condition.

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

/// A command for the thread.
pub enum WriterCommand {
    /// Write these records. If the sender waits, it is told how many were written, and handles the
    /// rest.
    Write(Vec<Draft>, Option<oneshot::Sender<usize>>),
    Reopen,
    /// Check whether records can be written again.
    TryAgain,
    Configure(profile::AuditSettings),
    /// The last command.
    Finish(oneshot::Sender<()>),
}

/// The condition of the thread, in one byte that is read with each grant.
pub struct Condition {
    flags: AtomicU8,
    /// Everything that was counted before this has been written, in milliseconds on the boot clock.
    caught_up: AtomicU64,
    why: Mutex<Option<String>>,
    said: Mutex<LoggedTrouble>,
    counts: Counts,
    clock: Clock,
}

/// What the log has been told. It is limited, because callers that fill a disk or a queue and let
/// it empty again would fill the log.
#[derive(Debug, Default)]
struct LoggedTrouble {
    why: Option<String>,
    lines: Repeated<()>,
}

/// Set with `on_failure = "deny"`.
const DENY: u8 = 1;
/// The last record was not written.
const FAILS: u8 = 2;
/// Writing takes so long that no caller waits for it.
const HANGS: u8 = 4;
/// The thread has been told to try again, and has not done so yet.
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

    /// Whether a grant may go on the promise that it will be recorded. With `deny` it may not while
    /// writing fails. It also may not while something that was counted more than [`UNRECORDED`] ago
    /// is unwritten, because a failure would not be known yet.
    #[inline]
    pub fn may_count(&self, clock: &Clock) -> bool {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags & DENY == 0 {
            return true;
        }
        let caught_up = Duration::from_millis(self.caught_up.load(Ordering::Relaxed));
        flags & (FAILS | HANGS) == 0 && clock.now().boot.since(BootTime(caught_up)) < UNRECORDED
    }

    /// Notes that everything counted before `at` has been written.
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

    /// Whether grants are refused as far as is known. The next record may still be written.
    pub fn refuses(&self) -> bool {
        let flags = self.flags.load(Ordering::Relaxed);
        flags & DENY != 0 && flags & (FAILS | HANGS) != 0
    }

    /// Whether to tell the thread to try again. The thread may hang, and commands for it must not
    /// pile up.
    pub fn try_again(&self) -> bool {
        self.flags.fetch_or(TRIES, Ordering::Relaxed) & TRIES == 0
    }

    /// Notes that a caller has waited in vain.
    pub fn hang(&self, patience: Duration) {
        if !self.has(HANGS) {
            self.fail(format!(
                "no record was written within {} s",
                patience.as_secs()
            ));
        }
        self.set(HANGS, true);
    }

    /// Notes grants or denials that will not be recorded because too many are waiting.
    pub fn overflowed(&self, lost: u64) {
        self.counts.lost.fetch_add(lost, Ordering::Relaxed);
        if !self.has(FAILS) {
            self.fail("too many records wait to be written".to_owned());
        }
    }

    /// Notes that the thread is gone. Only a panic in it can cause that.
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

    /// The reason why records are not written, as the log was told.
    #[cfg(test)]
    pub fn said(&self) -> Option<String> {
        lock(&self.said).why.clone()
    }

    /// Notes the sink's result.
    pub fn outcome(&self, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.works(),
            Err(why) => {
                self.set(HANGS, false);
                self.fail(why);
            }
        }
    }

    /// Notes a failure. It is logged when it begins and when its reason changes, but not more often
    /// than such lines may be.
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
        // A failure that was not logged needs no line that it is over.
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
    /// The number of the last record that was written.
    seq: u64,
    /// The number of lost records when that was last recorded.
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
                        // Executed in the order in which they came.
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
                // A caller's record may have been written since.
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
                // A sender that has gone away need not be told.
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

    /// Writes a record about the log itself.
    fn own(&mut self, event: &str, more: Vec<(&'static str, serde_json::Value)>) {
        let record = Record::own(self.clock.now().wall, self.seq + 1, event, more);
        self.put(&[record]);
    }

    /// Writes records. Returns how many were written. Losses from before are recorded as soon as
    /// anything can be.
    fn put(&mut self, records: &[Record]) -> usize {
        let (done, outcome) = self.sink.write(records);
        let counts = self.condition.counts();
        counts.written.fetch_add(done as u64, Ordering::Relaxed);
        let lost = counts.lost.load(Ordering::Relaxed);
        // The next records use the numbers of those that were not written. So a number is missing
        // only if its record was taken away.
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
