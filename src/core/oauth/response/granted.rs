//! The scopes that an answer grants (RFC 6749 §3.3). They go into the audit record and to every
//! caller, so they are bounded, and checked against what is secret.

use crate::core::oauth::withhold::repeats;
use crate::core::secret::Secret;

/// The most scopes that are passed on. Real clients have a few dozen; the audit record of each
/// grant repeats them all.
const MOST: usize = 256;

/// The longest scope, in bytes. The longest real ones are URLs.
const LONGEST: usize = 256;

/// The longest sum of all scopes, in bytes.
const LONGEST_TOGETHER: usize = 8 * 1024;

/// The scopes of an answer that can be passed on, and the number of those that cannot. A scope that
/// was asked for is the daemon's own word and no echo.
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
    // Several scopes together may be a secret that is cut to pieces.
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
