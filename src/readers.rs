//! Finds out who can read a file besides root and the daemon's user, according to the file system
//! and the user database, and puts it into words. `core::readers` does the reasoning.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use nix::unistd::{Gid, Group, Uid, User};

use crate::core::readers::{Clients, FileFacts, Lets, Readers, readers};

/// At most this many users are named one by one.
const NAMED: usize = 5;

/// Longest access control list that is read, in bytes. It is the kernel's own limit of an
/// attribute.
const LONGEST_LIST: usize = 64 * 1024;

/// Who else can read a file of secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Privacy {
    /// Only root and the daemon's user can read it.
    Private,
    /// Others can read it, as this sentence says. It begins with "can be read by".
    Shared(String),
    /// Clients that may connect to the socket can read it, as this sentence says.
    Clients(String),
}

/// Finds out who can read files. It remembers groups and folders, so each look at all files of a
/// configuration needs a new one.
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
    /// Assumes a daemon of this process's user without clients.
    fn default() -> AccessScan {
        AccessScan::new(rustix::process::geteuid().as_raw(), Clients::default())
    }
}

impl AccessScan {
    /// Assumes a daemon of this user that lets these clients in.
    #[must_use]
    pub fn new(daemon: u32, clients: Clients) -> AccessScan {
        AccessScan {
            daemon,
            clients,
            seen: Arc::default(),
        }
    }

    #[must_use]
    pub fn daemon(&self) -> u32 {
        self.daemon
    }

    /// The same with an empty memory.
    #[must_use]
    pub fn anew(&self) -> AccessScan {
        AccessScan::new(self.daemon, self.clients)
    }

    /// Whether both assume the same daemon with the same clients.
    #[must_use]
    pub fn is_like(&self, other: &AccessScan) -> bool {
        (self.daemon, self.clients) == (other.daemon, other.clients)
    }

    /// Who else can read `file`, which was opened as `path`. `found` is its metadata.
    #[must_use]
    pub fn at(&self, path: &Path, file: &File, found: &Metadata) -> Privacy {
        // A panic cannot leave this half-changed.
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

    /// Every folder on the way, through links. A folder that cannot be looked at counts as keeping
    /// nobody out.
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

/// The access control list, if there is one. File systems without such lists return an error.
fn list(read: impl Fn(&mut Vec<u8>) -> rustix::io::Result<usize>) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 1024];
    let length = match read(&mut bytes) {
        Err(rustix::io::Errno::RANGE) => {
            bytes = vec![0; LONGEST_LIST];
            // A list that cannot be read counts as one that cannot be understood.
            read(&mut bytes).unwrap_or(0)
        }
        found => found.ok()?,
    };
    bytes.truncate(length);
    Some(bytes)
}

/// All users of a group. None: there is no such group, or the database does not answer now. A
/// directory service does not list its users, so those with this as primary group are missed.
fn members_of(gid: u32) -> Option<BTreeSet<u32>> {
    let group = Group::from_gid(Gid::from_raw(gid)).ok()??;
    // A listed name without a number belongs to no user.
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

/// The users of passwd(5) with this primary group.
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
