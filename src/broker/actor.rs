//! The one task that owns every lifecycle: commands, results and time come in; attempts, views and answers go out.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{Id, JoinError, JoinSet};
use tracing::{debug, info};

use super::budget::{Budget, Next};
use super::life::{Life, Waiter, news, tell};
use super::outage::Outages;
use super::view::Slot;
use super::{
    Asker, Command, NoAnswer, Reported, Seat, SeatId, Spec, Tools, VARIANTS_PER_PRINCIPAL,
    VARIANTS_PER_PROFILE,
};
use crate::core::credential::{Fingerprint, Issued, Variant};
use crate::core::failure::Failure;
use crate::core::lifecycle::{Event, Lifecycle, Reaction, State, Verdict};
use crate::core::profile::ProfileName;
use crate::core::repeated::Repeated;
use crate::core::time::{BootTime, STEP_BACK_NOTICED, Stamp};

/// The longest sleep. Timers stop while the machine sleeps and know nothing of clock steps, so the clock is looked at this
/// often whatever was planned. Longer delays renewals after a resume by as much; readers check for themselves anyway.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// When the wall clock has run ahead of the boot clock by this much, every lifecycle is asked whether it doubts its
/// credential. Well below what they tolerate, so that slow drift adds up here and is noticed in time there.
const DRIFT_NOTICED: Duration = Duration::from_secs(5);

/// An attempt of a provider that asks nobody on the network.
const LOCAL_DEADLINE: Duration = Duration::from_secs(60);

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

struct Running {
    life: LifeId,
    attempt: u64,
    upstream: Option<String>,
    started: BootTime,
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

    fn seat(&mut self, seat: Arc<Seat>, mut spec: Box<Spec>) {
        self.join_budget(&spec);
        let id = seat.id;
        if !spec.replaces {
            self.outages.in_force(&spec.name, id);
        }
        let left = std::mem::take(&mut spec.left);
        let own = self.be_born(id, &spec, Variant::default(), seat.own.clone());
        self.profiles.insert(
            id,
            Member {
                seat,
                spec,
                own,
                variants: HashMap::new(),
            },
        );
        let now = self.tools.clock.now();
        for (variant, credential, outdated) in left {
            if let Ok(life) = self.life_for(id, variant, &Asker::default())
                && let Some(life) = self.lives.get_mut(&life)
            {
                life.machine.inherit(now, credential, outdated);
            }
        }
        let variants = self.profiles.get(&id).into_iter();
        let variants: Vec<LifeId> = variants.flat_map(Member::lives).collect();
        for life in std::iter::once(own).chain(variants) {
            self.handle(life, Event::Tick);
        }
    }

    fn succeed(&mut self, id: SeatId, generation: u64) {
        let now = self.tools.clock.now();
        if let Some(member) = self.profiles.get(&id) {
            self.outages.in_force(&member.spec.name, id);
        }
        if let Some(own) = self.profiles.get(&id).map(|member| member.own)
            && let Some(life) = self.lives.get_mut(&own)
        {
            life.machine.succeed(generation);
            self.settle(own, now, true);
        }
    }

    fn again(&mut self, id: SeatId) {
        let member = self.profiles.get(&id).into_iter();
        let lives: Vec<LifeId> = member
            .flat_map(|one| std::iter::once(one.own).chain(one.lives()))
            .collect();
        for life in lives {
            self.handle(life, Event::Again);
        }
    }

