//! The scopes that an answer grants (RFC 6749 §3.3). They go into the audit record and to every
//! caller, so they are held against what is secret and bounded.

use crate::core::oauth::withhold::repeats;
use crate::core::secret::Secret;

/// Scopes that are passed on. Real clients have a few dozen; each grant's audit record repeats them
/// all.
const MOST: usize = 256;

/// Longest scope, in bytes. They are URLs at the longest.
const LONGEST: usize = 256;

/// All of them together, in bytes.
const LONGEST_TOGETHER: usize = 8 * 1024;

/// The scopes of an answer that can be passed on, and how many cannot. What was asked for is our
/// own word and no echo.
pub(super) fn scopes(text: &str, asked: &[String], secrets: &[&Secret]) -> (Vec<String>, usize) {
    let ours = |scope: &str| asked.iter().any(|known| known == scope);
    let stated = text.split(' ').filter(|scope| !scope.is_empty());
    let count = stated.clone().count();
    let mut room = LONGEST_TOGETHER;
    let mut shown: Vec<&str> = stated
        .filter(|scope| is_token(scope) && (ours(scope) || !repeats(scope, secrets)))
        .filter(|scope| {
            let fits = scope.len() <= LONGEST.min(room);
            room -= if fits { scope.len() } else { 0 };
            fits
        })
        .take(MOST)
        .collect();
    // A secret that is cut to pieces.
    let foreign: Vec<&str> = shown.iter().copied().filter(|scope| !ours(scope)).collect();
    if repeats(&foreign.concat(), secrets) || repeats(&foreign.join(" "), secrets) {
        shown.retain(|scope| ours(scope));
    }
    let withheld = count - shown.len();
    (shown.into_iter().map(String::from).collect(), withheld)
}

fn is_token(scope: &str) -> bool {
    scope
        .bytes()
        .all(|byte| (0x21..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\')
}
