//! The folder of the socket: nobody but root and the daemon's own user may be able to put another socket there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::process::geteuid;

use super::BindError;

/// Makes the folder if only it is missing, and refuses one in which others could replace the socket.
pub(super) fn make_and_check(folder: &Path) -> Result<(), BindError> {
    match fs::DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => {
            return Err(BindError::System {
                action: "make the folder",
                path: folder.to_owned(),
                source,
            });
        }
    }
    check(folder, geteuid().as_raw())
}

/// Refuses a folder in which others than root and the daemon's user `us` could replace the socket.
///
/// # Errors
/// [`BindError::Folder`], and [`BindError::System`] when it cannot be looked at.
pub fn check(folder: &Path, us: u32) -> Result<(), BindError> {
    let found = fs::metadata(folder).map_err(|source| BindError::System {
        action: "look at the folder",
        path: folder.to_owned(),
        source,
    })?;
    let refuse = |why: String, cure: String| {
        Err(BindError::Folder {
            path: folder.to_owned(),
            why,
            cure,
        })
    };
    if !found.is_dir() {
        return refuse("is not a folder".into(), "set another `socket`".into());
    }
    if found.uid() != us && found.uid() != 0 {
        return refuse(
            format!(
                "belongs to uid {}, who could put another socket in place of ours",
                found.uid()
            ),
            format!(
                "run `chown {us} {}`, or set `socket` to a path in a folder of root's or the daemon's own user",
                folder.display()
            ),
        );
    }
    let sticky = found.mode() & 0o1000 != 0;
    if found.mode() & 0o022 != 0 && !sticky {
        return refuse(
            format!(
                "can be written by others (mode {:04o}), who could put another socket in place of ours",
                found.mode() & 0o7777
            ),
            format!("run `chmod go-w {}`", folder.display()),
        );
    }
    Ok(())
}
