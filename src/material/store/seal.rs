//! Verifies the MAC of a PKCS#12 file: the MAC of RFC 7292 with both forms of the empty password,
//! and PBMAC1 (RFC 9579).

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::super::cost::{DerValue, next};
use super::StoreError;

/// Most rounds of a derivation. The library that opens the rest has the same limit.
const MOST_ROUNDS: u32 = 1_000_000;

/// Longest key, in bytes. A key of HMAC is no longer than a block of SHA-512.
const LONGEST_KEY: usize = 128;

/// 1.2.840.113549.1.5.14 and 1.2.840.113549.1.5.12
const PBMAC1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0e];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];

/// 1.2.840.113549.2. hmacWithSHA1 and its successors are the numbers from 7 in it.
const RSADSI_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02];

/// 1.3.14.3.2.26 is SHA-1. 2.16.840.1.101.3.4.2 contains the members of SHA-2.
const SHA1: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA2: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02];

/// The form of the password that matches the MAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PasswordForm {
    /// Text with its terminator (RFC 7292 §B.1).
    Text,
    /// No password at all, not even a terminator. .NET and Azure Key Vault write this.
    Null,
}

/// Verifies the MacData (RFC 7292 §4) of this content.
pub(super) fn judge(
    mac: &[u8],
    content: &[u8],
    password: &str,
) -> Result<PasswordForm, StoreError> {
    let mut parts = Elements(mac);
    let mut mac = Elements(parts.take()?.content);
    let mut info = Elements(mac.take()?.content);
    let mut algorithm = Elements(info.take()?.content);
    let expected = info.take()?.content;
    let oid = algorithm.take()?.content;
    if oid == PBMAC1 {
        let mut parameters = Elements(algorithm.take()?.content);
        let key = pbmac1_key(&mut parameters, password)?;
        let mut scheme = Elements(parameters.take()?.content);
        let (algorithm, _) = hmac_of(scheme.take()?.content)?;
        let key = hmac::Key::new(algorithm, &key);
        return match hmac::verify(&key, content, expected) {
            Ok(()) => Ok(PasswordForm::Text),
            Err(_) => Err(StoreError::Password),
        };
    }
    let (hash, algorithm) = hash_of(oid)?;
    let salt = mac.take()?.content;
    let rounds = match mac.0 {
        [] => 1,
        _ => number(mac.take()?.content)?,
    };
    let mut text: Zeroizing<Vec<u8>> = Zeroizing::default();
    for unit in password.encode_utf16().chain([0]) {
        text.extend(unit.to_be_bytes());
    }
    let fits = |password: &[u8]| {
        let key = derived(hash, salt, password, rounds);
        hmac::verify(&hmac::Key::new(algorithm, &key), content, expected).is_ok()
    };
    match () {
        () if fits(&text) => Ok(PasswordForm::Text),
        () if password.is_empty() && fits(&[]) => Ok(PasswordForm::Null),
        () => Err(StoreError::Password),
    }
}

/// The key of PBMAC1 (RFC 9579 §4): PBKDF2 of the password in UTF-8. The parameters must have a
/// length.
fn pbmac1_key(
    parameters: &mut Elements<'_>,
    password: &str,
) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut derivation = Elements(parameters.take()?.content);
    if derivation.take()?.content != PBKDF2 {
        return Err(StoreError::Unsupported);
    }
    let mut derivation = Elements(derivation.take()?.content);
    let salt = derivation.take()?.content;
    let rounds = number(derivation.take()?.content)?;
    let length = number(derivation.take()?.content)?;
    let length = usize::try_from(length).map_err(|_| StoreError::Unsupported)?;
    if !(1..=LONGEST_KEY).contains(&length) {
        return Err(StoreError::Unsupported);
    }
    let (_, prf) = match derivation.0 {
        // The default is HMAC with SHA-1 (RFC 8018 §A.2).
        [] => hmac_of(&[RSADSI_DIGEST, &[7]].concat())?,
        _ => hmac_of(Elements(derivation.take()?.content).take()?.content)?,
    };
    let prf = prf.ok_or(StoreError::Unsupported)?;
    let rounds = NonZeroU32::new(rounds).ok_or(StoreError::Torn)?;
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(prf, rounds, salt, password.as_bytes(), &mut key);
    Ok(key)
}

/// The key of a MAC (RFC 7292 §B.2 with ID 3). It is as long as one hash.
fn derived(
    hash: &'static digest::Algorithm,
    salt: &[u8],
    password: &[u8],
    rounds: u32,
) -> Zeroizing<Vec<u8>> {
    let block = hash.block_len();
    // The text is repeated until it fills whole blocks.
    let filling = |text: &[u8]| -> Zeroizing<Vec<u8>> {
        let length = text.len().div_ceil(block) * block;
        Zeroizing::new(text.iter().copied().cycle().take(length).collect())
    };
    let mut context = digest::Context::new(hash);
    context.update(&vec![3; block]);
    context.update(&filling(salt));
    context.update(&filling(password));
    let mut key = Zeroizing::new(context.finish().as_ref().to_vec());
    for _ in 1..rounds {
        key = Zeroizing::new(digest::digest(hash, &key).as_ref().to_vec());
    }
    key
}

fn hash_of(oid: &[u8]) -> Result<(&'static digest::Algorithm, hmac::Algorithm), StoreError> {
    let sha2 = oid.strip_prefix(SHA2);
    Ok(match sha2 {
        None if oid == SHA1 => (
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        ),
        Some([1]) => (&digest::SHA256, hmac::HMAC_SHA256),
        Some([2]) => (&digest::SHA384, hmac::HMAC_SHA384),
        Some([3]) => (&digest::SHA512, hmac::HMAC_SHA512),
        Some([4]) => (&digest::SHA224, hmac::HMAC_SHA224),
        _ => return Err(StoreError::Unsupported),
    })
}

fn hmac_of(oid: &[u8]) -> Result<(hmac::Algorithm, Option<pbkdf2::Algorithm>), StoreError> {
    Ok(match oid.strip_prefix(RSADSI_DIGEST) {
        Some([7]) => (
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Some(pbkdf2::PBKDF2_HMAC_SHA1),
        ),
        Some([8]) => (hmac::HMAC_SHA224, None),
        Some([9]) => (hmac::HMAC_SHA256, Some(pbkdf2::PBKDF2_HMAC_SHA256)),
        Some([10]) => (hmac::HMAC_SHA384, Some(pbkdf2::PBKDF2_HMAC_SHA384)),
        Some([11]) => (hmac::HMAC_SHA512, Some(pbkdf2::PBKDF2_HMAC_SHA512)),
        _ => return Err(StoreError::Unsupported),
    })
}

/// Reads a count of rounds, or a length.
fn number(content: &[u8]) -> Result<u32, StoreError> {
    let digits = content.strip_prefix(&[0]).unwrap_or(content);
    if digits.len() > 3 || content.first().is_none_or(|byte| byte & 0x80 != 0) {
        return Err(StoreError::TooMuch);
    }
    let number = digits
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u32::from(*byte));
    match number > MOST_ROUNDS {
        true => Err(StoreError::TooMuch),
        false => Ok(number),
    }
}

/// The parts of a value, one after the other.
struct Elements<'a>(&'a [u8]);

impl<'a> Elements<'a> {
    fn take(&mut self) -> Result<DerValue<'a>, StoreError> {
        let (value, rest) = next(self.0)?;
        self.0 = rest;
        Ok(value)
    }
}
