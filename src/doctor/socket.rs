//! Checks the socket as a file, and its folder.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::net::SocketAddrUnix;

use super::accounts::{Owned, group, group_name};
use super::daemon::Daemon;
use super::report::DoctorReport;
use crate::core::profile::{Config, UserOrGroup};
use crate::socket::bind::{BindError, folder};

pub const AREA: &str = "socket";

/// Compares the socket with the configuration.
pub fn look(report: &mut DoctorReport, config: Option<&Config>, path: &Path, daemon: &Daemon) {
    // Resolving fails only without a current folder, and connecting reports that.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if SocketAddrUnix::new(&path).is_err() {
        let length = path.as_os_str().len();
        let error = BindError::TooLong { path, length };
        let cure = "for instance /run/tokend/tokend.sock";
        return report.error(AREA, "server.socket", error.to_string(), cure);
    }
    look_at_folder(report, &path, daemon);
    let wanted = config.map(|config| wanted_group(report, config));
    let Ok(found) = fs::symlink_metadata(&path) else {
        // The report on the daemon says why nobody gets there.
        return;
    };
    if !found.file_type().is_socket() {
        return report.error(
            AREA,
            "server.socket",
            BindError::NotASocket(path.clone()).to_string(),
            format!("look what {} is before you remove it", path.display()),
        );
    }
    let owned = Owned {
        uid: found.uid(),
        gid: found.gid(),
        mode: found.mode() & 0o7777,
    };
    if let (Some(config), Some(wanted)) = (config, wanted) {
        compare(report, config, &path, owned, wanted);
    }
    if !report.has_findings(AREA) {
        report.well(AREA, format!("{}: {}", path.display(), owned.told()));
    }
}

fn look_at_folder(report: &mut DoctorReport, path: &Path, daemon: &Daemon) {
    let folder = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = fs::metadata(folder)
        && error.kind() == std::io::ErrorKind::NotFound
    {
        let above = folder.parent().unwrap_or(Path::new("/"));
        if above.is_dir() {
            return report.well(
                AREA,
                format!(
                    "the folder {} is made when the daemon starts",
                    folder.display()
                ),
            );
        }
    }
    match folder::check(folder, daemon.user().uid) {
        Ok(()) => {
            let owned = Owned::of(folder).map(Owned::told).unwrap_or_default();
            report.well(AREA, format!("the folder {}: {owned}", folder.display()));
        }
        Err(BindError::Folder { path, why, cure }) => report.error(
            AREA,
            "server.socket",
            format!("the folder {} {why}", path.display()),
            cure,
        ),
        Err(error) => report.error(
            AREA,
            "server.socket",
            error.to_string(),
            "make the folder, or set another `socket`",
        ),
    }
}

/// The gid of `socket_group`. None if it is not configured or does not exist.
fn wanted_group(report: &mut DoctorReport, config: &Config) -> Option<u32> {
    match config.server.socket_group.as_ref()? {
        UserOrGroup::Id(gid) => Some(*gid),
        UserOrGroup::Name(name) => {
            let found = group(name).map(|(gid, _)| gid);
            if found.is_none() {
                report.error(
                    AREA,
                    "server.socket_group",
                    format!(
                        "this host does not know the group {name:?}: the daemon does not start"
                    ),
                    format!("make it (groupadd --system {name}), or correct `socket_group`"),
                );
            }
            found
        }
    }
}

fn compare(
    report: &mut DoctorReport,
    config: &Config,
    path: &Path,
    found: Owned,
    wanted_group: Option<u32>,
) {
    let wanted = config.server.socket_mode;
    let path = path.display();
    if found.mode != wanted {
        report.warning(
            AREA,
            "server.socket_mode",
            format!(
                "{path} has mode {:04o}, and `socket_mode` says {wanted:04o}",
                found.mode
            ),
            format!("restart the daemon, or run `chmod {wanted:04o} {path}`"),
        );
    }
    if let Some(wanted) = wanted_group.filter(|wanted| *wanted != found.gid) {
        let name = group_name(wanted);
        report.warning(
            AREA,
            "server.socket_group",
            format!(
                "{path} belongs to group {}, and `socket_group` says {name}",
                group_name(found.gid)
            ),
            format!("restart the daemon, or run `chgrp {name} {path}`"),
        );
    }
}
