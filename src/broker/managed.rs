//! One credential: its lifecycle, its slot, and the callers that wait for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{debug, info, warn};

use super::view::{Answer, EncodeFn, Slot, View};
use super::{NoAnswer, ProfileId};
use crate::core::credential::{Variant, skewed};
use crate::core::failure::FailureKind;
use crate::core::lifecycle::{Lifecycle, LifecycleState, Trouble, Verdict};
use crate::core::profile::ProfileName;
use crate::core::time::{BootTime, Stamp};

/// At most this many callers may wait for one credential. Each costs the memory of its connection
/// too, and they are answered one by one.
const WAITERS_LONGEST: usize = 50_000;

/// A credential is about to expire when less than this part of its life is left, or less than
/// `PRESSING_LEAST`. Its callers will soon be without one and have to wait. Renewals are due well
/// before that.
const PRESSING_PART: u32 = 10;
const PRESSING_LEAST: Duration = Duration::from_secs(10);

/// The channel that takes an answer to its caller.
pub type Reply = oneshot::Sender<Result<Arc<Answer>, NoAnswer>>;

/// One credential of a profile.
pub struct ManagedCredential {
    pub handle: ProfileId,
    pub variant: Variant,
    pub machine: Lifecycle,
    pub slot: Arc<Slot>,
    pub waiters: Vec<Waiter>,
    pub wake: Option<BootTime>,
    pub attempt: Option<(u64, Option<AbortHandle>)>,
    /// The attempt goes before attempts that no caller waits for.
    pub urgent: bool,
}

/// A caller that waits.
pub struct Waiter {
    pub min_ttl: Duration,
    pub reply: Reply,
}

impl ManagedCredential {
    /// Publishes what callers may see now.
    pub fn publish(&self, now: Stamp, target: Option<&str>, encode: &EncodeFn) {
        let trouble = self.machine.trouble().cloned();
        let stale = trouble.is_some();
        let before = self.slot.view();
        let answer = self.machine.held().map(|credential| {
            match &before.answer {
                // None of what is encoded has changed.
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

    /// When the credential is about to expire. Never, if there is none: callers that miss it come
    /// and wait.
    pub fn pressing_from(&self, now: Stamp) -> BootTime {
        let held = self.machine.held();
        let life = held.and_then(|held| Some((held.obtained.boot, held.expires?)));
        let life = life.filter(|(_, end)| *end > now.boot);
        life.map_or(BootTime::NEVER, |(born, end)| {
            end.minus((end.since(born) / PRESSING_PART).max(PRESSING_LEAST))
        })
    }

    /// Answers a caller at once, or lets it wait.
    pub fn receive(&mut self, waiter: Waiter, now: Stamp) {
        if self.waiters.len() >= WAITERS_LONGEST {
            let _ = waiter.reply.send(Err(NoAnswer::Crowded));
        } else if let Some(waiter) = self.judge(waiter, now) {
            self.waiters.push(waiter);
        }
    }

    /// Answers the callers whose wait is over.
    pub fn answer_waiters(&mut self, now: Stamp) {
        for waiter in std::mem::take(&mut self.waiters) {
            if !waiter.reply.is_closed()
                && let Some(waiter) = self.judge(waiter, now)
            {
                self.waiters.push(waiter);
            }
        }
    }

    /// Sends the verdict of the lifecycle to the caller. Gives back a caller that still has to
    /// wait.
    fn judge(&self, waiter: Waiter, now: Stamp) -> Option<Waiter> {
        let answer = match self.machine.verdict(now, waiter.min_ttl) {
            Verdict::Serve(_) => match &self.slot.view().answer {
                Some(answer) => Ok(answer.clone()),
                None => return Some(waiter),
            },
            Verdict::Refuse(refusal) => Err(NoAnswer::Refused(refusal)),
            Verdict::Wait => return Some(waiter),
        };
        // A caller that has gone away needs no answer.
        let _ = waiter.reply.send(answer);
        None
    }
}

/// Whether an attempt ended otherwise than the one before.
pub fn news(before: Option<&Trouble>, after: Option<&Trouble>) -> bool {
    let message = |trouble: Option<&Trouble>| trouble.map(|one| one.failure.message.clone());
    message(before) != message(after)
}

/// Logs once how an attempt ended: the first failure and the recovery loudly, repetitions quietly.
/// `state` is that after the attempt. `left_out`: how many other lines about the profile were left
/// out since the last one.
pub fn tell(
    profile: &ProfileName,
    before: Option<&Trouble>,
    after: Option<&Trouble>,
    state: LifecycleState,
    left_out: u64,
) {
    let left_out = Some(left_out).filter(|left_out| *left_out > 0);
    match (before, after) {
        (None, None) => debug!(%profile, "credential obtained"),
        (Some(trouble), None) => {
            info!(%profile, failures = trouble.failures, left_out, "credential obtained again");
        }
        (_, Some(trouble)) => {
            let (failure, failures) = (&trouble.failure, trouble.failures);
            if news(before, after) {
                warn!(
                    %profile,
                    error = failure.message,
                    oauth_error = failure.oauth_error,
                    kind = ?failure.kind,
                    failures,
                    left_out,
                    "{}",
                    match (state, failure.kind) {
                        (LifecycleState::Stale, _) => {
                            "cannot renew the credential; it is served until it ends"
                        }
                        (_, FailureKind::Transient) => "cannot get a credential; trying again",
                        (_, FailureKind::Permanent) => {
                            "cannot get a credential before what is refused has changed"
                        }
                    }
                );
            } else {
                debug!(%profile, error = failure.message, failures, "still no credential");
            }
        }
    }
}

/// Logs that the issuer's clock is wrong, or this machine's, when that is new.
pub fn tell_skew(profile: &ProfileName, before: Option<i64>, now: Option<i64>) {
    if before.and_then(skewed).is_none()
        && let Some(said) = now.and_then(skewed)
    {
        warn!(%profile, "{said}");
    }
}
