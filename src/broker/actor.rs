//! The one task that owns every lifecycle: commands, results and time come in; attempts, views and answers go out.

mod attempts;
mod profiles;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tracing::info;

use self::attempts::Running;
use super::budget::Budget;
use super::life::{Life, Waiter};
use super::outage::Outages;
use super::view::Slot;
use super::{Asker, Command, NoAnswer, Reported, Seat, SeatId, Spec, Tools};
use crate::core::credential::{Fingerprint, Issued, Variant};
use crate::core::failure::Failure;
use crate::core::lifecycle::{Event, Reaction, Verdict};
use crate::core::profile::ProfileName;
use crate::core::repeated::Repeated;
use crate::core::time::{BootTime, STEP_BACK_NOTICED, Stamp};

/// The longest sleep. Timers stop while the machine sleeps and know nothing of clock steps, so the clock is looked at this
/// often whatever was planned. Longer delays renewals after a resume by as much; readers check for themselves anyway.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// When the wall clock has run ahead of the boot clock by this much, every lifecycle is asked whether it doubts its
/// credential. Well below what they tolerate, so that slow drift adds up here and is noticed in time there.
const DRIFT_NOTICED: Duration = Duration::from_secs(5);

type LifeId = u64;

pub struct Actor {
    tools: Tools,
    profiles: HashMap<SeatId, Member>,
    lives: HashMap<LifeId, Life>,
    next_life: LifeId,
    wakes: BTreeSet<(BootTime, LifeId)>,
    budgets: HashMap<String, Budget<SeatId, (LifeId, u64)>>,
    /// When a budget that has run dry has something again.
    refill: Option<BootTime>,
    tasks: JoinSet<Result<Issued, Failure>>,
    running: HashMap<Id, Running>,
    /// The clocks when drift was last looked at.
    drift_from: Stamp,
    /// What callers can cause to be said of a profile by what they ask for beyond its default.
    lines: Repeated<ProfileName>,
    outages: Outages,
}

/// A profile.
struct Member {
    seat: Arc<Seat>,
    spec: Box<Spec>,
    own: LifeId,
    /// Each with the user who has asked for it first.
    variants: HashMap<Variant, (LifeId, Option<u32>)>,
}

impl Member {
    /// The lifecycles of its variants.
    fn lives(&self) -> impl Iterator<Item = LifeId> {
        self.variants.values().map(|(life, _)| *life)
    }
}

