//! Reports that files may have changed. It knows nothing about their meaning and may raise false
//! alarms: the listener reads and compares.
//!
//! It does not watch the files but every folder on the way to them, through every symbolic link.
//! Files are replaced by renaming, folders are re-created, and Kubernetes swaps a link (`..data`)
//! far away from the configured name. After each change everything is watched anew, since a folder
//! of the same name may be another one.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::safe_open::{LINKS_LONGEST, parts};

/// A rotation is often several file operations. It is over when nothing has happened for this long.
const SETTLE: Duration = Duration::from_millis(200);

/// Files that never settle are looked at after this long anyway.
const SETTLE_LONGEST: Duration = Duration::from_secs(1);

/// The warning if the system gives no events.
pub const DEAF: &str = "no file events: changes are found by reading the files every ten seconds; for inotify, raise \
                        fs.inotify.max_user_watches or user.max_inotify_watches";

pub struct Files {
    stirred: Arc<Notify>,
    /// The number of signs of a change.
    signs: Arc<AtomicU64>,
    /// None if the system gives no events, so that only polling helps.
    watcher: Option<RecommendedWatcher>,
    /// True if the last attempt to watch failed, which has been logged.
    complained: bool,
}

/// The files and folders to watch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Files, whether or not they exist.
    pub files: BTreeSet<PathBuf>,
    /// Folders in which every entry counts.
    pub folders: BTreeSet<PathBuf>,
}

impl Files {
    #[must_use]
    pub fn new() -> Files {
        Files::counting(Arc::default())
    }

    /// Counts the signs of changes there.
    #[must_use]
    pub fn counting(signs: Arc<AtomicU64>) -> Files {
        Files {
            stirred: Arc::new(Notify::new()),
            signs,
            watcher: None,
            complained: false,
        }
    }

    /// Watches these files and folders instead of the previous ones. The caller must call this
    /// before it reads them, so that every change after the reading is noticed.
    pub fn follow(&mut self, interest: &Interest) {
        let trail = WatchPaths::of(interest);
        let folders = trail.folders;
        let relevant = Relevant {
            names: trail.names,
            within: interest
                .folders
                .iter()
                .filter_map(|folder| fs::canonicalize(folder).ok())
                .chain(interest.folders.iter().cloned())
                .collect(),
        };
        let (stirred, signs) = (self.stirred.clone(), self.signs.clone());
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // An error is a reason to look. It may be an overflow of the queue.
            if event.is_ok_and(|event| !relevant.concerns(&event)) {
                return;
            }
            signs.fetch_add(1, Ordering::Relaxed);
            stirred.notify_one();
        });
        match watcher.and_then(|watcher| watch_all(watcher, &folders)) {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.complained = false;
            }
            Err(error) => {
                self.watcher = None;
                if !self.complained {
                    warn!(%error, "{DEAF}");
                    self.complained = true;
                }
            }
        }
    }

    /// Whether the system gives events for everything watched. Nobody can tell that of a file
    /// system that sends none.
    #[must_use]
    pub fn hears(&self) -> bool {
        self.watcher.is_some()
    }

    /// Resolves when something may have changed and has settled.
    pub async fn changed(&self) {
        self.stirred.notified().await;
        let longest = tokio::time::sleep(SETTLE_LONGEST);
        tokio::pin!(longest);
        loop {
            tokio::select! {
                () = self.stirred.notified() => {}
                () = tokio::time::sleep(SETTLE) => return,
                () = &mut longest => return,
            }
        }
    }
}

/// Every folder on the way to these files, through links. These folders are watched.
#[must_use]
pub fn folders(interest: &Interest) -> BTreeSet<PathBuf> {
    WatchPaths::of(interest).folders
}

impl Default for Files {
    fn default() -> Self {
        Files::new()
    }
}

fn watch_all(
    mut watcher: RecommendedWatcher,
    folders: &BTreeSet<PathBuf>,
) -> notify::Result<RecommendedWatcher> {
    for folder in folders {
        match watcher.watch(folder, RecursiveMode::NonRecursive) {
            Ok(()) => {}
            // The folder is gone since it was seen, or we may not look at it. Its parent reports
            // when it comes back.
            Err(error) if !is_limit(&error) => {
                debug!(%error, folder = %folder.display(), "not watched")
            }
            Err(error) => return Err(error),
        }
    }
    Ok(watcher)
}

fn is_limit(error: &notify::Error) -> bool {
    match &error.kind {
        notify::ErrorKind::MaxFilesWatch => true,
        notify::ErrorKind::Io(error) => matches!(
            error.raw_os_error(),
            // ENFILE, EMFILE, ENOSPC
            Some(23 | 24 | 28)
        ),
        _ => false,
    }
}

/// Every name on the way to the files, and the folders of these names.
#[derive(Debug, Default)]
struct WatchPaths {
    names: BTreeSet<PathBuf>,
    folders: BTreeSet<PathBuf>,
}

impl WatchPaths {
    fn of(interest: &Interest) -> WatchPaths {
        let mut trail = WatchPaths::default();
        for path in interest.files.iter().chain(&interest.folders) {
            trail.walk(path);
        }
        trail
    }

    fn walk(&mut self, path: &Path) {
        let Ok(path) = std::path::absolute(path) else {
            return;
        };
        let mut left = parts(&path);
        let mut here = PathBuf::from("/");
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                here.pop();
                continue;
            }
            self.folders.insert(here.clone());
            let next = here.join(&part);
            self.names.insert(next.clone());
            match fs::read_link(&next) {
                Ok(target) if links < LINKS_LONGEST => {
                    links += 1;
                    if target.is_absolute() {
                        here = PathBuf::from("/");
                    }
                    left.extend(parts(&target));
                }
                _ => here = next,
            }
        }
        if here.is_dir() {
            self.folders.insert(here);
        }
    }
}

