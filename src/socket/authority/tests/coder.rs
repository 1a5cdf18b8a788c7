//! A small HPACK and HTTP/2 coder with which the tests write connections and read them back.

use std::collections::VecDeque;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The symbols of RFC 7541 appendix B up to 19 bits, by the length of their codes and in the order
/// of their codes.
const SYMBOLS: &[(u32, &[u8])] = &[
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b"!\"()?"),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
];

/// Every symbol with its code and the length of the code. The code is canonical: it counts up, and
/// doubles when it gets longer.
fn codes() -> impl Iterator<Item = (u8, u32, u32)> {
    let (mut code, mut before) = (0_u32, 5);
    SYMBOLS.iter().flat_map(move |&(bits, symbols)| {
        code <<= bits - before;
        before = bits;
        let first = code;
        code += u32::try_from(symbols.len()).unwrap();
        (first..).zip(symbols).map(move |(c, &s)| (s, c, bits))
    })
}

pub fn huffman(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for byte in text {
        let (_, code, length) = codes().find(|(symbol, ..)| symbol == byte).unwrap();
        bits.extend((0..length).rev().map(|n| code >> n & 1 == 1));
    }
    while bits.len() % 8 != 0 {
        bits.push(true);
    }
    bits.chunks(8)
        .map(|bits| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit)))
        .collect()
}

pub fn unhuffman(bytes: &[u8]) -> Vec<u8> {
    let (mut text, mut code, mut length) = (Vec::new(), 0, 0);
    for n in 0..bytes.len() * 8 {
        code = code << 1 | u32::from(bytes[n / 8] >> (7 - n % 8) & 1);
        length += 1;
        if let Some((symbol, ..)) = codes().find(|&(_, c, l)| (c, l) == (code, length)) {
            text.push(symbol);
            (code, length) = (0, 0);
        }
    }
    assert!(
        length < 8 && code == (1 << length) - 1,
        "padding is the start of EOS"
    );
    text
}

pub fn put_integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let mask = (1 << prefix) - 1;
    if value < mask {
        out.push(pattern | u8::try_from(value).unwrap());
        return;
    }
    out.push(pattern | u8::try_from(mask).unwrap());
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(0x80 | u8::try_from(rest & 0x7f).unwrap());
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

pub fn put_string(out: &mut Vec<u8>, text: &[u8], coded: bool) {
    if coded {
        let text = huffman(text);
        put_integer(out, 0x80, 7, text.len());
        out.extend(text);
    } else {
        put_integer(out, 0, 7, text.len());
        out.extend(text);
    }
}

/// Writes a literal. `form` is 0x40 with indexing, 0x00 without, and 0x10 for never. `name` is an
/// index, or a text and whether it is Huffman-coded.
pub fn put_literal(
    out: &mut Vec<u8>,
    form: u8,
    name: Result<usize, (&[u8], bool)>,
    value: (&[u8], bool),
) {
    let prefix = if form == 0x40 { 6 } else { 4 };
    match name {
        Ok(index) => put_integer(out, form, prefix, index),
        Err((text, coded)) => {
            put_integer(out, form, prefix, 0);
            put_string(out, text, coded);
        }
    }
    put_string(out, value.0, value.1);
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut out = length[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// The preface and one HEADERS frame with one whole header block.
pub fn request(block: &[u8]) -> Vec<u8> {
    [PREFACE, &frame(1, 0x05, 1, block)].concat()
}

pub type Header = (Vec<u8>, Vec<u8>);

/// One side's dynamic table.
#[derive(Default)]
pub struct Table {
    entries: VecDeque<Header>,
    limit: usize,
}

impl Table {
    pub fn new() -> Table {
        Table {
            entries: VecDeque::new(),
            limit: 4096,
        }
    }

    pub fn len(&self) -> usize {
        61 + self.entries.len()
    }

    /// Entries of the static table are told apart only by number, except `:authority`.
    fn get(&self, index: usize) -> Header {
        match index {
            1 => (b":authority".to_vec(), Vec::new()),
            2..=61 => (format!("static {index}").into_bytes(), Vec::new()),
            _ => self.entries[index - 62].clone(),
        }
    }

    fn evict(&mut self) {
        let size = |(name, value): &Header| name.len() + value.len() + 32;
        while self.entries.iter().map(size).sum::<usize>() > self.limit {
            self.entries.pop_back();
        }
    }

    /// Reads one whole header block.
    pub fn decode(&mut self, block: &[u8]) -> Vec<Header> {
        let mut at = block;
        let mut headers = Vec::new();
        while let Some(&first) = at.first() {
            if first & 0x80 != 0 {
                headers.push(self.get(integer(&mut at, 7)));
            } else if first & 0xe0 == 0x20 {
                self.limit = integer(&mut at, 5);
                self.evict();
            } else {
                let indexing = first & 0x40 != 0;
                let name = match integer(&mut at, if indexing { 6 } else { 4 }) {
                    0 => string(&mut at),
                    index => self.get(index).0,
                };
                let header = (name, string(&mut at));
                headers.push(header.clone());
                if indexing {
                    self.entries.push_front(header);
                    self.evict();
                }
            }
        }
        headers
    }
}

fn integer(at: &mut &[u8], prefix: u32) -> usize {
    let mask = (1 << prefix) - 1;
    let mut next = || {
        let (first, rest) = at.split_first().unwrap();
        *at = rest;
        usize::from(*first)
    };
    let mut value = next() & mask;
    if value == mask {
        for shift in (0..).step_by(7) {
            let byte = next();
            value += (byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
    }
    value
}

fn string(at: &mut &[u8]) -> Vec<u8> {
    let coded = at[0] & 0x80 != 0;
    let length = integer(at, 7);
    let (text, rest) = at.split_at(length);
    *at = rest;
    if coded {
        unhuffman(text)
    } else {
        text.to_vec()
    }
}

#[test]
fn the_coder_itself_knows_the_examples_of_the_rfc() {
    // RFC 7541 appendices C.1.2, C.4.1 and C.4.2.
    let mut out = Vec::new();
    put_integer(&mut out, 0, 5, 1337);
    assert_eq!(out, [0x1f, 0x9a, 0x0a]);
    assert_eq!(integer(&mut out.as_slice(), 5), 1337);
    let coded = [
        0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
    ];
    assert_eq!(huffman(b"www.example.com"), coded);
    assert_eq!(unhuffman(&coded), b"www.example.com");
    assert_eq!(huffman(b"no-cache"), [0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]);
}
