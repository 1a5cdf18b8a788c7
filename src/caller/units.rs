//! Finds the systemd unit of the process that connected: pidfd → cgroup → unit. The process has to
//! be alive after the unit was read.
//!
//! The kernel's own reference holds a process, never its number alone. Numbers are used again, and
//! the next process with the number would be taken for the one before. If anything is missing the
//! answer is None, which matches no rule.
//!
//! A kernel before Linux 6.5 gives no such reference with a connection. If the configuration
//! permits it, the process is then opened by its number, as soon as the connection is accepted, and
//! has to look like the one that connected: same user, and not started later.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::core::policy::unit;
use crate::core::profile::UnitIdentity;
use crate::core::time::BootTime;
use crate::sys;

/// The unit is remembered for this many cgroups. A host has hundreds of units; a unit that makes
/// cgroups without end must not fill the memory.
const REMEMBERED: usize = 4096;

/// At most this many cgroups are searched for an unknown one when /proc does not say where it is. A
/// host with thousands of containers has about as many. A unit that makes more cgroups makes itself
/// unknown.
const LOOKED_AT: usize = 65_536;

/// The kernel counts the start of a process in hundredths of a second (USER_HZ, on every
/// architecture that tokend runs on).
const TICK: Duration = Duration::from_millis(10);

/// What the kernel offers for finding the unit of a caller.
#[derive(Clone, Copy, Debug)]
pub struct KernelOffer {
    /// It gives the process of a connection: SO_PEERPIDFD (Linux 6.5).
    pub peer: bool,
    /// It opens a process by its number: pidfd_open (Linux 5.3).
    pub by_number: bool,
    /// It tells the cgroup of an open process: PIDFD_GET_INFO (Linux 6.13).
    pub cgroup: bool,
}

/// The process of a caller, held by a pidfd.
#[derive(Debug)]
pub struct PeerProcess {
    held: OwnedFd,
    /// The number of the process when it connected.
    pid: Option<i32>,
    /// What has to hold of the process, if it was opened by its number. None: the kernel gave it
    /// with the connection.
    must_be: Option<ConnectingProcess>,
}

/// What is known of the process that connected, besides its number.
#[derive(Clone, Copy, Debug)]
struct ConnectingProcess {
    uid: u32,
    /// When the connection was accepted, in ticks of the boot clock.
    accepted: u64,
}

/// Finds the units of processes.
#[derive(Debug)]
pub struct Units {
    how: CgroupSource,
    /// Processes are opened by their number.
    by_number: bool,
    /// The units of cgroups, by cgroup id. The kernel does not use such an id again.
    known: Mutex<HashMap<u64, Option<Arc<str>>>>,
}

/// How the kernel tells the cgroup of a process.
#[derive(Debug)]
enum CgroupSource {
    /// PIDFD_GET_INFO tells the cgroup's id (Linux 6.13). The folder is the mount point of the
    /// cgroup hierarchy.
    Id(PathBuf),
    /// /proc/PID/cgroup of the process that a pidfd holds (Linux 6.5).
    Proc,
    /// The kernel offers nothing trustworthy, for this reason.
    Not(String),
}

impl Units {
    /// Tries what this machine offers.
    pub fn of_this_machine(identity: UnitIdentity) -> Units {
        let offer = KernelOffer::of_this_machine();
        Units {
            how: how(offer, identity),
            by_number: !offer.peer && identity == UnitIdentity::Pid,
            known: Mutex::default(),
        }
    }

    /// The process that connected, which is `uid`'s and had the number `pid`. It has to be asked
    /// for as soon as the connection is accepted.
    pub fn process(&self, socket: &impl AsFd, uid: u32, pid: Option<i32>) -> Option<PeerProcess> {
        if !self.by_number {
            let held = sys::peer_process(socket).ok()?;
            return Some(PeerProcess {
                held,
                pid,
                must_be: None,
            });
        }
        Some(PeerProcess {
            held: opened(pid)?,
            pid,
            must_be: Some(ConnectingProcess {
                uid,
                accepted: ticks(Clock::system().now().boot),
            }),
        })
    }

    /// The reason why no unit is ever found. None: units are found.
    pub fn trouble(&self) -> Option<&str> {
        match &self.how {
            CgroupSource::Id(_) | CgroupSource::Proc => None,
            CgroupSource::Not(why) => Some(why),
        }
    }

    /// The unit of a process.
    pub fn of(&self, process: &PeerProcess) -> Option<Arc<str>> {
        self.look(process, search)
    }

    /// The same, but only if it takes microseconds: the hierarchy is never searched.
    pub fn quickly(&self, process: &PeerProcess) -> Option<Arc<str>> {
        self.look(process, |_, _| None)
    }

    fn look(
        &self,
        process: &PeerProcess,
        search: impl FnOnce(&Path, u64) -> Option<String>,
    ) -> Option<Arc<str>> {
        if !process.can_be_the_caller() {
            return None;
        }
        let PeerProcess { held, pid, .. } = process;
        let unit = match &self.how {
            CgroupSource::Id(root) => self.by_id(root, sys::cgroup_id(held).ok()??, *pid, search),
            CgroupSource::Proc => unit::of_cgroup(&cgroup_by_number(*pid)?).map(Arc::from),
            CgroupSource::Not(_) => None,
        };
        // What was read by number belongs to this process only if it still has the number.
        unit.filter(|_| process.can_be_the_caller() && sys::is_alive(held))
    }

