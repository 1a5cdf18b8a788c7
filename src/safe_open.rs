//! Opens files whose path other users may be able to change.
//!
//! It walks the path folder by folder (`openat`), so that it opens exactly what it has checked. It
//! follows symbolic links itself and does not leave them to the kernel. A link counts only if root
//! or this process's user has made it. Otherwise another user who renews a file could link it to
//! one that only this process may read.
//!
//! It cannot detect a file system whose server lies about owners (FUSE with `allow_other`, NFS).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Stat, StatVfsMountFlags, StatxAttributes, StatxFlags,
    fstat, fstatfs, fstatvfs, openat, readlinkat, statx,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Most symbolic links on the way to one file. Linux itself gives up after 40.
pub const LINKS_LONGEST: usize = 40;

/// `TMPFS_MAGIC` of statfs(2).
const TMPFS: u32 = 0x0102_1994;

/// The reason why a path is not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A system call failed.
    #[error("{0}")]
    System(#[from] io::Error),
    /// Other users can change a part of the path.
    #[error("{0}")]
    Refused(UnsafePath),
}

/// A part of the path that other users can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsafePath {
    /// The folder, link or file.
    pub place: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// How to fix it.
    pub cure: String,
}

impl fmt::Display for UnsafePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.place.display(), self.why, self.cure)
    }
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> OpenError {
        OpenError::System(errno.into())
    }
}

/// Opens a file for reading that another user may own and renew. It never waits for the other end
/// of a pipe.
///
/// # Errors
/// When a link on the way belongs to neither root nor this process's user, or others could have put
/// it there; when the file has a second name and others may create names in its folder; and when a
/// system call fails.
pub fn file(path: &Path) -> Result<File, OpenError> {
    let us = geteuid().as_raw();
    let way = ResolvedPath::walk(path, us, false)?;
    let (file, about) = way.open()?;
    let folder = Folder::of(&way.folder, us)?;
    if about.st_nlink > 1 && folder.names != Names::Kept && is(&about, FileType::RegularFile) {
        return Err(refused(
            &way.place(),
            "has more than one name, and others can make names in its folder: it may be a file that is not theirs to show",
            "write it anew under this name alone",
        ));
    }
    Ok(file)
}

/// Opens a file for reading. Only root and the user `us` may be able to change the file or any
/// folder on the way.
///
/// # Errors
/// When others could change the file or put another in its place, and when a system call fails.
pub fn guarded_file(path: &Path, us: u32) -> Result<File, OpenError> {
    let way = ResolvedPath::walk(path, us, true)?;
    let (file, about) = way.open()?;
    let place = way.place();
    // The caller refuses a file that is not regular, since it knows what was expected.
    if !is(&about, FileType::RegularFile) {
        return Ok(file);
    }
    if !trusted(about.st_uid, us) {
        let (uid, shown) = (about.st_uid, place.display());
        let cure = format!(
            "let {} own it (`chown {us} {shown}`), or run this as uid {uid}",
            owners(us)
        );
        return Err(refused(&place, &format!("belongs to uid {uid}"), &cure));
    }
    if about.st_mode & 0o022 != 0 {
        let why = format!("can be written by others (mode {:04o})", bits(&about));
        let cure = format!("run `chmod go-w {}`", place.display());
        return Err(refused(&place, &why, &cure));
    }
    Folder::of(&way.folder, us)?.must_be_closed(&way.folder_path, us)?;
    Ok(file)
}

/// Checks that only root and the user `us` can create, rename or remove anything in a folder, or
/// put another folder in its place. Every folder on the way counts.
///
/// # Errors
/// When others can, and when a system call fails.
pub fn guarded_folder(path: &Path, us: u32) -> Result<(), OpenError> {
    let way = ResolvedPath::walk(path, us, true)?;
    if way.name.is_some() {
        return Err(Errno::NOTDIR.into());
    }
    Folder::of(&way.folder, us)?.must_be_closed(&way.folder_path, us)
}

/// A path with all links followed.
struct ResolvedPath {
    /// The last folder, and its path without links.
    folder: OwnedFd,
    folder_path: PathBuf,
    /// The last name if it is not a folder.
    name: Option<OsString>,
}

impl ResolvedPath {
    /// Follows the path. With `guarded`, no folder on the way may let others rename the next part.
    fn walk(path: &Path, us: u32, guarded: bool) -> Result<ResolvedPath, OpenError> {
        let mut left = parts(&std::path::absolute(path)?);
        let mut way = ResolvedPath {
            folder: root()?,
            folder_path: PathBuf::from("/"),
            name: None,
        };
        let mut links = 0;
        while let Some(name) = left.pop() {
            if guarded {
                Folder::of(&way.folder, us)?.must_keep_names(&way.folder_path, us)?;
            }
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            // The name is opened as a folder first: only that triggers an automount.
            match openat(&way.folder, &name, flags | OFlags::DIRECTORY, Mode::empty()) {
                Ok(next) => {
                    way.enter(next, &name);
                    continue;
                }
                Err(Errno::NOTDIR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let found = openat(&way.folder, &name, flags, Mode::empty())?;
            let about = fstat(&found)?;
            if is(&about, FileType::Symlink) {
                links += 1;
                if links > LINKS_LONGEST {
                    return Err(Errno::LOOP.into());
                }
                Folder::of(&way.folder, us)?.must_vouch(
                    &about,
                    &way.folder_path.join(&name),
                    us,
                )?;
                let target = readlinkat(&found, "", Vec::new())?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    (way.folder, way.folder_path) = (root()?, PathBuf::from("/"));
                }
                left.extend(parts(&target));
            } else if left.is_empty() {
                way.name = Some(name);
            } else {
                return Err(Errno::NOTDIR.into());
            }
        }
        Ok(way)
    }

    fn enter(&mut self, next: OwnedFd, name: &OsStr) {
        self.folder = next;
        if name == ".." {
            self.folder_path.pop();
        } else {
            self.folder_path.push(name);
        }
    }

    fn place(&self) -> PathBuf {
        match &self.name {
            Some(name) => self.folder_path.join(name),
            None => self.folder_path.clone(),
        }
    }

    fn open(&self) -> Result<(File, Stat), OpenError> {
        // O_NONBLOCK, because opening a pipe without a writer would hang for ever.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
        let name = self.name.as_deref().unwrap_or(OsStr::new("."));
        let file = openat(&self.folder, name, flags | OFlags::CLOEXEC, Mode::empty())?;
        let about = fstat(&file)?;
        Ok((File::from(file), about))
    }
}

/// What other users can do with the names in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    /// They can do nothing.
    Kept,
    /// They can add names. Names that belong to root or us stay (a sticky folder).
    Added,
    /// They can do everything.
    Changed,
}

