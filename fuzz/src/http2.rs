//! HTTP/2 by hand: a writer of any frames, and a reader of the daemon's answers.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use crate::http1::{Answer, Fields, field};
use crate::secrets::{assert_none, assert_not_forbidden};

/// The first bytes of a client.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// A flag of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// A flag of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// A flag of HEADERS and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// A flag of DATA and HEADERS.
pub const PADDED: u8 = 0x8;

/// The size of a frame's head: length, type, flags and stream.
const HEAD: usize = 9;

pub fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).expect("inputs are short");
    head(out, length, kind, flags, stream);
    out.extend_from_slice(payload);
}

/// Writes the head of a frame; its length need not fit what follows.
pub fn head(out: &mut Vec<u8>, length: u32, kind: u8, flags: u8, stream: u32) {
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
}

/// Writes a field without Huffman coding. `indexed`: both sides add the field to the dynamic table.
pub fn literal(out: &mut Vec<u8>, indexed: bool, name: &[u8], value: &[u8]) {
    out.push(if indexed { 0x40 } else { 0 });
    for text in [name, value] {
        integer(out, text.len());
        out.extend_from_slice(text);
    }
}

/// Writes an integer with a prefix of seven bits (RFC 7541 section 5.1).
fn integer(out: &mut Vec<u8>, value: usize) {
    const LARGEST: u8 = 0x7f;
    let Some(mut rest) = value.checked_sub(LARGEST.into()) else {
        out.push(u8::try_from(value).expect("it is below the prefix"));
        return;
    };
    out.push(LARGEST);
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).expect("seven bits") | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).expect("seven bits"));
}

/// Writes a gRPC message: whether it is compressed, its length, and its bytes.
pub fn message(out: &mut Vec<u8>, compressed: u8, text: &[u8]) {
    out.push(compressed);
    out.extend_from_slice(&u32::try_from(text.len()).expect("short").to_be_bytes());
    out.extend_from_slice(text);
}

/// The answer on one stream.
#[derive(Debug, Default)]
pub struct Stream {
    /// Headers and trailers.
    pub sections: Vec<Fields>,
    /// The payload of all DATA frames.
    pub data: Vec<u8>,
    /// Whether the stream came to its end.
    pub ended: bool,
    /// Whether the daemon reset the stream.
    pub reset: bool,
}

/// Reads the streams of a connection. Fails on bytes that are no HTTP/2; only the last frame may be
/// cut off.
pub fn streams(mut bytes: &[u8]) -> BTreeMap<u32, Stream> {
    let mut streams: BTreeMap<u32, Stream> = BTreeMap::new();
    let mut decoder = httlib_hpack::Decoder::default();
    // The peer decides how large the daemon's dynamic table may be, and it may say any number.
    decoder.set_max_dynamic_size(u32::MAX);
    let (mut block, mut ends, mut first) = (Vec::new(), false, true);
    while let Some((&[a, b, c, kind, flags, s, t, u, v], rest)) = bytes.split_first_chunk::<HEAD>()
    {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else {
            break;
        };
        bytes = rest;
        assert!(
            !first || kind == SETTINGS,
            "SETTINGS come first, not {kind}"
        );
        first = false;
        let number = u32::from_be_bytes([s, t, u, v]);
        match kind {
            DATA => {
                let stream = streams.entry(number).or_default();
                stream.data.extend_from_slice(payload);
                stream.ended |= flags & END_STREAM != 0;
            }
            HEADERS | CONTINUATION => {
                if kind == HEADERS {
                    block.clear();
                    ends = flags & END_STREAM != 0;
                }
                block.extend_from_slice(payload);
                if flags & END_HEADERS != 0 {
                    let stream = streams.entry(number).or_default();
                    let mut fields = Vec::new();
                    decoder
                        .decode(&mut block, &mut fields)
                        .unwrap_or_else(|why| panic!("{why:?}: {}", block.escape_ascii()));
                    let fields = fields.into_iter().map(|(name, value, _)| (name, value));
                    stream.sections.push(fields.collect());
                    stream.ended |= ends;
                }
            }
            RST_STREAM => streams.entry(number).or_default().reset = true,
            GOAWAY => assert_none(payload, "GOAWAY"),
            SETTINGS | PING | WINDOW_UPDATE => {}
            _ => panic!("a frame of type {kind}"),
        }
    }
    streams
}

impl Stream {
    /// The gRPC status, if it has come.
    pub fn grpc_status(&self) -> Option<u8> {
        let value = field(self.sections.last()?, "grpc-status")?;
        let code = std::str::from_utf8(value).ok()?.parse().ok();
        Some(
            code.filter(|code| *code <= 16)
                .expect("the status is one of gRPC's"),
        )
    }

    /// Whether the answer is gRPC, and not HTTP with JSON.
    pub fn is_grpc(&self) -> bool {
        self.sections
            .first()
            .and_then(|headers| field(headers, "content-type"))
            .is_some_and(|kind| kind.starts_with(b"application/grpc"))
    }

    /// Fails unless the answer keeps our rules.
    pub fn check(&self) {
        assert_not_forbidden(&self.data, "DATA");
        for (name, value) in self.sections.iter().flatten() {
            assert_none(name, "the name of a field");
            assert_none(value, "a field");
            if name == b"grpc-status-details-bin" {
                let details = STANDARD_NO_PAD.decode(value).expect("it is base64");
                assert_none(&details, "the details of a status");
            }
        }
        let Some(headers) = self.sections.first() else {
            return;
        };
        let status = field(headers, ":status").expect("the first is the head of an answer");
        let status: u16 = std::str::from_utf8(status)
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("the status is a number");
        if self.is_grpc() {
            assert_eq!(status, 200, "gRPC has its own statuses");
            if self.ended {
                assert!(self.grpc_status().is_some(), "no status: {self:?}");
            }
        } else if status != 403 || field(headers, "cache-control").is_some() {
            // A browser that speaks gRPC gets 403 and nothing else.
            let answer = Answer {
                status,
                headers: headers.clone(),
                body: self.data.clone(),
                complete: self.ended,
            };
            answer.check();
        }
    }
}
