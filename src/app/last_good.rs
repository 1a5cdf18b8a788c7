//! The configuration that could be used last, for the next run: its texts lie in sealed memory from
//! the moment they were accepted, and not in that of the process.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tracing::warn;
use zeroize::Zeroizing;

use crate::core::config::{AccessOnDisk, Sources};
use crate::core::handover::last_good::LastGood;
use crate::supervisor::store;

/// Texts in sealed memory; None: there are none.
pub type Sealed = Option<Arc<OwnedFd>>;

/// Notes which configuration could be used last.
pub struct LastGoodStore {
    sealed: watch::Sender<Sealed>,
    /// Told when there is something to keep.
    published: Arc<Notify>,
    /// What the files have said of access last.
    access: AccessOnDisk,
}

impl LastGoodStore {
    /// With nothing in it, and where its content comes.
    pub fn new(published: Arc<Notify>) -> (LastGoodStore, watch::Receiver<Sealed>) {
        let (sealed, content) = watch::channel(None);
        let store = LastGoodStore {
            sealed,
            published,
            access: AccessOnDisk::default(),
        };
        (store, content)
    }

    /// These files can be used.
    pub fn accepted(&mut self, sources: Sources, access: &AccessOnDisk) {
        self.access = access.over(&self.access);
        self.seal(sources);
    }

    /// The files cannot be used; what they say of access holds all the same, after a restart too.
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

/// What is in sealed memory, as text.
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
