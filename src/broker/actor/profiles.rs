//! Profiles are added and removed, and with them the lifecycles of their variants.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::{Actor, CredentialId, ManagedProfile};
use crate::broker::managed::ManagedCredential;
use crate::broker::view::Slot;
use crate::broker::{
    Asker, NoAnswer, ProfileHandle, ProfileId, Spec, VARIANTS_PER_PRINCIPAL, VARIANTS_PER_PROFILE,
};
use crate::core::credential::Variant;
use crate::core::lifecycle::{Lifecycle, LifecycleEvent, LifecycleState};

impl Actor {
    pub(super) fn add_profile(&mut self, handle: Arc<ProfileHandle>, mut spec: Box<Spec>) {
        self.join_budget(&spec);
        let id = handle.id;
        if !spec.replaces {
            self.outages.in_force(&spec.name, id);
        }
        let left = std::mem::take(&mut spec.left);
        let own = self.create_credential(id, &spec, Variant::default(), handle.own.clone());
        self.profiles.insert(
            id,
            ManagedProfile {
                handle,
                spec,
                own,
                variants: HashMap::new(),
            },
        );
        let now = self.tools.clock.now();
        for (variant, credential, outdated) in left {
            if let Ok(managed) = self.credential_for(id, variant, &Asker::default())
                && let Some(managed) = self.credentials.get_mut(&managed)
            {
                managed.machine.inherit(now, credential, outdated);
            }
        }
        let variants = self.profiles.get(&id).into_iter();
        let variants: Vec<CredentialId> = variants.flat_map(ManagedProfile::credentials).collect();
        for managed in std::iter::once(own).chain(variants) {
            self.handle(managed, LifecycleEvent::Tick);
        }
    }

    pub(super) fn take_over_from(&mut self, id: ProfileId, generation: u64) {
        let now = self.tools.clock.now();
        if let Some(member) = self.profiles.get(&id) {
            self.outages.in_force(&member.spec.name, id);
        }
        if let Some(own) = self.profiles.get(&id).map(|member| member.own)
            && let Some(managed) = self.credentials.get_mut(&own)
        {
            managed.machine.take_over_from(generation);
            self.settle(own, now, true);
        }
    }

    pub(super) fn again(&mut self, id: ProfileId) {
        let member = self.profiles.get(&id).into_iter();
        let credentials: Vec<CredentialId> = member
            .flat_map(|one| std::iter::once(one.own).chain(one.credentials()))
            .collect();
        for managed in credentials {
            self.handle(managed, LifecycleEvent::Again);
        }
    }

    pub(super) fn remove(&mut self, id: ProfileId) {
        let Some(member) = self.profiles.remove(&id) else {
            return;
        };
        for managed in std::iter::once(member.own).chain(member.credentials()) {
            self.drop_credential(managed);
        }
        self.outages.forget(&member.spec.name, id);
        self.leave_budget(id, &member.spec);
    }

    /// Finds the credential of a variant, and makes it at the first question.
    pub(super) fn credential_for(
        &mut self,
        id: ProfileId,
        variant: Variant,
        by: &Asker,
    ) -> Result<CredentialId, NoAnswer> {
        let member = self.profiles.get(&id).ok_or(NoAnswer::Gone)?;
        if variant.is_default() {
            return Ok(member.own);
        }
        if let Some((managed, _)) = member.variants.get(&variant) {
            return Ok(*managed);
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
        // Nobody knows whether a caller will ask for this variant again.
        spec.rules.eager = false;
        let slot = Arc::new(Slot::new(false));
        let managed = self.create_credential(id, &spec, variant.clone(), slot.clone());
        if let Some(member) = self.profiles.get_mut(&id) {
            member.variants.insert(variant.clone(), (managed, by.uid));
            member.handle.variants.rcu(|variants| {
                let mut variants = HashMap::clone(variants);
                variants.insert(variant.clone(), slot.clone());
                variants
            });
        }
        Ok(managed)
    }

    /// Removes variants that nobody asked for lately and that have no credential.
    fn forget_sleeping_variants(&mut self, id: ProfileId) {
        let now = self.tools.clock.now();
        let Some(member) = self.profiles.get_mut(&id) else {
            return;
        };
        let credentials = &self.credentials;
        let gone: Vec<(Variant, CredentialId)> = member
            .variants
            .iter()
            .filter(|(_, (managed, _))| {
                credentials.get(managed).is_none_or(|managed| {
                    managed.waiters.is_empty()
                        && managed.machine.state(now) == LifecycleState::Asleep
                })
            })
            .map(|(variant, (managed, _))| (variant.clone(), *managed))
            .collect();
        for (variant, managed) in gone {
            if let Some(member) = self.profiles.get_mut(&id) {
                member.variants.remove(&variant);
                member.handle.variants.rcu(|variants| {
                    let mut variants = HashMap::clone(variants);
                    variants.remove(&variant);
                    variants
                });
            }
            self.drop_credential(managed);
        }
    }

    fn create_credential(
        &mut self,
        handle: ProfileId,
        spec: &Spec,
        variant: Variant,
        slot: Arc<Slot>,
    ) -> CredentialId {
        let mut phase = DefaultHasher::new();
        (self.tools.host_seed, &spec.name, &variant).hash(&mut phase);
        let mut machine = Lifecycle::new(spec.rules.clone(), phase.finish());
        if let Some((until, trouble)) = &spec.told_to_wait {
            machine = machine.told_to_wait(*until, trouble.clone());
        }
        if spec.replaces {
            machine = machine.replacing();
        }
        self.next_credential += 1;
        self.credentials.insert(
            self.next_credential,
            ManagedCredential {
                handle,
                variant,
                machine,
                slot,
                waiters: Vec::new(),
                wake: None,
                attempt: None,
                urgent: false,
            },
        );
        self.next_credential
    }

    fn drop_credential(&mut self, id: CredentialId) {
        let Some(mut managed) = self.credentials.remove(&id) else {
            return;
        };
        if let Some(at) = managed.wake {
            self.wakes.remove(&(at, id));
        }
        if let Some((attempt, task)) = managed.attempt.take() {
            for budget in self.budgets.values_mut() {
                budget.withdraw((id, attempt));
            }
            if let Some(task) = task {
                task.abort();
            }
        }
        managed.slot.close();
        for waiter in managed.waiters {
            let _ = waiter.reply.send(Err(NoAnswer::Gone));
        }
    }
}
