//! Reads the configuration's files. What they mean is for `core::config`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::core::config::{Loaded, SourceFile, Sources};

/// Reads `tokend.toml` and every `*.toml` of `profiles.d` beside it, by name.
///
/// # Errors
/// When `tokend.toml` itself cannot be read, or anybody may write it.
pub fn sources(path: &Path) -> io::Result<Sources> {
    let main = read(path)?;
    let folder = path.parent().unwrap_or(Path::new(".")).join("profiles.d");
    let fragments = names(&folder)?
        .into_iter()
        .map(|path| {
            read(&path).map_or_else(
                |error| Loaded::Unreadable {
                    path: path.clone(),
                    why: error.to_string(),
                },
                Loaded::Text,
            )
        })
        .collect();
    Ok(Sources { main, fragments })
}

fn names(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(said(folder, &error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| said(folder, &error))?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
            && !hidden
        {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn read(path: &Path) -> io::Result<SourceFile> {
    let path = std::path::absolute(path)?;
    let bytes = fs::read(&path).map_err(|error| said(&path, &error))?;
    let found = fs::metadata(&path).map_err(|error| said(&path, &error))?;
    if found.mode() & 0o002 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} can be written by everybody, so it cannot be trusted: run `chmod o-w {}`",
                path.display(),
                path.display()
            ),
        ));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "{} is not UTF-8 text (byte {})",
                path.display(),
                error.utf8_error().valid_up_to()
            ),
        )
    })?;
    let own_group = found.gid() == rustix::process::getegid().as_raw();
    let private = found.mode() & 0o007 == 0 && (found.mode() & 0o070 == 0 || own_group);
    Ok(SourceFile {
        path,
        text,
        private,
    })
}

fn said(path: &Path, error: &io::Error) -> io::Error {
    let cure = match error.kind() {
        io::ErrorKind::NotFound => ": make it, or name another with --config or TOKEND_CONFIG",
        io::ErrorKind::PermissionDenied => ": give the daemon's user read access",
        _ => "",
    };
    io::Error::new(
        error.kind(),
        format!("cannot read {}: {error}{cure}", path.display()),
    )
}
