//! Reads JKS, Java's own keystore format, in the layout that `sun.security.provider.JavaKeyStore`
//! writes.
//!
//! The store's password only proves that nobody without it has changed the file. A password of its
//! own seals each key. Both rest on one round of SHA-1, which is weak: the file's mode is the real
//! protection.

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::super::PrivateKey;
use super::super::cost::next;
use super::{Contents, StoreEntry, StoreError, StoredKey};
use crate::core::secret::Secret;

/// The length of a SHA-1 hash, in bytes.
const HASH: usize = 20;

/// The only algorithm that JKS seals keys with: 1.3.6.1.4.1.42.2.17.1.1.
const KEY_PROTECTOR: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0x2a, 0x02, 0x11, 0x01, 0x01];

/// Reads all entries, with keys still sealed. Without a password the seal of the file is not
/// checked, as in Java.
pub(super) fn read(bytes: &[u8], password: Option<&Secret>) -> Result<Contents, StoreError> {
    let (body, seal) = bytes.split_last_chunk::<HASH>().ok_or(StoreError::Torn)?;
    let mut left = Remaining(body);
    let (_magic, version, count) = (left.number()?, left.number()?, left.number()?);
    if !matches!(version, 1 | 2) {
        return Err(StoreError::Unsupported);
    }
    let mut contents = Contents::default();
    for _ in 0..count {
        let tag = left.number()?;
        let alias = String::from_utf8_lossy(left.text()?).into_owned();
        // This skips the date of the entry.
        left.take(8)?;
        match tag {
            1 => {
                let sealed = left.piece()?.to_vec();
                let mut chain = Vec::new();
                for _ in 0..left.number()? {
                    chain.push(left.certificate(version)?);
                }
                contents.entries.push(StoreEntry {
                    alias,
                    key: StoredKey::Sealed(sealed),
                    chain,
                });
            }
            2 => contents.trusted.push(left.certificate(version)?),
            _ => return Err(StoreError::Unsupported),
        }
    }
    if !left.0.is_empty() {
        return Err(StoreError::Torn);
    }
    match password {
        Some(password) if sha1(password, &[b"Mighty Aphrodite", body]) != *seal => {
            Err(StoreError::Password)
        }
        _ => Ok(contents),
    }
}

/// Unseals a key if the password is right. A sealed key is a salt, the key under a stream of
/// hashes, and a hash of the key.
pub(super) fn unseal(sealed: &[u8], password: &Secret) -> Option<PrivateKey> {
    // This is an EncryptedPrivateKeyInfo (RFC 5958 §3).
    let (info, _) = next(sealed).ok()?;
    let (algorithm, rest) = next(info.content).ok()?;
    let (oid, _) = next(algorithm.content).ok()?;
    let (data, _) = next(rest).ok()?;
    if oid.content != KEY_PROTECTOR {
        return None;
    }
    let (salt, rest) = data.content.split_first_chunk::<HASH>()?;
    let (hidden, check) = rest.split_last_chunk::<HASH>()?;
    let mut key = Zeroizing::new(hidden.to_vec());
    let mut stream = Zeroizing::new(*salt);
    for block in key.chunks_mut(HASH) {
        *stream = sha1(password, &[&*stream]);
        for (byte, mask) in block.iter_mut().zip(&*stream) {
            *byte ^= mask;
        }
    }
    if sha1(password, &[&key]) != *check {
        return None;
    }
    let key = PrivatePkcs8KeyDer::from(std::mem::take(&mut *key));
    Some(Zeroizing::new(key.into()))
}

/// Hashes the password as Java's characters, then the pieces.
fn sha1(password: &Secret, pieces: &[&[u8]]) -> [u8; HASH] {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for unit in password.expose().encode_utf16() {
        hash.update(&unit.to_be_bytes());
    }
    for piece in pieces {
        hash.update(piece);
    }
    let mut out = [0; HASH];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// The bytes that have not been read yet. Numbers are big-endian.
struct Remaining<'a>(&'a [u8]);

impl<'a> Remaining<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(StoreError::Torn)?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u32, StoreError> {
        let (number, rest) = self.0.split_first_chunk().ok_or(StoreError::Torn)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number))
    }

    /// Reads bytes that follow their length.
    fn piece(&mut self) -> Result<&'a [u8], StoreError> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| StoreError::Torn)?)
    }

    /// Reads text that follows its length. Java has its own variant of UTF-8, which agrees with
    /// UTF-8 on all common characters.
    fn text(&mut self) -> Result<&'a [u8], StoreError> {
        let (length, rest) = self.0.split_first_chunk().ok_or(StoreError::Torn)?;
        self.0 = rest;
        self.take(usize::from(u16::from_be_bytes(*length)))
    }

    fn certificate(&mut self, version: u32) -> Result<CertificateDer<'static>, StoreError> {
        if version == 2 && self.text()? != b"X.509" {
            return Err(StoreError::Unsupported);
        }
        Ok(CertificateDer::from(self.piece()?.to_vec()))
    }
}