/// Decides which events count.
struct Relevant {
    names: BTreeSet<PathBuf>,
    within: BTreeSet<PathBuf>,
}

impl Relevant {
    fn concerns(&self, event: &notify::Event) -> bool {
        if event.need_rescan() {
            return true;
        }
        // Our own reading opens and closes files.
        let only_read = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => false,
            EventKind::Access(_) => true,
            _ => false,
        };
        !only_read
            && (event.paths.is_empty()
                || event.paths.iter().any(|path| {
                    self.names.contains(path)
                        || path
                            .parent()
                            .is_some_and(|folder| self.within.contains(folder))
                }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder with a file in it, and the watch on that file.
    struct Place {
        folder: tempfile::TempDir,
        files: Files,
        interest: Interest,
    }

    impl Place {
        fn new(make: impl FnOnce(&Path) -> PathBuf) -> Place {
            let folder = tempfile::tempdir().expect("folder");
            let file = make(folder.path());
            let interest = Interest {
                files: [file].into(),
                folders: BTreeSet::new(),
            };
            let mut files = Files::new();
            files.follow(&interest);
            Place {
                folder,
                files,
                interest,
            }
        }

        /// Whether the watch notices this act.
        async fn hears(&mut self, act: impl FnOnce(&Path)) -> bool {
            act(self.folder.path());
            let heard = tokio::time::timeout(Duration::from_secs(3), self.files.changed())
                .await
                .is_ok();
            self.files.follow(&self.interest);
            heard
        }

        async fn is_quiet(&mut self, act: impl FnOnce(&Path)) -> bool {
            act(self.folder.path());
            tokio::time::timeout(Duration::from_millis(600), self.files.changed())
                .await
                .is_err()
        }
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).expect("written");
    }

    #[tokio::test]
    async fn writing_renaming_removing_and_coming_back_are_heard() {
        let mut place = Place::new(|folder| {
            write(&folder.join("a"), "1");
            folder.join("a")
        });
        assert!(place.hears(|folder| write(&folder.join("a"), "2")).await);
        assert!(
            place
                .hears(|folder| {
                    write(&folder.join("new"), "3");
                    fs::rename(folder.join("new"), folder.join("a")).expect("renamed");
                })
                .await
        );
        assert!(
            place
                .hears(|folder| fs::remove_file(folder.join("a")).expect("removed"))
                .await
        );
        assert!(place.hears(|folder| write(&folder.join("a"), "4")).await);
        assert!(
            place
                .is_quiet(|folder| write(&folder.join("other"), "5"))
                .await
        );
        assert!(
            place
                .is_quiet(|folder| drop(fs::read(folder.join("a")).expect("read")))
                .await
        );
    }

    #[tokio::test]
    async fn trap_6_a_swap_of_the_data_link_is_heard_again_and_again() {
        let mut place = Place::new(|folder| {
            fs::create_dir(folder.join("..1")).expect("made");
            write(&folder.join("..1/tls.crt"), "1");
            symlink("..1", folder.join("..data")).expect("linked");
            symlink("..data/tls.crt", folder.join("tls.crt")).expect("linked");
            folder.join("tls.crt")
        });
        for round in 2..5 {
            let swapped = place
                .hears(|folder| {
                    let data = format!("..{round}");
                    fs::create_dir(folder.join(&data)).expect("made");
                    write(&folder.join(&data).join("tls.crt"), "2");
                    symlink(&data, folder.join("..data_tmp")).expect("linked");
                    fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("swapped");
                    fs::remove_dir_all(folder.join(format!("..{}", round - 1))).expect("removed");
                })
                .await;
            assert!(swapped, "round {round}");
        }
    }

    #[tokio::test]
    async fn a_folder_that_is_made_again_is_heard() {
        let mut place = Place::new(|folder| folder.join("sub/deep/a"));
        assert!(
            place
                .hears(|folder| {
                    fs::create_dir_all(folder.join("sub/deep")).expect("made");
                    write(&folder.join("sub/deep/a"), "1");
                })
                .await
        );
        assert!(
            place
                .hears(|folder| fs::remove_dir_all(folder.join("sub")).expect("removed"))
                .await
        );
        assert!(
            place
                .hears(|folder| {
                    fs::create_dir_all(folder.join("sub/deep")).expect("made");
                    write(&folder.join("sub/deep/a"), "2");
                })
                .await
        );
    }

    #[tokio::test]
    async fn every_entry_of_a_folder_of_interest_is_heard() {
        let folder = tempfile::tempdir().expect("folder");
        let mut files = Files::new();
        files.follow(&Interest {
            files: BTreeSet::new(),
            folders: [folder.path().to_owned()].into(),
        });
        write(&folder.path().join("new.toml"), "");
        assert!(
            tokio::time::timeout(Duration::from_secs(3), files.changed())
                .await
                .is_ok()
        );
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().expect("folder");
        symlink("b", folder.path().join("a")).expect("linked");
        symlink("a", folder.path().join("b")).expect("linked");
        WatchPaths::default().walk(&folder.path().join("a"));
    }

    /// Broken by a look at the paths alone: after an overflow of the queue, nobody knows what has
    /// changed.
    #[test]
    fn trap_8_an_overflow_of_the_queue_is_a_reason_to_look() {
        let relevant = Relevant {
            names: BTreeSet::new(),
            within: BTreeSet::new(),
        };
        let event = notify::Event::new(EventKind::Other).add_path("/elsewhere".into());
        assert!(!relevant.concerns(&event));
        assert!(relevant.concerns(&event.set_flag(notify::event::Flag::Rescan)));
    }
}
