//! Finds the systemd unit of the process that connected: pidfd → cgroup → unit. The process has to
//! be alive after the unit was read.
//!
//! The kernel's own reference holds a process, never its number alone. Numbers are used again, and
//! the next process with the number would be taken for the one before. If anything is missing the
//! answer is None, which matches no rule.

use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::core::policy::unit;
use crate::sys;

/// The unit is remembered for this many cgroups. A host has hundreds of units; a unit that makes
/// cgroups without end must not fill the memory.
const REMEMBERED: usize = 4096;

/// At most this many cgroups are searched for an unknown one when /proc does not say where it is. A
/// host with thousands of containers has about as many. A unit that makes more cgroups makes itself
/// unknown.
const LOOKED_AT: usize = 65_536;

/// Finds the units of processes.
#[derive(Debug)]
pub struct Units {
    how: CgroupSource,
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
    pub fn of_this_machine() -> Units {
        Units::by(how())
    }

    fn by(how: CgroupSource) -> Units {
        Units {
            how,
            known: Mutex::default(),
        }
    }

    /// The reason why no unit is ever found. None: units are found.
    pub fn trouble(&self) -> Option<&str> {
        match &self.how {
            CgroupSource::Id(_) | CgroupSource::Proc => None,
            CgroupSource::Not(why) => Some(why),
        }
    }

    /// The unit of a process. `pid` is the number that it had when it connected.
    pub fn of(&self, process: &OwnedFd, pid: Option<i32>) -> Option<Arc<str>> {
        let unit = match &self.how {
            CgroupSource::Id(root) => self.by_id(root, sys::cgroup_id(process).ok()??, pid, search),
            CgroupSource::Proc => unit::of_cgroup(&cgroup_by_number(pid)?).map(Arc::from),
            CgroupSource::Not(_) => None,
        };
        // What was read by number belongs to this process only if it still has the number.
        unit.filter(|_| sys::is_alive(process))
    }

