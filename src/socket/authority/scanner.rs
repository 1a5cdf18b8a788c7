//! HTTP/2 as far as the repair needs it: recognizes the preface, frames, and which of their bytes
//! are a header block.

use super::hpack::Block;
use crate::socket::allowance::Tally;

/// What an HTTP/2 client sends first (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame's head: length (3), type (1), flags (1), stream (4) (RFC 9113 section 4.1).
const HEAD: usize = 9;

const HEADERS: u8 = 0x01;
const PING: u8 = 0x06;
const WINDOW_UPDATE: u8 = 0x08;
const CONTINUATION: u8 = 0x09;

const ACK: u8 = 0x01;
const END_HEADERS: u8 = 0x04;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;

/// The fields that PRIORITY puts before the header block: dependency (4) and weight (1) (RFC 9113
/// section 6.2).
const PRIORITY_FIELDS: usize = 5;

/// The payload of the PING that h2 sends between its two GOAWAYs. The client's answer says that it
/// has read the first GOAWAY.
const FAREWELL: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

/// Repairs `:authority` in what one client sends, as it arrives.
///
/// The scanner does no I/O and uses no heap. It remembers a frame's head and its own position, and
/// no byte of any value.
#[derive(Debug)]
pub struct Scanner {
    at: ScanState,
    /// The head of the current frame, complete up to what [`ScanState::Head`] says.
    head: [u8; HEAD],
    /// The current header block; between blocks, the start of the next.
    block: Block,
    /// The stream whose header block has not ended. Until it has, only a CONTINUATION of that
    /// stream may come.
    open: Option<u32>,
    /// The newest stream.
    newest: u32,
    /// The newest stream when h2 was told that it may close the connection. h2 ignores later
    /// streams.
    last: Option<u32>,
    /// The frames since the last look.
    tally: Tally,
}

/// The position of the next byte in the connection.
#[derive(Debug, Clone, Copy)]
enum ScanState {
    /// In the preface, after this many of its bytes.
    Preface(usize),
    /// In a frame's head, after this many of its bytes.
    Head(usize),
    /// At the padding length of a HEADERS frame. The payload still includes that length.
    PadLength(Payload),
    /// In a frame's payload.
    Payload(Payload),
    /// In the payload of an answered PING, after this many bytes, all of which match [`FAREWELL`].
    Farewell(usize),
    /// The bytes are not HTTP/2, or are malformed. The scanner never leaves this state.
    Off,
}

/// What is left of a frame's payload, in bytes and in this order.
#[derive(Debug, Clone, Copy)]
struct Payload {
    /// Bytes that do not matter: other frames' payloads and the priority fields.
    skip: usize,
    /// Bytes of the header block.
    block: usize,
    padding: usize,
    /// Whether the header block ends with this frame.
    ends: bool,
}

/// Starts at the first byte of a connection.
impl Default for Scanner {
    fn default() -> Self {
        Scanner {
            at: ScanState::Preface(0),
            head: [0; HEAD],
            block: Block::new(),
            open: None,
            newest: 0,
            last: None,
            tally: Tally::default(),
        }
    }
}

