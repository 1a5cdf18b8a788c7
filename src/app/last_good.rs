//! Keeps the configuration that could be used last, for the next run. From the moment of acceptance
//! its texts are in sealed memory, not in the memory of the process.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tracing::warn;
use zeroize::Zeroizing;

use crate::core::config::{AccessOnDisk, Sources};
use crate::core::handover::last_good::LastGood;
use crate::supervisor::store;

/// Texts in sealed memory, if there are any.
pub type Sealed = Option<Arc<OwnedFd>>;

/// Stores the configuration that could be used last.
pub struct LastGoodStore {
    sealed: watch::Sender<Sealed>,
    /// Notified when there is something new to keep.
    published: Arc<Notify>,
    /// The last known access rules of the files.
    access: AccessOnDisk,
}

impl LastGoodStore {
    /// Makes an empty store, and the receiver of its content.
    pub fn new(published: Arc<Notify>) -> (LastGoodStore, watch::Receiver<Sealed>) {
        let (sealed, content) = watch::channel(None);
        let store = LastGoodStore {
            sealed,
            published,
            access: AccessOnDisk::default(),
        };
        (store, content)
    }

    /// Stores these files, which can be used.
    pub fn accepted(&mut self, sources: Sources, access: &AccessOnDisk) {
        self.access = access.over(&self.access);
        self.seal(sources);
    }

    /// Takes note of files that cannot be used. What they say about access holds all the same,
    /// after a restart too.
    pub fn refused(&mut self, access: &AccessOnDisk) {
        let access = access.over(&self.access);
        if access == self.access {
            return;
        }
        self.access = access;
        let before = self.sealed.borrow().clone();
        if let Some(last) = before.and_then(|sealed| LastGood::decode(&text(&sealed)?)) {
            self.seal(last.sources);
        }
    }

    fn seal(&self, sources: Sources) {
        if !store::is_there() {
            return;
        }
        let access = self.access.clone();
        let sealed = match (LastGood { sources, access }).encode() {
            Some(text) => store::seal(text.as_bytes()).map_err(|error| error.to_string()),
            None => Err("the name of a file is not UTF-8".to_owned()),
        };
        if let Err(why) = &sealed {
            warn!(
                why,
                "the configuration cannot be kept for the next run: if its files are broken by then, that one has none"
            );
        }
        self.sealed.send_replace(sealed.ok().map(Arc::new));
        self.published.notify_one();
    }
}

/// Reads the text out of sealed memory.
pub fn text(sealed: &OwnedFd) -> Option<Zeroizing<String>> {
    let bytes = store::content(sealed.try_clone().ok()?).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?;
    Some(Zeroizing::new(text.to_owned()))
}

/// The configuration that an earlier run could use last, if it was read from this file.
pub fn of(path: &Path, left: &str) -> Option<LastGood> {
    let path = std::path::absolute(path).ok()?;
    LastGood::decode(left).filter(|last| last.sources.main.path == path)
}
