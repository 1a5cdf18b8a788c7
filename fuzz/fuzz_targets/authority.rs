//! The `:authority` repair on any bytes at any cut. It never panics, a cut makes no difference, a
//! second repair changes nothing, and bytes that are not HTTP/2 pass unchanged.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tokend::socket::authority::scanner::Scanner;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Repairs the bytes of a connection. They arrive in parts of these sizes in turn; 0 counts as 1.
fn repaired(stream: &[u8], sizes: &[u8]) -> Vec<u8> {
    let (mut out, mut scanner, mut from) = (stream.to_vec(), Scanner::default(), 0);
    for size in sizes.iter().cycle().take(out.len()) {
        let to = out.len().min(from + usize::from(*size).max(1));
        scanner.repair(&mut out[from..to]);
        from = to;
    }
    // Without sizes, no part has been repaired yet.
    scanner.repair(&mut out[from..]);
    out
}

// The first byte decides whether the preface comes first. The next four bytes are the sizes of the
// parts.
fuzz_target!(|input: &[u8]| {
    let Some((&[how, ref sizes @ ..], rest)) = input.split_first_chunk::<5>() else {
        return;
    };
    let stream = if how % 2 == 0 {
        [PREFACE, rest].concat()
    } else {
        rest.to_vec()
    };

    let whole = repaired(&stream, &[]);
    assert_eq!(whole, repaired(&stream, sizes), "a cut makes a difference");
    assert_eq!(
        whole,
        repaired(&whole, sizes),
        "a second repair makes a difference"
    );
    if !stream.starts_with(PREFACE) {
        assert_eq!(whole, stream, "this is not HTTP/2");
    }
});
