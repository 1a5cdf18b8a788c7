//! Who can read a file besides root and the daemon's user, as the file system and the database of
//! users and groups have it, in words. How it is put together: `core::readers`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User};

use crate::core::readers::{Clients, FileFacts, Lets, Readers, readers};

/// Users of whom each is named.
const NAMED: usize = 5;

/// Longest access control list that is read, in bytes: the kernel's own limit of an attribute.
const LONGEST_LIST: usize = 64 * 1024;

/// What others can do with a file of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Only root and the daemon's user can read it.
    Private,
    /// Others can, as this sentence says: it begins with "can be read by".
    Shared(String),
    /// So can whoever may connect to the socket, as this sentence says.
    Clients(String),
}

/// Looks who can read files. Remembers groups and folders: one is made for one look at all files of
/// a configuration.
#[derive(Clone, Debug)]
pub struct AccessScan {
    daemon: u32,
    clients: Clients,
    seen: Arc<Mutex<ScanCache>>,
}

#[derive(Debug, Default)]
struct ScanCache {
    members: BTreeMap<u32, Option<BTreeSet<u32>>>,
    folders: BTreeMap<PathBuf, Lets>,
}

impl Default for AccessScan {
    /// For a daemon of this process's user without callers.
    fn default() -> AccessScan {
        AccessScan::new(rustix::process::geteuid().as_raw(), Clients::default())
    }
}

impl AccessScan {
    /// For a daemon that is this user and lets these in.
    #[must_use]
    pub fn new(daemon: u32, clients: Clients) -> AccessScan {
        AccessScan {
            daemon,
            clients,
            seen: Arc::default(),
        }
    }

    /// The daemon's user.
    #[must_use]
    pub fn daemon(&self) -> u32 {
        self.daemon
    }

    /// The same with nothing remembered.
    #[must_use]
    pub fn anew(&self) -> AccessScan {
        AccessScan::new(self.daemon, self.clients)
    }

    /// Whether both look for the same daemon with the same callers.
    #[must_use]
    pub fn is_like(&self, other: &AccessScan) -> bool {
        (self.daemon, self.clients) == (other.daemon, other.clients)
    }

    /// Who else can read `file`, which was opened as `path`; `found` is what the system says of it.
    #[must_use]
    pub fn at(&self, path: &Path, file: &File, found: &Metadata) -> Privacy {
        // Nothing is done with it that could panic half-way.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let list = list(|buffer| rustix::fs::fgetxattr(file, ACL, buffer));
        let lets = Lets::read(as_found(found, list.as_deref()), self.daemon);
        let folders = self.folders(path, &mut seen);
        let members = &mut seen.members;
        let readers = readers(&lets, &folders, self.clients, self.daemon, &mut |gid| {
            members
                .entry(gid)
                .or_insert_with(|| members_of(gid))
                .clone()
        });
        self.told(path, found.uid(), &readers)
    }

    /// Every folder on the way, through links. A folder that cannot be looked at keeps nobody out.
    fn folders(&self, path: &Path, seen: &mut ScanCache) -> Vec<Lets> {
        let Ok(path) = fs::canonicalize(path) else {
            return Vec::new();
        };
        let look = |folder: &Path| {
            let found = fs::metadata(folder).ok()?;
            let list = list(|buffer| rustix::fs::getxattr(folder, ACL, buffer));
            Some(Lets::pass(as_found(&found, list.as_deref()), self.daemon))
        };
        path.ancestors()
            .skip(1)
            .filter_map(|folder| {
                if let Some(known) = seen.folders.get(folder) {
                    return Some(known.clone());
                }
                let lets = look(folder)?;
                seen.folders.insert(folder.to_owned(), lets.clone());
                Some(lets)
            })
            .collect()
    }

