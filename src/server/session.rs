//! The session of one connection: who the caller is, what it has been given, and whether it is
//! active.

use std::sync::Arc;

use super::accounts::PrincipalAccount;
use super::activity::Activity;
use crate::audit::Ledger;
use crate::caller::Peer;

#[derive(Debug)]
pub struct Session {
    /// Who the caller is, as the kernel says.
    pub peer: Arc<Peer>,
    /// What the caller has been given.
    pub ledger: Ledger,
    /// Whether the connection is silent.
    pub activity: Arc<Activity>,
    /// The account that pays for the connection.
    pub account: PrincipalAccount,
}

impl Session {
    /// A session whose caller has been given nothing yet.
    pub fn new(peer: Peer, account: PrincipalAccount) -> Session {
        Session {
            peer: Arc::new(peer),
            ledger: Ledger::default(),
            activity: Arc::new(Activity::default()),
            account,
        }
    }
}
