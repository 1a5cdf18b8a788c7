//! The roots of the system, as they are now.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls_platform_verifier::Verifier;

/// The places where distributions keep their roots. The environment's `SSL_CERT_FILE` and
/// `SSL_CERT_DIR` replace all of them. This list serves only to notice changes. The verifier
/// decides what is read, and in which order.
const SYSTEM: [&str; 7] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
];

/// The system's roots. They are read at the first handshake that needs them and kept once for the
/// whole process, since a set of roots takes hundreds of kilobytes. Every full handshake checks
/// whether their files have changed, and reads them again in that case.
#[derive(Debug)]
pub(super) struct SystemRoots {
    crypto: Arc<CryptoProvider>,
    followed: Followed<Verifier>,
}

impl SystemRoots {
    pub fn new(crypto: Arc<CryptoProvider>) -> SystemRoots {
        SystemRoots {
            crypto,
            followed: Followed::default(),
        }
    }

    pub fn verifier(&self) -> Result<Arc<Verifier>, Error> {
        self.followed
            .get(&sources(), || Verifier::new(self.crypto.clone()))
    }
}

/// The files and folders of the roots.
fn sources() -> Vec<PathBuf> {
    let file = std::env::var_os("SSL_CERT_FILE");
    let folders = std::env::var_os("SSL_CERT_DIR");
    if file.is_none() && folders.is_none() {
        return SYSTEM.iter().map(PathBuf::from).collect();
    }
    let folders = folders.iter().flat_map(std::env::split_paths);
    file.iter().map(PathBuf::from).chain(folders).collect()
}

/// Device, inode, size and change time of every source. None if the source does not exist.
type SourceState = Vec<Option<(u64, u64, u64, i64, i64)>>;

fn state(sources: &[PathBuf]) -> SourceState {
    let one = |path: &PathBuf| {
        let data = std::fs::metadata(path).ok()?;
        Some((
            data.dev(),
            data.ino(),
            data.size(),
            data.ctime(),
            data.ctime_nsec(),
        ))
    };
    sources.iter().map(one).collect()
}

/// A value that was read from files that may change.
#[derive(Debug)]
struct Followed<T>(Mutex<Option<(SourceState, Arc<T>)>>);

impl<T> Default for Followed<T> {
    fn default() -> Followed<T> {
        Followed(Mutex::new(None))
    }
}

impl<T> Followed<T> {
    /// The value of the files now. While they cannot be read (in the middle of an update, say), the
    /// last value stays in use, and the next call tries again.
    fn get<E>(
        &self,
        sources: &[PathBuf],
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        // No panic between lock and unlock can leave half a value.
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The state is taken before reading, so that the next call notices a change in between.
        let now = state(sources);
        if let Some((then, known)) = &*last
            && *then == now
        {
            return Ok(known.clone());
        }
        match (read(), &*last) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                *last = Some((now, value.clone()));
                Ok(value)
            }
            (Err(_), Some((_, known))) => Ok(known.clone()),
            (Err(error), None) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_that_changed_are_read_again_without_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle.pem");
        let sources = [bundle.clone(), folder.path().join("absent")];
        let followed = Followed::default();
        let get = || followed.get(&sources, || std::fs::read_to_string(&bundle));
        assert!(get().is_err(), "nothing to read, and nothing known");
        std::fs::write(&bundle, "one").unwrap();
        let one = get().unwrap();
        assert_eq!(*one, "one");
        assert!(Arc::ptr_eq(&one, &get().unwrap()), "kept while unchanged");
        // This is how package managers do it: a new file takes the name.
        let next = folder.path().join("next");
        std::fs::write(&next, "two").unwrap();
        std::fs::rename(&next, &bundle).unwrap();
        assert_eq!(*get().unwrap(), "two");
        std::fs::remove_file(&bundle).unwrap();
        assert_eq!(*get().unwrap(), "two", "better than none");
        std::fs::write(&bundle, "three").unwrap();
        assert_eq!(*get().unwrap(), "three");
    }
}
