//! Converts BER to DER. Streaming writers (Bouncy Castle, Keycloak's export) produce BER. Parts of
//! indefinite length get their length, and octet strings in pieces are put together (X.690
//! §8.1.3.6, §8.7.3, §10).

use super::super::cost::{CostRefusal, DEEPEST, next};

const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const IN_PIECES: u8 = 0x24;
const CONSTRUCTED: u8 = 0x20;
pub(super) const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// The tag `[0]`: explicit or of a string in pieces, then of a whole string.
pub(super) const FIRST: u8 = 0xa0;
const FIRST_STRING: u8 = 0x80;

/// Encodes one value as DER.
pub(super) fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = vec![tag];
    if length < 0x80 {
        out.push(length.to_le_bytes()[0]);
    } else {
        let bytes = length.to_be_bytes();
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        out.push(0x80 | (bytes.len() - zeros).to_le_bytes()[0]);
        out.extend_from_slice(&bytes[zeros..]);
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

/// Converts one whole value to DER. The content of octet strings stays as it is.
pub(super) fn definite(bytes: &[u8]) -> Result<Vec<u8>, CostRefusal> {
    match convert(bytes, 0)? {
        (value, []) => Ok(value),
        _ => Err(CostRefusal::Torn),
    }
}

/// Converts the first value to DER, and returns what follows it.
fn convert(bytes: &[u8], depth: usize) -> Result<(Vec<u8>, &[u8]), CostRefusal> {
    if depth > DEEPEST {
        return Err(CostRefusal::Torn);
    }
    let tag = *bytes.first().ok_or(CostRefusal::Torn)?;
    if tag & CONSTRUCTED == 0 {
        let (found, rest) = next(bytes)?;
        return Ok((value(tag, &[found.content]), rest));
    }
    let (parts, rest) = if bytes.get(1) == Some(&0x80) {
        let (mut parts, mut left) = (Vec::new(), &bytes[2..]);
        while !left.starts_with(&[0, 0]) {
            let (part, rest) = convert(left, depth + 1)?;
            parts.push(part);
            left = rest;
        }
        (parts, &left[2..])
    } else {
        let (found, rest) = next(bytes)?;
        let (mut parts, mut left) = (Vec::new(), found.content);
        while !left.is_empty() {
            let (part, rest) = convert(left, depth + 1)?;
            parts.push(part);
            left = rest;
        }
        (parts, rest)
    };
    Ok((joined(tag, parts)?, rest))
}

fn joined(tag: u8, mut parts: Vec<Vec<u8>>) -> Result<Vec<u8>, CostRefusal> {
    match tag {
        IN_PIECES => return string(OCTET_STRING, &parts),
        SET => parts.sort(),
        // An EncryptedContentInfo (RFC 5652 §6.1) has a type, an algorithm, and the encrypted
        // string.
        SEQUENCE if parts.len() == 3 => {
            let starts = |part: &[u8], tag| part.first() == Some(&tag);
            if starts(&parts[0], OID) && starts(&parts[1], SEQUENCE) && starts(&parts[2], FIRST) {
                let (pieces, _) = next(&parts[2])?;
                let mut left = pieces.content;
                let mut strings = Vec::new();
                while !left.is_empty() {
                    let (piece, rest) = next(left)?;
                    strings.push(value(piece.tag, &[piece.content]));
                    left = rest;
                }
                parts[2] = string(FIRST_STRING, &strings)?;
            }
        }
        _ => {}
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Ok(value(tag, &parts))
}

/// Joins the pieces of a string. Each piece is a whole value by now.
fn string(tag: u8, pieces: &[Vec<u8>]) -> Result<Vec<u8>, CostRefusal> {
    let mut contents = Vec::new();
    for piece in pieces {
        let (piece, _) = next(piece)?;
        if piece.tag != OCTET_STRING {
            return Err(CostRefusal::Torn);
        }
        contents.push(piece.content);
    }
    Ok(value(tag, &contents))
}
