//! HPACK as far as the repair needs it: finds the value of `:authority` in a header block (RFC 7541
//! section 6).
//!
//! No tables are kept. An indexed field carries no bytes of its own. A literal whose name is an
//! index above the static table is another field, or one that the repair does not cover.

use super::value::AuthorityValue;

/// The index of `:authority` in the static table (RFC 7541 appendix A).
const AUTHORITY: u32 = 1;
const NAME: &[u8] = b":authority";
/// [`NAME`] in the Huffman code of RFC 7541 appendix B, with its seven bits of padding.
const HUFFMAN_NAME: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];

/// The bit before a string's length that marks Huffman coding.
const HUFFMAN: u8 = 0x80;

/// The most continuation bytes of an integer. This allows values up to 2^28 and cannot overflow 32
/// bits. h2 draws the same line.
const MAX_CONTINUATION: u8 = 4;

/// A walk over the header blocks of one connection.
#[derive(Debug)]
pub struct Block {
    at: HpackState,
}

/// The position of the next byte in a header block.
#[derive(Debug, Clone, Copy)]
enum HpackState {
    /// At the first byte of a representation: the only place where a block may end.
    Field,
    /// In an integer that did not fit into its prefix.
    Integer {
        of: IntegerMeaning,
        value: u32,
        /// The number of continuation bytes so far.
        seen: u8,
    },
    /// At the length of a literal name.
    NameLength,
    Name {
        left: u32,
        /// What the rest must be if the name is `:authority`; None if it is another name.
        wanted: Option<&'static [u8]>,
    },
    /// At the length of the value of `:authority` or of another field.
    ValueLength { authority: bool },
    /// In a value that stays as it is.
    OtherValue { left: u32 },
    /// In the value of `:authority`.
    Authority { left: u32, value: AuthorityValue },
}

/// The meaning of an integer.
#[derive(Debug, Clone, Copy)]
enum IntegerMeaning {
    /// The index of a whole field.
    Field,
    /// The size of the dynamic table.
    TableSize,
    /// The index of a literal's name; with 0 the name itself follows.
    Name,
    NameLength {
        huffman: bool,
    },
    ValueLength {
        huffman: bool,
        authority: bool,
    },
}

impl Block {
    pub fn new() -> Block {
        Block {
            at: HpackState::Field,
        }
    }

    /// Repairs the next bytes of the block. None: the block is malformed.
    pub fn repair(&mut self, mut bytes: &mut [u8]) -> Option<()> {
        while let Some(&first) = bytes.first() {
            let used = match self.at {
                HpackState::Field => {
                    // The four patterns of a first byte, longest prefix of the integer first (RFC
                    // 7541 section 6).
                    let (of, prefix) = match first {
                        0x80.. => (IntegerMeaning::Field, 7),
                        0x40..0x80 => (IntegerMeaning::Name, 6),
                        0x20..0x40 => (IntegerMeaning::TableSize, 5),
                        // Without indexing (0x00) and never indexed (0x10).
                        ..0x20 => (IntegerMeaning::Name, 4),
                    };
                    self.at = integer(of, first, prefix)?;
                    1
                }
                HpackState::Integer {
                    of,
                    mut value,
                    mut seen,
                } => {
                    value += u32::from(first & 0x7f) << (7 * seen);
                    seen += 1;
                    self.at = if first & 0x80 == 0 {
                        decoded(of, value)?
                    } else if seen < MAX_CONTINUATION {
                        HpackState::Integer { of, value, seen }
                    } else {
                        return None;
                    };
                    1
                }
                HpackState::NameLength => {
                    let huffman = first & HUFFMAN != 0;
                    self.at = integer(IntegerMeaning::NameLength { huffman }, first, 7)?;
                    1
                }
                HpackState::Name { mut left, wanted } => {
                    let used = take(&mut left, bytes);
                    let wanted = wanted.and_then(|wanted| wanted.strip_prefix(&bytes[..used]));
                    self.at = if left > 0 {
                        HpackState::Name { left, wanted }
                    } else {
                        HpackState::ValueLength {
                            authority: wanted.is_some(),
                        }
                    };
                    used
                }
                HpackState::ValueLength { authority } => {
                    let huffman = first & HUFFMAN != 0;
                    self.at =
                        integer(IntegerMeaning::ValueLength { huffman, authority }, first, 7)?;
                    1
                }
                HpackState::OtherValue { mut left } => {
                    let used = take(&mut left, bytes);
                    self.at = if left > 0 {
                        HpackState::OtherValue { left }
                    } else {
                        HpackState::Field
                    };
                    used
                }
                HpackState::Authority {
                    mut left,
                    mut value,
                } => {
                    let used = take(&mut left, bytes);
                    value.repair(&mut bytes[..used], left == 0);
                    self.at = if left > 0 {
                        HpackState::Authority { left, value }
                    } else {
                        HpackState::Field
                    };
                    used
                }
            };
            bytes = &mut bytes[used..];
        }
        Some(())
    }

    /// Ends the block. None: it ends in the middle of a field.
    pub fn end(&self) -> Option<()> {
        matches!(self.at, HpackState::Field).then_some(())
    }
}

/// The state after the first byte of an integer of `prefix` bits (RFC 7541 section 5.1).
fn integer(of: IntegerMeaning, first: u8, prefix: u32) -> Option<HpackState> {
    let mask = (1 << prefix) - 1;
    let value = u32::from(first) & mask;
    if value < mask {
        decoded(of, value)
    } else {
        Some(HpackState::Integer { of, value, seen: 0 })
    }
}

/// The state after an integer. None: no field has the index 0.
fn decoded(of: IntegerMeaning, value: u32) -> Option<HpackState> {
    Some(match (of, value) {
        (IntegerMeaning::Field, 0) => return None,
        (IntegerMeaning::Field | IntegerMeaning::TableSize, _) => HpackState::Field,
        (IntegerMeaning::Name, 0) => HpackState::NameLength,
        (IntegerMeaning::Name, index) => HpackState::ValueLength {
            authority: index == AUTHORITY,
        },
        (IntegerMeaning::NameLength { .. }, 0) => HpackState::ValueLength { authority: false },
        (IntegerMeaning::NameLength { huffman }, left) => {
            let name = if huffman { HUFFMAN_NAME } else { NAME };
            HpackState::Name {
                left,
                wanted: (usize::try_from(left) == Ok(name.len())).then_some(name),
            }
        }
        // An empty authority stays empty: there is no byte to change.
        (IntegerMeaning::ValueLength { .. }, 0) => HpackState::Field,
        (
            IntegerMeaning::ValueLength {
                huffman,
                authority: true,
            },
            left,
        ) => HpackState::Authority {
            left,
            value: AuthorityValue::new(huffman),
        },
        (
            IntegerMeaning::ValueLength {
                authority: false, ..
            },
            left,
        ) => HpackState::OtherValue { left },
    })
}

/// Takes as many bytes of the rest of a string as are here. Returns how many.
fn take(left: &mut u32, bytes: &[u8]) -> usize {
    match u32::try_from(bytes.len()) {
        Ok(here) if here < *left => {
            *left -= here;
            bytes.len()
        }
        // The whole rest is here, so it fits. The same holds when there are more bytes than 32 bits
        // can count.
        _ => std::mem::take(left) as usize,
    }
}
