//! Who can read a file besides root and the daemon's user. This follows from owner, mode and access
//! control list (acl(5)) of the file and of every folder on the way to it, and from the members of
//! the groups.

use std::collections::BTreeSet;

/// The permission to read a file.
pub const READ: u32 = 4;
/// The permission to pass through a folder.
pub const PASS: u32 = 1;

/// The facts about a file or folder from the system.
#[derive(Clone, Copy, Debug)]
pub struct FileFacts<'a> {
    pub uid: u32,
    pub gid: u32,
    /// The mode. If there is an access control list, the bits of the group are its mask.
    pub mode: u32,
    /// The attribute `system.posix_acl_access`, if there is one.
    pub list: Option<&'a [u8]>,
}

/// Who has a permission on one file or folder, besides root and the daemon's user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lets {
    everybody: bool,
    users: BTreeSet<u32>,
    groups: BTreeSet<u32>,
}

impl Lets {
    /// Who may read this file.
    #[must_use]
    pub fn read(found: FileFacts<'_>, daemon: u32) -> Lets {
        Lets::of(found, READ, daemon)
    }

    /// Who may pass through this folder. A folder of another user than root and the daemon keeps
    /// nobody out: its owner can open it.
    #[must_use]
    pub fn pass(found: FileFacts<'_>, daemon: u32) -> Lets {
        if found.uid != 0 && found.uid != daemon {
            return Lets {
                everybody: true,
                ..Lets::default()
            };
        }
        Lets::of(found, PASS, daemon)
    }

    fn of(found: FileFacts<'_>, bit: u32, daemon: u32) -> Lets {
        let mut lets = Lets {
            everybody: found.mode & bit != 0,
            ..Lets::default()
        };
        // The owner of a file can always take the right.
        lets.users.insert(found.uid);
        match found.list.map(entries) {
            None if found.mode >> 3 & bit != 0 => {
                lets.groups.insert(found.gid);
            }
            None => {}
            // Without the mask's permission none of the named entries counts.
            Some(_) if found.mode >> 3 & bit == 0 => {}
            Some(None) => lets.everybody = true,
            Some(Some(entries)) => {
                for entry in entries.iter().filter(|entry| entry.allows & bit != 0) {
                    match entry.whom {
                        AclSubject::User(uid) => lets.users.insert(uid),
                        AclSubject::OwnGroup => lets.groups.insert(found.gid),
                        AclSubject::Group(gid) => lets.groups.insert(gid),
                    };
                }
            }
        }
        lets.users.remove(&0);
        lets.users.remove(&daemon);
        lets
    }
}

enum AclSubject {
    User(u32),
    OwnGroup,
    Group(u32),
}

struct AclEntry {
    whom: AclSubject,
    allows: u32,
}

/// The entries of a list in the kernel's format (linux/posix_acl_xattr.h) that name a user or a
/// group. None: the format is unknown.
fn entries(list: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, rest) = list.split_first_chunk::<4>()?;
    let (entries, []) = rest.as_chunks::<8>() else {
        return None;
    };
    if u32::from_le_bytes(*version) != 2 {
        return None;
    }
    let entries = entries.iter().filter_map(|entry| {
        let [t0, t1, p0, p1, id @ ..] = *entry;
        let id = u32::from_le_bytes(id);
        let whom = match u16::from_le_bytes([t0, t1]) {
            0x02 => AclSubject::User(id),
            0x04 => AclSubject::OwnGroup,
            0x08 => AclSubject::Group(id),
            // The entries for owner, mask and others are in the mode.
            _ => return None,
        };
        let allows = u32::from(u16::from_le_bytes([p0, p1]));
        Some(AclEntry { whom, allows })
    });
    Some(entries.collect())
}

/// Whom the socket lets in. By default only root and the daemon's user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// The socket's group, if the mode lets it connect.
    pub group: Option<u32>,
    /// The configuration chose this group for callers. Otherwise it is the daemon's own group,
    /// whose members may connect.
    pub chosen: bool,
    /// The socket's mode lets everybody connect.
    pub everybody: bool,
}

impl Clients {
    /// The clients of a socket with this mode and group.
    #[must_use]
    pub fn of(mode: u32, gid: u32, chosen: bool) -> Clients {
        Clients {
            group: (mode & 0o020 != 0).then_some(gid),
            chosen,
            everybody: mode & 0o002 != 0,
        }
    }
}

