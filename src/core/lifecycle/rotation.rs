//! Two versions of one profile, the one in force and the one that is to follow: what is refused of
//! the one is a sign for the other. An identity provider switches to a new secret or key when it
//! likes, before or after the file has it, on one node and then on the next; when it begins to
//! refuse what it took until then, the other version is the one to try.

use std::time::Duration;

use super::Trouble;
use crate::core::failure::FailureKind;
use crate::core::time::BootTime;

/// Signs may come in quick succession, when nodes behind one name answer in turn: what follows is
/// tried at once no more often than this. Between, it is tried by itself.
const SIGN_COUNTS_AGAIN: Duration = Duration::from_secs(60);

/// What was seen of both versions last.
#[derive(Debug, Default)]
pub struct Rotation {
    live: Option<String>,
    next: Option<String>,
    last: Option<BootTime>,
}

impl Rotation {
    /// Whether the version that is to follow should be tried at once: the one in force is refused,
    /// otherwise than before, or the refusal of the next one itself has changed.
    pub fn sign(&mut self, now: BootTime, live: Option<&Trouble>, next: Option<&Trouble>) -> bool {
        let (live, next) = (refusal(live), refusal(next));
        let of_live = live.is_some() && live != self.live;
        let of_next = self.next.is_some() && next.is_some() && next != self.next;
        self.live = live;
        // What came in between, an outage say, does not make the same refusal a new one.
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

/// How the identity provider refuses; None: it does not.
fn refusal(trouble: Option<&Trouble>) -> Option<String> {
    trouble
        .map(|trouble| &trouble.failure)
        .filter(|failure| failure.kind == FailureKind::Permanent)
        .map(|failure| failure.oauth_error.clone().unwrap_or_default())
}
