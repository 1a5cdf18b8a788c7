//! Room for connections: so many in all, so many of one user, so that nobody's leak shuts out the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// So many have to leave before it is worth while to look for memory that they have left.
const MANY: u32 = 64;

/// Counts open connections.
#[derive(Debug)]
pub struct Places {
    in_all: u32,
    per_user: u32,
    /// What half-sent requests of one user may hold, in bytes.
    half_sent: u32,
    half_sent_refused: Arc<AtomicU64>,
    taken: Mutex<Taken>,
    many_left: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: u32,
    by: HashMap<u32, User>,
    /// The most at a time since the last time that many had left.
    most: u32,
    refused_in_all: u64,
    refused_users: u64,
}

#[derive(Debug)]
struct User {
    connections: u32,
    half_sent: Arc<HalfSent>,
}

/// What half-sent requests of one user hold: without a bound of their own it would be as much as fits into all streams of all
/// connections, which is gigabytes.
#[derive(Debug)]
pub struct HalfSent {
    bytes: AtomicUsize,
    most: usize,
    refused: Arc<AtomicU64>,
}

impl HalfSent {
    /// So many bytes at the most. What finds no room is counted.
    pub fn new(most: u32, refused: Arc<AtomicU64>) -> HalfSent {
        HalfSent {
            bytes: AtomicUsize::new(0),
            most: most.try_into().unwrap_or(usize::MAX),
            refused,
        }
    }

    /// Room for these bytes; false when there is none.
    pub fn take(&self, bytes: usize) -> bool {
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if taken > self.most {
            self.give_back(bytes);
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        taken <= self.most
    }

    /// That they are held no longer.
    pub fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
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
    /// Bytes that half-sent requests hold of the user who has most of them.
    pub half_sent_of_one_user: u32,
    /// Requests that were refused since there was no room for waiting.
    pub half_sent_refused: u64,
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
    /// Of all connections of this user.
    pub half_sent: Arc<HalfSent>,
}

impl Places {
    /// Nobody is connected yet.
    pub fn new(in_all: u32, per_user: u32, half_sent: u32) -> Arc<Places> {
        Arc::new(Places {
            in_all,
            per_user,
            half_sent,
            half_sent_refused: Arc::default(),
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
            of_one_user: taken
                .by
                .values()
                .map(|user| user.connections)
                .max()
                .unwrap_or(0),
            refused_in_all: taken.refused_in_all,
            refused_users: taken.refused_users,
            half_sent_of_one_user: taken
                .by
                .values()
                .map(|user| user.half_sent.bytes.load(Ordering::Relaxed))
                .max()
                .and_then(|most| most.try_into().ok())
                .unwrap_or(0),
            half_sent_refused: self.half_sent_refused.load(Ordering::Relaxed),
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
        let user = taken.by.entry(uid).or_insert_with(|| User {
            connections: 0,
            half_sent: Arc::new(HalfSent::new(
                self.half_sent,
                self.half_sent_refused.clone(),
            )),
        });
        if user.connections >= self.per_user {
            taken.refused_users += 1;
            return Err(Full::User {
                uid,
                limit: self.per_user,
            });
        }
        user.connections += 1;
        let half_sent = user.half_sent.clone();
        taken.in_all += 1;
        taken.most = taken.most.max(taken.in_all);
        Ok(Place {
            places: self.clone(),
            uid,
            half_sent,
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
        if let Some(user) = taken.by.get_mut(&self.uid) {
            user.connections -= 1;
            if user.connections == 0 {
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
        let places = Places::new(3, 2, 64);
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
            half_sent_of_one_user: 0,
            half_sent_refused: 0,
        };
        assert_eq!(places.room(), room);
        drop(first);
        places.take(1).expect("room again");
    }

    #[test]
    fn what_waits_is_counted_for_its_user() {
        let places = Places::new(3, 3, 64);
        let (first, second) = (places.take(1).expect("room"), places.take(1).expect("room"));
        let other = places.take(2).expect("room");
        assert!(first.half_sent.take(40));
        assert!(!second.half_sent.take(40), "of the same user");
        assert!(other.half_sent.take(50));
        let seen = |of_one, refused| {
            let room = places.room();
            assert_eq!(
                (room.half_sent_of_one_user, room.half_sent_refused),
                (of_one, refused)
            );
        };
        seen(50, 1);
        first.half_sent.give_back(40);
        assert!(second.half_sent.take(64));
        seen(64, 1);
        drop((first, second));
        seen(50, 1);
    }

    #[tokio::test]
    async fn many_leave_only_where_many_were() {
        let places = Places::new(1000, 1000, 64);
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
