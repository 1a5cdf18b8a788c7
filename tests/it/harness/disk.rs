//! A disk with very little room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of 16 kB. It is unmounted when this is dropped.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Makes the folder and mounts the disk there. None where this user may not.
    pub fn mount(folder: &Path) -> Option<SmallDisk> {
        if !super::is_root() {
            return None;
        }
        fs::create_dir(folder).expect("folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"])
            .arg(folder)
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            super::say_skipped("a small file system cannot be mounted here");
            return None;
        }
        Some(SmallDisk(folder.to_owned()))
    }

    /// Takes all the room.
    pub fn fill(&self) {
        let full = fs::write(self.0.join("filler"), [0; 32 * 1024]);
        assert!(full.is_err(), "it has more room than it should");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The daemon may still have the file open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
