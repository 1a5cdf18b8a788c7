//! Reads bytes from files, systemd credentials and the environment, hashes them, and collects
//! problems and warnings.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use super::{Digest, Surroundings};
use crate::core::diagnostic::{Diagnostic, Scope};
use crate::core::profile::SecretRef;
use crate::core::secret::Secret;
use crate::core::time::WallTime;
use crate::readers::{AccessScan, Privacy};
use crate::safe_open::{self, OpenError};

/// Longest secret, key or certificate chain, in bytes. A larger file is something else.
pub(super) const LONGEST_SECRET: u64 = 64 * 1024;

/// Longest trust bundle, in bytes. The bundles of Linux distributions have about 250 KB.
pub(super) const LONGEST_BUNDLE: u64 = 4 * 1024 * 1024;

/// Longest keystore or truststore, in bytes. The one that comes with Java has about 200 KB.
pub(super) const LONGEST_STORE: u64 = 512 * 1024;

/// The files of one look. Profiles that share a file share one reading of it, so all see the same
/// content, whatever happens to the file meanwhile.
#[derive(Clone, Default)]
pub(super) struct FileCache(Arc<Mutex<HashMap<ReadKey, CachedFile>>>);

/// The path of a file, its size limit, and whether to find out who else can read it.
type ReadKey = (PathBuf, u64, bool);

/// The bytes of a file, and for a secret who else can read them. If reading failed, the reason and
/// the scope.
type CachedFile = Result<(Zeroizing<Vec<u8>>, Privacy), (Scope, String)>;

impl std::fmt::Debug for FileCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[files]")
    }
}

impl FileCache {
    fn read(&self, path: &Path, most: u64, readers: Option<&AccessScan>) -> CachedFile {
        // A panic cannot leave this half-changed.
        let mut file_cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        file_cache
            .entry((path.to_owned(), most, readers.is_some()))
            .or_insert_with(|| read(path, most, readers))
            .clone()
    }
}

/// Reads all material of one profile.
pub(super) struct MaterialReader<'a> {
    surroundings: &'a Surroundings,
    /// The time that certificates are checked against.
    pub(super) now: WallTime,
    /// Whether the secret that is being read may be empty.
    may_be_empty: bool,
    hash: Context,
    problems: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
}

