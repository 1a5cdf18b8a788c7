//! Checks whether access rules by systemd unit can work on this kernel. Where they cannot, they
//! match nobody, since only the kernel's word counts.

use std::fs;

use super::daemon::Daemon;
use super::report::DoctorReport;
use crate::caller::KernelOffer;
use crate::core::profile::{Config, UnitIdentity};

const AREA: &str = "units";

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
    let offer = KernelOffer::of_this_machine();
    match tellable(&kernel(), offer, config.server.unit_identity, &mounts) {
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
fn tellable(
    release: &str,
    offer: KernelOffer,
    identity: UnitIdentity,
    mounts: &str,
) -> Result<String, (String, String)> {
    let instead = "name users or groups instead";
    if !offer.peer {
        let older =
            format!("Linux {release} does not say which process a caller is (SO_PEERPIDFD)");
        match identity {
            UnitIdentity::Pid if offer.by_number => {}
            UnitIdentity::Pid => {
                return Err((
                    format!("{older}, and does not open one by its number either (pidfd_open)"),
                    format!("run Linux 6.5 or later, or {instead}"),
                ));
            }
            UnitIdentity::Pidfd => {
                return Err((
                    older,
                    format!(
                        "set unit_identity = \"pid\" in [server] (what that leaves open is in the \
                         threat model) and restart tokend, run Linux 6.5 or later, or {instead}"
                    ),
                ));
            }
        }
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
    if offer.peer && offer.cgroup {
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
    Ok(if offer.peer {
        format!("Linux {release} tells which process a caller is, and /proc its unit")
    } else {
        format!(
            "Linux {release} does not say which process a caller is, so its number has to do \
             (unit_identity = \"pid\"), and /proc tells its unit"
        )
    })
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

    #[test]
    fn the_kernel_the_control_groups_and_proc_decide() {
        use UnitIdentity::{Pid, Pidfd};
        let both = |one: &str, other: &str| format!("{one}\n{other}\n");
        let offer = |peer, by_number, cgroup| KernelOffer {
            peer,
            by_number,
            cgroup,
        };
        let (new, middle) = (offer(true, true, true), offer(true, true, false));
        let (old, oldest) = (offer(false, true, false), offer(false, false, false));
        for (offer, identity, mounts, expected) in [
            (new, Pidfd, both(PROC, CGROUP), Ok("PIDFD_GET_INFO")),
            (new, Pid, both(HIDDEN, CGROUP), Ok("PIDFD_GET_INFO")),
            (middle, Pidfd, both(PROC, CGROUP), Ok("/proc its unit")),
            (
                middle,
                Pidfd,
                both(HIDDEN, CGROUP),
                Err("hides the processes"),
            ),
            (middle, Pidfd, CGROUP.into(), Err("hides the processes")),
            (old, Pidfd, both(PROC, CGROUP), Err("SO_PEERPIDFD")),
            (
                old,
                Pidfd,
                both(PROC, CGROUP),
                Err("set unit_identity = \"pid\""),
            ),
            (oldest, Pidfd, both(PROC, CGROUP), Err("Linux 6.5 or later")),
            (old, Pid, both(PROC, CGROUP), Ok("its number has to do")),
            (old, Pid, both(HIDDEN, CGROUP), Err("hides the processes")),
            (oldest, Pid, both(PROC, CGROUP), Err("pidfd_open")),
            (new, Pidfd, both(PROC, OLD_CGROUP), Err("cgroup2")),
        ] {
            match (
                tellable("6.1.0-37-amd64", offer, identity, &mounts),
                expected,
            ) {
                (Ok(how), Ok(part)) => assert!(how.contains(part), "{how}"),
                (Err((why, cure)), Err(part)) => {
                    assert!(format!("{why} {cure}").contains(part), "{why} {cure}");
                    assert!(cure.contains("users or groups"), "{cure}");
                }
                (other, _) => panic!("{offer:?}, {identity:?}, {mounts}: {other:?}"),
            }
        }
    }
}
