//! HTTP/1.1 by hand: no more of it than one request without a body needs, and no more leniency than
//! that (RFC 9112).
//!
//! Everything is bounded: 64 KiB of head, 4 MiB of body. The body must have a length, from
//! Content-Length or chunks. Otherwise a complete body could not be told from one that was cut off.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use zeroize::Zeroizing;

use super::Deadline;

/// Limit for status line, header fields, chunk sizes and trailers together, in bytes. The daemon
/// needs a few hundred.
const HEAD_LIMIT: usize = 64 * 1024;
/// Limit for the body, in bytes. The status of ten thousand profiles fits.
const BODY_LIMIT: usize = 4 * 1024 * 1024;
/// Size of one read, in bytes. It usually takes a whole answer with its token.
const READ_SIZE: usize = 8 * 1024;

/// The body of an answer. It is wiped when dropped, since it may hold a credential.
pub(super) type ResponseBody = Zeroizing<Vec<u8>>;

/// A complete answer.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub status: u16,
    /// Whole seconds from the header (RFC 9110 §10.2.3). A date is ignored.
    pub retry_after: Option<Duration>,
    pub body: ResponseBody,
}

/// The reason why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HttpError {
    TimedOut,
    /// Not one byte of an answer came in time.
    Silent,
    /// The other side closed the connection before the end.
    Closed,
    /// What is wrong with the answer, without any part of it.
    Nonsense(&'static str),
}

/// Sends a request and reads the answer. `method` is GET or POST.
pub(super) fn exchange(
    stream: &UnixStream,
    method: &str,
    target: &str,
    deadline: &Deadline<'_>,
) -> Result<HttpResponse, HttpError> {
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\nAccept: application/json\r\n\
         {}User-Agent: tokend/{}\r\n\r\n",
        // A request whose method expects a body must say that it has none (RFC 9110 §8.6).
        if method == "GET" {
            ""
        } else {
            "Content-Length: 0\r\n"
        },
        env!("CARGO_PKG_VERSION")
    );
    let mut timed = Timed {
        stream,
        deadline,
        heard: false,
    };
    answered(&mut timed, &request).map_err(|broken| match broken {
        HttpError::TimedOut if !timed.heard => HttpError::Silent,
        other => other,
    })
}

fn answered(timed: &mut Timed<'_>, request: &str) -> Result<HttpResponse, HttpError> {
    match timed.write_all(request.as_bytes()) {
        // The other side may have answered before it read everything, so the answer is read in any
        // case.
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
        Err(error) => return Err(broken(&error)),
    }
    receive(timed)
}

/// A stream whose steps are bounded by the time left until the deadline.
struct Timed<'a> {
    stream: &'a UnixStream,
    deadline: &'a Deadline<'a>,
    /// True once a part of the answer has come.
    heard: bool,
}

