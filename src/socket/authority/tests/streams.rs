//! Tests whole connections: every way to send `:authority`, and what must stay as it is.

use proptest::sample::Index;

use super::super::scanner::Scanner;
use super::coder::{PREFACE, frame, huffman, put_integer, put_literal, put_string, request};
use crate::socket::allowance::Tally;

const BAD: &[u8] = b"run%2Ftokend.sock";

/// A connection after its repair, arriving in the given parts.
pub fn repaired(stream: &[u8], cuts: &[Index]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut out, mut scanner, mut from) = (stream.to_vec(), Scanner::default(), 0);
    for to in cuts.into_iter().chain([stream.len()]) {
        scanner.repair(&mut out[from..to]);
        from = to;
    }
    out
}

/// The frames counted on the way, summed up over the parts.
pub fn tallied(stream: &[u8], cuts: &[Index]) -> Tally {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    let (mut scanner, mut from, mut sum) = (Scanner::default(), 0, Tally::default());
    for to in cuts.into_iter().chain([stream.len()]) {
        scanner.repair(&mut stream[from..to].to_vec());
        let tally = scanner.take_tally();
        sum.calls += tally.calls;
        sum.others += tally.others;
        from = to;
    }
    sum
}

/// The same, byte by byte.
pub fn repaired_slowly(stream: &[u8]) -> Vec<u8> {
    let mut scanner = Scanner::default();
    let mut out = stream.to_vec();
    out.chunks_mut(1).for_each(|byte| scanner.repair(byte));
    out
}

#[test]
fn every_literal_form_of_the_name_is_recognised() {
    let names: [Result<usize, (&[u8], bool)>; 3] = [
        Ok(1),
        Err((b":authority", false)),
        Err((b":authority", true)),
    ];
    for form in [0x40, 0x00, 0x10] {
        for name in names {
            for (coded, becomes) in [
                (false, b"run-2Ftokend.sock".as_slice()),
                (true, b"run.2Ftokend.sock"),
            ] {
                let mut block = vec![0x82, 0x3f, 0xe1, 0x1f];
                put_literal(&mut block, form, name, (BAD, coded));
                put_literal(&mut block, 0x40, Ok(4), (b"/a%2Fb/c", coded));
                let mut wanted = vec![0x82, 0x3f, 0xe1, 0x1f];
                put_literal(&mut wanted, form, name, (becomes, coded));
                put_literal(&mut wanted, 0x40, Ok(4), (b"/a%2Fb/c", coded));
                let stream = request(&block);
                assert_eq!(
                    repaired(&stream, &[]),
                    request(&wanted),
                    "{form} {name:?} {coded}"
                );
                assert_eq!(repaired_slowly(&stream), request(&wanted));
            }
        }
    }
}

#[test]
fn a_name_that_only_looks_like_it_is_left_alone() {
    for name in [
        b":authoritx".as_slice(),
        b"xauthority",
        b":authorit",
        b":authority2",
        b"",
    ] {
        for coded in [false, true] {
            let mut block = Vec::new();
            put_literal(&mut block, 0x40, Err((name, coded)), (BAD, false));
            // Another field's index, and the first of the dynamic table.
            put_literal(&mut block, 0x40, Ok(2), (BAD, false));
            put_literal(&mut block, 0x40, Ok(62), (BAD, true));
            // Indexes whose lower bits would be those of `:authority` if a prefix were one bit
            // shorter or longer.
            put_literal(&mut block, 0x40, Ok(33), (BAD, false));
            put_literal(&mut block, 0x10, Ok(9), (BAD, false));
            put_literal(&mut block, 0x00, Ok(16), (BAD, false));
            assert_eq!(repaired(&request(&block), &[]), request(&block));
        }
    }
    // The plain letters as a Huffman string, and the other way round.
    for (pattern, name) in [
        (0x80, b":authority".to_vec()),
        (0x00, huffman(b":authority")),
    ] {
        let mut block = vec![0x40];
        put_integer(&mut block, pattern, 7, name.len());
        block.extend(name);
        put_string(&mut block, BAD, false);
        assert_eq!(repaired(&request(&block), &[]), request(&block));
    }
}

#[test]
fn an_empty_value_and_what_follows_it_are_walked() {
    let mut block = Vec::new();
    put_literal(&mut block, 0x40, Ok(1), (b"", false));
    put_literal(&mut block, 0x40, Ok(1), (BAD, false));
    let out = repaired(&request(&block), &[]);
    assert!(out.ends_with(b"run-2Ftokend.sock"));
}