    fn by_id(
        &self,
        root: &Path,
        id: u64,
        pid: Option<i32>,
        search: impl FnOnce(&Path, u64) -> Option<String>,
    ) -> Option<Arc<str>> {
        if let Some(unit) = self.known().get(&id) {
            return unit.clone();
        }
        let is_it = |path: &str| {
            fs::metadata(root.join(path.trim_start_matches('/'))).is_ok_and(|it| it.ino() == id)
        };
        let path = cgroup_by_number(pid)
            .filter(|path| is_it(path))
            .or_else(|| search(root, id))?;
        let unit: Option<Arc<str>> = unit::of_cgroup(&path).map(Arc::from);
        let mut known = self.known();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(id, unit.clone());
        unit
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Option<Arc<str>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cgroup of the process that has this number now, as /proc says.
fn cgroup_by_number(pid: Option<i32>) -> Option<String> {
    // 0 stands for a process of another pid namespace.
    let pid = pid.filter(|pid| *pid > 0)?;
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    unit::cgroup_of(&text).map(str::to_owned)
}

/// The path below `root` of the folder with this inode. The search goes level by level, because
/// units are near the top.
fn search(root: &Path, id: u64) -> Option<String> {
    let mut level = vec![String::new()];
    let mut left = LOOKED_AT;
    while !level.is_empty() {
        let mut next = Vec::new();
        for folder in &level {
            // A folder that is gone meanwhile contains no process.
            let Ok(entries) = fs::read_dir(root.join(folder)) else {
                continue;
            };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    continue;
                }
                left = left.checked_sub(1)?;
                let name = entry.file_name().into_string().ok()?;
                let path = if folder.is_empty() {
                    name
                } else {
                    format!("{folder}/{name}")
                };
                if entry.ino() == id {
                    return Some(path);
                }
                next.push(path);
            }
        }
        level = next;
    }
    None
}

impl PeerProcess {
    /// Whether nothing shows that this is another process than the one that connected. It has to
    /// be asked before and after everything else that is read by number.
    fn can_be_the_caller(&self) -> bool {
        self.must_be.is_none_or(|caller| {
            self.pid
                .and_then(user_and_start)
                .is_some_and(|(uid, start)| {
                    // Both times are rounded down, so a process of the same tick may be the caller.
                    uid == caller.uid && start <= caller.accepted
                })
        })
    }
}

/// The effective user of the process that has this number now, and when it started, in ticks of the
/// boot clock (proc_pid_status(5), proc_pid_stat(5)).
fn user_and_start(pid: i32) -> Option<(u32, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // A program's name is in parentheses, and may contain any byte.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = stat.iter().rposition(|byte| *byte == b')')?;
    let after_name = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    // The real user comes first; the start is field 22, and the name is field 2.
    let uid = users.split_whitespace().nth(1)?.parse().ok()?;
    let start = after_name.split_whitespace().nth(19)?.parse().ok()?;
    Some((uid, start))
}

fn ticks(at: BootTime) -> u64 {
    u64::try_from(at.0.as_millis() / TICK.as_millis()).unwrap_or(u64::MAX)
}

/// The process that has this number now.
fn opened(pid: Option<i32>) -> Option<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid?)?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
}

impl KernelOffer {
    /// Tries it with this process.
    #[must_use]
    pub fn of_this_machine() -> KernelOffer {
        let peer = std::os::unix::net::UnixStream::pair()
            .and_then(|(here, _there)| sys::peer_process(&here));
        let own = opened(Some(std::process::id().cast_signed()));
        let told = |process: &OwnedFd| matches!(sys::cgroup_id(process), Ok(Some(_)));
        KernelOffer {
            peer: peer.is_ok(),
            by_number: own.is_some(),
            cgroup: peer.ok().or(own).as_ref().is_some_and(told),
        }
    }
}

fn how(offer: KernelOffer, identity: UnitIdentity) -> CgroupSource {
    let Some(root) = mounted(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    else {
        return CgroupSource::Not("no cgroup2 hierarchy is mounted here".into());
    };
    match identity {
        UnitIdentity::Pidfd if !offer.peer => {
            return CgroupSource::Not(
                "this kernel does not hold on to the process of a caller (SO_PEERPIDFD, Linux 6.5); \
                 `unit_identity = \"pid\"` in [server] finds it by its number"
                    .into(),
            );
        }
        UnitIdentity::Pid if !offer.peer && !offer.by_number => {
            return CgroupSource::Not(
                "this kernel does not hold on to the process of a caller (SO_PEERPIDFD, Linux 6.5), \
                 nor to one by its number (pidfd_open, Linux 5.3)"
                    .into(),
            );
        }
        _ => {}
    }
    if offer.cgroup {
        return CgroupSource::Id(root);
    }
    match fs::read_to_string("/proc/self/cgroup") {
        Ok(text) if unit::cgroup_of(&text).is_some() => CgroupSource::Proc,
        _ => CgroupSource::Not(
            "the cgroup of a caller cannot be read (PIDFD_GET_INFO needs Linux 6.13, /proc/PID/cgroup a mounted /proc)"
                .into(),
        ),
    }
}

/// The mount point of the cgroup2 hierarchy, from the text of /proc/self/mountinfo.
fn mounted(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        kind.starts_with("cgroup2 ")
            .then(|| place.split(' ').nth(4))?
            .map(PathBuf::from)
    })
}
