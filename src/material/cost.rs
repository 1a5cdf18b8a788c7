//! Computes what opening a password-protected structure would cost, from its DER and without
//! opening it.
//!
//! The author of a store decides how much work its password costs. A store that asks for hours
//! would hold up every reload, so it is refused by the numbers in it. Encrypted parts hide what is
//! inside of them. The size of the file and the library's own limit per derivation (a million
//! rounds) bound that.

/// Most rounds of key derivation in one file, all its derivations together. OpenSSL writes 2048 to
/// 600 000 per derivation and keytool 10 000, with one or two derivations per entry and two more
/// per file; five million take a few seconds.
const MOST_ROUNDS: u64 = 5_000_000;

/// Most memory that scrypt may take, in blocks of 128 bytes: 64 MiB. OpenSSL's default is 16 MiB.
const MOST_BLOCKS: u64 = 1 << 19;

/// The deepest nesting that is followed. No store is nested as deep.
pub(super) const DEEPEST: usize = 24;

/// The reason why a structure is not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CostRefusal {
    /// The bytes end too early, go on after the end, or are no DER at all.
    Torn,
    /// The bytes are BER with parts of indefinite length, which BouncyCastle writes.
    Indefinite,
    /// The work exceeds [`MOST_ROUNDS`] or [`MOST_BLOCKS`].
    TooMuch,
}

/// Whether these bytes are one whole DER value that asks for a bearable amount of work.
pub(super) fn check(bytes: &[u8]) -> Result<(), CostRefusal> {
    let (_, rest) = next(bytes)?;
    if !rest.is_empty() {
        return Err(CostRefusal::Torn);
    }
    let mut rounds = 0;
    walk(bytes, 0, &mut rounds)
}

pub(super) struct DerValue<'a> {
    /// Class, form and number. All tags that matter here have one byte.
    pub(super) tag: u8,
    pub(super) content: &'a [u8],
}

/// The first value and what follows it.
pub(super) fn next(bytes: &[u8]) -> Result<(DerValue<'_>, &[u8]), CostRefusal> {
    let [tag, first, rest @ ..] = bytes else {
        return Err(CostRefusal::Torn);
    };
    let (length, rest) = match first {
        0x00..=0x7f => (usize::from(*first), rest),
        0x80 => return Err(CostRefusal::Indefinite),
        0x81..=0x84 => {
            let (length, rest) = rest
                .split_at_checked(usize::from(first & 0x7f))
                .ok_or(CostRefusal::Torn)?;
            let length = length
                .iter()
                .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return Err(CostRefusal::Torn),
    };
    let (content, rest) = rest.split_at_checked(length).ok_or(CostRefusal::Torn)?;
    Ok((DerValue { tag: *tag, content }, rest))
}

const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const CONSTRUCTED: u8 = 0x20;
const SEQUENCE: u8 = 0x30;

/// Adds up the rounds. Every derivation has the same form, a salt followed by numbers:
/// PBKDF2-params (RFC 8018 §A.2), PBEParameter (§A.1), MacData (RFC 7292 §4) and scrypt-params (RFC
/// 7914 §7).
fn walk(mut bytes: &[u8], depth: usize, rounds: &mut u64) -> Result<(), CostRefusal> {
    if depth > DEEPEST {
        return Err(CostRefusal::Torn);
    }
    let mut salted = false;
    let mut numbers = [None; 3];
    while !bytes.is_empty() {
        let (value, rest) = next(bytes)?;
        bytes = rest;
        match value.tag {
            INTEGER if salted => {
                if let Some(free) = numbers.iter_mut().find(|number| number.is_none()) {
                    *free = Some(unsigned(value.content));
                }
                continue;
            }
            OCTET_STRING => {
                *rounds = rounds.saturating_add(derivation(numbers)?);
                numbers = [None; 3];
                salted = true;
                // Most parts of a PKCS#12 file are inside of octet strings. Octet strings that are
                // no DER are salts and secrets.
                if value.content.first() == Some(&SEQUENCE) {
                    let mut inside = 0;
                    match walk(value.content, depth + 1, &mut inside) {
                        Ok(()) => *rounds = rounds.saturating_add(inside),
                        Err(CostRefusal::TooMuch) => return Err(CostRefusal::TooMuch),
                        Err(CostRefusal::Torn | CostRefusal::Indefinite) => {}
                    }
                }
            }
            tag => {
                salted = false;
                if tag & CONSTRUCTED != 0 {
                    walk(value.content, depth + 1, rounds)?;
                }
            }
        }
    }
    *rounds = rounds.saturating_add(derivation(numbers)?);
    match *rounds > MOST_ROUNDS {
        true => Err(CostRefusal::TooMuch),
        false => Ok(()),
    }
}

/// The rounds of one derivation: its count, or the three factors of scrypt.
fn derivation(numbers: [Option<u64>; 3]) -> Result<u64, CostRefusal> {
    match numbers {
        [Some(cost), Some(block), Some(parallel)] => {
            let blocks = cost.saturating_mul(block);
            match blocks > MOST_BLOCKS {
                true => Err(CostRefusal::TooMuch),
                false => Ok(blocks.saturating_mul(parallel)),
            }
        }
        [count, ..] => Ok(count.unwrap_or(0)),
    }
}

/// Reads an integer. One that is too large or negative counts as the largest: both are absurd.
fn unsigned(content: &[u8]) -> u64 {
    let negative = content.first().is_some_and(|byte| byte & 0x80 != 0);
    if negative || content.len() > 8 {
        return u64::MAX;
    }
    content
        .iter()
        .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}
