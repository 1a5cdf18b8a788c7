//! Decides what an authority may look like, and what an illegal one becomes, byte for byte and bit
//! for bit.
//!
//! The judge is the http crate's `Authority`, which follows RFC 3986 section 3.2. HPACK has two
//! codings of a value (RFC 7541 section 5.2), so there are two repairs.

/// The repair of one value of `:authority`.
#[derive(Debug, Clone, Copy)]
pub enum AuthorityValue {
    Plain(Plain),
    Huffman(Huffman),
}

impl AuthorityValue {
    /// At the first byte of a value.
    pub fn new(huffman: bool) -> AuthorityValue {
        if huffman {
            AuthorityValue::Huffman(Huffman::default())
        } else {
            AuthorityValue::Plain(Plain::default())
        }
    }

    /// Repairs the next bytes of the value. `last` says that they complete the value.
    pub fn repair(&mut self, bytes: &mut [u8], last: bool) {
        let end = bytes.len();
        for (byte, n) in bytes.iter_mut().zip(1..) {
            *byte = match self {
                AuthorityValue::Plain(plain) => plain.repair(*byte, last && n == end),
                AuthorityValue::Huffman(huffman) => huffman.repair(*byte),
            };
        }
    }
}

/// The repair of a plain value. Whatever comes in, an authority goes out.
///
/// A legal authority stays as it is. The exception is what only the user information of a URI may
/// have (several colons, percent-encoding): it cannot be recognized before its `@`, and HTTP/2
/// forbids it (RFC 9113 section 8.3.1).
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain {
    /// Whether something was replaced. From then on the value is not a `host:port`, and its
    /// delimiters mean nothing.
    spoiled: bool,
    bracket: Bracket,
    /// The number of colons that count: see [`Plain::repair`].
    colons: u8,
}

/// The position in relation to brackets. Only one pair is legal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Bracket {
    #[default]
    Before,
    Inside,
    After,
}

/// The most colons outside brackets: the one before the port.
const MAX_COLONS: u8 = 1;
/// The most colons in an IPv6 address and in front of it. The http crate stops counting there.
const MAX_COLONS_INSIDE: u8 = 8;

/// The replacement for an illegal byte. It is legal anywhere in an authority.
const REPLACEMENT: u8 = b'-';

impl Plain {
    /// The replacement for the next byte. `last` says that it is the last of the value.
    pub fn repair(&mut self, byte: u8, last: bool) -> u8 {
        let inside = self.bracket == Bracket::Inside;
        match byte {
            // The opening bracket was already handed on, so the closing one has to follow, whatever
            // byte this is.
            _ if inside && (last || byte == b']') => {
                self.bracket = Bracket::After;
                self.colons = 0;
                b']'
            }
            b':' if !self.spoiled && self.colons < self.max_colons() => {
                self.colons += 1;
                byte
            }
            b'[' if !self.spoiled && !last && self.bracket == Bracket::Before => {
                self.bracket = Bracket::Inside;
                byte
            }
            // After the user information, colons count from 0 again.
            b'@' if !self.spoiled && !last => {
                self.colons = 0;
                byte
            }
            // The zone of an IPv6 address, RFC 6874.
            b'%' if inside => byte,
            // Unreserved and sub-delims, RFC 3986 sections 2.2 and 2.3.
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => byte,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => byte,
            _ => {
                self.spoiled = true;
                REPLACEMENT
            }
        }
    }

    fn max_colons(&self) -> u8 {
        if self.bracket == Bracket::Inside {
            MAX_COLONS_INSIDE
        } else {
            MAX_COLONS
        }
    }
}

/// The repair of a Huffman value, as far as it is possible.
///
/// A code may lie across two reads, and the bits of its first part are gone when the second part
/// comes. So an illegal symbol is repaired at one bit of its code. That bit is flipped when it
/// arrives, which leads to a legal symbol of the same length:
///
/// | symbol | code | becomes |
/// |---|---|---|
/// | space, `%` | `01010 x` | `-`, `.` |
/// | `/` | `011000` | `3` |
/// | `"` | `1111111001` | `!` |
/// | NUL | `1111111111000` | `$` |
/// | `:`, after one of these | `1011100` | `B` |
/// | `@`, `[`, after one of these | `111111111101 x` | `$` |
/// | `]`, after one of these | `1111111111100` | `~` |
///
/// The other illegal symbols (`? # | > < \ ^ { } ` and the unprintable ones) have no such neighbour
/// and stay.
#[derive(Debug, Clone, Copy, Default)]
pub struct Huffman {
    /// Whether something was replaced.
    spoiled: bool,
    /// The bits of the current code, as they were handed on, and their number.
    code: u16,
    bits: u8,
}

/// No legal symbol has a longer code. A code that gets this long is left alone, with the rest of
/// the value.
const MAX_BITS: u8 = 13;

impl Huffman {
    /// The byte to hand on for the next one that comes in.
    pub fn repair(&mut self, byte: u8) -> u8 {
        (0..8)
            .rev()
            .fold(0, |out, n| out << 1 | self.bit(byte >> n & 1))
    }

    /// The same for one bit, 0 or 1.
    fn bit(&mut self, bit: u8) -> u8 {
        if self.bits > MAX_BITS {
            return bit;
        }
        let out = match (self.bits, self.code, bit) {
            (4, 0b0101, 0)
            | (5, 0b01100, 0)
            | (9, 0b1_1111_1100, 1)
            | (12, 0b1111_1111_1100, 0) => {
                self.spoiled = true;
                bit ^ 1
            }
            (6, 0b10_1110, 0) | (11, 0b111_1111_1110, 1) | (12, 0b1111_1111_1110, 0)
                if self.spoiled =>
            {
                bit ^ 1
            }
            _ => bit,
        };
        self.code = self.code << 1 | u16::from(out);
        self.bits += 1;
        if self.complete() {
            self.code = 0;
            self.bits = 0;
        }
        out
    }

    /// Whether the current bits are a whole symbol. The code is canonical: the codes of one length
    /// are those below a limit, unless a shorter code would have ended before (RFC 7541 appendix
    /// B).
    fn complete(&self) -> bool {
        let limit = match self.bits {
            5 => 0x0a,
            6 => 0x2e,
            7 => 0x7c,
            8 => 0xfe,
            10 => 0x3fd,
            11 => 0x7fd,
            12 => 0xffc,
            13 => 0x1ffe,
            _ => 0,
        };
        self.code < limit
    }
}
