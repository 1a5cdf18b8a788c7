//! Whoever is at the other end of a connection: who it is, what it has been given, and whether it still does something.

use std::sync::Arc;

use super::activity::Activity;
use super::places::HalfSent;
use crate::audit::Ledger;
use crate::caller::Peer;

/// Of one connection.
#[derive(Debug)]
pub struct Guest {
    /// The kernel's word.
    pub peer: Arc<Peer>,
    /// What it has been given.
    pub ledger: Ledger,
    /// Whether it is silent.
    pub activity: Arc<Activity>,
    /// What half-sent requests of its user hold.
    pub half_sent: Arc<HalfSent>,
}

impl Guest {
    /// Has been given nothing yet.
    pub fn new(peer: Peer, half_sent: Arc<HalfSent>) -> Guest {
        Guest {
            peer: Arc::new(peer),
            ledger: Ledger::default(),
            activity: Arc::new(Activity::default()),
            half_sent,
        }
    }

    /// Its user.
    pub fn uid(&self) -> u32 {
        self.peer.caller.uid
    }
}
