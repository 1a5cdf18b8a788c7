//! Tokens that must not be where they do not belong.

/// Of profiles that the caller may use: in credentials, and nowhere else.
pub const SERVED: &str = "~served-4f1c9be27a-c05d1783";
/// Of the profile that the caller may not use: nowhere.
pub const FORBIDDEN: &str = "~forbidden-83d60e517c-91ab";

/// What both begin with, and little else does.
const MARK: u8 = b'~';

/// Fails when the forbidden token is in there, as it is or in base64.
pub fn assert_not_forbidden(text: &[u8], place: &str) {
    assert!(!contains(text, FORBIDDEN), "the forbidden token in {place}");
}

/// Fails when either is in there: an error, a header.
pub fn assert_none(text: &[u8], place: &str) {
    assert_not_forbidden(text, place);
    assert!(!contains(text, SERVED), "the served token in {place}");
}

/// Whether the token is in there. Digests are compared, and not text: libFuzzer learns what its
/// inputs' bytes are compared with, and would send the token to find it in the answer.
fn contains(text: &[u8], token: &str) -> bool {
    let wanted = digest(token.as_bytes());
    text.windows(token.len())
        .any(|window| window[0] == MARK && digest(window) == wanted)
}

/// FNV-1a.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
