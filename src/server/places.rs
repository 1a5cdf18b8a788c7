//! Room for connections: so many in all, so many of one user, so that nobody's leak shuts out the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts open connections.
#[derive(Debug)]
pub struct Places {
    in_all: u32,
    per_user: u32,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: u32,
    by: HashMap<u32, u32>,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `server.limits.connections`
    #[error("all {0} connections are taken (server.limits.connections)")]
    InAll(u32),
    /// `server.limits.connections_per_user`
    #[error("uid {uid} has {limit} connections open (server.limits.connections_per_user)")]
    User {
        /// Whose.
        uid: u32,
        /// The limit.
        limit: u32,
    },
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
    uid: u32,
}

impl Places {
    /// Nobody is connected yet.
    pub fn new(in_all: u32, per_user: u32) -> Arc<Places> {
        Arc::new(Places {
            in_all,
            per_user,
            taken: Mutex::default(),
        })
    }

    /// A place for a connection of this user.
    pub fn take(self: &Arc<Self>, uid: u32) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.in_all >= self.in_all {
            return Err(Full::InAll(self.in_all));
        }
        let by = taken.by.entry(uid).or_default();
        if *by >= self.per_user {
            return Err(Full::User {
                uid,
                limit: self.per_user,
            });
        }
        *by += 1;
        taken.in_all += 1;
        Ok(Place {
            places: self.clone(),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self
            .places
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.in_all -= 1;
        if let Some(by) = taken.by.get_mut(&self.uid) {
            *by -= 1;
            if *by == 0 {
                taken.by.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_cannot_take_every_place() {
        let places = Places::new(3, 2);
        let first = places.take(1).expect("room");
        let _second = places.take(1).expect("room");
        assert_eq!(
            places.take(1).expect_err("full"),
            Full::User { uid: 1, limit: 2 }
        );
        let _other = places.take(2).expect("room");
        assert_eq!(places.take(3).expect_err("full"), Full::InAll(3));
        drop(first);
        places.take(1).expect("room again");
    }
}
