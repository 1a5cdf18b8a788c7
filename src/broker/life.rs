//! One credential: its lifecycle, where it is published, and who waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::view::{Answer, Encode, Slot, View};
use super::{NoAnswer, SeatId, Spec};
use crate::core::credential::{Issued, Variant};
use crate::core::failure::Failure;
use crate::core::lifecycle::{Lifecycle, Verdict};
use crate::core::time::{BootTime, Stamp};

/// Where an answer goes.
pub type Reply = oneshot::Sender<Result<Arc<Answer>, NoAnswer>>;

/// One credential of a profile.
pub struct Life {
    pub seat: SeatId,
    pub variant: Variant,
    pub machine: Lifecycle,
    pub slot: Arc<Slot>,
    pub waiters: Vec<Waiter>,
    pub wake: Option<BootTime>,
    pub attempt: Option<(u64, Option<AbortHandle>)>,
}

/// A caller that waits.
pub struct Waiter {
    pub min_ttl: Duration,
    pub reply: Reply,
}

impl Life {
    /// Publishes what callers may see now.
    pub fn publish(&self, now: Stamp, target: Option<&str>, encode: &Encode) {
        let trouble = self.machine.trouble().cloned();
        let stale = trouble.is_some();
        let before = self.slot.view();
        let answer = self.machine.held().map(|credential| {
            match &before.answer {
                // Nothing that is encoded has changed.
                Some(answer)
                    if Arc::ptr_eq(&answer.credential, credential) && answer.stale == stale =>
                {
                    answer.clone()
                }
                _ => Arc::new(Answer {
                    credential: credential.clone(),
                    stale,
                    encoded: encode(credential, stale, target, now),
                }),
            }
        });
        let refusal = match self.machine.verdict(now, Duration::ZERO) {
            Verdict::Refuse(refusal) => Some(refusal),
            Verdict::Serve(_) | Verdict::Wait => None,
        };
        self.slot.publish(View::new(
            answer,
            self.machine.state(now),
            trouble,
            refusal,
            self.machine.due(now),
        ));
    }

    /// Answers those whose wait is over.
    pub fn answer_waiters(&mut self, now: Stamp) {
        if self.waiters.is_empty() {
            return;
        }
        let view = self.slot.view();
        for waiter in std::mem::take(&mut self.waiters) {
            if waiter.reply.is_closed() {
                continue;
            }
            let answer = match self.machine.verdict(now, waiter.min_ttl) {
                Verdict::Serve(_) => match &view.answer {
                    Some(answer) => Ok(answer.clone()),
                    None => {
                        self.waiters.push(waiter);
                        continue;
                    }
                },
                Verdict::Refuse(refusal) => Err(NoAnswer::Refused(refusal)),
                Verdict::Wait => {
                    self.waiters.push(waiter);
                    continue;
                }
            };
            let _ = waiter.reply.send(answer);
        }
    }
}

/// Says once what happened: the first failure and the recovery aloud, repetitions quietly.
pub fn tell(spec: &Spec, machine: &Lifecycle, outcome: &Result<Issued, Failure>) {
    let profile = &spec.name;
    match (outcome, machine.trouble()) {
        (Ok(_), None) => debug!(%profile, "credential obtained"),
        (Ok(_), Some(trouble)) => {
            info!(%profile, failures = trouble.failures, "credential obtained again");
        }
        (Err(failure), None) => warn!(
            %profile,
            error = failure.message,
            oauth_error = failure.oauth_error,
            kind = ?failure.kind,
            "cannot get a credential; trying again"
        ),
        (Err(failure), Some(trouble)) if trouble.failure.message != failure.message => warn!(
            %profile,
            error = failure.message,
            oauth_error = failure.oauth_error,
            kind = ?failure.kind,
            failures = trouble.failures,
            "still no credential, for another reason"
        ),
        (Err(failure), Some(trouble)) => {
            debug!(%profile, error = failure.message, failures = trouble.failures, "still no credential");
        }
    }
}
