//! Profiles come and go, and with them the lifecycles of their variants.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Actor, LifeId, Member};
use crate::broker::life::Life;
use crate::broker::view::Slot;
use crate::broker::{
    Asker, NoAnswer, Seat, SeatId, Spec, VARIANTS_PER_PRINCIPAL, VARIANTS_PER_PROFILE,
};
use crate::core::credential::Variant;
use crate::core::lifecycle::{Event, Lifecycle, State};

impl Actor {
    pub(super) fn seat(&mut self, seat: Arc<Seat>, mut spec: Box<Spec>) {
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

    pub(super) fn succeed(&mut self, id: SeatId, generation: u64) {
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

    pub(super) fn again(&mut self, id: SeatId) {
        let member = self.profiles.get(&id).into_iter();
        let lives: Vec<LifeId> = member
            .flat_map(|one| std::iter::once(one.own).chain(one.lives()))
            .collect();
        for life in lives {
            self.handle(life, Event::Again);
        }
    }

    pub(super) fn remove(&mut self, id: SeatId) {
        let Some(member) = self.profiles.remove(&id) else {
            return;
        };
        for life in std::iter::once(member.own).chain(member.lives()) {
            self.bury(life);
        }
        self.outages.forget(&member.spec.name, id);
        self.leave_budget(id, &member.spec);
    }

    /// The life of a variant, which begins when it is first asked for.
    pub(super) fn life_for(
        &mut self,
        id: SeatId,
        variant: Variant,
        by: &Asker,
    ) -> Result<LifeId, NoAnswer> {
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
}