impl MaterialReader<'_> {
    pub(super) fn new(surroundings: &Surroundings, now: WallTime) -> MaterialReader<'_> {
        MaterialReader {
            surroundings,
            now,
            may_be_empty: false,
            hash: Context::new(&SHA256),
            problems: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The digest of everything read and the warnings, or all problems.
    pub(super) fn finish(self) -> Result<(Digest, Vec<Diagnostic>), Vec<Diagnostic>> {
        if self.problems.is_empty() {
            Ok((digest_of(self.hash), self.warnings))
        } else {
            Err(self.problems)
        }
    }

    /// Records a problem that makes the material unusable. `key` is the configuration key it is
    /// about.
    pub(super) fn problem(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.problem_of(Scope::Machine, key, message);
    }

    /// The same, with a scope that says whether another process may see it otherwise.
    fn problem_of(&mut self, scope: Scope, key: impl Into<String>, message: impl Into<String>) {
        let diagnostic = Diagnostic::new(key, message);
        self.problems.push(Diagnostic {
            scope,
            ..diagnostic
        });
    }

    /// Records something that is allowed but unwise.
    pub(super) fn warning(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(Diagnostic::new(key, message));
    }

    /// Reads the password of a keystore, which may be empty.
    pub(super) fn store_password(&mut self, role: &str, source: &SecretRef) -> Option<Secret> {
        self.may_be_empty = true;
        let password = self.secret(role, source);
        self.may_be_empty = false;
        password
    }

    /// Reads a secret from any source. `role` is its key in the configuration.
    pub(super) fn secret(&mut self, role: &str, source: &SecretRef) -> Option<Secret> {
        match source {
            SecretRef::File(path) => self.secret_file(role, path),
            SecretRef::Credential(name) => {
                let Some(folder) = &self.surroundings.credentials_directory else {
                    self.problem_of(Scope::Environment, role, format!(
                        "there is no $CREDENTIALS_DIRECTORY to find the credential {name:?} in: start the \
                         daemon from a unit with LoadCredential={name}:… or LoadCredentialEncrypted="
                    ));
                    return None;
                };
                let mut parts = Path::new(name).components();
                let plain = matches!(
                    (parts.next(), parts.next()),
                    (Some(Component::Normal(_)), None)
                );
                if !plain {
                    self.problem(role, format!(
                        "{name:?} is no name of a systemd credential: it must be a file name without a folder"
                    ));
                    return None;
                }
                let path = folder.join(name);
                self.secret_file(role, &path)
            }
            SecretRef::Env(name) => match std::env::var(name) {
                Ok(text) => self.checked(role, &format!("environment variable {name}"), text),
                Err(std::env::VarError::NotPresent) => {
                    self.problem_of(Scope::Environment, role, format!(
                        "the environment variable {name} is not set: set it for the daemon, or use a file"
                    ));
                    None
                }
                Err(std::env::VarError::NotUnicode(_)) => {
                    self.problem_of(
                        Scope::Environment,
                        role,
                        format!("the environment variable {name} is not UTF-8"),
                    );
                    None
                }
            },
            SecretRef::Literal(secret) => {
                self.checked(role, "the configuration", secret.expose().into())
            }
        }
    }

    /// Reads a secret from a file, without one line break at its end.
    pub(super) fn secret_file(&mut self, role: &str, path: &Path) -> Option<Secret> {
        let bytes = self.file(role, path, LONGEST_SECRET, true)?;
        let bytes = bytes
            .strip_suffix(b"\r\n")
            .or_else(|| bytes.strip_suffix(b"\n"))
            .unwrap_or(&bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => self.checked(role, &path.display().to_string(), text.into()),
            Err(_) => {
                self.problem(role, format!(
                    "{} is not UTF-8 text: write the secret into it as text, without a byte order mark",
                    path.display()
                ));
                None
            }
        }
    }

    /// Reads a secret that is renewed all the time. The digest covers whom it names, not its bytes.
    pub(super) fn renewed_file(
        &mut self,
        role: &str,
        path: &Path,
        about: impl FnOnce(&str) -> Option<String>,
    ) -> Option<Secret> {
        let before = self.hash.clone();
        let secret = self.secret_file(role, path)?;
        if let Some(about) = about(secret.expose()) {
            self.hash = before;
            self.note(role, about.as_bytes());
        }
        Some(secret)
    }

    /// Reads all bytes of a regular file of at most `most` bytes.
    pub(super) fn file(
        &mut self,
        role: &str,
        path: &Path,
        most: u64,
        secret: bool,
    ) -> Option<Zeroizing<Vec<u8>>> {
        // The service manager takes care of who can read its own credentials.
        let in_credentials = self
            .surroundings
            .credentials_directory
            .as_ref()
            .is_some_and(|folder| path.starts_with(folder));
        let readers = (secret && !in_credentials).then_some(&self.surroundings.readers);
        let cached = match &self.surroundings.file_cache {
            Some(file_cache) => file_cache.read(path, most, readers),
            None => read(path, most, readers),
        };
        match cached {
            Ok((_, Privacy::Clients(why))) => {
                self.problem(role, format!("{} {why}", path.display()));
                None
            }
            Ok((bytes, privacy)) => {
                if let Privacy::Shared(why) = privacy {
                    self.warning(role, format!("{} {why}", path.display()));
                }
                self.note(role, &bytes);
                Some(bytes)
            }
            Err((scope, why)) => {
                self.problem_of(scope, role, format!("{}: {why}", path.display()));
                None
            }
        }
    }

    fn checked(&mut self, role: &str, place: &str, text: String) -> Option<Secret> {
        let secret = Secret::new(text);
        let text = secret.expose();
        if text.is_empty() && !self.may_be_empty {
            self.problem(role, format!(
                "{place} is empty: write the secret into it, or wait until whoever does has done so"
            ));
            return None;
        }
        if text.len() as u64 > LONGEST_SECRET {
            self.problem(
                role,
                format!(
                    "{place} is longer than {} KiB: that is no secret",
                    LONGEST_SECRET / 1024
                ),
            );
            return None;
        }
        if let Some(found) = text.chars().find(|c| c.is_control()) {
            let code = u32::from(found);
            self.problem(role, format!(
                "{place} has a line break or another control character (U+{code:04X}) in it: it must hold the \
                 secret alone"
            ));
            return None;
        }
        if let Some(why) = doubtful(text) {
            self.warning(role, format!("{place} {why}"));
        }
        self.note(role, text.as_bytes());
        Some(secret)
    }

    fn note(&mut self, role: &str, bytes: &[u8]) {
        update(&mut self.hash, role.as_bytes());
        update(&mut self.hash, bytes);
    }
}

