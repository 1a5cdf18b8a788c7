//! Answers that are read byte by byte.

use super::*;

/// Gives its bytes one by one, so that every boundary between reads occurs.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(1);
        self.0.read(&mut buffer[..count])
    }
}

fn parse(text: &[u8]) -> Result<HttpResponse, HttpError> {
    let whole = receive(&mut &text[..]);
    let dripped = receive(&mut Drip(text));
    match (&whole, &dripped) {
        (Ok(a), Ok(b)) => assert_eq!(a.body, b.body),
        // A reader notices bytes after the end only if they arrived together with it.
        (Err(HttpError::Nonsense("it goes on after its end")), Ok(_)) => {}
        (a, b) => assert_eq!(a.as_ref().err(), b.as_ref().err()),
    }
    whole
}

fn body(text: &str) -> Vec<u8> {
    parse(text.as_bytes()).unwrap().body.to_vec()
}

fn problem(text: &str) -> &'static str {
    match parse(text.as_bytes()).expect_err("it was accepted") {
        HttpError::Nonsense(problem) => problem,
        other => panic!("{other:?}"),
    }
}

#[test]
fn reads_counted_and_chunked_bodies() {
    assert_eq!(
        body("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
        b"{}"
    );
    assert_eq!(
        body("HTTP/1.1 200\r\nContent-Length:2\r\nx: y\r\n\r\n{}"),
        b"{}"
    );
    assert_eq!(
        body(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n0A\r\n0123456789\r\n0\r\nt: v\r\n\r\n"
        ),
        b"abc0123456789"
    );
}

#[test]
fn reads_status_and_retry_after_and_skips_interim_answers() {
    let response = parse(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n",
    )
    .unwrap();
    assert_eq!(response.status, 503);
    assert_eq!(response.retry_after, Some(Duration::from_secs(7)));
    let dated =
        parse(b"HTTP/1.1 503 No\r\nRetry-After: Fri, 31 Dec\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(dated.retry_after, None);
}

#[test]
fn refuses_what_is_not_an_answer() {
    for (text, expected) in [
        ("SSH-2.0-OpenSSH\r\n\r\n", "it is not HTTP/1.1"),
        ("HTTP/2 200 OK\r\n\r\n", "it is not HTTP/1.1"),
        ("HTTP/1.1 2000 OK\r\n\r\n", "it is not HTTP/1.1"),
        ("HTTP/1.1 020 OK\r\n\r\n", "it is not HTTP/1.1"),
        ("HTTP/1.1 20x OK\r\n\r\n", "it is not HTTP/1.1"),
        ("HTTP/1.1 200 OK\n\n", "a line does not end as it must"),
        (
            "HTTP/1.1 200 OK\r\na: b\rc\r\n\r\n",
            "a line does not end as it must",
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\0\r\n\r\n",
            "a line does not end as it must",
        ),
        (
            "HTTP/1.1 200 OK\r\nnonsense\r\n\r\n",
            "a header field is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\na: b\r\n c: d\r\n\r\n",
            "a header field is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
            "a header field is malformed",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", "its length is not said"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n{}",
            "a header field is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}",
            "a header field is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "a header field is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 4194305\r\n\r\n",
            "it is longer than 4 MiB",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            "its length is said twice",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "its length is said twice",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "its transfer encoding is unknown",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n",
            "it is compressed, which was not asked for",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}x",
            "it goes on after its end",
        ),
    ] {
        assert_eq!(problem(text), expected, "{text:?}");
    }
}

#[test]
fn refuses_chunks_that_are_not_as_they_say() {
    for (text, expected) in [
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "a chunk size is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
            "a chunk size is malformed",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
            "a chunk is longer than it says",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\n",
            "it is longer than 4 MiB",
        ),
    ] {
        assert_eq!(problem(text), expected, "{text:?}");
    }
}

#[test]
fn heads_and_bodies_without_end_are_refused() {
    let long_line = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_LIMIT));
    assert_eq!(problem(&long_line), "its head is longer than 64 KiB");
    let many_fields = format!("HTTP/1.1 200 OK\r\n{}", "x: y\r\n".repeat(HEAD_LIMIT / 6));
    assert_eq!(problem(&many_fields), "its head is longer than 64 KiB");
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(HEAD_LIMIT / 20);
    assert_eq!(problem(&interim), "its head is longer than 64 KiB");

    let chunk = format!("100000\r\n{}\r\n", "x".repeat(0x10_0000));
    let chunked = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        chunk.repeat(5)
    );
    let result = receive(&mut chunked.as_bytes());
    assert_eq!(
        result.unwrap_err(),
        HttpError::Nonsense("it is longer than 4 MiB")
    );
}

#[test]
fn every_truncation_is_seen() {
    for whole in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ] {
        for length in 0..whole.len() {
            assert_eq!(
                parse(&whole.as_bytes()[..length]).unwrap_err(),
                HttpError::Closed
            );
        }
    }
}
