//! Two versions of one profile: the one in force and the next one. A refusal of one version is a
//! sign for the other. An identity provider switches to a new secret or key when it likes, before
//! or after the file has it, on one node and then on the next. So when it begins to refuse the
//! version that it took until then, the other version should be tried.

use std::time::Duration;

use super::Trouble;
use crate::core::failure::FailureKind;
use crate::core::time::BootTime;

/// Signs may come in quick succession when the nodes behind one name answer in turn. A sign makes
/// the daemon try the next version at once, but no more often than this. In between, the next
/// version is tried at its own times.
const SIGN_COUNTS_AGAIN: Duration = Duration::from_secs(60);

/// What was last seen of both versions.
#[derive(Debug, Default)]
pub struct Rotation {
    live: Option<String>,
    next: Option<String>,
    last: Option<BootTime>,
}

impl Rotation {
    /// Whether the next version should be tried at once: the version in force is refused in a new
    /// way, or the refusal of the next version has changed.
    pub fn sign(&mut self, now: BootTime, live: Option<&Trouble>, next: Option<&Trouble>) -> bool {
        let (live, next) = (refusal(live), refusal(next));
        let of_live = live.is_some() && live != self.live;
        let of_next = self.next.is_some() && next.is_some() && next != self.next;
        self.live = live;
        // Something else in between, for instance an outage, does not make the same refusal a new
        // one.
        self.next = next.or(self.next.take());
        let counts = (of_live || of_next)
            && self
                .last
                .is_none_or(|last| now.since(last) >= SIGN_COUNTS_AGAIN);
        if counts {
            self.last = Some(now);
        }
        counts
    }
}

/// How the identity provider refuses. None: it does not refuse.
fn refusal(trouble: Option<&Trouble>) -> Option<String> {
    trouble
        .map(|trouble| &trouble.failure)
        .filter(|failure| failure.kind == FailureKind::Permanent)
        .map(|failure| failure.oauth_error.clone().unwrap_or_default())
}