impl Scanner {
    /// Repairs the next bytes of the connection: replaces what is illegal in a value of
    /// `:authority`.
    ///
    /// It does not matter how the connection is cut into calls. Bytes that are not HTTP/2, or are
    /// malformed, are left alone, and so is everything that follows them.
    pub fn repair(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match self.step(bytes) {
                Some(used) => bytes = &mut bytes[used..],
                None => {
                    self.at = ScanState::Off;
                    return;
                }
            }
        }
    }

    /// The frames whose heads have become complete since the last call.
    ///
    /// Nothing is counted after bytes that are not HTTP/2, because no HTTP/2 implementation reads
    /// on then.
    pub fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Whether the client has answered that it knows that the connection will end.
    #[must_use]
    pub fn knows_the_end(&self) -> bool {
        self.last.is_some()
    }

    /// Makes one step, which passes at least one byte or changes the state. Returns the number of
    /// bytes passed. None: the bytes are malformed.
    fn step(&mut self, bytes: &mut [u8]) -> Option<usize> {
        match self.at {
            ScanState::Preface(seen) => {
                let wanted = &PREFACE[seen..];
                let used = wanted.len().min(bytes.len());
                if bytes[..used] != wanted[..used] {
                    return None;
                }
                self.at = if used == wanted.len() {
                    ScanState::Head(0)
                } else {
                    ScanState::Preface(seen + used)
                };
                Some(used)
            }
            ScanState::Head(seen) => {
                let used = (HEAD - seen).min(bytes.len());
                self.head[seen..seen + used].copy_from_slice(&bytes[..used]);
                self.at = if seen + used == HEAD {
                    if let Some(known) = self.heard_of() {
                        bytes[used - 1] = known;
                    }
                    self.frame()?
                } else {
                    ScanState::Head(seen + used)
                };
                Some(used)
            }
            ScanState::Farewell(seen) => {
                let same = bytes[0] == FAREWELL[seen];
                self.at = if same && seen + 1 < FAREWELL.len() {
                    ScanState::Farewell(seen + 1)
                } else {
                    if same {
                        self.last = Some(self.newest);
                    }
                    ScanState::Payload(Payload {
                        skip: FAREWELL.len() - (seen + 1),
                        block: 0,
                        padding: 0,
                        ends: false,
                    })
                };
                Some(1)
            }
            ScanState::PadLength(mut payload) => {
                payload.padding = usize::from(bytes[0]);
                payload.block = payload.block.checked_sub(1 + payload.padding)?;
                self.at = ScanState::Payload(payload);
                Some(1)
            }
            ScanState::Payload(mut payload) => {
                let used = if payload.skip > 0 {
                    take(&mut payload.skip, bytes)
                } else if payload.block > 0 {
                    let used = take(&mut payload.block, bytes);
                    self.block.repair(&mut bytes[..used])?;
                    used
                } else {
                    take(&mut payload.padding, bytes)
                };
                self.at = ScanState::Payload(payload);
                if used == 0 {
                    if payload.ends {
                        self.open = None;
                        self.block.end()?;
                    }
                    self.at = ScanState::Head(0);
                }
                Some(used)
            }
            ScanState::Off => Some(bytes.len()),
        }
    }

    /// If the current frame is a WINDOW_UPDATE of a stream that h2 ignores because it is closing
    /// the connection, returns another last byte for the stream's number. With that byte the frame
    /// belongs to a stream that h2 knows, where a few more bytes of window do no harm.
    ///
    /// A client may begin a stream before it has seen which was the last. h2 ignores the HEADERS,
    /// DATA and RST_STREAM of such a stream, but treats its WINDOW_UPDATE as an error that ends the
    /// connection and all calls on it (h2 0.4.20, `recv_window_update`). One of 128 such streams
    /// has no known neighbour; its WINDOW_UPDATE still ends the connection.
    fn heard_of(&self) -> Option<u8> {
        let (last, [_, _, _, kind, _, ..]) = (self.last?, self.head);
        let unheard_of = kind == WINDOW_UPDATE && self.stream() > last;
        let [above @ .., known] = last.to_be_bytes();
        (unheard_of && self.stream().to_be_bytes()[..3] == above).then_some(known)
    }

    /// The stream of the current frame.
    fn stream(&self) -> u32 {
        let [_, _, _, _, _, stream @ ..] = self.head;
        // The topmost bit is reserved, and receivers ignore it.
        u32::from_be_bytes(stream) & 0x7fff_ffff
    }

    /// The state after a complete head.
    fn frame(&mut self) -> Option<ScanState> {
        let [a, b, c, kind, flags, ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = self.stream();
        let ends = flags & END_HEADERS != 0;
        let counted = if kind == HEADERS {
            &mut self.tally.calls
        } else {
            &mut self.tally.others
        };
        *counted = counted.saturating_add(1);
        match (kind, self.open) {
            (HEADERS, None) => {
                self.open = Some(stream);
                self.newest = self.newest.max(stream);
                let skip = if flags & PRIORITY != 0 {
                    PRIORITY_FIELDS
                } else {
                    0
                };
                let payload = Payload {
                    skip,
                    block: length.checked_sub(skip)?,
                    padding: 0,
                    ends,
                };
                Some(if flags & PADDED != 0 {
                    ScanState::PadLength(payload)
                } else {
                    ScanState::Payload(payload)
                })
            }
            (CONTINUATION, Some(open)) if open == stream => Some(ScanState::Payload(Payload {
                skip: 0,
                block: length,
                padding: 0,
                ends,
            })),
            (CONTINUATION, _) | (_, Some(_)) => None,
            (PING, None) if flags & ACK != 0 && length == FAREWELL.len() => {
                Some(ScanState::Farewell(0))
            }
            (_, None) => Some(ScanState::Payload(Payload {
                skip: length,
                block: 0,
                padding: 0,
                ends: false,
            })),
        }
    }
}

/// Takes as many bytes of a part of the payload as are here. Returns how many.
fn take(part: &mut usize, bytes: &[u8]) -> usize {
    let used = bytes.len().min(*part);
    *part -= used;
    used
}
