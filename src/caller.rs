//! Identifies the caller. The kernel tells about the other end of a connection once, when the
//! connection is accepted. The caller's systemd unit is looked up when it is first needed.

mod directory;
mod units;

use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use tokio::net::UnixStream;

pub use self::directory::{CachedDirectory, SystemDirectory, groups_of};
pub use self::units::KernelOffer;
use self::units::{PeerProcess, Units};
use crate::core::policy::subuid::SubordinateUids;
use crate::core::policy::{Caller, Directory, Subject, Unit};
use crate::core::profile::UnitIdentity;

/// The id that the kernel puts in place of an id from another user namespace that has no number
/// here. It identifies nobody, so no caller with it is served.
const OVERFLOW_DEFAULT: u32 = 65534;

/// Identifies the callers of connections.
#[derive(Clone, Debug)]
pub struct Callers {
    /// The overflow uid and gid, beside [`OVERFLOW_DEFAULT`].
    overflow: (u32, u32),
    units: Arc<Units>,
    subordinate: Arc<ArcSwap<SubordinateUids>>,
}

/// This file lists the uids that users may give to processes of their user namespaces.
pub const SUBUID: &str = "/etc/subuid";

impl Callers {
    /// Asks the kernel once for its overflow ids, and for what it can tell about the unit of a
    /// caller.
    #[must_use]
    pub fn new(identity: UnitIdentity) -> Callers {
        let default = (OVERFLOW_DEFAULT, OVERFLOW_DEFAULT);
        Callers {
            overflow: crate::sys::overflow_ids().unwrap_or(default),
            units: Arc::new(Units::of_this_machine(identity)),
            subordinate: Arc::new(ArcSwap::from_pointee(subordinate_uids())),
        }
    }

    /// Reads again which user owns which subordinate uids. Blocks.
    pub fn read_subordinate_uids(&self) {
        let now = subordinate_uids();
        if now != **self.subordinate.load() {
            self.subordinate.store(Arc::new(now));
        }
    }

    /// The peer that connected. Its identity is that of the moment of `connect`, whichever process
    /// holds the descriptor now.
    ///
    /// # Errors
    /// The kernel does not tell the caller, or tells an overflow id. Such a connection is closed.
    pub fn of(&self, stream: &UnixStream) -> io::Result<Peer> {
        let credentials = stream.peer_cred()?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        if is_overflow(uid, self.overflow.0) || is_overflow(gid, self.overflow.1) {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "the caller's uid {uid} or gid {gid} stands for ids from another user namespace"
                ),
            ));
        }
        let mut groups = crate::sys::peer_groups(stream)?;
        // The overflow id may stand for many groups of another user namespace.
        groups.retain(|group| !is_overflow(*group, self.overflow.1));
        Ok(Peer {
            owner: self.subordinate.load().owner(uid),
            caller: Caller {
                uid,
                gid,
                groups,
                pid: credentials.pid(),
            },
            // Taken now, because the process usually still exists. Without it there is no unit.
            process: Mutex::new(self.units.process(stream, uid, credentials.pid())),
            unit: OnceLock::new(),
            units: self.units.clone(),
        })
    }

    /// A peer of which only ids are known, and never the unit. This is for connections that are not
    /// sockets.
    #[must_use]
    pub fn known_by_ids(&self, caller: Caller) -> Peer {
        Peer {
            owner: caller.uid,
            caller,
            process: Mutex::default(),
            unit: OnceLock::new(),
            units: self.units.clone(),
        }
    }

    /// The reason why rules that name a unit match no caller on this machine. None: such rules
    /// work.
    #[must_use]
    pub fn no_units(&self) -> Option<&str> {
        self.units.trouble()
    }
}

impl Default for Callers {
    fn default() -> Self {
        Callers::new(UnitIdentity::default())
    }
}

fn subordinate_uids() -> SubordinateUids {
    let text = std::fs::read_to_string(SUBUID).unwrap_or_default();
    SubordinateUids::parse(&text, |name| SystemDirectory.user(name).ok().flatten())
}

/// Whether an id is an overflow id. The usual id counts too where this kernel has another: the
/// setting can be changed while the daemon runs, and only `nobody` has the usual id.
fn is_overflow(id: u32, told: u32) -> bool {
    id == told || id == OVERFLOW_DEFAULT
}

/// The other end of one connection.
#[derive(Debug)]
pub struct Peer {
    pub caller: Caller,
    /// The responsible user: the owner of a subordinate uid, otherwise the user itself. This is for
    /// accounts, never for decisions.
    pub owner: u32,
    /// The process that connected, until its unit has been looked up. The number of a process is
    /// used again, but a pidfd stays with its process.
    process: Mutex<Option<PeerProcess>>,
    unit: OnceLock<Option<Arc<str>>>,
    units: Arc<Units>,
}

impl Peer {
    /// The systemd unit, as far as it has been looked up.
    #[must_use]
    pub fn unit(&self) -> Unit<'_> {
        match self.unit.get() {
            None => Unit::NotAsked,
            Some(None) => Unit::Unknown,
            Some(Some(unit)) => Unit::Known(unit),
        }
    }

    /// The subject of access decisions about this peer.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            caller: &self.caller,
            unit: self.unit(),
        }
    }

    /// The unit, if it is known or can be looked up within microseconds. This is for accounts,
    /// which can do without it.
    #[must_use]
    pub fn unit_at_once(&self) -> Option<Arc<str>> {
        if let Some(unit) = self.unit.get() {
            return unit.clone();
        }
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        self.units.quickly(process.as_ref()?)
    }

    /// Looks up the unit, once for the connection. It may read many folders, so it must not run on
    /// a thread that serves; see [`Peer::find_unit`].
    pub fn look_for_unit(&self) {
        self.unit.get_or_init(|| {
            let process = self.take_process()?;
            self.units.of(&process)
        });
    }

    /// Looks up the unit on another thread, once for the connection.
    pub async fn find_unit(self: &Arc<Self>) {
        if self.unit.get().is_none() {
            let peer = self.clone();
            // The task cannot be cancelled. If it panics, the unit stays unknown, which matches no
            // rule.
            let _ = tokio::task::spawn_blocking(move || peer.look_for_unit()).await;
        }
    }

    fn take_process(&self) -> Option<PeerProcess> {
        let mut process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        process.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_names_this_process() {
        let (here, _there) = UnixStream::pair().expect("pair");
        let caller = Callers::default().of(&here).expect("known").caller;
        assert_eq!(caller.uid, rustix::process::geteuid().as_raw());
        assert_eq!(caller.gid, rustix::process::getegid().as_raw());
        assert_eq!(caller.pid, Some(std::process::id().cast_signed()));
        let mut mine: Vec<u32> = rustix::process::getgroups()
            .expect("groups")
            .into_iter()
            .map(rustix::process::Gid::as_raw)
            .collect();
        let mut seen = caller.groups;
        mine.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, mine);
    }

    #[tokio::test]
    async fn an_overflow_id_is_refused() {
        let (here, _there) = UnixStream::pair().expect("pair");
        let callers = Callers {
            overflow: (rustix::process::geteuid().as_raw(), OVERFLOW_DEFAULT),
            ..Callers::default()
        };
        assert!(callers.of(&here).is_err());
        assert!(is_overflow(65_534, 7) && is_overflow(7, 7) && !is_overflow(8, 7));
    }
}
