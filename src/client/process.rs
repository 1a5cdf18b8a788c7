//! Finds the process behind a socket that does not answer, and its state.

use std::fs;
use std::path::{Path, PathBuf};

/// The holder of a socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum SocketHolder {
    /// The service manager holds it, and there is no daemon.
    ByManager,
    /// A daemon holds it and is stopped.
    Stopped(i32),
    /// A daemon holds it and runs.
    By(i32),
    /// The kernel does not say.
    ByNobodyKnown,
}

/// Finds the holder. `listener` is the process that called listen(2), in this pid namespace. If
/// that is systemd, the daemon is the process in the unit.
pub(super) fn held(listener: Option<i32>) -> SocketHolder {
    held_as(Path::new("/"), listener)
}

fn held_as(root: &Path, listener: Option<i32>) -> SocketHolder {
    let read = |path: String| fs::read_to_string(root.join(path)).ok();
    let Some(listener) = listener.filter(|pid| *pid > 0) else {
        return SocketHolder::ByNobodyKnown;
    };
    let is_manager = read(format!("proc/{listener}/comm")).is_some_and(|name| name == "systemd\n");
    let pid = match is_manager {
        false => Some(listener),
        true => {
            let groups = read(format!("proc/{listener}/cgroup")).unwrap_or_default();
            match units(root, &groups) {
                None => return SocketHolder::ByNobodyKnown,
                Some(pids) => pids.lines().find_map(|pid| pid.parse().ok()),
            }
        }
    };
    let Some(pid) = pid else {
        return SocketHolder::ByManager;
    };
    // The name in parentheses may contain anything. The state comes after it: proc_pid_stat(5).
    let stat = read(format!("proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    match state {
        Some('T' | 't') => SocketHolder::Stopped(pid),
        Some(_) => SocketHolder::By(pid),
        None => SocketHolder::ByNobodyKnown,
    }
}

/// The processes of tokend.service under this manager. `groups` is the manager's cgroup file in
/// /proc. Empty: the unit does not exist now. None: the place of units cannot be seen.
fn units(root: &Path, groups: &str) -> Option<String> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let above: PathBuf = root
        .join("sys/fs/cgroup")
        .join(own.strip_suffix("init.scope").unwrap_or(own));
    // The first is for the system's manager, the second for a user's.
    let slice = ["system.slice", "app.slice"]
        .into_iter()
        .map(|slice| above.join(slice))
        .find(|slice| slice.is_dir())?;
    let procs = fs::read_to_string(slice.join("tokend.service/cgroup.procs"));
    Some(procs.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Broken by taking systemd for the daemon.
    #[test]
    fn a_socket_of_systemds_without_daemon_a_stopped_and_a_hanging_daemon_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(held_as(root, None), SocketHolder::ByNobodyKnown);
        write(root, "proc/1/comm", "systemd\n");
        write(root, "proc/1/cgroup", "0::/init.scope\n");
        assert_eq!(held_as(root, Some(1)), SocketHolder::ByNobodyKnown);
        fs::create_dir_all(root.join("sys/fs/cgroup/system.slice")).unwrap();
        assert_eq!(held_as(root, Some(1)), SocketHolder::ByManager);
        let unit = "sys/fs/cgroup/system.slice/tokend.service/cgroup.procs";
        write(root, unit, "");
        assert_eq!(held_as(root, Some(1)), SocketHolder::ByManager);
        write(root, unit, "77\n");
        write(root, "proc/77/stat", "77 (to) S (k) S 1 77");
        assert_eq!(held_as(root, Some(1)), SocketHolder::By(77));
        write(root, "proc/77/stat", "77 (to) S (k) T 1 77");
        assert_eq!(held_as(root, Some(1)), SocketHolder::Stopped(77));
        // Without systemd, the listener is the daemon.
        write(root, "proc/77/comm", "tokend\n");
        assert_eq!(held_as(root, Some(77)), SocketHolder::Stopped(77));
        // This is the manager of a user.
        write(root, "proc/9/comm", "systemd\n");
        write(
            root,
            "proc/9/cgroup",
            "0::/user.slice/user-7.slice/user@7.service/init.scope\n",
        );
        fs::create_dir_all(
            root.join("sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice"),
        )
        .unwrap();
        assert_eq!(held_as(root, Some(9)), SocketHolder::ByManager);
    }
}