impl Timed<'_> {
    /// Repeats a step that gave up before the deadline, since no step waits for more than an hour.
    fn step<T>(&self, mut step: impl FnMut(Duration) -> io::Result<T>) -> io::Result<T> {
        loop {
            let left = self.deadline.left().ok_or(io::ErrorKind::TimedOut)?;
            match step(left) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        let count = self.step(|left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(buffer)
        })?;
        self.heard |= count > 0;
        Ok(count)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stream = self.stream;
        // Connecting has set a send timeout already, so only a second step needs a new one.
        self.step(|_| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(error: &io::Error) -> HttpError {
    match error.kind() {
        io::ErrorKind::TimedOut => HttpError::TimedOut,
        _ => HttpError::Closed,
    }
}

/// Reads one answer, and skips interim ones (RFC 9110 §15.2).
fn receive(source: &mut dyn Read) -> Result<HttpResponse, HttpError> {
    let mut reader = ResponseReader::new(source);
    loop {
        let status = status(&reader.line()?)?;
        let fields = Fields::read(&mut reader)?;
        if (100..200).contains(&status) {
            continue;
        }
        let body = match (fields.chunked, fields.length) {
            (true, None) => reader.chunks()?,
            (false, Some(length)) => reader.counted(length)?,
            (true, Some(_)) => return Err(HttpError::Nonsense("its length is said twice")),
            (false, None) => return Err(HttpError::Nonsense("its length is not said")),
        };
        if reader.start != reader.end {
            return Err(HttpError::Nonsense("it goes on after its end"));
        }
        return Ok(HttpResponse {
            status,
            retry_after: fields.retry_after,
            body,
        });
    }
}

/// Parses a status line such as `HTTP/1.1 200 OK` (RFC 9112 §4).
fn status(line: &[u8]) -> Result<u16, HttpError> {
    const BAD: HttpError = HttpError::Nonsense("it is not HTTP/1.1");
    let rest = line.strip_prefix(b"HTTP/1.1 ").ok_or(BAD)?;
    match rest {
        [hundreds @ b'1'..=b'5', tens, ones, after @ ..]
            if tens.is_ascii_digit()
                && ones.is_ascii_digit()
                && matches!(after, [] | [b' ', ..]) =>
        {
            let digit = |byte: &u8| u16::from(byte - b'0');
            Ok(digit(hundreds) * 100 + digit(tens) * 10 + digit(ones))
        }
        _ => Err(BAD),
    }
}

/// The header fields that matter here.
#[derive(Default)]
struct Fields {
    length: Option<usize>,
    chunked: bool,
    retry_after: Option<Duration>,
}

impl Fields {
    fn read(reader: &mut ResponseReader<'_>) -> Result<Fields, HttpError> {
        let mut fields = Fields::default();
        loop {
            let line = reader.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            fields.take(&line)?;
        }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), HttpError> {
        const BAD: HttpError = HttpError::Nonsense("a header field is malformed");
        let colon = line.iter().position(|&byte| byte == b':').ok_or(BAD)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        // Neither folded lines nor a space before the colon are allowed (RFC 9112 §5).
        if name.is_empty() || !name.iter().all(u8::is_ascii_graphic) {
            return Err(BAD);
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = usize::try_from(decimal(value).ok_or(BAD)?).map_err(|_| BAD)?;
            if length > BODY_LIMIT {
                return Err(HttpError::Nonsense("it is longer than 4 MiB"));
            }
            if self
                .length
                .replace(length)
                .is_some_and(|before| before != length)
            {
                return Err(HttpError::Nonsense("its length is said twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HttpError::Nonsense("its transfer encoding is unknown"));
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-encoding") {
            return Err(HttpError::Nonsense(
                "it is compressed, which was not asked for",
            ));
        } else if name.eq_ignore_ascii_case(b"retry-after") {
            self.retry_after = decimal(value).map(Duration::from_secs);
        }
        Ok(())
    }
}

/// Parses at most ten digits, with no sign, no space and no overflow.
fn decimal(text: &[u8]) -> Option<u64> {
    if !(1..=10).contains(&text.len()) || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads lines and counted bytes from the stream.
struct ResponseReader<'a> {
    source: &'a mut dyn Read,
    buffer: Zeroizing<[u8; READ_SIZE]>,
    start: usize,
    end: usize,
    /// The rest of HEAD_LIMIT.
    head_left: usize,
}

impl<'a> ResponseReader<'a> {
    fn new(source: &'a mut dyn Read) -> ResponseReader<'a> {
        ResponseReader {
            source,
            buffer: Zeroizing::new([0; READ_SIZE]),
            start: 0,
            end: 0,
            head_left: HEAD_LIMIT,
        }
    }

    /// Returns the bytes that have arrived and were not taken yet: at least one.
    fn arrived(&mut self) -> Result<&[u8], HttpError> {
        while self.start == self.end {
            match self.source.read(&mut self.buffer[..]) {
                Ok(0) => return Err(HttpError::Closed),
                Ok(count) => (self.start, self.end) = (0, count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(broken(&error)),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Reads a line and drops its CRLF. Nothing else ends a line, and a line may not contain
    /// another control character that could.
    fn line(&mut self) -> Result<Vec<u8>, HttpError> {
        let mut line = Vec::new();
        loop {
            let arrived = self.arrived()?;
            let (count, ended) = match arrived.iter().position(|&byte| byte == b'\n') {
                Some(at) => (at + 1, true),
                None => (arrived.len(), false),
            };
            line.extend_from_slice(&arrived[..count]);
            self.start += count;
            self.head_left = self
                .head_left
                .checked_sub(count)
                .ok_or(HttpError::Nonsense("its head is longer than 64 KiB"))?;
            if !ended {
                continue;
            }
            line.pop();
            return match line.pop() {
                Some(b'\r') if !line.iter().any(|byte| matches!(byte, b'\r' | 0)) => Ok(line),
                _ => Err(HttpError::Nonsense("a line does not end as it must")),
            };
        }
    }

    fn counted(&mut self, length: usize) -> Result<ResponseBody, HttpError> {
        let mut body = Zeroizing::new(Vec::with_capacity(length));
        self.append(&mut body, length)?;
        Ok(body)
    }

    /// Reads a chunked body (RFC 9112 §7.1), and skips extensions and trailers.
    fn chunks(&mut self) -> Result<ResponseBody, HttpError> {
        let mut body = Zeroizing::new(Vec::new());
        loop {
            let line = self.line()?;
            let size = line.split(|&byte| byte == b';').next().unwrap_or_default();
            let size = chunk_size(size.trim_ascii_end())
                .ok_or(HttpError::Nonsense("a chunk size is malformed"))?;
            if size == 0 {
                while !self.line()?.is_empty() {}
                return Ok(body);
            }
            if size > BODY_LIMIT - body.len() {
                return Err(HttpError::Nonsense("it is longer than 4 MiB"));
            }
            reserve_wiping(&mut body, size);
            self.append(&mut body, size)?;
            if !self.line()?.is_empty() {
                return Err(HttpError::Nonsense("a chunk is longer than it says"));
            }
        }
    }

    /// Appends bytes to `body`, which has room for them already: growing would leave copies behind.
    fn append(&mut self, body: &mut ResponseBody, mut length: usize) -> Result<(), HttpError> {
        while length > 0 {
            let arrived = self.arrived()?;
            let count = arrived.len().min(length);
            body.extend_from_slice(&arrived[..count]);
            self.start += count;
            length -= count;
        }
        Ok(())
    }
}

/// Parses at most eight hexadecimal digits.
fn chunk_size(text: &[u8]) -> Option<usize> {
    if !(1..=8).contains(&text.len()) || !text.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    usize::from_str_radix(std::str::from_utf8(text).ok()?, 16).ok()
}

/// Makes room for `more` bytes, and wipes the old place before it is freed.
fn reserve_wiping(body: &mut ResponseBody, more: usize) {
    let needed = body.len() + more;
    if body.capacity() < needed {
        let mut bigger = Zeroizing::new(Vec::with_capacity(needed.max(body.len() * 2)));
        bigger.extend_from_slice(body);
        *body = bigger;
    }
}

#[cfg(test)]
mod tests;
