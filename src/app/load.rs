//! Reads the configuration's files. What they mean is for `core::config`.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};

use crate::core::config::{Loaded, NOT_UTF_8, SourceFile, Sources};
use crate::readers::{AccessScan, Privacy};
use crate::safe_open::{self, OpenError};

/// Longest configuration file, in bytes: enough for tens of thousands of profiles.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Reads `tokend.toml` and every `*.toml` of `profiles.d` beside it, sorted by name. `readers`
/// finds out who else can read them.
///
/// Anybody who can write one of these files decides who gets which credential. So each file must
/// belong to root or to `us`, the daemon's user, must be writable for nobody else, and must be in a
/// folder for which the same is true. If that is not true of `profiles.d`, nothing in it is used,
/// not even the names of its files.
///
/// # Errors
/// When `tokend.toml` itself cannot be read, is no regular file, is too long, or can be written by
/// others.
pub fn sources(path: &Path, us: u32, readers: &AccessScan) -> io::Result<Sources> {
    let path = std::path::absolute(path)?;
    let main = read(&path, us, readers)?;
    let folder = path.parent().unwrap_or(Path::new("/")).join("profiles.d");
    if let Err(OpenError::Refused(why)) = safe_open::guarded_folder(&folder, us) {
        let why = why.to_string();
        let fragments = vec![Loaded::Unreadable { path: folder, why }];
        return Ok(Sources { main, fragments });
    }
    let fragments = names(&folder)?
        .into_iter()
        .map(|path| {
            read(&path, us, readers).map_or_else(
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

/// A digest of what was read, so that unchanged files are not taken in again. It is never shown,
/// since secrets may be in the files.
pub fn digest(sources: &Sources) -> Vec<u8> {
    let mut hash = Context::new(&SHA256);
    let mut add = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    let mut file = |file: &SourceFile| {
        add(file.path.as_os_str().as_encoded_bytes());
        add(&[u8::from(file.private)]);
        add(file.readers.as_bytes());
        add(file.text.as_bytes());
    };
    file(&sources.main);
    for fragment in &sources.fragments {
        match fragment {
            Loaded::Text(fragment) => file(fragment),
            // The digest covers the reason where the text would be.
            Loaded::Unreadable { path, why } => file(&SourceFile {
                path: path.clone(),
                text: format!("unreadable: {why}"),
                private: false,
                readers: String::new(),
            }),
        }
    }
    hash.finish().as_ref().to_vec()
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

fn read(path: &Path, us: u32, readers: &AccessScan) -> io::Result<SourceFile> {
    let path = std::path::absolute(path)?;
    let (bytes, file, found) = content(&path, us)?;
    // The parser reports bytes that are not UTF-8 with their place, and what the rest says about
    // access still counts. TOML allows this replacement character nowhere.
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes())
            .replace(char::REPLACEMENT_CHARACTER, NOT_UTF_8),
    };
    let (private, readers) = match readers.at(&path, &file, &found) {
        Privacy::Private => (true, String::new()),
        Privacy::Shared(why) | Privacy::Clients(why) => (false, why),
    };
    Ok(SourceFile {
        path,
        text,
        private,
        readers,
    })
}

/// The bytes and the metadata of one open regular file. Both belong to that file, even if its name
/// leads elsewhere a moment later.
fn content(path: &Path, us: u32) -> io::Result<(Vec<u8>, fs::File, fs::Metadata)> {
    let file = safe_open::guarded_file(path, us).map_err(|error| match error {
        OpenError::System(error) => said(path, &error),
        OpenError::Refused(why) => io::Error::new(io::ErrorKind::PermissionDenied, why.to_string()),
    })?;
    let found = file.metadata().map_err(|error| said(path, &error))?;
    if !found.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{} is {}, not a regular file: put a file with the configuration there, or remove it",
                path.display(),
                kind(found.file_type())
            ),
        ));
    }
    let mut bytes = Vec::new();
    (&file)
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| said(path, &error))?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "{} is longer than {} MiB, so it is no configuration: look what wrote it, or spread its profiles over \
                 files in profiles.d",
                path.display(),
                LONGEST / (1024 * 1024)
            ),
        ));
    }
    Ok((bytes, file, found))
}

fn kind(found: fs::FileType) -> &'static str {
    if found.is_dir() {
        "a folder"
    } else if found.is_fifo() {
        "a named pipe"
    } else if found.is_char_device() || found.is_block_device() {
        "a device"
    } else {
        "something else"
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    fn us() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        fs::create_dir(folder.path().join("profiles.d")).expect("folder");
        write(&folder.path().join("tokend.toml"), "");
        folder
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("mode");
    }

    fn pipe(path: &Path) {
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("made");
    }

    #[test]
    fn a_main_file_that_is_no_regular_file_is_an_error_at_once() {
        let folder = folder();
        let main = folder.path().join("tokend.toml");
        let refusal = || {
            sources(&main, us(), &AccessScan::default())
                .expect_err("refused")
                .to_string()
        };
        fs::remove_file(&main).expect("removed");
        pipe(&main);
        let why = refusal();
        assert!(
            why.contains("is a named pipe, not a regular file: put a file"),
            "{why}"
        );
        fs::remove_file(&main).expect("removed");
        symlink("/dev/zero", &main).expect("linked");
        assert!(refusal().contains("is a device"), "{}", refusal());
        fs::remove_file(&main).expect("removed");
        fs::create_dir(&main).expect("folder");
        assert!(refusal().contains("is a folder"), "{}", refusal());
    }

    #[test]
    fn a_fragment_that_is_no_regular_file_is_a_finding_of_its_own() {
        let folder = folder();
        let fragments = folder.path().join("profiles.d");
        pipe(&fragments.join("a.toml"));
        symlink("/dev/zero", fragments.join("b.toml")).expect("linked");
        fs::create_dir(fragments.join("c.toml")).expect("folder");
        write(&fragments.join("d.toml"), "# fine");
        let read = sources(
            &folder.path().join("tokend.toml"),
            us(),
            &AccessScan::default(),
        )
        .expect("read");
        let said: Vec<&str> = read
            .fragments
            .iter()
            .map(|fragment| match fragment {
                Loaded::Text(file) => file.text.as_str(),
                Loaded::Unreadable { why, .. } => why,
            })
            .collect();
        assert_eq!(said.len(), 4);
        for (said, expected) in said
            .iter()
            .zip(["a named pipe", "a device", "a folder", "# fine"])
        {
            assert!(said.contains(expected), "{said}");
        }
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_it() {
        let folder = folder();
        let main = folder.path().join("tokend.toml");
        let file = fs::File::options().write(true).open(&main).expect("open");
        file.set_len(LONGEST).expect("grown");
        assert!(sources(&main, us(), &AccessScan::default()).is_ok());
        file.set_len(LONGEST + 1).expect("grown");
        let why = sources(&main, us(), &AccessScan::default())
            .expect_err("too long")
            .to_string();
        assert!(why.contains("longer than 16 MiB"), "{why}");
    }
}
