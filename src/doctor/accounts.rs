//! Users and groups, according to the system's database and the kernel, and what they may do with a
//! file by its owner and mode.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use rustix::process::{Gid as ThreadGid, Uid as ThreadUid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::files::{self, Interest};

/// The right to read.
pub const READ: u32 = 4;
/// The right to write. Connecting to a socket needs it.
pub const WRITE: u32 = 2;
/// The group that has no rights of its own.
const NOGROUP: u32 = 65534;
/// The right to pass through a folder.
pub const PASS: u32 = 1;

/// A user, and all its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserAccount {
    pub uid: u32,
    /// All groups, with the primary one.
    pub groups: Vec<u32>,
}

/// The owner, group and mode of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owned {
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
}

impl UserAccount {
    /// The user of this process.
    pub fn me() -> UserAccount {
        let mut groups = vec![rustix::process::getegid().as_raw()];
        let more = rustix::process::getgroups().unwrap_or_default();
        groups.extend(more.into_iter().map(rustix::process::Gid::as_raw));
        UserAccount {
            uid: rustix::process::geteuid().as_raw(),
            groups,
        }
    }

    /// The user in the database. A number that the database does not know has no group.
    pub fn of_uid(uid: u32) -> UserAccount {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => UserAccount::of(&user),
            Ok(None) | Err(_) => UserAccount {
                uid,
                groups: Vec::new(),
            },
        }
    }

    /// The user of this name in the database.
    pub fn of_name(name: &str) -> Option<UserAccount> {
        Some(UserAccount::of(&User::from_name(name).ok()??))
    }

    fn of(user: &User) -> UserAccount {
        let groups = CString::new(user.name.as_str())
            .ok()
            .and_then(|name| getgrouplist(&name, user.gid).ok())
            .unwrap_or_else(|| vec![user.gid]);
        UserAccount {
            uid: user.uid.as_raw(),
            groups: groups.into_iter().map(Gid::as_raw).collect(),
        }
    }

    /// The effective user and groups of a process, from the kernel.
    pub fn of_process(pid: i32) -> Option<UserAccount> {
        UserAccount::of_status(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)
    }

    fn of_status(status: &str) -> Option<UserAccount> {
        let numbers = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            let numbers = line.split_whitespace().map(|number| number.parse().ok());
            numbers.collect::<Option<Vec<u32>>>()
        };
        // The numbers are: real, effective, saved, file system.
        let mut groups = vec![*numbers("Gid:")?.get(1)?];
        groups.extend(numbers("Groups:").unwrap_or_default());
        Some(UserAccount {
            uid: *numbers("Uid:")?.get(1)?,
            groups,
        })
    }

    /// Runs `work` on a thread that has the rights of this user and no others. Only root may do
    /// this.
    pub fn act<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let uid = ThreadUid::from_raw(self.uid);
        let groups: Vec<ThreadGid> = self
            .groups
            .iter()
            .copied()
            .map(ThreadGid::from_raw)
            .collect();
        // A user that is not in the database has no group, and may only what everybody may.
        let gid = groups
            .first()
            .copied()
            .unwrap_or(ThreadGid::from_raw(NOGROUP));
        let act = || {
            set_thread_groups(&groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            // Without user 0, the thread has no capability any more.
            set_thread_res_uid(uid, uid, uid)?;
            Ok(work())
        };
        std::thread::scope(|scope| match scope.spawn(act).join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Whether owner and mode permit this. Root may do everything.
    pub fn may(&self, bits: u32, found: Owned) -> bool {
        let class = if self.uid == found.uid {
            found.mode >> 6
        } else if self.groups.contains(&found.gid) {
            found.mode >> 3
        } else {
            found.mode
        };
        self.uid == 0 || class & bits == bits
    }

    /// The first part of `path`, or `path` itself, that this user may not pass, or may not use for
    /// `bits`. A part that cannot be looked at, or has an access control list, counts as passable.
    pub fn stopped_by(&self, path: &Path, bits: u32) -> Option<(PathBuf, Owned)> {
        let way = files::folders(&Interest {
            files: [path.to_owned()].into(),
            ..Interest::default()
        });
        let way = way.into_iter().filter(|folder| folder != path);
        way.map(|folder| (folder, PASS))
            .chain([(path.to_owned(), bits)])
            .find_map(|(place, bits)| {
                let found = Owned::of(&place)?;
                (!self.may(bits, found) && !has_list(&place)).then_some((place, found))
            })
    }
}

impl Owned {
    pub fn of(path: &Path) -> Option<Owned> {
        let found = fs::metadata(path).ok()?;
        Some(Owned {
            uid: found.uid(),
            gid: found.gid(),
            mode: found.mode() & 0o7777,
        })
    }

    /// Mode, owner and group, in words.
    pub fn told(self) -> String {
        format!(
            "mode {:04o}, user {}, group {}",
            self.mode,
            user_name(self.uid),
            group_name(self.gid)
        )
    }
}

/// Whether the path has an access control list, so that the mode alone does not decide (acl(5)).
fn has_list(path: &Path) -> bool {
    let mut none: [u8; 0] = [];
    rustix::fs::getxattr(path, "system.posix_acl_access", &mut none).is_ok()
}

/// The user's name, or the number if it has none.
pub fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// The group's name, or the number if it has none.
pub fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        Ok(None) | Err(_) => gid.to_string(),
    }
}

