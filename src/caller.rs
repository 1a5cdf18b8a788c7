//! Who is asking: the kernel's answer about the other end of a connection, read once when it is accepted.

mod peer_groups;

use std::io;

use nix::unistd::{Group, User};
use tokio::net::UnixStream;

use crate::core::policy::{Caller, Directory};

/// The id that the kernel puts in place of one that has no number here (another user namespace). Nobody can be told
/// from it, so nobody with it is served.
const OVERFLOW_DEFAULT: u32 = 65534;

/// Reads callers.
#[derive(Clone, Copy, Debug)]
pub struct Callers {
    overflow_uid: u32,
    overflow_gid: u32,
}

impl Callers {
    /// Reads the kernel's overflow ids, once.
    #[must_use]
    pub fn new() -> Callers {
        Callers {
            overflow_uid: overflow_id("/proc/sys/kernel/overflowuid"),
            overflow_gid: overflow_id("/proc/sys/kernel/overflowgid"),
        }
    }

    /// Who connected. The identity is that of the moment of `connect`, whoever holds the descriptor now.
    ///
    /// # Errors
    /// When the kernel does not say, or says an overflow id: such a connection is closed.
    pub fn of(self, stream: &UnixStream) -> io::Result<Caller> {
        let credentials = stream.peer_cred()?;
        let (uid, gid) = (credentials.uid(), credentials.gid());
        if uid == self.overflow_uid || gid == self.overflow_gid {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "the caller's uid {uid} or gid {gid} stands for ids from another user namespace"
                ),
            ));
        }
        Ok(Caller {
            uid,
            gid,
            groups: peer_groups::of(stream)?,
            pid: credentials.pid(),
        })
    }
}

impl Default for Callers {
    fn default() -> Self {
        Callers::new()
    }
}

fn overflow_id(path: &str) -> u32 {
    std::fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(OVERFLOW_DEFAULT)
}

/// The system's users and groups.
#[derive(Clone, Copy, Debug)]
pub struct SystemDirectory;

impl Directory for SystemDirectory {
    fn user(&self, name: &str) -> Option<u32> {
        User::from_name(name)
            .ok()
            .flatten()
            .map(|user| user.uid.as_raw())
    }

    fn group(&self, name: &str) -> Option<u32> {
        Group::from_name(name)
            .ok()
            .flatten()
            .map(|group| group.gid.as_raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_names_this_process() {
        let (here, _there) = UnixStream::pair().expect("pair");
        let caller = Callers::new().of(&here).expect("known");
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
            overflow_uid: rustix::process::geteuid().as_raw(),
            overflow_gid: OVERFLOW_DEFAULT,
        };
        assert!(callers.of(&here).is_err());
    }
}