/// Who can read a file besides root and the daemon's user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readers {
    /// Everybody on the machine can read it.
    pub everybody: bool,
    /// The mode of the file lets everybody read it, whatever its folders do.
    pub open_mode: bool,
    /// The users that can read it.
    pub users: BTreeSet<u32>,
    /// The groups through which they, or some of them, can read it.
    pub groups: BTreeSet<u32>,
    /// Groups whose members can read it. The system does not know the members.
    pub unknown: BTreeSet<u32>,
    /// Everybody whom the socket lets in can read it.
    pub clients: bool,
}

impl Readers {
    /// Whether nobody else can read the file.
    #[must_use]
    pub fn is_private(&self) -> bool {
        *self == Readers::default()
    }
}

/// Combines the permissions of the file and of the folders on the way to it. `members` gives all
/// users of a group. None: its members are unknown.
pub fn readers(
    file: &Lets,
    folders: &[Lets],
    clients: Clients,
    daemon: u32,
    members: &mut dyn FnMut(u32) -> Option<BTreeSet<u32>>,
) -> Readers {
    let mut others = |gid: u32| {
        let mut others = members(gid)?;
        others.remove(&0);
        others.remove(&daemon);
        Some(others)
    };
    let steps = || std::iter::once(file).chain(folders);
    let everybody = steps().all(|step| step.everybody);
    let by_group = clients.group.is_some_and(|gid| {
        steps().all(|step| step.everybody || step.groups.contains(&gid))
            && (clients.chosen || others(gid).is_some_and(|others| !others.is_empty()))
    });
    let mut found = Readers {
        everybody,
        open_mode: file.everybody,
        clients: by_group || everybody && clients.everybody,
        ..Readers::default()
    };
    if everybody {
        return found;
    }
    // A reader has to pass all of these steps.
    let mut users: Option<BTreeSet<u32>> = None;
    for step in steps().filter(|step| !step.everybody) {
        let mut these = step.users.clone();
        let mut all_known = true;
        for gid in &step.groups {
            match others(*gid) {
                Some(others) => these.extend(others),
                None => {
                    all_known = false;
                    found.unknown.insert(*gid);
                }
            }
        }
        if all_known {
            users = Some(match users {
                None => these,
                Some(before) => before.intersection(&these).copied().collect(),
            });
        } else {
            // The list has the users that are known to pass all known steps.
            found.users.extend(these);
        }
        found.groups.extend(&step.groups);
    }
    match users {
        // At some step nobody passes.
        Some(users) if users.is_empty() => {
            found.users.clear();
            found.unknown.clear();
        }
        Some(users) => found.users = users,
        None => {}
    }
    if found.users.is_empty() {
        found.groups.clear();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAEMON: u32 = 900;
    const WORKER: u32 = 1001;
    const OPS: u32 = 1002;
    /// The daemon's own group, with no other member.
    const OWN: u32 = 900;
    /// A group with [`WORKER`] in it.
    const CLIENTS: u32 = 901;
    /// A group with the daemon and [`OPS`] in it.
    const CREW: u32 = 902;
    /// A group that the system does not know.
    const UNKNOWN: u32 = 999;

    fn members(gid: u32) -> Option<BTreeSet<u32>> {
        match gid {
            0 => Some([0].into()),
            OWN => Some([DAEMON].into()),
            CLIENTS => Some([WORKER].into()),
            CREW => Some([DAEMON, OPS].into()),
            _ => None,
        }
    }

    fn found(uid: u32, gid: u32, mode: u32) -> FileFacts<'static> {
        FileFacts {
            uid,
            gid,
            mode,
            list: None,
        }
    }

    fn all(file: FileFacts<'_>, folders: &[FileFacts<'_>], clients: Clients) -> Readers {
        let folders: Vec<Lets> = folders.iter().map(|it| Lets::pass(*it, DAEMON)).collect();
        let file = Lets::read(file, DAEMON);
        readers(&file, &folders, clients, DAEMON, &mut members)
    }

    fn who(file: FileFacts<'_>) -> Vec<u32> {
        let readers = all(file, &[], Clients::default());
        readers.users.into_iter().collect()
    }

    /// Broken by a check that calls a file private because its group is the daemon's.
    #[test]
    fn a_group_is_private_only_if_nobody_else_is_known_to_be_in_it() {
        assert!(all(found(DAEMON, 0, 0o400), &[], Clients::default()).is_private());
        assert!(all(found(0, OWN, 0o640), &[], Clients::default()).is_private());
        assert!(all(found(0, CREW, 0o600), &[], Clients::default()).is_private());
        assert_eq!(who(found(0, CREW, 0o640)), [OPS]);
        assert_eq!(who(found(OPS, OWN, 0o640)), [OPS], "its owner");
        let unknown = all(found(0, UNKNOWN, 0o640), &[], Clients::default());
        assert_eq!(unknown.unknown, [UNKNOWN].into());
        assert!(!unknown.is_private());
        let open = all(found(0, 0, 0o604), &[], Clients::default());
        assert!(open.everybody && open.open_mode && !open.clients);
    }

    #[test]
    fn a_folder_that_lets_nobody_pass_protects_what_is_in_it() {
        let closed = found(DAEMON, 0, 0o700);
        let of_crew = found(0, CREW, 0o750);
        let way_out = found(0, 0, 0o755);
        let is = |file, folders: &[FileFacts<'_>]| all(file, folders, Clients::default());
        assert!(is(found(0, CREW, 0o640), &[way_out, closed]).is_private());
        assert!(is(found(0, UNKNOWN, 0o640), &[closed]).is_private());
        // The open mode is reported all the same: in another folder the file would be open.
        let open = is(found(0, 0, 0o644), &[closed]);
        assert!(open.open_mode && !open.everybody && open.users.is_empty());
        assert_eq!(is(found(0, 0, 0o644), &[of_crew]).users, [OPS].into());
        assert!(is(found(0, CLIENTS, 0o640), &[of_crew]).is_private());
        // The folder's owner can open it at any time.
        let foreign = found(OPS, 0, 0o700);
        assert_eq!(is(found(0, CREW, 0o640), &[foreign]).users, [OPS].into());
    }

    #[test]
    fn whom_the_socket_lets_in_counts_even_if_no_member_is_known() {
        let chosen = |gid| Clients::of(0o660, gid, true);
        let own = |gid| Clients::of(0o660, gid, false);
        let file = |gid| found(0, gid, 0o640);
        assert!(all(file(OWN), &[], chosen(OWN)).clients);
        assert!(!all(file(OWN), &[], own(OWN)).clients, "nobody is in it");
        assert!(all(file(CREW), &[], own(CREW)).clients);
        assert!(!all(file(CREW), &[], chosen(CLIENTS)).clients);
        assert!(all(found(0, 0, 0o644), &[], chosen(CLIENTS)).clients);
        let folder = found(DAEMON, 0, 0o700);
        assert!(!all(file(CLIENTS), &[folder], chosen(CLIENTS)).clients);
        let for_all = Clients::of(0o666, OWN, false);
        assert!(all(found(0, 0, 0o644), &[], for_all).clients);
        assert!(!all(file(OWN), &[], for_all).clients);
        let closed = Clients::of(0o600, OWN, true);
        assert!(!all(file(OWN), &[], closed).clients);
    }

    /// Broken by a check that takes the mode's bits of the group for the group's rights where there
    /// is a list: they are its mask.
    #[test]
    fn a_list_names_who_can_read_and_its_mask_ends_that() {
        let entry = |tag: u16, allows: u16, id: u32| {
            let [t0, t1] = tag.to_le_bytes();
            let [p0, p1] = allows.to_le_bytes();
            let [a, b, c, d] = id.to_le_bytes();
            [t0, t1, p0, p1, a, b, c, d]
        };
        let list = |named: &[[u8; 8]]| {
            let mut bytes = 2_u32.to_le_bytes().to_vec();
            bytes.extend(entry(0x01, 6, u32::MAX));
            bytes.extend(entry(0x04, 0, u32::MAX));
            bytes.extend(named.concat());
            bytes.extend(entry(0x20, 0, u32::MAX));
            bytes
        };
        let with = |list: &[u8], mode| {
            let file = FileFacts {
                list: Some(list),
                ..found(0, CREW, mode)
            };
            all(file, &[], Clients::of(0o660, CLIENTS, true))
        };
        let daemons = list(&[entry(0x02, 4, DAEMON)]);
        assert!(with(&daemons, 0o440).is_private(), "as systemd makes it");
        let users = list(&[entry(0x02, 4, WORKER), entry(0x02, 2, OPS)]);
        assert_eq!(with(&users, 0o640).users, [WORKER].into());
        assert!(with(&users, 0o600).is_private(), "masked");
        let groups = with(&list(&[entry(0x08, 4, CLIENTS)]), 0o640);
        assert_eq!((groups.users, groups.clients), ([WORKER].into(), true));
        assert!(with(&[2, 0, 0], 0o640).everybody, "not understood");
    }
}
