//! The one task that owns every lifecycle. It takes commands, results and the passing of time, and
//! gives attempts, views and answers.

mod attempts;
mod profiles;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tracing::info;

use self::attempts::RunningAttempt;
use super::budget::Budget;
use super::managed::{ManagedCredential, Waiter};
use super::outage::Outages;
use super::view::Slot;
use super::{Asker, BrokerCommand, NoAnswer, ProfileHandle, ProfileId, Reported, Spec, Tools};
use crate::core::credential::{Fingerprint, Issued, Variant};
use crate::core::failure::Failure;
use crate::core::lifecycle::{LifecycleEvent, Reaction, Verdict};
use crate::core::profile::ProfileName;
use crate::core::repeated::Repeated;
use crate::core::time::{BootTime, STEP_BACK_NOTICED, Stamp};

/// The longest sleep. Timers stop while the machine sleeps and know nothing of clock steps, so the
/// actor looks at the clock this often, whatever it has planned. A longer value delays renewals
/// after a resume by as much. Readers look at the clock themselves anyway.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// When the wall clock has run ahead of the boot clock by this much, the actor asks every lifecycle
/// whether it doubts its credential. The value is well below what lifecycles tolerate. So slow
/// drift adds up in the actor, and the lifecycles notice it in time.
const DRIFT_NOTICED: Duration = Duration::from_secs(5);

type CredentialId = u64;

pub struct Actor {
    tools: Tools,
    profiles: HashMap<ProfileId, ManagedProfile>,
    credentials: HashMap<CredentialId, ManagedCredential>,
    next_credential: CredentialId,
    wakes: BTreeSet<(BootTime, CredentialId)>,
    budgets: HashMap<String, Budget<ProfileId, (CredentialId, u64)>>,
    /// When the next budget that has run dry refills.
    refill: Option<BootTime>,
    tasks: JoinSet<Result<Issued, Failure>>,
    running: HashMap<Id, RunningAttempt>,
    /// The clocks at the last look for drift.
    drift_from: Stamp,
    /// Log lines about a profile that callers can cause by asking for variants.
    lines: Repeated<ProfileName>,
    outages: Outages,
}

struct ManagedProfile {
    handle: Arc<ProfileHandle>,
    spec: Box<Spec>,
    own: CredentialId,
    /// Each variant with the user who was the first to ask for it.
    variants: HashMap<Variant, (CredentialId, Option<u32>)>,
}

impl ManagedProfile {
    /// The lifecycles of the variants, without the profile's own.
    fn credentials(&self) -> impl Iterator<Item = CredentialId> {
        self.variants.values().map(|(managed, _)| *managed)
    }
}

impl Actor {
    pub fn new(tools: Tools) -> Actor {
        let drift_from = tools.clock.now();
        Actor {
            tools,
            profiles: HashMap::new(),
            credentials: HashMap::new(),
            next_credential: 0,
            wakes: BTreeSet::new(),
            budgets: HashMap::new(),
            refill: None,
            tasks: JoinSet::new(),
            running: HashMap::new(),
            drift_from,
            lines: Repeated::default(),
            outages: Outages::default(),
        }
    }

