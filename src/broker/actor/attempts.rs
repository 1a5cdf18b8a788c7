//! Attempts: they queue at the budget of their issuer, run as tasks, and end with a result.

use tokio::task::{Id, JoinError};

use super::{Actor, CredentialId};
use crate::broker::budget::{Budget, NextStart};
use crate::broker::managed::{news, tell, tell_skew};
use crate::broker::{ProfileId, Spec};
use crate::core::credential::Issued;
use crate::core::failure::Failure;
use crate::core::lifecycle::LifecycleEvent;
use crate::core::plugin::request::FetchPurpose;
use crate::core::time::{BootTime, Stamp};
use crate::provider;

/// A task that makes an attempt.
pub struct RunningAttempt {
    managed: CredentialId,
    attempt: u64,
    upstream: Option<String>,
    started: BootTime,
}

impl Actor {
    pub(super) fn join_budget(&mut self, spec: &Spec) {
        let Some(upstream) = &spec.upstream else {
            return;
        };
        self.budgets
            .entry(upstream.name.clone())
            .or_insert_with(Budget::new)
            .join(upstream.max_in_flight, upstream.max_per_second);
    }

    pub(super) fn leave_budget(&mut self, id: ProfileId, spec: &Spec) {
        let Some(upstream) = &spec.upstream else {
            return;
        };
        if let Some(budget) = self.budgets.get_mut(&upstream.name) {
            budget.leave(id, upstream.max_in_flight, upstream.max_per_second);
        }
        self.forget_budget(&upstream.name);
    }

    /// Forgets a budget that no profile uses any more once its last attempt has ended. Otherwise
    /// the names of issuers that come and go would pile up.
    fn forget_budget(&mut self, name: &str) {
        if self.budgets.get(name).is_some_and(Budget::is_over) {
            self.budgets.remove(name);
        }
    }

    pub(super) fn promote(&mut self, id: CredentialId) {
        if let Some(managed) = self.credentials.get_mut(&id)
            && !managed.urgent
            && let Some((attempt, None)) = managed.attempt
            && let Some(member) = self.profiles.get(&managed.handle)
            && let Some(upstream) = &member.spec.upstream
            && let Some(budget) = self.budgets.get_mut(&upstream.name)
        {
            managed.urgent = true;
            budget.promote((id, attempt));
        }
    }

    pub(super) fn start_queued(&mut self, now: Stamp) {
        self.refill = None;
        let mut start = Vec::new();
        for (name, budget) in &mut self.budgets {
            loop {
                match budget.next(now.boot) {
                    NextStart::Start(item) => start.push((name.clone(), item)),
                    NextStart::At(at) => {
                        self.refill = Some(self.refill.map_or(at, |first| first.min(at)));
                        break;
                    }
                    NextStart::Nothing => break,
                }
            }
        }
        for (upstream, (managed, attempt)) in start {
            self.tasks_start(managed, attempt, Some(upstream));
        }
    }

    pub(super) fn tasks_start(&mut self, id: CredentialId, attempt: u64, upstream: Option<String>) {
        let Some(managed) = self.credentials.get_mut(&id) else {
            return;
        };
        let Some(member) = self.profiles.get(&managed.handle) else {
            return;
        };
        let provider = member.spec.provider.clone();
        let variant = managed.variant.clone();
        let waiting = managed.waiters.iter().map(|waiter| waiter.min_ttl);
        let purpose = FetchPurpose {
            reason: managed.machine.reason(member.spec.replaces),
            min_ttl: waiting.max().unwrap_or_default(),
        };
        let task = self
            .tasks
            .spawn(async move { provider::attempt(provider.as_ref(), &variant, purpose).await });
        managed.attempt = Some((attempt, Some(task.clone())));
        self.running.insert(
            task.id(),
            RunningAttempt {
                managed: id,
                attempt,
                upstream,
                started: self.tools.clock.now().boot,
            },
        );
    }

    pub(super) fn done(&mut self, result: Result<(Id, Result<Issued, Failure>), JoinError>) {
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
        let Some(managed) = self.credentials.get_mut(&run.managed) else {
            return;
        };
        let Some(outcome) = outcome else { return };
        managed.attempt = None;
        if let Some(member) = self.profiles.get(&managed.handle) {
            let attempts = &member.handle.attempts;
            let took = self.tools.clock.now().boot.since(run.started);
            attempts.ended(outcome.as_ref().err().map(|failure| failure.kind), took);
        }
        if let Ok(issued) = &outcome
            && let Some(member) = self.profiles.get(&managed.handle)
        {
            let before = managed.machine.held().and_then(|held| held.clock_skew);
            tell_skew(&member.spec.name, before, issued.clock_skew);
        }
        let before = managed.machine.trouble().cloned();
        let told = self.outages.told;
        let event = match outcome {
            Ok(issued) => LifecycleEvent::Fetched {
                attempt: run.attempt,
                fingerprint: self.tools.fingerprints.of(issued.scheme, &issued.token),
                issued: Box::new(issued),
            },
            Err(failure) => LifecycleEvent::Failed {
                attempt: run.attempt,
                failure,
            },
        };
        self.handle(run.managed, event);
        // The line about the beginning or end of an outage says it already.
        if self.outages.told == told
            && let Some(managed) = self.credentials.get(&run.managed)
            && let Some(member) = self.profiles.get(&managed.handle)
        {
            let (name, before, after) = (
                &member.spec.name,
                before.as_ref(),
                managed.machine.trouble(),
            );
            let now = self.tools.clock.now();
            let said = match managed.variant.is_default() || !news(before, after) {
                true => Some(0),
                false => self.lines.say(name.clone(), now.boot),
            };
            if let Some(left_out) = said {
                tell(name, before, after, managed.machine.state(now), left_out);
            }
        }
    }
}
