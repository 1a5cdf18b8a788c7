//! Whoever is at the other end of a connection: who it is, what it has been given, and whether it
//! still does something.

use std::sync::Arc;

use super::accounts::PrincipalAccount;
use super::activity::Activity;
use crate::audit::Ledger;
use crate::caller::Peer;

/// Of one connection.
#[derive(Debug)]
pub struct Session {
    /// The kernel's word.
    pub peer: Arc<Peer>,
    /// What it has been given.
    pub ledger: Ledger,
    /// Whether it is silent.
    pub activity: Arc<Activity>,
    /// Whose account pays for it.
    pub account: PrincipalAccount,
}

impl Session {
    /// Has been given nothing yet.
    pub fn new(peer: Peer, account: PrincipalAccount) -> Session {
        Session {
            peer: Arc::new(peer),
            ledger: Ledger::default(),
            activity: Arc::new(Activity::default()),
            account,
        }
    }
}
