//! Any bytes as a connection: HTTP/2 in frames that are nearly right, or the raw bytes, which are
//! HTTP/1.1 without the preface. Nothing panics, the connection ends, and no token appears where it
//! does not belong.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokend_fuzz::daemon::{DAEMON, Manner};
use tokend_fuzz::http1;
use tokend_fuzz::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, head, literal, message,
    streams,
};
use tokend_fuzz::script::Script;
use tokend_fuzz::secrets::assert_not_forbidden;

const METHODS: [&[u8]; 5] = [b"POST", b"GET", b"HEAD", b"CONNECT", b"OPTIONS"];
const PATHS: [&[u8]; 12] = [
    b"/tokend.v1.CredentialService/GetToken",
    b"/tokend.v1.CredentialService/WatchToken",
    b"/tokend.v1.CredentialService/ReportRejected",
    b"/tokend.v1.CredentialService/ListProfiles",
    b"/tokend.v1.AdminService/GetStatus",
    b"/tokend.v1.AdminService/Reload",
    b"/grpc.health.v1.Health/Watch",
    b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    b"/v1/profiles/fixed/token",
    b"/v1/profiles/fixed/rejected",
    b"/metrics",
    b"*",
];
const AUTHORITIES: [&[u8]; 4] = [
    b"tokend",
    b"localhost",
    b"run%2Ftokend.sock",
    b"/run/tokend.sock",
];
const KINDS: [&[u8]; 4] = [
    b"application/grpc",
    b"application/grpc+proto",
    b"application/json",
    b"",
];
const PROFILES: [&[u8]; 8] = [
    b"fixed",
    b"other",
    b"open",
    b"fetched",
    b"failing",
    b"rejected",
    b"slow",
    b"invalid",
];
/// The most steps on one connection. More of them would find too little for the time they take.
const MOST_STEPS: usize = 40;
const NUMBERS: [u32; 8] = [0, 1, 64, 16_384, 65_535, 65_536, 0x7fff_ffff, u32::MAX];

/// The bytes of a connection so far.
struct Connection<'a> {
    script: Script<'a>,
    out: Vec<u8>,
    newest: u32,
}

