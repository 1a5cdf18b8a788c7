//! Who is asking: the kernel's answer about the other end of a connection, read once when it is accepted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Group, User};
use tokio::net::UnixStream;

use crate::core::policy::{Caller, Directory, Unanswered};

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
            groups: crate::sys::peer_groups(stream)?,
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
    fn user(&self, name: &str) -> Result<Option<u32>, Unanswered> {
        answer(User::from_name(name).map(|found| found.map(|user| user.uid.as_raw())))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Unanswered> {
        answer(Group::from_name(name).map(|found| found.map(|group| group.gid.as_raw())))
    }
}

fn answer(found: Result<Option<u32>, Errno>) -> Result<Option<u32>, Unanswered> {
    match found {
        Ok(id) => Ok(id),
        // getpwnam(3): another way of saying that there is none.
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(error) => Err(Unanswered {
            why: error.desc().to_owned(),
            last: None,
        }),
    }
}

/// A directory that is remembered: while it does not answer, names keep the numbers that they had.
#[derive(Debug)]
pub struct Remembered<D> {
    directory: D,
    users: RefCell<BTreeMap<String, u32>>,
    groups: RefCell<BTreeMap<String, u32>>,
}

impl<D> Remembered<D> {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(directory: D) -> Remembered<D> {
        Remembered {
            directory,
            users: RefCell::default(),
            groups: RefCell::default(),
        }
    }
}

impl<D: Directory> Directory for Remembered<D> {
    fn user(&self, name: &str) -> Result<Option<u32>, Unanswered> {
        remember(&self.users, name, self.directory.user(name))
    }

    fn group(&self, name: &str) -> Result<Option<u32>, Unanswered> {
        remember(&self.groups, name, self.directory.group(name))
    }
}

fn remember(
    known: &RefCell<BTreeMap<String, u32>>,
    name: &str,
    found: Result<Option<u32>, Unanswered>,
) -> Result<Option<u32>, Unanswered> {
    let mut known = known.borrow_mut();
    match &found {
        Ok(Some(id)) => {
            known.insert(name.to_owned(), *id);
        }
        // Gone for certain: whoever gets the number next is somebody else.
        Ok(None) => {
            known.remove(name);
        }
        Err(unanswered) => {
            return Err(Unanswered {
                why: unanswered.why.clone(),
                last: known.get(name).copied(),
            });
        }
    }
    found
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

    /// Answers what was put in.
    struct Book(RefCell<Result<Option<u32>, Unanswered>>);

    impl Directory for Book {
        fn user(&self, _: &str) -> Result<Option<u32>, Unanswered> {
            self.0.borrow().clone()
        }

        fn group(&self, _: &str) -> Result<Option<u32>, Unanswered> {
            self.0.borrow().clone()
        }
    }

    #[test]
    fn a_name_keeps_its_number_while_the_database_does_not_answer_and_loses_it_when_it_is_gone() {
        let down = |last| {
            Err(Unanswered {
                why: "down".into(),
                last,
            })
        };
        let directory = Remembered::new(Book(RefCell::new(down(None))));
        let says = |answer| *directory.directory.0.borrow_mut() = answer;
        assert_eq!(directory.user("a"), down(None));
        says(Ok(Some(7)));
        assert_eq!(directory.user("a"), Ok(Some(7)));
        says(down(None));
        assert_eq!(directory.user("a"), down(Some(7)));
        assert_eq!(directory.user("b"), down(None));
        assert_eq!(directory.group("a"), down(None), "a user is no group");
        says(Ok(None));
        assert_eq!(directory.user("a"), Ok(None));
        says(down(None));
        assert_eq!(directory.user("a"), down(None));
    }

    #[test]
    fn an_error_of_the_database_is_not_the_absence_of_a_user() {
        assert_eq!(answer(Ok(Some(7))), Ok(Some(7)));
        assert_eq!(answer(Err(Errno::ENOENT)), Ok(None));
        assert!(answer(Err(Errno::ECONNREFUSED)).is_err());
    }
}