struct Folder {
    names: Names,
    about: Stat,
    /// The folder is the root of a file system in memory.
    memory: bool,
}

impl Folder {
    fn of(folder: &OwnedFd, us: u32) -> Result<Folder, OpenError> {
        let about = fstat(folder)?;
        let open = about.st_mode & 0o022 != 0;
        let names = match () {
            () if !trusted(about.st_uid, us) => Names::Changed,
            () if !open => Names::Kept,
            // Kubernetes makes the folder of a ConfigMap writable for all, and mounts it read-only.
            // Only a mount of its own counts: in the sandbox of a unit everything is read-only,
            // whoever may write outside.
            () if is_mount(folder) && is_read_only(folder) => Names::Kept,
            () if about.st_mode & 0o1000 != 0 => Names::Added,
            () => Names::Changed,
        };
        Ok(Folder {
            names,
            about,
            memory: names == Names::Changed
                && trusted(about.st_uid, us)
                && is_mount(folder)
                && fstatfs(folder).is_ok_and(|it| (it.f_type as u64 & 0xffff_ffff) as u32 == TMPFS),
        })
    }

    /// Refuses a folder in which others can rename what belongs to root or us.
    fn must_keep_names(&self, path: &Path, us: u32) -> Result<(), OpenError> {
        // An emptyDir of Kubernetes is writable for all and cannot be made otherwise. Only somebody
        // who means this process mounts one here.
        if self.names != Names::Changed || self.memory {
            return Ok(());
        }
        Err(self.refused(path, us))
    }

    /// Refuses a folder in which others can do anything.
    fn must_be_closed(&self, path: &Path, us: u32) -> Result<(), OpenError> {
        if self.names == Names::Kept {
            return Ok(());
        }
        Err(self.refused(path, us))
    }

    /// Refuses a link unless root or we have put it in this place.
    fn must_vouch(&self, link: &Stat, path: &Path, us: u32) -> Result<(), OpenError> {
        let shown = path.display();
        if !trusted(link.st_uid, us) {
            let why = format!("is a link of uid {}, which is not followed", link.st_uid);
            let cure = format!(
                "let {} own it (`chown -h {us} {shown}`), or name the file that it leads to",
                owners(us)
            );
            return Err(refused(path, &why, &cure));
        }
        // Where fs.protected_hardlinks is off, anybody can create a second name for a link of
        // root's.
        let placed = match self.names {
            Names::Kept => true,
            Names::Added => link.st_nlink == 1,
            Names::Changed => false,
        };
        if placed {
            return Ok(());
        }
        Err(refused(
            path,
            "is a link in a folder where others can put one in its place; it is not followed",
            "run `chmod go-w` on the folder and let root own it, or name the file that the link leads to",
        ))
    }

    fn refused(&self, path: &Path, us: u32) -> OpenError {
        let shown = path.display();
        if trusted(self.about.st_uid, us) {
            let mode = bits(&self.about);
            let why = format!(
                "can be written by others (mode {mode:04o}), who could put something else in place of what is in it"
            );
            refused(path, &why, &format!("run `chmod go-w {shown}`"))
        } else {
            let uid = self.about.st_uid;
            let why = format!(
                "belongs to uid {uid}, who could put something else in place of what is in it"
            );
            let cure = format!("let {} own it (`chown {us} {shown}`)", owners(us));
            refused(path, &why, &cure)
        }
    }
}

fn refused(place: &Path, why: &str, cure: &str) -> OpenError {
    OpenError::Refused(UnsafePath {
        place: place.to_owned(),
        why: why.to_owned(),
        cure: cure.to_owned(),
    })
}

/// Names the trusted users in words.
fn owners(us: u32) -> String {
    if us == 0 {
        return "root".to_owned();
    }
    format!("root or uid {us}")
}

fn trusted(uid: u32, us: u32) -> bool {
    uid == 0 || uid == us
}

fn is(about: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(about.st_mode) == kind
}

fn bits(about: &Stat) -> u32 {
    about.st_mode & 0o7777
}

/// Whether this is the root of a mount. False before Linux 5.8, which does not tell.
fn is_mount(folder: &OwnedFd) -> bool {
    statx(folder, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|it| it.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn is_read_only(folder: &OwnedFd) -> bool {
    fstatvfs(folder).is_ok_and(|it| it.f_flag.contains(StatVfsMountFlags::RDONLY))
}

fn root() -> Result<OwnedFd, OpenError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, "/", flags, Mode::empty())?)
}

/// The components of a path, in reverse order: what is left of a walk through folders and links.
#[must_use]
pub fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
