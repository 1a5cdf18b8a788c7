//! HTTP/2 as bytes: frames that no client library would send.

use prost::Message as _;
use tokend::proto::GetTokenRequest;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
/// An undefined frame type; such frames are to be ignored (RFC 9113 section 4.1).
pub const UNKNOWN: u8 = 0x77;

pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// SETTINGS_INITIAL_WINDOW_SIZE with half of the largest possible value.
const INITIAL_WINDOW: [u8; 6] = [0, 4, 0x40, 0, 0, 0];

/// A frame's head and payload (RFC 9113 section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).expect("short").to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The first bytes of a client that never has to care about windows again.
pub fn opening() -> Vec<u8> {
    [
        PREFACE,
        &frame(SETTINGS, 0, 0, &INITIAL_WINDOW),
        &frame(WINDOW_UPDATE, 0, 0, &0x4000_0000_u32.to_be_bytes()),
        &frame(SETTINGS, ACK, 0, b""),
    ]
    .concat()
}

/// Stream number `n` of those that a client opens.
pub fn stream(n: u32) -> u32 {
    2 * n + 1
}

/// The header block of `GetToken`, with no field for the dynamic table.
pub fn head() -> Vec<u8> {
    block([&[0x04], &[0x01], &[0x0f, 0x10], b"\x00\x02te"])
}

/// The same block with fields for the dynamic table; sent once on a connection.
pub fn head_to_remember() -> Vec<u8> {
    block([&[0x44], &[0x41], &[0x5f], b"\x40\x02te"])
}

/// The same block from the dynamic table; sent from then on.
pub const HEAD_AGAIN: &[u8] = &[0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];

/// A block of POST, http, and these fields: path, authority, content type, and the `te` that gRPC
/// needs.
fn block(names: [&[u8]; 4]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    for (name, value) in names.into_iter().zip([
        "/tokend.v1.CredentialService/GetToken",
        "tokend",
        "application/grpc",
        "trailers",
    ]) {
        block.extend(name);
        block.push(u8::try_from(value.len()).expect("short"));
        block.extend(value.as_bytes());
    }
    block
}

/// The message of `GetToken` as gRPC frames it.
pub fn message(profile: &str) -> Vec<u8> {
    let request = GetTokenRequest {
        profile: profile.to_owned(),
        ..GetTokenRequest::default()
    };
    let encoded = request.encode_to_vec();
    let mut bytes = vec![0];
    bytes.extend(u32::try_from(encoded.len()).expect("short").to_be_bytes());
    bytes.extend(encoded);
    bytes
}

/// A whole call of `GetToken`.
pub fn call(stream: u32, profile: &str) -> Vec<u8> {
    [
        frame(HEADERS, END_HEADERS, stream, &head()),
        frame(DATA, END_STREAM, stream, &message(profile)),
    ]
    .concat()
}
