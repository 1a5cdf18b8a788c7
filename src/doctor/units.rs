//! Checks whether access rules by systemd unit can work on this kernel. Where they cannot, they
//! match nobody, since only the kernel's word counts.

use std::fs;

use super::daemon::Daemon;
use super::report::DoctorReport;
use crate::core::profile::Config;

const AREA: &str = "units";

/// The first kernel with SO_PEERPIDFD. Without it, a caller's pid may belong to another process by
/// the time it is looked up.
const PEER_PIDFD: (u32, u32) = (6, 5);

/// The first kernel with PIDFD_GET_INFO, which tells the control group itself. Older ones need a
/// readable /proc/PID/cgroup.
const PIDFD_INFO: (u32, u32) = (6, 13);

/// Checks the kernel. Reports nothing if no rule names a unit.
pub fn look(report: &mut DoctorReport, config: &Config, daemon: &Daemon) {
    let of_profiles = config.profiles.iter().find_map(|(name, profile)| {
        let rules = match profile {
            Ok(profile) => &profile.access,
            Err(invalid) => &invalid.access,
        };
        let named = rules.iter().any(|rule| rule.unit.is_some());
        named.then(|| format!("profiles.{name}.access"))
    });
    let admins = config.server.admins.iter();
    let by_admins = || {
        admins
            .clone()
            .any(|rule| rule.unit.is_some())
            .then(|| "server.admins".to_owned())
    };
    let Some(key) = of_profiles.or_else(by_admins) else {
        return;
    };
    // These are the mounts of the daemon, which may differ from ours.
    let mounts = daemon
        .pid
        .and_then(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok())
        .or_else(|| fs::read_to_string("/proc/self/mountinfo").ok())
        .unwrap_or_default();
    match tellable(&kernel(), &mounts) {
        Ok(how) => report.well(AREA, how),
        Err((why, cure)) => report.error(
            AREA,
            &key,
            format!("{key} names a unit, and rules by unit match no one here: {why}"),
            cure,
        ),
    }
}

/// The kernel's release, such as `6.12.38-1-amd64`.
fn kernel() -> String {
    let name = rustix::system::uname();
    name.release().to_string_lossy().into_owned()
}

/// How a caller's unit becomes known. An error says why it does not, and what to do about it.
fn tellable(release: &str, mounts: &str) -> Result<String, (String, String)> {
    let instead = "name users or groups instead";
    let Some(version) = version(release) else {
        return Err((
            format!("the kernel's release {release:?} is not understood"),
            instead.into(),
        ));
    };
    if version < PEER_PIDFD {
        return Err((
            format!("Linux {release} does not say which process a caller is (SO_PEERPIDFD)"),
            format!("run Linux 6.5 or later, or {instead}"),
        ));
    }
    let mounts: Vec<Mount<'_>> = mounts.lines().filter_map(Mount::read).collect();
    if !mounts.iter().any(|mount| mount.kind == "cgroup2") {
        return Err((
            "no cgroup2 file system is mounted, and units are found by their control group".into(),
            format!(
                "boot with systemd.unified_cgroup_hierarchy=1 (in a container: mount it), or {instead}"
            ),
        ));
    }
    if version >= PIDFD_INFO {
        return Ok(format!(
            "Linux {release} tells the unit of a caller (PIDFD_GET_INFO)"
        ));
    }
    // The last mount is the visible one.
    let hidden = mounts
        .iter()
        .rfind(|mount| mount.place == "/proc")
        .is_none_or(|proc| proc.hides_processes());
    if hidden {
        return Err((
            format!(
                "Linux {release} needs a readable /proc/PID/cgroup, and /proc hides the processes of others"
            ),
            format!(
                "set ProtectProc=default in the daemon's unit and mount /proc without hidepid, run Linux 6.13 or later, or {instead}"
            ),
        ));
    }
    Ok(format!(
        "Linux {release} tells which process a caller is, and /proc its unit"
    ))
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
struct Mount<'a> {
    place: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl Mount<'_> {
    fn read(line: &str) -> Option<Mount<'_>> {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        Some(Mount {
            place: left.split(' ').nth(4)?,
            kind: right.next()?,
            options: right.nth(1).unwrap_or_default(),
        })
    }

    fn hides_processes(&self) -> bool {
        self.options.split(',').any(|option| {
            option
                .strip_prefix("hidepid=")
                .is_some_and(|how| !matches!(how, "0" | "off"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROC: &str = "22 1 0:21 / /proc rw,nosuid - proc proc rw";
    const HIDDEN: &str = "22 1 0:21 / /proc rw,nosuid - proc proc rw,hidepid=invisible";
    const CGROUP: &str = "30 1 0:26 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    const OLD_CGROUP: &str = "30 1 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";

    /// Broken by comparing numbers as text: 6.13 would come before 6.5.
    #[test]
    fn the_kernel_the_control_groups_and_proc_decide() {
        let both = |one: &str, other: &str| format!("{one}\n{other}\n");
        for (release, mounts, expected) in [
            ("6.18.44", both(PROC, CGROUP), Ok("PIDFD_GET_INFO")),
            ("6.13", both(HIDDEN, CGROUP), Ok("PIDFD_GET_INFO")),
            ("6.12.38-1-amd64", both(PROC, CGROUP), Ok("/proc its unit")),
            ("6.12.38", both(HIDDEN, CGROUP), Err("hides the processes")),
            ("6.5.0-rc1", both(PROC, CGROUP), Ok("/proc its unit")),
            ("6.1.0-37-amd64", both(PROC, CGROUP), Err("SO_PEERPIDFD")),
            ("5.15.0", both(PROC, CGROUP), Err("Linux 6.5 or later")),
            ("6.18.44", both(PROC, OLD_CGROUP), Err("cgroup2")),
            ("6.12.38", CGROUP.into(), Err("hides the processes")),
            ("seven", both(PROC, CGROUP), Err("not understood")),
        ] {
            match (tellable(release, &mounts), expected) {
                (Ok(how), Ok(part)) => assert!(how.contains(part), "{release}: {how}"),
                (Err((why, cure)), Err(part)) => {
                    assert!(
                        format!("{why} {cure}").contains(part),
                        "{release}: {why} {cure}"
                    );
                    assert!(cure.contains("users or groups"), "{release}: {cure}");
                }
                (other, _) => panic!("{release}, {mounts}: {other:?}"),
            }
        }
    }
}
