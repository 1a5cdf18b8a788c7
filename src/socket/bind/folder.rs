//! Checks the folder of the socket: only root and the daemon's own user may be able to put another
//! socket there.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::process::geteuid;

use super::BindError;
use crate::safe_open::{OpenError, guarded_folder};

/// Makes the folder if only the folder itself is missing. Refuses a folder in which others could
/// replace the socket.
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

/// Refuses a folder in which users other than root and the daemon's user `us` could replace the
/// socket. Also refuses a folder that they could replace through its parent.
///
/// # Errors
/// [`BindError::Folder`], and [`BindError::System`] when the folder cannot be examined.
pub fn check(folder: &Path, us: u32) -> Result<(), BindError> {
    guarded_folder(folder, us).map_err(|error| match error {
        OpenError::System(source) => BindError::System {
            action: "look at the folder",
            path: folder.to_owned(),
            source,
        },
        OpenError::Refused(refused) => BindError::Folder {
            path: refused.place,
            why: refused.why,
            cure: format!("{}, or set `socket` to a path elsewhere", refused.cure),
        },
    })
}