#[test]
fn a_later_request_on_the_connection_is_repaired_too() {
    let mut first = Vec::new();
    put_literal(&mut first, 0x00, Ok(1), (BAD, false));
    // A frame of an unknown kind, with a header block as its payload, between an empty block and a
    // CONTINUATION.
    let stream = [
        request(&first),
        frame(0xfa, 0xff, 0, &first),
        frame(1, 0x01, 3, b""),
        frame(9, 0x00, 3, &first[..4]),
        frame(9, 0x04, 0x8000_0003, &first[4..]),
    ]
    .concat();
    let out = repaired(&stream, &[]);
    let mut wanted = Vec::new();
    put_literal(&mut wanted, 0x00, Ok(1), (b"run-2Ftokend.sock", false));
    let wanted = [
        request(&wanted),
        frame(0xfa, 0xff, 0, &first),
        frame(1, 0x01, 3, b""),
        frame(9, 0x00, 3, &wanted[..4]),
        frame(9, 0x04, 0x8000_0003, &wanted[4..]),
    ]
    .concat();
    assert_eq!(
        out.escape_ascii().to_string(),
        wanted.escape_ascii().to_string()
    );
    assert_eq!(repaired_slowly(&stream), out);
}

#[test]
fn anything_malformed_switches_it_off_for_good() {
    let mut block = Vec::new();
    put_literal(&mut block, 0x40, Ok(1), (BAD, false));
    let request = frame(1, 0x05, 7, &block);
    for (why, head) in [
        (
            "HTTP/1.1",
            b"POST / HTTP/1.1\r\nhost: a%2Fb\r\n\r\n".to_vec(),
        ),
        (
            "a preface with another end",
            b"PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n".to_vec(),
        ),
        (
            "CONTINUATION out of nowhere",
            [PREFACE, &frame(9, 0x04, 1, b"")].concat(),
        ),
        (
            "CONTINUATION of another stream",
            [PREFACE, &frame(1, 0, 1, &block), &frame(9, 0x04, 3, b"")].concat(),
        ),
        (
            "a frame inside a header block",
            [PREFACE, &frame(1, 0, 1, b""), &frame(6, 0, 0, &[0; 8])].concat(),
        ),
        (
            "HEADERS inside a header block",
            [PREFACE, &frame(1, 0, 1, b"")].concat(),
        ),
        (
            "a block that ends in a value",
            [PREFACE, &frame(1, 0x04, 1, &[0x40, 1, b'a', 9, b'b'])].concat(),
        ),
        (
            "a block that ends in an integer",
            [PREFACE, &frame(1, 0x04, 1, &[0xff])].concat(),
        ),
        (
            "more padding than frame",
            [PREFACE, &frame(1, 0x0c, 1, &[3, 0, 0])].concat(),
        ),
        (
            "priority fields cut short",
            [PREFACE, &frame(1, 0x24, 1, &[0; 4])].concat(),
        ),
        ("index 0", [PREFACE, &frame(1, 0x04, 1, &[0x80])].concat()),
        (
            "an integer of five continuation bytes",
            [
                PREFACE,
                &frame(1, 0x04, 1, &[0xff, 0x80, 0x80, 0x80, 0x80, 0x00]),
            ]
            .concat(),
        ),
    ] {
        let untouched = repaired(&head, &[]);
        let stream = [head, request.clone()].concat();
        let out = repaired(&stream, &[]);
        assert_eq!(out[untouched.len()..], request, "{why}");
        assert_eq!(repaired_slowly(&stream), out, "{why}");
    }
}

#[test]
fn the_longest_integer_that_h2_reads_is_read() {
    // Four continuation bytes, of which the last is not needed.
    let mut block = vec![0xff, 0x80, 0x80, 0x80, 0x00];
    put_literal(&mut block, 0x40, Ok(1), (BAD, false));
    assert!(repaired(&request(&block), &[]).ends_with(b"run-2Ftokend.sock"));
}

/// Broken by `heard_of` that is always None, and by taking any answered PING for a [`FAREWELL`].
#[test]
fn who_begins_a_stream_after_the_last_may_open_its_window() {
    const FAREWELL: [u8; 8] = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
    let update = |stream: u32| frame(8, 0, stream, &5_u32.to_be_bytes());
    let headers = |stream: u32| frame(1, 5, stream, &[0x82]);
    let pong = |payload: &[u8]| frame(6, 1, 0, payload);
    let mut alive = FAREWELL;
    alive[7] ^= 1;
    let before = [
        PREFACE,
        &headers(1),
        &headers(635),
        &update(637),
        &pong(&alive),
        &update(637),
    ]
    .concat();
    let closing = [&pong(&FAREWELL)[..], &headers(637), &headers(769)].concat();
    // A neighbour of 635 stands for 637; 769 has none.
    let after = [update(0), update(1), update(635), update(637), update(769)].concat();
    let instead = [update(0), update(1), update(635), update(635), update(769)].concat();
    let stream = [&before[..], &closing, &after].concat();
    let expected = [&before[..], &closing, &instead].concat();
    assert_eq!(repaired(&stream, &[]), expected);
    assert_eq!(repaired_slowly(&stream), expected);
    // Only the answer to h2's own PING counts.
    let asked = [
        &before[..],
        &frame(6, 0, 0, &FAREWELL),
        &headers(637),
        &after,
    ]
    .concat();
    assert_eq!(repaired(&asked, &[]), asked);
}
