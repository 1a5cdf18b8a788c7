//! Makes text from elsewhere harmless for a terminal.

use std::borrow::Cow;
use std::fmt::Write;

/// Characters that move the cursor, change colours, hide text or turn its direction: control
/// characters, line and paragraph separators, and the marks of the bidirectional algorithm.
#[must_use]
pub fn unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// The text with these characters escaped, as `\n` or `\u{1b}`. The result is always one line.
#[must_use]
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(unprintable) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if unprintable(c) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_terminal_would_obey_is_written_out() {
        assert_eq!(escaped("plain é 漢"), "plain é 漢");
        assert_eq!(
            escaped("a\x1b[2Jb\r\nc\u{9b}d\u{202e}e\u{2028}\u{7f}\u{feff}"),
            "a\\u{1b}[2Jb\\r\\nc\\u{9b}d\\u{202e}e\\u{2028}\\u{7f}\\u{feff}"
        );
    }
}
