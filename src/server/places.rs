//! Room for connections: so many in all, so many of one user, so that nobody's leak shuts out the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// So many have to leave before it is worth while to look for memory that they have left.
const MANY: u32 = 64;

/// Counts open connections.
#[derive(Debug)]
pub struct Places {
    in_all: u32,
    per_user: u32,
    taken: Mutex<Taken>,
    many_left: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: u32,
    by: HashMap<u32, u32>,
    /// The most at a time since the last time that many had left.
    most: u32,
    refused_in_all: u64,
    refused_users: u64,
}

/// How much room is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Connections that are open.
    pub in_all: u32,
    /// Those of the user who has most.
    pub of_one_user: u32,
    /// Connections that were closed since all places were taken.
    pub refused_in_all: u64,
    /// Connections that were closed since their user had as many as one may have.
    pub refused_users: u64,
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
            many_left: Notify::new(),
        })
    }

    /// Comes when many connections have closed that were open at the same time: each of many short ones that follow one
    /// another finds the memory of the one before.
    pub async fn many_left(&self) {
        self.many_left.notified().await;
    }

    /// How much room is taken now.
    pub fn room(&self) -> Room {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        Room {
            in_all: taken.in_all,
            of_one_user: taken.by.values().copied().max().unwrap_or(0),
            refused_in_all: taken.refused_in_all,
            refused_users: taken.refused_users,
        }
    }

    /// A place for a connection of this user.
    pub fn take(self: &Arc<Self>, uid: u32) -> Result<Place, Full> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.in_all >= self.in_all {
            taken.refused_in_all += 1;
            return Err(Full::InAll(self.in_all));
        }
        let taken = &mut *taken;
        let by = taken.by.entry(uid).or_default();
        if *by >= self.per_user {
            taken.refused_users += 1;
            return Err(Full::User {
                uid,
                limit: self.per_user,
            });
        }
        *by += 1;
        taken.in_all += 1;
        taken.most = taken.most.max(taken.in_all);
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
        if taken.most - taken.in_all >= MANY {
            taken.most = taken.in_all;
            self.places.many_left.notify_one();
        }
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
        let room = Room {
            in_all: 3,
            of_one_user: 2,
            refused_in_all: 1,
            refused_users: 1,
        };
        assert_eq!(places.room(), room);
        drop(first);
        places.take(1).expect("room again");
    }

    #[tokio::test]
    async fn many_leave_only_where_many_were() {
        let places = Places::new(1000, 1000);
        let told = || is_there(places.many_left());
        for _ in 0..3 * MANY {
            drop(places.take(1).expect("room"));
        }
        assert!(!told().await, "one at a time");
        let mut open: Vec<Place> = (0..MANY).map(|_| places.take(1).expect("room")).collect();
        open.pop();
        assert!(!told().await, "one of many");
        drop(open);
        assert!(told().await);
        assert!(!told().await, "told once");
    }

    /// Whether it is there already.
    async fn is_there(coming: impl Future<Output = ()>) -> bool {
        tokio::select! {
            biased;
            () = coming => true,
            () = std::future::ready(()) => false,
        }
    }
}
