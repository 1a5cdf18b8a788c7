//! Tokens, each with the places where it must not appear.

/// The token of profiles that the caller may use. It may appear in credentials and nowhere else.
pub const SERVED: &str = "~served-4f1c9be27a-c05d1783";
/// The token of the profile that the caller may not use. It may appear nowhere.
pub const FORBIDDEN: &str = "~forbidden-83d60e517c-91ab";

/// The first byte of both tokens; little else begins with it.
const MARK: u8 = b'~';

/// Fails if the text contains the forbidden token, as it is or in base64.
pub fn assert_not_forbidden(text: &[u8], place: &str) {
    assert!(!contains(text, FORBIDDEN), "the forbidden token in {place}");
}

/// Fails if the text, an error or a header, contains either token.
pub fn assert_none(text: &[u8], place: &str) {
    assert_not_forbidden(text, place);
    assert!(!contains(text, SERVED), "the served token in {place}");
}

/// Whether the text contains the token. It compares digests, not text: libFuzzer learns the values
/// that the bytes of an input are compared with. It would send the token and then find it in the
/// answer.
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
