//! A caller that asks for a credential at a steady pace, while other callers misbehave.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::PROFILE;
use super::frames::{
    self, DATA, END_HEADERS, END_STREAM, HEADERS, PING, SETTINGS, WINDOW_UPDATE, frame,
};
use crate::harness::PATIENCE;
use crate::harness::ask::{Who, connect};

/// The time from one call to the next.
const PACE: Duration = Duration::from_millis(1);

/// A connection that speaks gRPC by hand: no runtime and no other task stands between the clock and
/// the daemon.
pub struct Victim {
    stream: UnixStream,
    calls: u32,
    buffer: Vec<u8>,
}

impl Victim {
    pub fn new(socket: &Path, who: Option<&Who>) -> Victim {
        let mut stream = connect(socket, who).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        stream.write_all(&frames::opening()).expect("written");
        Victim {
            stream,
            calls: 0,
            buffer: Vec::new(),
        }
    }

    /// Makes calls at its pace for `length`. Returns how long each answer took.
    pub fn slice(&mut self, length: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut took = Vec::new();
        while start.elapsed() < length {
            let asked = Instant::now();
            self.ask();
            took.push(asked.elapsed());
            std::thread::sleep(PACE.saturating_sub(asked.elapsed()));
        }
        took
    }

    /// Makes one call, which must bring a credential.
    pub fn ask(&mut self) {
        let call = frames::call(frames::stream(self.calls), PROFILE);
        self.calls += 1;
        self.stream.write_all(&call).expect("it can write");
        self.answered(1);
    }

    /// Begins a call.
    pub fn begin(&mut self, part: &[u8]) {
        let stream = frames::stream(self.calls);
        self.calls += 1;
        let mut bytes = frame(HEADERS, END_HEADERS, stream, &frames::head());
        for part in part.chunks(16_384) {
            bytes.extend(frame(DATA, 0, stream, part));
        }
        self.stream.write_all(&bytes).expect("it can write");
    }

    /// Ends the call that was begun last.
    pub fn end(&mut self, rest: &[u8]) {
        let stream = frames::stream(self.calls - 1);
        let end = frame(DATA, END_STREAM, stream, rest);
        self.stream.write_all(&end).expect("it can write");
    }

    /// Makes a call with a pause between the halves of its message. Returns whether it is answered.
    pub fn asks_in_two_parts(&mut self) -> bool {
        let message = frames::message(PROFILE);
        let (half, rest) = message.split_at(6);
        self.begin(half);
        let ping = frame(PING, 0, 0, b"how far?");
        self.stream.write_all(&ping).expect("it can write");
        while self.frame().0 != PING {}
        self.end(rest);
        !self.refused()
    }

    /// Returns whether the answer to the call that was begun last has no message.
    pub fn refused(&mut self) -> bool {
        let mut messages = 0;
        loop {
            let (kind, flags) = self.frame();
            messages += u32::from(kind == DATA);
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                return messages == 0;
            }
        }
    }

    /// Makes `calls` at once. With each it sends what the most eager of clients send for a call.
    pub fn ask_at_once(&mut self, calls: u32) {
        let mut bytes = Vec::new();
        for stream in (self.calls..self.calls + calls).map(frames::stream) {
            bytes.extend(frames::call(stream, PROFILE));
            bytes.extend(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]));
            bytes.extend(frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]));
            bytes.extend(frame(PING, 0, 0, b"how far?"));
        }
        self.calls += calls;
        self.stream.write_all(&bytes).expect("it can write");
        self.answered(calls);
    }

    /// Reads the answers to `calls`, each of which must be a credential.
    fn answered(&mut self, calls: u32) {
        let (mut messages, mut ended) = (0, 0);
        while ended < calls {
            let (kind, flags) = self.frame();
            match kind {
                DATA | HEADERS => {
                    messages += u32::from(kind == DATA);
                    ended += u32::from(flags & END_STREAM != 0);
                }
                SETTINGS | WINDOW_UPDATE | PING => {}
                other => panic!("a frame of type {other}"),
            }
        }
        // A refusal has no message.
        assert_eq!(messages, calls, "refused");
    }

    /// Reads the next frame: its type and flags.
    fn frame(&mut self) -> (u8, u8) {
        while self
            .length()
            .is_none_or(|length| self.buffer.len() < length)
        {
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).expect("it can read");
            assert_ne!(read, 0, "it was cut off");
            self.buffer.extend(&chunk[..read]);
        }
        let length = self.length().expect("it is there");
        let frame: Vec<u8> = self.buffer.drain(..length).collect();
        (frame[3], frame[4])
    }

    /// The length of the first frame in the buffer, its head included.
    fn length(&self) -> Option<usize> {
        let head = self.buffer.get(..9)?;
        Some(9 + u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize)
    }
}
