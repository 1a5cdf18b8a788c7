//! Checks whether changes of files are noticed: which events the file systems send, and how much
//! the system lets the daemon watch.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::accounts::UserAccount;
use super::daemon::Daemon;
use super::report::DoctorReport;
use super::report::plural;
use crate::app::assembly::surroundings;
use crate::app::interest::interest_in;
use crate::app::upstream::POLL;
use crate::core::profile::Config;
use crate::files::{self, Files};

pub const AREA: &str = "file watching";

/// Which changes a file system sends events for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Events {
    /// All but the changes that another machine, or another side of the file system, makes.
    Own,
    /// All but the changes in the layers below.
    Upper,
}

/// File systems that do not report every change, by their number in statfs(2). All others are
/// assumed to do so.
const KINDS: [(u32, &str, Events); 14] = [
    (0x0000_6969, "NFS", Events::Own),
    (0xff53_4d42, "CIFS", Events::Own),
    (0xfe53_4d42, "SMB", Events::Own),
    (0x0000_517b, "SMB", Events::Own),
    (0x6573_5546, "FUSE", Events::Own),
    (0x0102_1997, "9p", Events::Own),
    (0x00c3_6400, "Ceph", Events::Own),
    (0x5346_414f, "AFS", Events::Own),
    (0x6b41_4653, "AFS", Events::Own),
    (0x7375_7245, "Coda", Events::Own),
    (0x0bd0_0bd0, "Lustre", Events::Own),
    (0x786f_4256, "vboxsf", Events::Own),
    (0x0116_1970, "GFS2", Events::Own),
    (0x794c_7630, "overlay", Events::Upper),
];

fn kind(magic: u32) -> Option<(&'static str, Events)> {
    let found = KINDS.iter().find(|(known, ..)| *known == magic)?;
    Some((found.1, found.2))
}

/// Checks every folder that the daemon watches.
pub fn look(report: &mut DoctorReport, path: &Path, config: &Config, daemon: &Daemon) {
    let interest = interest_in(path, config, &surroundings());
    let folders = files::folders(&interest);
    let mut by_kind: BTreeMap<(&str, bool), Vec<&PathBuf>> = BTreeMap::new();
    for folder in &folders {
        let magic = rustix::fs::statfs(folder).map(|found| {
            // The lower half is enough, whatever width and sign the type has here.
            (found.f_type as u64 & 0xffff_ffff) as u32
        });
        if let Some((name, events)) = magic.ok().and_then(kind) {
            let key = (name, events == Events::Own);
            by_kind.entry(key).or_default().push(folder);
        }
    }
    let poll = POLL.as_secs();
    for ((name, own), found) in by_kind {
        let count = found.len();
        let last = found.last().map(|it| it.display().to_string());
        let place = format!(
            "{count} folder{} on {name} (for instance {})",
            plural(count),
            last.unwrap_or_default()
        );
        if own {
            report.warning(
                AREA,
                "",
                format!(
                    "{place}: a change that is made on another machine sends no event; it is found by the look at the files \
                     every {poll} s"
                ),
                "run `tokend reload` after a change where that is too late, or keep the files on a local file system",
            );
        } else {
            report.well(
                AREA,
                format!("{place}: a change in a layer below is found within {poll} s, all others at once"),
            );
        }
    }
    limits(report, folders.len());
    // The limits count per user, so the success of another user proves nothing.
    if daemon.who.is_none() || daemon.user().uid == UserAccount::me().uid {
        let mut files = Files::new();
        files.follow(&interest);
        if !files.hears() {
            report.warning(AREA, "", files::DEAF, RAISE);
        }
    }
    if !report.has_findings(AREA) {
        let files: BTreeSet<_> = interest.files.iter().collect();
        report.well(
            AREA,
            format!(
                "{} file{} in {} folder{}, limits of inotify suffice",
                files.len(),
                plural(files.len()),
                folders.len(),
                plural(folders.len())
            ),
        );
    }
}

const RAISE: &str = "run `sysctl fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=65536`, and put it into \
                     /etc/sysctl.d; or look which program of the daemon's user watches so much";

/// The limits must allow twice the folders: while everything is watched anew, the old watches still
/// exist.
fn limits(report: &mut DoctorReport, folders: usize) {
    for (name, needed) in [("max_user_watches", folders * 2), ("max_user_instances", 2)] {
        let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
        let limit = text.ok().and_then(|text| text.trim().parse::<usize>().ok());
        if let Some(limit) = limit.filter(|limit| *limit < needed) {
            report.warning(
                AREA,
                "",
                format!(
                    "fs.inotify.{name} is {limit}, and {needed} are needed: changes are found late"
                ),
                RAISE,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_that_tell_of_everything_are_not_in_the_table() {
        // These are ext4, xfs, btrfs, tmpfs, zfs, ramfs and squashfs.
        for magic in [
            0xef53,
            0x5846_5342,
            0x9123_683e,
            0x0102_1994,
            0x2fc1_2fc1,
            0x8584_58f6,
            0x7371_7368,
        ] {
            assert_eq!(kind(magic), None, "{magic:x}");
        }
        assert_eq!(kind(0x6969), Some(("NFS", Events::Own)));
        assert_eq!(kind(0x794c_7630), Some(("overlay", Events::Upper)));
    }
}