    pub async fn run(mut self, mut inbox: mpsc::Receiver<BrokerCommand>) {
        loop {
            let pause = self.pause();
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(command) => self.command(command),
                    None => return,
                },
                Some(done) = self.tasks.join_next_with_id() => self.done(done),
                () = tokio::time::sleep(pause) => {}
            }
            self.catch_up();
        }
    }

    fn pause(&self) -> Duration {
        let now = self.tools.clock.now();
        let wake = self.wakes.first().map(|(at, _)| *at);
        [wake, self.refill]
            .into_iter()
            .flatten()
            .min()
            .map_or(LONGEST_SLEEP, |at| at.since(now.boot).min(LONGEST_SLEEP))
    }

    fn command(&mut self, command: BrokerCommand) {
        match command {
            BrokerCommand::AddProfile(handle, spec) => self.add_profile(handle, spec),
            BrokerCommand::TakeOver(id, generation, done) => {
                self.take_over_from(id, generation);
                let _ = done.send(());
            }
            BrokerCommand::Again(id) => self.again(id),
            BrokerCommand::Remove(id) => self.remove(id),
            BrokerCommand::Ask {
                handle,
                variant,
                min_ttl,
                by,
                reply,
            } => self.ask(handle, variant, &by, Waiter { min_ttl, reply }),
            BrokerCommand::Slot {
                handle,
                variant,
                by,
                reply,
            } => {
                let _ = reply.send(self.slot(handle, variant, &by));
            }
            BrokerCommand::Report {
                handle,
                fingerprint,
                by,
                reply,
            } => {
                let _ = reply.send(self.report(handle, fingerprint, &by));
            }
        }
    }

    fn ask(&mut self, id: ProfileId, variant: Variant, by: &Asker, waiter: Waiter) {
        let managed = match self.credential_for(id, variant, by) {
            Ok(managed) => managed,
            Err(why) => {
                let _ = waiter.reply.send(Err(why));
                return;
            }
        };
        let min_ttl = waiter.min_ttl;
        self.on_account_of(by, managed, LifecycleEvent::Asked { min_ttl });
        let now = self.tools.clock.now();
        if let Some(managed) = self.credentials.get_mut(&managed) {
            managed.receive(waiter, now);
        }
        self.promote(managed);
    }

    fn slot(&mut self, id: ProfileId, variant: Variant, by: &Asker) -> Result<Arc<Slot>, NoAnswer> {
        let id = self.credential_for(id, variant, by)?;
        self.handle(
            id,
            LifecycleEvent::Asked {
                min_ttl: Duration::ZERO,
            },
        );
        let managed = self.credentials.get(&id).ok_or(NoAnswer::Gone)?;
        Ok(managed.slot.clone())
    }

    /// Handles what a caller wants. If that brings forward a renewal although there is a
    /// credential, the caller pays for it.
    fn on_account_of(&mut self, by: &Asker, id: CredentialId, event: LifecycleEvent) {
        let now = self.tools.clock.now();
        let next = |credentials: &HashMap<CredentialId, ManagedCredential>| {
            let managed = credentials.get(&id)?;
            let lives_on = matches!(
                managed.machine.verdict(now, Duration::ZERO),
                Verdict::Serve(_)
            );
            let next = match managed.attempt {
                Some(_) => now.boot,
                None => managed.machine.due(now)?,
            };
            lives_on.then_some(next)
        };
        let before = next(&self.credentials);
        self.handle(id, event);
        if let (Some(before), Some(after), Some(pays)) = (before, next(&self.credentials), &by.pays)
            && after < before
        {
            pays();
        }
    }

    fn report(
        &mut self,
        id: ProfileId,
        fingerprint: Fingerprint,
        by: &Asker,
    ) -> Result<Reported, NoAnswer> {
        let now = self.tools.clock.now();
        let member = self.profiles.get(&id).ok_or(NoAnswer::Gone)?;
        let managed = std::iter::once(member.own)
            .chain(member.credentials())
            .find(|managed| {
                self.credentials
                    .get(managed)
                    .and_then(|managed| managed.machine.held())
                    .is_some_and(|held| held.fingerprint == fingerprint)
            })
            .unwrap_or(member.own);
        self.on_account_of(by, managed, LifecycleEvent::Rejected { fingerprint });
        self.promote(managed);
        let managed = self.credentials.get(&managed).ok_or(NoAnswer::Gone)?;
        Ok(Reported {
            replaced: managed.machine.replaced(now, fingerprint),
            retry_after: managed.machine.ask_again_in(now),
        })
    }

    /// Gives an event to a lifecycle and carries out the reaction.
    fn handle(&mut self, id: CredentialId, event: LifecycleEvent) {
        let now = self.tools.clock.now();
        let Some(managed) = self.credentials.get_mut(&id) else {
            return;
        };
        if let Some(asked) = managed.slot.asked() {
            managed.machine.note_asked(asked);
        }
        // A caller that asks is judged alone: its question does not change what others wait for.
        let concerns_all = !matches!(event, LifecycleEvent::Asked { .. });
        let reaction = managed.machine.handle(now, event);
        self.carry_out(id, now, reaction);
        if !concerns_all {
            return;
        }
        let Some(managed) = self.credentials.get_mut(&id) else {
            return;
        };
        managed.answer_waiters(now);
        // A credential may have come that is too short-lived for a caller that waits. The actor
        // asks again on its behalf.
        if managed.attempt.is_none()
            && let Some(min_ttl) = managed.waiters.iter().map(|waiter| waiter.min_ttl).max()
        {
            let reaction = managed
                .machine
                .handle(now, LifecycleEvent::Asked { min_ttl });
            self.carry_out(id, now, reaction);
        }
    }

    fn carry_out(&mut self, id: CredentialId, now: Stamp, reaction: Reaction) {
        let Some(managed) = self.credentials.get_mut(&id) else {
            return;
        };
        let Some(member) = self.profiles.get(&managed.handle) else {
            return;
        };
        if let Some(attempt) = reaction.fetch {
            let waited = !managed.waiters.is_empty();
            let pressing_from = managed.pressing_from(now);
            managed.urgent = waited;
            managed.attempt = Some((attempt, None));
            match &member.spec.upstream {
                None => self.tasks_start(id, attempt, None),
                Some(upstream) => {
                    let name = upstream.name.clone();
                    if let Some(budget) = self.budgets.get_mut(&name) {
                        budget.queue(managed.handle, (id, attempt), waited, pressing_from);
                    }
                }
            }
        }
        self.settle(id, now, reaction.publish);
    }

    /// Publishes the view, if `publish` says so, and plans the next wake-up.
    fn settle(&mut self, id: CredentialId, now: Stamp, publish: bool) {
        let Some(managed) = self.credentials.get_mut(&id) else {
            return;
        };
        if publish && let Some(member) = self.profiles.get(&managed.handle) {
            let target = member.spec.target.as_deref();
            managed.publish(now, target, &self.tools.encode);
            if member.handle.keep.is_some() {
                self.tools.published.notify_one();
            }
        }
        if managed.variant.is_default()
            && let Some(member) = self.profiles.get(&managed.handle)
        {
            let name = &member.spec.name;
            self.outages
                .look(name, managed.handle, &managed.machine, now);
        }
        let wake = managed.machine.wake_at(now);
        if wake != managed.wake {
            if let Some(at) = managed.wake {
                self.wakes.remove(&(at, id));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, id));
            }
            managed.wake = wake;
        }
    }

    /// Does what is due by now: wake-ups, queued attempts, and doubts when a clock has jumped.
    fn catch_up(&mut self) {
        let now = self.tools.clock.now();
        let ahead = now.wall_ahead_since(self.drift_from);
        let behind = now.wall_behind_since(self.drift_from);
        if ahead > DRIFT_NOTICED || behind > STEP_BACK_NOTICED {
            if ahead > DRIFT_NOTICED {
                info!(
                    seconds = ahead.as_secs(),
                    "the wall clock has run ahead of the boot clock: it was set, or this machine was paused"
                );
            } else {
                info!(seconds = behind.as_secs(), "the wall clock was set back");
            }
            self.drift_from = now;
            let all: Vec<CredentialId> = self.credentials.keys().copied().collect();
            for managed in all {
                self.handle(managed, LifecycleEvent::Tick);
            }
        }
        while let Some((at, managed)) = self.wakes.first().copied()
            && at <= now.boot
        {
            // The entry is removed first. A lifecycle that plans the same moment again gets its
            // turn, but not in this round.
            self.wakes.pop_first();
            if let Some(managed) = self.credentials.get_mut(&managed) {
                managed.wake = None;
            }
            self.handle(managed, LifecycleEvent::Tick);
        }
        self.outages.remind(now);
        self.start_queued(now);
    }
}
