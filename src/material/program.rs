//! Programs that the daemon runs: nobody but root and the daemon's user may be able to change them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::safe_open::{OpenError, guarded_file};

/// Checks owner and mode of a program and of every folder on the way, for a daemon that runs as
/// `us`.
///
/// # Errors
/// What is wrong and what to do about it, in one line.
pub fn check(path: &Path, us: u32) -> Result<(), String> {
    let shown = path.display();
    let (file, found) = guarded_file(path, us)
        .and_then(|file| {
            let found = file.metadata()?;
            Ok((file, found))
        })
        .map_err(|error| match error {
            OpenError::System(error) => format!("{shown} cannot be opened: {error}"),
            OpenError::Refused(place) => format!("the program would be run as the daemon: {place}"),
        })?;
    drop(file);
    if !found.is_file() {
        return Err(format!("{shown} is no program: it is no regular file"));
    }
    let own = us == 0 || found.uid() == us;
    let bits = if own { 0o111 } else { 0o011 };
    if found.mode() & bits == 0 {
        let mode = found.mode() & 0o7777;
        return Err(format!(
            "{shown} cannot be run by uid {us} (mode {mode:04o}): run `chmod 755 {shown}`"
        ));
    }
    Ok(())
}
