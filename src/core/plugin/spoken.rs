//! What a plugin says to people: bounded, cleaned, and without what is or looks secret.

use crate::core::oauth::withhold::repeats;
use crate::core::secret::Secret;

/// The most characters of a text that are shown.
const LONGEST: usize = 300;

/// A word with this many characters in a row that keys and tokens are made of is left out if it
/// mixes letters of both cases and digits.
const KEY_LIKE: usize = 20;

/// Shorter secrets are words that honest texts have in them by chance.
const SHORTEST_SECRET: usize = 4;

/// The values among these that are long enough to be looked for.
pub fn telling(values: impl IntoIterator<Item = String>) -> Vec<Secret> {
    let long = values
        .into_iter()
        .filter(|value| value.len() >= SHORTEST_SECRET);
    long.map(Secret::new).collect()
}

/// The text in one line. None: it repeats a secret, or nothing is left of it.
#[must_use]
pub fn shown(text: &str, secrets: &[&Secret]) -> Option<String> {
    let plain: String = text
        .chars()
        .map(|c| if is_plain(c) { c } else { ' ' })
        .collect();
    let words: Vec<&str> = plain.split_whitespace().collect();
    let whole = words.join(" ");
    // A secret may be cut to pieces by line breaks or spaces.
    if whole.is_empty() || repeats(&whole, secrets) || repeats(&words.concat(), secrets) {
        return None;
    }
    let kept: Vec<&str> = words
        .into_iter()
        .map(|word| if is_key_like(word) { "…" } else { word })
        .collect();
    let kept = kept.join(" ");
    Some(match kept.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &kept[..end]),
        None => kept,
    })
}

/// Neither control nor format characters: the latter could turn a line of the log around.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn is_key_like(word: &str) -> bool {
    word.split(|c: char| !(c.is_ascii_alphanumeric() || "+/_-=".contains(c)))
        .any(|run| {
            let has = |kind: fn(&u8) -> bool| run.bytes().any(|byte| kind(&byte));
            run.len() >= KEY_LIKE
                && has(u8::is_ascii_digit)
                && has(u8::is_ascii_lowercase)
                && has(u8::is_ascii_uppercase)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_one_clean_line_without_secrets() {
        let secret = Secret::new("correct-horse-battery".into());
        let say = |text: &str| shown(text, &[&secret]);
        assert_eq!(
            say("log in\n\tfirst\x1b[31m"),
            Some("log in first [31m".into())
        );
        assert_eq!(say("a\u{202e}b"), Some("a b".into()));
        for text in [
            "",
            " \n",
            "got correct-horse-battery",
            "got CORRECT-HORSE",
            "correct-ho\nrse-b",
        ] {
            assert_eq!(say(text), None, "{text:?}");
        }
        let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl";
        assert_eq!(say(&format!("got {token} now")), Some("got … now".into()));
        let path = "/usr/lib/python3/dist-packages/corporate/login.py: line 7";
        assert_eq!(say(path), Some(path.into()));
        assert_eq!(
            say(&"é ".repeat(5000)).expect("some").chars().count(),
            LONGEST + 1
        );
    }
}
