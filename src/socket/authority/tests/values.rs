//! Tests single values against the http crate.

use http::uri::Authority;
use proptest::prelude::*;

use super::super::value::AuthorityValue;
use super::coder::{huffman, unhuffman};

fn is_authority(value: &[u8]) -> bool {
    Authority::try_from(value).is_ok()
}

fn plain(value: &[u8]) -> Vec<u8> {
    let mut out = value.to_vec();
    AuthorityValue::new(false).repair(&mut out, true);
    out
}

fn coded(value: &[u8]) -> Vec<u8> {
    let mut out = huffman(value);
    AuthorityValue::new(true).repair(&mut out, true);
    unhuffman(&out)
}

/// All texts of 1 to `longest` bytes of an alphabet.
fn texts(alphabet: &[u8], longest: u32) -> impl Iterator<Item = Vec<u8>> {
    (1..=longest).flat_map(move |length| {
        (0..alphabet.len().pow(length)).map(move |mut n| {
            (0..length)
                .map(|_| {
                    let byte = alphabet[n % alphabet.len()];
                    n /= alphabet.len();
                    byte
                })
                .collect()
        })
    })
}

#[test]
fn plain_values_become_what_the_table_says() {
    for (value, becomes) in [
        // what clients on a network send
        ("localhost", "localhost"),
        ("localhost:50051", "localhost:50051"),
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("[::1]:80", "[::1]:80"),
        (
            "[FEDC:BA98:7654:3210:FEDC:BA98:7654:3210]:80",
            "[FEDC:BA98:7654:3210:FEDC:BA98:7654:3210]:80",
        ),
        ("[fe80::1%25eth0]:80", "[fe80::1%25eth0]:80"),
        ("user@host:80", "user@host:80"),
        // grpcio, grpc-java
        ("run%2Ftokend%2Ftokend.sock", "run-2Ftokend-2Ftokend.sock"),
        ("/run/tokend/tokend.sock", "-run-tokend-tokend.sock"),
        // C-core leaves these as they are
        ("tmp%2Fa:b@c[d]", "tmp-2Fa-b-c-d-"),
        ("tmp%2F[a", "tmp-2F-a"),
        // delimiters that come too often or at the wrong end
        ("a:b:c", "a:b-c"),
        ("a:b/c:d", "a:b-c-d"),
        ("::1", ":-1"),
        ("[::1", "[::]"),
        ("a:[:::::::]:80", "a:[:::::::]:80"),
        ("[:::::::::]:80", "[::::::::-]-80"),
        ("[a/b]:80", "[a-b]-80"),
        ("[", "-"),
        ("@", "-"),
        ("a@", "a-"),
        ("]", "-"),
        ("?#\\\u{7f} \t", "------"),
        ("é", "--"),
    ] {
        assert_eq!(
            String::from_utf8_lossy(&plain(value.as_bytes())),
            becomes,
            "{value}"
        );
    }
}

#[test]
fn every_short_plain_value_becomes_an_authority_and_a_legal_one_stays() {
    for value in texts(b"a:@[]%/", 6) {
        let repaired = plain(&value);
        assert_eq!(repaired.len(), value.len());
        let shown = value.escape_ascii();
        assert!(is_authority(&repaired), "{shown}");
        assert_eq!(plain(&repaired), repaired, "{shown}: a second repair");
        // The documented exception: parts that are legal only in user information.
        let colons = value.iter().take_while(|&&b| b != b'[');
        let exception = value.contains(&b'@') || colons.filter(|&&b| b == b':').count() > 1;
        if is_authority(&value) && !exception {
            assert_eq!(repaired, value, "{shown}");
        }
    }
}

#[test]
fn every_single_byte_is_judged_as_the_http_crate_does() {
    for byte in 0..=u8::MAX {
        let value = [b'a', byte, b'b'];
        let kept = plain(&value) == value;
        assert_eq!(kept, is_authority(&value), "{}", byte.escape_ascii());
    }
}

#[test]
fn huffman_values_become_what_the_table_says() {
    for (value, becomes) in [
        ("localhost", "localhost"),
        ("localhost:50051", "localhost:50051"),
        ("[::1]:80", "[::1]:80"),
        ("user@host", "user@host"),
        ("!'()*+,;=~$&", "!'()*+,;=~$&"),
        ("/run/tokend/tokend.sock", "3run3tokend3tokend.sock"),
        ("run%2Ftokend.sock", "run.2Ftokend.sock"),
        ("a b\"c\0d", "a-b!c$d"),
        ("/a:b@c[d]", "3aBb$c$d~"),
        ("a:80/b:c", "a:803bBc"),
        // known limits
        ("a?b#c|d/e", "a?b#c|d3e"),
        ("^a/b", "^a/b"),
    ] {
        assert_eq!(
            String::from_utf8_lossy(&coded(value.as_bytes())),
            becomes,
            "{value}"
        );
    }
}

#[test]
fn every_short_huffman_path_becomes_an_authority_and_a_legal_value_stays() {
    for value in texts(b"a~:@[]%/ \"\0", 4) {
        let path = [b"/", value.as_slice()].concat();
        let (repaired, shown) = (coded(&path), path.escape_ascii());
        assert_eq!(repaired.len(), path.len(), "{shown}");
        assert!(is_authority(&repaired), "{shown}");
        // Percent-encoding is legal in user information and zones, and the test does not look for
        // it there.
        if is_authority(&value) && !value.contains(&b'%') {
            assert_eq!(coded(&value), value);
        }
    }
}

proptest! {
    #[test]
    fn every_plain_value_becomes_an_authority(
        value in prop::collection::vec(any::<u8>(), 1..80)
    ) {
        let repaired = plain(&value);
        prop_assert_eq!(repaired.len(), value.len());
        prop_assert!(is_authority(&repaired), "{}", repaired.escape_ascii());
    }

    #[test]
    fn a_value_does_not_depend_on_its_cuts(
        value in prop::collection::vec(any::<u8>(), 1..40), cut in any::<prop::sample::Index>(), huffman: bool
    ) {
        let (mut whole, mut parts) = (value.clone(), value);
        AuthorityValue::new(huffman).repair(&mut whole, true);
        let (front, back) = parts.split_at_mut(cut.index(whole.len()));
        let mut repair = AuthorityValue::new(huffman);
        repair.repair(front, false);
        repair.repair(back, true);
        prop_assert_eq!(whole, parts);
    }
}