    fn told(&self, path: &Path, owner: u32, readers: &Readers) -> Privacy {
        if readers.is_private() {
            return Privacy::Private;
        }
        let path = path.display();
        let alone = if owner == self.daemon {
            format!("run `chmod 600 {path}`")
        } else {
            let user = user_name(self.daemon);
            format!("run `chown {user}:root {path} && chmod 400 {path}`")
        };
        if readers.clients {
            let whom = match self.clients.group.filter(|_| !readers.everybody) {
                Some(gid) if readers.users.is_empty() => format!("the group {}", group_name(gid)),
                Some(gid) => format!("the group {} ({})", group_name(gid), named(&readers.users)),
                None => "everybody on this machine".to_owned(),
            };
            return Privacy::Clients(format!(
                "can be read by {whom}, and so by whoever may connect to the socket: {alone}"
            ));
        }
        if readers.everybody {
            return Privacy::Shared(format!(
                "can be read by everybody on this machine: chmod o-r it, or {alone}"
            ));
        }
        let mut whom = named(&readers.users);
        if !readers.groups.is_empty() && !whom.is_empty() {
            let groups: Vec<String> = readers.groups.iter().map(|gid| group_name(*gid)).collect();
            let s = if groups.len() == 1 { "" } else { "s" };
            whom = format!("{whom} (by the group{s} {})", groups.join(", "));
        }
        for gid in &readers.unknown {
            let and = if whom.is_empty() { "" } else { " and " };
            whom = format!(
                "{whom}{and}the group {}, whose members are not known here",
                group_name(*gid)
            );
        }
        Privacy::Shared(if whom.is_empty() {
            format!(
                "can be read by everybody on this machine as far as its mode goes, and only a folder above keeps others from \
                 it: chmod o-r it, or {alone}"
            )
        } else {
            format!("can be read by {whom}: {alone}")
        })
    }
}

const ACL: &str = "system.posix_acl_access";

fn as_found<'a>(found: &Metadata, list: Option<&'a [u8]>) -> FileFacts<'a> {
    FileFacts {
        uid: found.uid(),
        gid: found.gid(),
        mode: found.mode(),
        list,
    }
}

/// The access control list, where there is one; file systems without them say so by an error.
fn list(read: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1024];
    let length = match read(&mut bytes) {
        Err(rustix::io::Errno::RANGE) => {
            bytes = vec![0; LONGEST_LIST];
            // One that cannot be read is taken for one that is not understood.
            read(&mut bytes).unwrap_or(0)
        }
        found => found.ok()?,
    };
    bytes.truncate(length);
    Some(bytes)
}

/// All users of a group; None: there is no such group, or nobody can tell now. Users of a directory
/// service whose primary group it is are not seen: such a service does not list its users.
fn members_of(gid: u32) -> Option<BTreeSet<u32>> {
    let group = Group::from_gid(Gid::from_raw(gid)).ok()??;
    // Who is listed and has no number cannot be anybody's.
    let listed = group
        .mem
        .iter()
        .filter_map(|name| match User::from_name(name) {
            Ok(found) => found.map(|user| Some(user.uid.as_raw())),
            Err(_) => Some(None),
        });
    let mut members = listed.collect::<Option<BTreeSet<u32>>>()?;
    let local = fs::read_to_string("/etc/passwd").unwrap_or_default();
    members.extend(primary(&local, gid));
    Some(members)
}

/// Users of passwd(5) whose primary group it is.
fn primary(passwd: &str, gid: u32) -> impl Iterator<Item = u32> {
    passwd.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let uid = fields.next()?.parse().ok()?;
        (fields.next()?.parse() == Ok(gid)).then_some(uid)
    })
}

fn named(users: &BTreeSet<u32>) -> String {
    let mut names: Vec<String> = users
        .iter()
        .take(NAMED)
        .map(|uid| user_name(*uid))
        .collect();
    if users.len() > NAMED {
        names.push("…".into());
    }
    names.join(", ")
}

fn user_name(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

fn group_name(gid: u32) -> String {
    match Group::from_gid(Gid::from_raw(gid)) {
        Ok(Some(group)) => group.name,
        Ok(None) | Err(_) => gid.to_string(),
    }
}
