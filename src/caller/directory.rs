//! The system's database of users and groups.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Group, User, getgrouplist};

use crate::core::policy::{Caller, Directory, Unanswered};

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
        // getpwnam(3): these errors also mean that there is no such user.
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        Err(error) => Err(Unanswered {
            why: error.desc().to_owned(),
            last: None,
        }),
    }
}

/// A directory with a memory. While the real directory does not answer, names keep the numbers that
/// they had.
#[derive(Debug)]
pub struct CachedDirectory<D> {
    directory: D,
    users: RefCell<BTreeMap<String, u32>>,
    groups: RefCell<BTreeMap<String, u32>>,
}

impl<D> CachedDirectory<D> {
    #[must_use]
    pub fn new(directory: D) -> CachedDirectory<D> {
        CachedDirectory {
            directory,
            users: RefCell::default(),
            groups: RefCell::default(),
        }
    }
}

impl<D: Directory> Directory for CachedDirectory<D> {
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
        // The name is certainly gone: the next owner of the number is another user.
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

/// The caller that a user would be after logging in now, by name or by number. None: there is no
/// such user.
///
/// # Errors
/// The database does not answer.
pub fn groups_of(user: &str) -> Result<Option<Caller>, String> {
    let found = match user.parse() {
        Ok(uid) => User::from_uid(nix::unistd::Uid::from_raw(uid)),
        Err(_) => User::from_name(user),
    };
    let found = match found {
        Ok(found) => found,
        Err(Errno::ENOENT | Errno::ESRCH) => None,
        Err(error) => return Err(error.desc().to_owned()),
    };
    let Some(found) = found else {
        return Ok(None);
    };
    let name = CString::new(found.name).map_err(|error| error.to_string())?;
    let groups = getgrouplist(&name, found.gid).map_err(|error| error.desc().to_owned())?;
    Ok(Some(Caller {
        uid: found.uid.as_raw(),
        gid: found.gid.as_raw(),
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        pid: None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that answers what was put in.
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
        let directory = CachedDirectory::new(Book(RefCell::new(down(None))));
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
