//! Tests of how units are found: with processes in cgroups of their own.

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

    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// The process, as the kernel gives it with a connection.
    fn process(&self) -> PeerProcess {
        held(opened(Some(self.pid())).expect("pidfd"), Some(self.pid()))
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

/// A process that the kernel gave with a connection.
fn held(held: OwnedFd, pid: Option<i32>) -> PeerProcess {
    PeerProcess {
        held,
        pid,
        must_be: None,
    }
}

fn by(how: CgroupSource) -> Units {
    Units {
        how,
        by_number: false,
        known: Mutex::default(),
    }
}

/// Checks that every way of the kernel leads to the same unit: by id with /proc and without it,
/// and by /proc alone.
#[test]
fn every_way_finds_the_same_unit() {
    let Some(cgroup) = Cgroup::new("orders@1.service") else {
        return;
    };
    let pid = Some(cgroup.pid());
    let root = || mounted(&fs::read_to_string("/proc/self/mountinfo").expect("readable"));
    let by_id = || by(CgroupSource::Id(root().expect("it is there")));
    let asked = [
        (by_id(), pid),
        // The process is hidden, or belongs to another pid namespace: its cgroup is searched
        // for.
        (by_id(), None),
        // The number of another process does not mislead: its folder has another id.
        (by_id(), Some(std::process::id().cast_signed())),
        (by(CgroupSource::Proc), pid),
    ];
    for (units, pid) in asked {
        let process = PeerProcess {
            pid,
            ..cgroup.process()
        };
        if matches!(units.how, CgroupSource::Id(_)) && sys::cgroup_id(&process.held).is_err() {
            eprintln!("SKIP: this kernel has no PIDFD_GET_INFO");
            continue;
        }
        let found = units.of(&process);
        assert_eq!(found.as_deref(), Some("orders@1.service"), "{units:?}");
        // The unit is remembered, or found again.
        let again = units.of(&process);
        assert_eq!(again.as_deref(), Some("orders@1.service"), "{units:?}");
    }
    let no = by(CgroupSource::Not("so".into()));
    assert_eq!(no.of(&cgroup.process()), None);
    assert_eq!(no.trouble(), Some("so"));
}

/// Broken by `of` without `is_alive`: another process has the number of one that has ended, and
/// is in the unit.
#[test]
fn trap_21_what_was_read_by_the_number_of_a_process_that_has_ended_is_not_believed() {
    let Some(cgroup) = Cgroup::new("orders@2.service") else {
        return;
    };
    let now_has_the_number = Some(cgroup.pid());
    let mut child = std::process::Command::new("true").spawn().expect("started");
    let ended = opened(Some(child.id().cast_signed())).expect("it is there until it is waited for");
    while sys::is_alive(&ended) {
        std::thread::yield_now();
    }
    let ended = held(ended, now_has_the_number);
    let by_number = by(CgroupSource::Proc);
    assert_eq!(by_number.of(&ended), None, "not waited for");
    child.wait().expect("waited");
    assert_eq!(by_number.of(&ended), None);
    let here = Units::of_this_machine(UnitIdentity::Pidfd);
    assert_eq!(here.of(&ended), None);
    let living = by_number.of(&cgroup.process());
    assert_eq!(living.as_deref(), Some("orders@2.service"));
}

/// Broken by `can_be_the_caller` that leaves out one of the two, or is not asked. The process is in
/// the unit, alive, and has the number of the caller, but another one may have had it before.
#[test]
fn trap_21_a_process_opened_by_its_number_has_to_be_the_callers_and_no_younger_than_the_connection()
{
    let Some(cgroup) = Cgroup::new("orders@3.service") else {
        return;
    };
    let pid = cgroup.pid();
    let (uid, start) = user_and_start(pid).expect("it is there");
    let now = ticks(Clock::system().now().boot);
    assert!(start <= now && now - start < 6000, "{start} {now}");
    assert_eq!(uid, rustix::process::geteuid().as_raw());
    let found = |uid, accepted| {
        let process = PeerProcess {
            must_be: Some(ConnectingProcess { uid, accepted }),
            ..cgroup.process()
        };
        let units = by(CgroupSource::Proc);
        assert_eq!(units.of(&process), units.quickly(&process));
        units.of(&process)
    };
    assert_eq!(found(uid, now).as_deref(), Some("orders@3.service"));
    assert_eq!(found(uid, start).as_deref(), Some("orders@3.service"));
    assert_eq!(
        found(uid, start - 1),
        None,
        "it started after the connection"
    );
    assert_eq!(found(uid + 1, now), None, "it is another user's");
}

#[test]
fn the_number_counts_only_where_it_is_permitted_and_the_kernel_gives_nothing_better() {
    let new = KernelOffer {
        peer: true,
        by_number: true,
        cgroup: true,
    };
    let old = KernelOffer {
        peer: false,
        cgroup: false,
        ..new
    };
    let oldest = KernelOffer {
        by_number: false,
        ..old
    };
    for (offer, identity, trouble) in [
        (new, UnitIdentity::Pidfd, None),
        (new, UnitIdentity::Pid, None),
        (old, UnitIdentity::Pidfd, Some("unit_identity = \"pid\"")),
        (old, UnitIdentity::Pid, None),
        (oldest, UnitIdentity::Pidfd, Some("unit_identity = \"pid\"")),
        (oldest, UnitIdentity::Pid, Some("Linux 5.3")),
    ] {
        match (how(offer, identity), trouble) {
            (CgroupSource::Not(why), Some(part)) => assert!(why.contains(part), "{why}"),
            (CgroupSource::Id(_) | CgroupSource::Proc, None) => {}
            (how, _) => panic!("{offer:?}, {identity:?}: {how:?}"),
        }
    }
}