impl Connection<'_> {
    /// Chooses a new stream, the newest, or any.
    fn stream(&mut self) -> u32 {
        match self.script.byte() {
            0..64 => {
                self.newest = self.newest.wrapping_add(2);
                self.newest
            }
            64..192 => self.newest,
            byte @ 192..250 => u32::from(byte - 192),
            _ => self.script.number(),
        }
    }

    fn number(&mut self) -> u32 {
        match self.script.byte() {
            byte @ 0..128 => NUMBERS[usize::from(byte % 8)],
            _ => self.script.number(),
        }
    }

    /// Writes a header block in one frame or in several.
    fn block(&mut self, stream: u32, flags: u8, block: &[u8]) {
        let cut = usize::from(self.script.byte()).min(block.len());
        if cut == 0 {
            frame(&mut self.out, HEADERS, flags | END_HEADERS, stream, block);
            return;
        }
        let (first, rest) = block.split_at(cut);
        frame(&mut self.out, HEADERS, flags, stream, first);
        frame(&mut self.out, CONTINUATION, END_HEADERS, stream, rest);
    }

    fn request(&mut self) {
        let (stream, flags) = (self.stream(), self.script.byte() & END_STREAM);
        let how = self.script.byte();
        let indexed = how & 1 != 0;
        let mut block = Vec::new();
        for (name, value) in [
            (&b":method"[..], self.script.choice(&METHODS)),
            (b":scheme", b"http"),
            (b":path", self.script.choice(&PATHS)),
            (b":authority", self.script.choice(&AUTHORITIES)),
            (b"content-type", self.script.choice(&KINDS)),
            (b"te", b"trailers"),
        ] {
            literal(&mut block, indexed, name, value);
        }
        if how & 2 != 0 {
            let (name, value) = (self.script.text(), self.script.text());
            literal(&mut block, indexed, name, value);
        }
        self.block(stream, flags, &block);
    }

    fn step(&mut self) {
        match self.script.byte() % 16 {
            0 => self.request(),
            1 => {
                // A correct call.
                self.newest = self.newest.wrapping_add(2);
                let mut block = Vec::new();
                for (name, value) in [
                    (&b":method"[..], &b"POST"[..]),
                    (b":scheme", b"http"),
                    (b":path", self.script.choice(&PATHS)),
                    (b":authority", b"tokend"),
                    (b"content-type", b"application/grpc"),
                ] {
                    literal(&mut block, false, name, value);
                }
                frame(&mut self.out, HEADERS, END_HEADERS, self.newest, &block);
                let request = named(self.script.choice(&PROFILES));
                let mut payload = Vec::new();
                message(&mut payload, 0, &request);
                frame(&mut self.out, DATA, END_STREAM, self.newest, &payload);
            }
            2 => {
                let (stream, flags) = (self.stream(), self.script.byte());
                let block = self.script.text();
                self.block(stream, flags & !END_HEADERS, block);
            }
            3 => {
                let (stream, flags) = (self.stream(), self.script.byte() & END_STREAM);
                let mut payload = Vec::new();
                message(&mut payload, flags >> 1 & 1, self.script.text());
                frame(&mut self.out, DATA, flags, stream, &payload);
            }
            4 => {
                let (stream, flags) = (self.stream(), self.script.byte() & (END_STREAM | PADDED));
                frame(&mut self.out, DATA, flags, stream, self.script.long_text());
            }
            5 => {
                let (stream, code) = (self.stream(), self.number());
                frame(&mut self.out, RST_STREAM, 0, stream, &code.to_be_bytes());
            }
            6 => {
                let mut payload = Vec::new();
                for _ in 0..self.script.byte() % 8 {
                    payload.extend_from_slice(&[0, self.script.byte() % 10]);
                    payload.extend_from_slice(&self.number().to_be_bytes());
                }
                frame(&mut self.out, SETTINGS, 0, 0, &payload);
            }
            7 => frame(&mut self.out, SETTINGS, ACK, 0, b""),
            8 => {
                let flags = self.script.byte() & ACK;
                frame(&mut self.out, PING, flags, 0, b"--------");
            }
            9 => {
                let (stream, on) = (self.stream(), self.number());
                let payload = [&on.to_be_bytes()[..], &[self.script.byte()]].concat();
                frame(&mut self.out, PRIORITY, 0, stream, &payload);
            }
            10 => {
                let (last, code) = (self.number(), self.number());
                let (last, code) = (last.to_be_bytes(), code.to_be_bytes());
                let payload = [&last[..], &code, self.script.text()].concat();
                frame(&mut self.out, GOAWAY, 0, 0, &payload);
            }
            11 => {
                let (stream, by) = (self.stream(), self.number());
                frame(&mut self.out, WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
            }
            12 => {
                let stream = self.stream();
                frame(
                    &mut self.out,
                    PUSH_PROMISE,
                    END_HEADERS,
                    stream,
                    self.script.text(),
                );
            }
            13 => {
                let (kind, flags, stream) = (self.script.byte(), self.script.byte(), self.stream());
                frame(&mut self.out, kind, flags, stream, self.script.text());
            }
            14 => {
                let (length, kind) = (self.number(), self.script.byte());
                let (flags, stream) = (self.script.byte(), self.stream());
                head(&mut self.out, length & 0x00ff_ffff, kind, flags, stream);
            }
            _ => self.out.extend_from_slice(self.script.text()),
        }
    }
}

/// A request message whose first field is this name.
fn named(profile: &[u8]) -> Vec<u8> {
    let length = u8::try_from(profile.len()).expect("short");
    [&[0x0a, length], profile].concat()
}

fuzz_target!(|input: &[u8]| {
    let mut script = Script::new(input);
    let manner = Manner::of(&mut script);
    let bytes = if script.byte().is_multiple_of(2) {
        let mut connection = Connection {
            script,
            out: PREFACE.to_vec(),
            newest: u32::MAX,
        };
        frame(&mut connection.out, SETTINGS, 0, 0, b"");
        for _ in 0..MOST_STEPS {
            if !connection.script.is_over() {
                connection.step();
            }
        }
        connection.out
    } else {
        script.rest().to_vec()
    };
    let heard = DAEMON.hears(manner, &bytes);
    assert_not_forbidden(&heard, "what was heard");
    if heard.starts_with(b"HTTP/") {
        for answer in http1::answers(&heard) {
            answer.check();
        }
    } else {
        for stream in streams(&heard).values() {
            stream.check();
        }
    }
});