impl Actor {
    pub fn new(tools: Tools) -> Actor {
        let drift_from = tools.clock.now();
        Actor {
            tools,
            profiles: HashMap::new(),
            lives: HashMap::new(),
            next_life: 0,
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

    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
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

    fn command(&mut self, command: Command) {
        match command {
            Command::Seat(seat, spec) => self.seat(seat, spec),
            Command::Succeed(id, generation, done) => {
                self.succeed(id, generation);
                let _ = done.send(());
            }
            Command::Again(id) => self.again(id),
            Command::Remove(id) => self.remove(id),
            Command::Ask {
                seat,
                variant,
                min_ttl,
                by,
                reply,
            } => self.ask(seat, variant, &by, Waiter { min_ttl, reply }),
            Command::Slot {
                seat,
                variant,
                by,
                reply,
            } => {
                let _ = reply.send(self.slot(seat, variant, &by));
            }
            Command::Report {
                seat,
                fingerprint,
                by,
                reply,
            } => {
                let _ = reply.send(self.report(seat, fingerprint, &by));
            }
        }
    }

    fn ask(&mut self, id: SeatId, variant: Variant, by: &Asker, waiter: Waiter) {
        let life = match self.life_for(id, variant, by) {
            Ok(life) => life,
            Err(why) => {
                let _ = waiter.reply.send(Err(why));
                return;
            }
        };
        let min_ttl = waiter.min_ttl;
        self.on_account_of(by, life, Event::Asked { min_ttl });
        let now = self.tools.clock.now();
        if let Some(life) = self.lives.get_mut(&life) {
            life.receive(waiter, now);
        }
        self.promote(life);
    }

    fn slot(&mut self, id: SeatId, variant: Variant, by: &Asker) -> Result<Arc<Slot>, NoAnswer> {
        let id = self.life_for(id, variant, by)?;
        self.handle(
            id,
            Event::Asked {
                min_ttl: Duration::ZERO,
            },
        );
        let life = self.lives.get(&id).ok_or(NoAnswer::Gone)?;
        Ok(life.slot.clone())
    }

    /// Handles what a caller wants; a renewal that comes sooner because of that, although there is a credential, is paid for by
    /// the caller.
    fn on_account_of(&mut self, by: &Asker, id: LifeId, event: Event) {
        let now = self.tools.clock.now();
        let next = |lives: &HashMap<LifeId, Life>| {
            let life = lives.get(&id)?;
            let lives_on = matches!(life.machine.verdict(now, Duration::ZERO), Verdict::Serve(_));
            let next = match life.attempt {
                Some(_) => now.boot,
                None => life.machine.due(now)?,
            };
            lives_on.then_some(next)
        };
        let before = next(&self.lives);
        self.handle(id, event);
        if let (Some(before), Some(after), Some(pays)) = (before, next(&self.lives), &by.pays)
            && after < before
        {
            pays();
        }
    }

    fn report(
        &mut self,
        id: SeatId,
        fingerprint: Fingerprint,
        by: &Asker,
    ) -> Result<Reported, NoAnswer> {
        let now = self.tools.clock.now();
        let member = self.profiles.get(&id).ok_or(NoAnswer::Gone)?;
        let life = std::iter::once(member.own)
            .chain(member.lives())
            .find(|life| {
                self.lives
                    .get(life)
                    .and_then(|life| life.machine.held())
                    .is_some_and(|held| held.fingerprint == fingerprint)
            })
            .unwrap_or(member.own);
        self.on_account_of(by, life, Event::Rejected { fingerprint });
        self.promote(life);
        let life = self.lives.get(&life).ok_or(NoAnswer::Gone)?;
        Ok(Reported {
            replaced: life.machine.replaced(now, fingerprint),
            retry_after: life.machine.ask_again_in(now),
        })
    }

    /// Puts an event into a lifecycle and carries out what it says.
    fn handle(&mut self, id: LifeId, event: Event) {
        let now = self.tools.clock.now();
        let Some(life) = self.lives.get_mut(&id) else {
            return;
        };
        if let Some(asked) = life.slot.asked() {
            life.machine.note_asked(asked);
        }
        // One that asks is judged alone: whatever the others wait for, it does not change that.
        let concerns_all = !matches!(event, Event::Asked { .. });
        let reaction = life.machine.handle(now, event);
        self.carry_out(id, now, reaction);
        if !concerns_all {
            return;
        }
        let Some(life) = self.lives.get_mut(&id) else {
            return;
        };
        life.answer_waiters(now);
        // A credential may have come that is too short-lived for somebody who waits: ask again on their behalf.
        if life.attempt.is_none()
            && let Some(min_ttl) = life.waiters.iter().map(|waiter| waiter.min_ttl).max()
        {
            let reaction = life.machine.handle(now, Event::Asked { min_ttl });
            self.carry_out(id, now, reaction);
        }
    }

    fn carry_out(&mut self, id: LifeId, now: Stamp, reaction: Reaction) {
        let Some(life) = self.lives.get_mut(&id) else {
            return;
        };
        let Some(member) = self.profiles.get(&life.seat) else {
            return;
        };
        if let Some(attempt) = reaction.fetch {
            let waited = !life.waiters.is_empty();
            let pressing_from = life.pressing_from(now);
            life.urgent = waited;
            life.attempt = Some((attempt, None));
            match &member.spec.upstream {
                None => self.tasks_start(id, attempt, None),
                Some(upstream) => {
                    let name = upstream.name.clone();
                    if let Some(budget) = self.budgets.get_mut(&name) {
                        budget.queue(life.seat, (id, attempt), waited, pressing_from);
                    }
                }
            }
        }
        self.settle(id, now, reaction.publish);
    }

    /// Publishes, and plans the next wake-up.
    fn settle(&mut self, id: LifeId, now: Stamp, publish: bool) {
        let Some(life) = self.lives.get_mut(&id) else {
            return;
        };
        if publish && let Some(member) = self.profiles.get(&life.seat) {
            let target = member.spec.target.as_deref();
            life.publish(now, target, &self.tools.encode);
            if member.seat.keep.is_some() {
                self.tools.published.notify_one();
            }
        }
        if life.variant.is_default()
            && let Some(member) = self.profiles.get(&life.seat)
        {
            let name = &member.spec.name;
            self.outages.look(name, life.seat, &life.machine, now);
        }
        let wake = life.machine.wake_at(now);
        if wake != life.wake {
            if let Some(at) = life.wake {
                self.wakes.remove(&(at, id));
            }
            if let Some(at) = wake {
                self.wakes.insert((at, id));
            }
            life.wake = wake;
        }
    }

    /// What time has made due: wake-ups, queued attempts, and doubts when a clock has jumped.
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
            let all: Vec<LifeId> = self.lives.keys().copied().collect();
            for life in all {
                self.handle(life, Event::Tick);
            }
        }
        while let Some((at, life)) = self.wakes.first().copied()
            && at <= now.boot
        {
            // Taken out first: a lifecycle that plans the same moment again is asked again, but not in this round.
            self.wakes.pop_first();
            if let Some(life) = self.lives.get_mut(&life) {
                life.wake = None;
            }
            self.handle(life, Event::Tick);
        }
        self.outages.remind(now);
        self.start_queued(now);
    }
}