    fn remove(&mut self, id: SeatId) {
        let Some(member) = self.profiles.remove(&id) else {
            return;
        };
        for life in std::iter::once(member.own).chain(member.lives()) {
            self.bury(life);
        }
        self.outages.forget(&member.spec.name, id);
        self.leave_budget(id, &member.spec);
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

    /// The life of a variant, which begins when it is first asked for.
    fn life_for(&mut self, id: SeatId, variant: Variant, by: &Asker) -> Result<LifeId, NoAnswer> {
        let member = self.profiles.get(&id).ok_or(NoAnswer::Gone)?;
        if variant.is_default() {
            return Ok(member.own);
        }
        if let Some((life, _)) = member.variants.get(&variant) {
            return Ok(*life);
        }
        self.forget_sleeping_variants(id);
        let member = self.profiles.get(&id).ok_or(NoAnswer::Gone)?;
        let of_theirs = by.uid.map_or(0, |uid| {
            let owners = member.variants.values();
            owners.filter(|(_, owner)| *owner == Some(uid)).count()
        });
        if member.variants.len() >= VARIANTS_PER_PROFILE || of_theirs >= VARIANTS_PER_PRINCIPAL {
            return Err(NoAnswer::TooManyVariants);
        }
        let mut spec = member.spec.clone();
        // Nobody knows whether it will be asked for again.
        spec.rules.eager = false;
        let slot = Arc::new(Slot::new(false));
        let life = self.be_born(id, &spec, variant.clone(), slot.clone());
        if let Some(member) = self.profiles.get_mut(&id) {
            member.variants.insert(variant.clone(), (life, by.uid));
            member.seat.variants.rcu(|variants| {
                let mut variants = HashMap::clone(variants);
                variants.insert(variant.clone(), slot.clone());
                variants
            });
        }
        Ok(life)
    }

    /// Variants that nobody asked for lately and that have no credential make room.
    fn forget_sleeping_variants(&mut self, id: SeatId) {
        let now = self.tools.clock.now();
        let Some(member) = self.profiles.get_mut(&id) else {
            return;
        };
        let lives = &self.lives;
        let gone: Vec<(Variant, LifeId)> = member
            .variants
            .iter()
            .filter(|(_, (life, _))| {
                lives.get(life).is_none_or(|life| {
                    life.waiters.is_empty() && life.machine.state(now) == State::Asleep
                })
            })
            .map(|(variant, (life, _))| (variant.clone(), *life))
            .collect();
        for (variant, life) in gone {
            if let Some(member) = self.profiles.get_mut(&id) {
                member.variants.remove(&variant);
                member.seat.variants.rcu(|variants| {
                    let mut variants = HashMap::clone(variants);
                    variants.remove(&variant);
                    variants
                });
            }
            self.bury(life);
        }
    }

    fn be_born(&mut self, seat: SeatId, spec: &Spec, variant: Variant, slot: Arc<Slot>) -> LifeId {
        let mut phase = DefaultHasher::new();
        (self.tools.host_seed, &spec.name, &variant).hash(&mut phase);
        let mut machine = Lifecycle::new(spec.rules.clone(), phase.finish());
        if let Some((until, trouble)) = &spec.told_to_wait {
            machine = machine.told_to_wait(*until, trouble.clone());
        }
        if spec.replaces {
            machine = machine.replacing();
        }
        self.next_life += 1;
        self.lives.insert(
            self.next_life,
            Life {
                seat,
                variant,
                machine,
                slot,
                waiters: Vec::new(),
                wake: None,
                attempt: None,
                urgent: false,
            },
        );
        self.next_life
    }

    fn bury(&mut self, id: LifeId) {
        let Some(mut life) = self.lives.remove(&id) else {
            return;
        };
        if let Some(at) = life.wake {
            self.wakes.remove(&(at, id));
        }
        if let Some((attempt, task)) = life.attempt.take() {
            for budget in self.budgets.values_mut() {
                budget.withdraw((id, attempt));
            }
            if let Some(task) = task {
                task.abort();
            }
        }
        life.slot.close();
        for waiter in life.waiters {
            let _ = waiter.reply.send(Err(NoAnswer::Gone));
        }
    }

    fn join_budget(&mut self, spec: &Spec) {
        let Some(upstream) = &spec.upstream else {
            return;
        };
        self.budgets
            .entry(upstream.name.clone())
            .or_insert_with(Budget::new)
            .join(upstream.max_in_flight, upstream.max_per_second);
    }

    fn leave_budget(&mut self, id: SeatId, spec: &Spec) {
        let Some(upstream) = &spec.upstream else {
            return;
        };
        if let Some(budget) = self.budgets.get_mut(&upstream.name) {
            budget.leave(id, upstream.max_in_flight, upstream.max_per_second);
        }
        self.forget_budget(&upstream.name);
    }

    /// Of an identity provider that no profile uses any more, when the last attempt has ended: names may come and go.
    fn forget_budget(&mut self, name: &str) {
        if self.budgets.get(name).is_some_and(Budget::is_over) {
            self.budgets.remove(name);
        }
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
            if let Some((before, Some(task))) = life.attempt.replace((attempt, None)) {
                debug!(profile = %member.spec.name, attempt = before, "attempt given up for a newer one");
                task.abort();
            }
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

    fn promote(&mut self, id: LifeId) {
        if let Some(life) = self.lives.get_mut(&id)
            && !life.urgent
            && let Some((attempt, None)) = life.attempt
            && let Some(member) = self.profiles.get(&life.seat)
            && let Some(upstream) = &member.spec.upstream
            && let Some(budget) = self.budgets.get_mut(&upstream.name)
        {
            life.urgent = true;
            budget.promote((id, attempt));
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

    fn start_queued(&mut self, now: Stamp) {
        self.refill = None;
        let mut start = Vec::new();
        for (name, budget) in &mut self.budgets {
            loop {
                match budget.next(now.boot) {
                    Next::Start(item) => start.push((name.clone(), item)),
                    Next::At(at) => {
                        self.refill = Some(self.refill.map_or(at, |first| first.min(at)));
                        break;
                    }
                    Next::Nothing => break,
                }
            }
        }
        for (upstream, (life, attempt)) in start {
            let current = self.lives.get(&life).is_some_and(
                |life| matches!(life.attempt, Some((number, None)) if number == attempt),
            );
            if current {
                self.tasks_start(life, attempt, Some(upstream));
            } else if let Some(budget) = self.budgets.get_mut(&upstream) {
                budget.done();
                self.forget_budget(&upstream);
            }
        }
    }

    fn tasks_start(&mut self, id: LifeId, attempt: u64, upstream: Option<String>) {
        let Some(life) = self.lives.get_mut(&id) else {
            return;
        };
        let Some(member) = self.profiles.get(&life.seat) else {
            return;
        };
        let provider = member.spec.provider.clone();
        let variant = life.variant.clone();
        let deadline = member
            .spec
            .upstream
            .as_ref()
            .map_or(LOCAL_DEADLINE, |upstream| upstream.deadline);
        let task = self.tasks.spawn(async move {
            tokio::time::timeout(deadline, provider.fetch(&variant))
                .await
                .unwrap_or_else(|_| {
                    Err(Failure::transient(format!(
                        "no credential within {} s: is the identity provider slow? http.timeout sets the limit",
                        deadline.as_secs()
                    )))
                })
        });
        life.attempt = Some((attempt, Some(task.clone())));
        self.running.insert(
            task.id(),
            Running {
                life: id,
                attempt,
                upstream,
                started: self.tools.clock.now().boot,
            },
        );
    }

    fn done(&mut self, result: Result<(Id, Result<Issued, Failure>), JoinError>) {
        let (task, outcome) = match result {
            Ok((task, outcome)) => (task, Some(outcome)),
            Err(error) if error.is_panic() => (
                error.id(),
                Some(Err(Failure::transient(
                    "the attempt ended in a defect of tokend; please report it",
                ))),
            ),
            Err(error) => (error.id(), None),
        };
        let Some(run) = self.running.remove(&task) else {
            return;
        };
        if let Some(name) = run.upstream
            && let Some(budget) = self.budgets.get_mut(&name)
        {
            budget.done();
            self.forget_budget(&name);
        }
        let Some(life) = self.lives.get_mut(&run.life) else {
            return;
        };
        let Some(outcome) = outcome else { return };
        let current = matches!(life.attempt, Some((number, _)) if number == run.attempt);
        if current {
            life.attempt = None;
        }
        if let Some(member) = self.profiles.get(&life.seat) {
            let attempts = &member.seat.attempts;
            let took = self.tools.clock.now().boot.since(run.started);
            attempts.ended(outcome.as_ref().err().map(|failure| failure.kind), took);
        }
        let before = life.machine.trouble().cloned();
        let told = self.outages.told;
        let event = match outcome {
            Ok(issued) => Event::Fetched {
                attempt: run.attempt,
                fingerprint: self.tools.fingerprints.of(issued.scheme, &issued.token),
                issued: Box::new(issued),
            },
            Err(failure) => Event::Failed {
                attempt: run.attempt,
                failure,
            },
        };
        self.handle(run.life, event);
        // That an outage begins or ends says it all.
        if current
            && self.outages.told == told
            && let Some(life) = self.lives.get(&run.life)
            && let Some(member) = self.profiles.get(&life.seat)
        {
            let (name, before, after) =
                (&member.spec.name, before.as_ref(), life.machine.trouble());
            let now = self.tools.clock.now().boot;
            let said = match life.variant.is_default() || !news(before, after) {
                true => Some(0),
                false => self.lines.say(name.clone(), now),
            };
            if let Some(left_out) = said {
                tell(name, before, after, left_out);
            }
        }
    }
}