/// The number and the listed members of a group. Users with this as primary group are not listed.
pub fn group(name: &str) -> Option<(u32, Vec<String>)> {
    let found = Group::from_name(name).ok()??;
    Some((found.gid.as_raw(), found.mem))
}

/// The listed members of a group.
pub fn members(gid: u32) -> Vec<String> {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.mem,
        Ok(None) | Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by a class that falls through to the next one when it forbids: the owner of mode 0077
    /// may do nothing.
    #[test]
    fn the_first_class_that_fits_decides() {
        let who = |uid, groups: &[u32]| UserAccount {
            uid,
            groups: groups.to_vec(),
        };
        let found = |mode| Owned {
            uid: 10,
            gid: 20,
            mode,
        };
        for (mode, uid, groups, expected) in [
            (0o660, 10, &[][..], true),
            (0o660, 11, &[20], true),
            (0o660, 11, &[21, 20], true),
            (0o660, 11, &[21], false),
            (0o666, 11, &[21], true),
            (0o606, 11, &[20], false),
            (0o066, 10, &[20], false),
            (0o000, 0, &[], true),
        ] {
            let may = who(uid, groups).may(WRITE, found(mode));
            assert_eq!(may, expected, "{mode:o} {uid} {groups:?}");
        }
    }

    #[test]
    fn a_process_is_its_effective_user_with_its_supplementary_groups() {
        let text =
            "Name:\ttokend\nUid:\t1\t990\t3\t4\nGid:\t5\t991\t7\t8\nNgid:\t0\nGroups:\t100 101 \n";
        assert_eq!(
            UserAccount::of_status(text),
            Some(UserAccount {
                uid: 990,
                groups: vec![991, 100, 101]
            })
        );
        assert_eq!(UserAccount::of_status("Name:\tx\n"), None);
        let me = UserAccount::of_process(std::process::id().cast_signed()).expect("this process");
        assert_eq!(me.uid, UserAccount::me().uid);
    }

    #[test]
    fn what_stops_on_the_way_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("folder");
        let file = folder.path().join("file");
        fs::write(&file, "").expect("written");
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
        };
        let stranger = UserAccount {
            uid: 4_000_000,
            groups: Vec::new(),
        };
        let stopped = || stranger.stopped_by(&file, READ).map(|(place, _)| place);
        mode(folder.path(), 0o700);
        mode(&file, 0o644);
        assert_eq!(stopped().as_deref(), Some(folder.path()));
        mode(folder.path(), 0o711);
        assert_eq!(stopped(), None);
        mode(&file, 0o640);
        assert_eq!(stopped().as_deref(), Some(file.as_path()));
    }
}