/// What a secret seldom contains on purpose, with the cure: characters that editors and shells add
/// without showing them. Letters beyond ASCII are not reported, although OAuth does not provide for
/// them (RFC 6749 appendix A.2): people see what they type, and most identity providers accept
/// them.
fn doubtful(text: &str) -> Option<String> {
    const CURE: &str = "which counts as a part of it: write it anew without, unless that is meant (printf %s, not an editor)";
    if text.starts_with('\u{feff}') {
        return Some(format!("begins with a byte order mark, {CURE}"));
    }
    if let Some(found) = text.chars().find(|c| is_invisible(*c)) {
        let code = u32::from(found);
        return Some(format!(
            "has an invisible character (U+{code:04X}) in it, {CURE}"
        ));
    }
    (text.trim() != text).then(|| format!("begins or ends with a space, {CURE}"))
}

/// Whether people cannot see the character, or take it for an ordinary space: Unicode's spaces,
/// format characters and fillers.
fn is_invisible(c: char) -> bool {
    (c.is_whitespace() && c != ' ')
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// The digest of some pieces.
pub(super) fn digest(pieces: &[&[u8]]) -> Digest {
    let mut hash = Context::new(&SHA256);
    for piece in pieces {
        update(&mut hash, piece);
    }
    digest_of(hash)
}

/// Hashes the length first, so that `ab` + `c` differs from `a` + `bc`.
fn update(hash: &mut Context, piece: &[u8]) {
    hash.update(&(piece.len() as u64).to_be_bytes());
    hash.update(piece);
}

fn digest_of(hash: Context) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    Digest(out)
}

/// Reads a file, and finds out who else can read it if `readers` is given. An error has cause, cure
/// and scope.
fn read(path: &Path, most: u64, readers: Option<&AccessScan>) -> CachedFile {
    let file = safe_open::file(path).map_err(|error| match error {
        OpenError::System(error) => explain(&error),
        OpenError::Refused(why) => (Scope::User, format!("is not read: {why}")),
    })?;
    let about = file.metadata().map_err(|error| explain(&error))?;
    if !about.is_file() {
        return Err((Scope::Machine, "is no regular file: name a file".into()));
    }
    // The whole memory is allocated at once, so that growing leaves no copy of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(
        usize::try_from(about.size().min(most)).unwrap_or(0) + 1,
    ));
    fill(&file, most, &mut bytes).map_err(|error| explain(&error))?;
    if bytes.len() as u64 > most {
        let why = format!(
            "is longer than {} KiB: that is not what it was taken for",
            most / 1024
        );
        return Err((Scope::Machine, why));
    }
    let privacy = readers.map_or(Privacy::Private, |readers| readers.at(path, &file, &about));
    Ok((bytes, privacy))
}

fn fill(file: &File, most: u64, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    file.take(most + 1).read_to_end(bytes)
}

fn explain(error: &std::io::Error) -> (Scope, String) {
    match error.kind() {
        std::io::ErrorKind::NotFound => (
            Scope::Machine,
            "does not exist: create it, or correct the path in the configuration".into(),
        ),
        std::io::ErrorKind::PermissionDenied => (
            Scope::User,
            "cannot be read (permission denied): let the daemon's user read it, folders on the way included".into(),
        ),
        _ => (
            Scope::Machine,
            format!("cannot be read ({error}): look at the file and its file system"),
        ),
    }
}