    /// The same, but only if it takes microseconds: the hierarchy is never searched.
    pub fn quickly(&self, process: &OwnedFd, pid: Option<i32>) -> Option<Arc<str>> {
        let unit = match &self.how {
            CgroupSource::Id(root) => {
                let id = sys::cgroup_id(process).ok()??;
                self.by_id(root, id, pid, |_, _| None)
            }
            CgroupSource::Proc | CgroupSource::Not(_) => return self.of(process, pid),
        };
        unit.filter(|_| sys::is_alive(process))
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

fn how() -> CgroupSource {
    let Some(root) = mounted(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default())
    else {
        return CgroupSource::Not("no cgroup2 hierarchy is mounted here".into());
    };
    let asked =
        std::os::unix::net::UnixStream::pair().and_then(|(here, _there)| sys::peer_process(&here));
    let process = match asked {
        Ok(process) => process,
        Err(error) => {
            return CgroupSource::Not(format!(
                "this kernel does not hold on to the process of a caller (SO_PEERPIDFD: {error}); Linux 6.5 and later do"
            ));
        }
    };
    if let Ok(Some(_)) = sys::cgroup_id(&process) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_among_the_mounts() {
        let text = "24 1 0:21 / /proc rw - proc proc rw\n\
                    36 24 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw\n";
        assert_eq!(mounted(text), Some("/sys/fs/cgroup".into()));
        assert_eq!(
            mounted("24 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"),
            None
        );
        assert_eq!(mounted("nonsense\n"), None);
    }

    #[test]
    fn a_cgroup_is_found_by_its_inode() {
        let root = tempfile::tempdir().expect("folder");
        let deep = root.path().join("a.slice/b.service/c");
        fs::create_dir_all(&deep).expect("folders");
        fs::create_dir(root.path().join("d.slice")).expect("folder");
        let id = |path: &Path| fs::metadata(path).expect("there").ino();
        assert_eq!(
            search(root.path(), id(&deep)).as_deref(),
            Some("a.slice/b.service/c")
        );
        assert_eq!(search(root.path(), id(root.path())), None);
    }

    /// A process in a cgroup of its own, in the real hierarchy of the kernel.
    struct Cgroup {
        folder: PathBuf,
        child: std::process::Child,
    }

    impl Cgroup {
        /// None where cgroups may not be made; then a message says so.
        fn new(name: &str) -> Option<Cgroup> {
            let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
            let folder = mounted(&mounts)
                .unwrap_or("/nowhere".into())
                .join(format!("tku{}-{name}.slice", std::process::id()))
                .join(name);
            if let Err(error) = fs::create_dir_all(&folder) {
                eprintln!("SKIP: {}: {error}", folder.display());
                return None;
            }
            let child = std::process::Command::new("sleep")
                .arg("60")
                .spawn()
                .expect("started");
            fs::write(folder.join("cgroup.procs"), child.id().to_string()).expect("moved");
            Some(Cgroup { folder, child })
        }

        fn process(&self) -> OwnedFd {
            let pid = rustix::process::Pid::from_child(&self.child);
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd")
        }
    }

    impl Drop for Cgroup {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
            let _ = fs::remove_dir(&self.folder);
            let _ = self.folder.parent().map(fs::remove_dir);
        }
    }

    /// Checks that every way of the kernel leads to the same unit: by id with /proc and without it,
    /// and by /proc alone.
    #[test]
    fn every_way_finds_the_same_unit() {
        let Some(cgroup) = Cgroup::new("orders@1.service") else {
            return;
        };
        let pid = Some(cgroup.child.id().cast_signed());
        let root = || mounted(&fs::read_to_string("/proc/self/mountinfo").expect("readable"));
        let by_id = || Units::by(CgroupSource::Id(root().expect("it is there")));
        let process = cgroup.process();
        let asked = [
            (by_id(), pid),
            // The process is hidden, or belongs to another pid namespace: its cgroup is searched
            // for.
            (by_id(), None),
            // The number of another process does not mislead: its folder has another id.
            (by_id(), Some(std::process::id().cast_signed())),
            (Units::by(CgroupSource::Proc), pid),
        ];
        for (units, pid) in asked {
            if matches!(units.how, CgroupSource::Id(_)) && sys::cgroup_id(&process).is_err() {
                eprintln!("SKIP: this kernel has no PIDFD_GET_INFO");
                continue;
            }
            let found = units.of(&process, pid);
            assert_eq!(found.as_deref(), Some("orders@1.service"), "{units:?}");
            // The unit is remembered, or found again.
            let again = units.of(&process, pid);
            assert_eq!(again.as_deref(), Some("orders@1.service"), "{units:?}");
        }
        let no = Units::by(CgroupSource::Not("so".into()));
        assert_eq!(no.of(&process, pid), None);
        assert_eq!(no.trouble(), Some("so"));
    }

    /// Broken by `of` without `is_alive`: another process has the number of one that has ended, and
    /// is in the unit.
    #[test]
    fn trap_21_what_was_read_by_the_number_of_a_process_that_has_ended_is_not_believed() {
        let Some(cgroup) = Cgroup::new("orders@2.service") else {
            return;
        };
        let now_has_the_number = Some(cgroup.child.id().cast_signed());
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let pid = rustix::process::Pid::from_child(&child);
        let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            .expect("it is there until it is waited for");
        while sys::is_alive(&ended) {
            std::thread::yield_now();
        }
        let by_number = Units::by(CgroupSource::Proc);
        assert_eq!(
            by_number.of(&ended, now_has_the_number),
            None,
            "not waited for"
        );
        child.wait().expect("waited");
        assert_eq!(by_number.of(&ended, now_has_the_number), None);
        assert_eq!(
            Units::of_this_machine().of(&ended, now_has_the_number),
            None
        );
        let living = by_number.of(&cgroup.process(), now_has_the_number);
        assert_eq!(living.as_deref(), Some("orders@2.service"));
    }
}
