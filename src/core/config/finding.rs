//! Shows findings to people in the way of a compiler.

use std::fmt;

use super::{Finding, Severity};

/// The longest part of a source line that is shown, in characters. A longer part would wrap, and
/// the caret would stand in the wrong place.
const SNIPPET_WIDTH: usize = 100;

impl Severity {
    /// The word in the JSON of `tokend check`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

impl Finding {
    /// `file:line:column: message`, for lists with room for one line only.
    #[must_use]
    pub fn one_line(&self) -> String {
        format!(
            "{}:{}:{}: {}",
            printable(&self.file.to_string_lossy()),
            self.line,
            self.column,
            self.message
        )
    }
}

/// Writes message, place, line with caret, and help, as a compiler does. The text ends without a
/// line break.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.severity.as_str(), self.message)?;
        let number = self.line.to_string();
        let gutter = " ".repeat(number.len());
        let file = self.file.to_string_lossy();
        let file = printable(&file);
        write!(f, "{gutter}--> {file}:{}:{}", self.line, self.column)?;
        if !self.path.is_empty() {
            // A line alone does not tell which profile's `token` it shows.
            write!(f, " ({})", printable(&self.path))?;
        }
        if let Some(snippet) = &self.snippet {
            let (line, column) = window(snippet, self.column as usize);
            // What is cut off at the end of the line is not underlined.
            let room = line.chars().count().saturating_sub(column - 1);
            let carets = "^".repeat((self.width as usize).min(room).max(1));
            let under: String = line
                .chars()
                .take(column - 1)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            write!(
                f,
                "\n{gutter} |\n{number} | {line}\n{gutter} | {under}{carets}"
            )?;
        }
        if !self.help.is_empty() {
            let bar = if self.snippet.is_some() { "|" } else { "" };
            write!(f, "\n{gutter} {bar}\n{gutter} = help: {}", self.help)?;
        }
        Ok(())
    }
}

/// Text from outside, without characters that could steer a terminal or break a line.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// The part of a long line around a column (from 1), and the column in that part.
fn window(line: &str, column: usize) -> (String, usize) {
    let chars: Vec<char> = line
        .chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    let column = column.clamp(1, chars.len() + 1);
    if chars.len() <= SNIPPET_WIDTH {
        return (chars.into_iter().collect(), column);
    }
    let start = (column - 1).saturating_sub(SNIPPET_WIDTH / 2);
    let start = start.min(chars.len() - SNIPPET_WIDTH);
    let end = start + SNIPPET_WIDTH;
    let mut shown = String::new();
    let mut column = column - start;
    if start > 0 {
        shown.push('…');
        column += 1;
    }
    shown.extend(&chars[start..end]);
    if end < chars.len() {
        shown.push('…');
    }
    (shown, column)
}

/// A part of a text from outside that fits into a message, without control characters.
pub(super) fn shorten(text: &str) -> String {
    let mut short: String = printable(text).chars().take(60).collect();
    if short.len() < text.len() && text.chars().count() > 60 {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::config::findings_json;
    use crate::core::profile::ProfileName;

    fn finding(snippet: &str, column: u32) -> Finding {
        Finding {
            severity: Severity::Error,
            path: "profiles.orders.methd".into(),
            file: "/etc/tokend/tokend.toml".into(),
            line: 12,
            column,
            width: 5,
            message: "unknown key `methd`".into(),
            help: "did you mean `method`?".into(),
            profile: ProfileName::parse("orders"),
            snippet: Some(snippet.into()),
        }
    }

    #[test]
    fn rendered_as_a_compiler_would() {
        assert_eq!(
            finding("\tmethd = \"none\"", 2).to_string(),
            "error: unknown key `methd`\n  --> /etc/tokend/tokend.toml:12:2 (profiles.orders.methd)\n   |\n12 | \tmethd = \"none\"\n   | \t^^^^^\n   |\n   = help: did you mean `method`?"
        );
    }

    #[test]
    fn without_a_line_and_without_help() {
        let mut bare = finding("", 1);
        bare.snippet = None;
        bare.help = String::new();
        bare.severity = Severity::Warning;
        assert_eq!(
            bare.to_string(),
            "warning: unknown key `methd`\n  --> /etc/tokend/tokend.toml:12:1 (profiles.orders.methd)"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_caret() {
        let line = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let shown = finding(&line, 501).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[3].chars().count() < 120, "{}", lines[3]);
        let caret = lines[4].chars().position(|c| c == '^').expect("caret");
        assert_eq!(lines[3].chars().nth(caret), Some('X'));
    }

    #[test]
    fn terminal_escapes_do_not_come_through() {
        assert!(
            !finding("a = \"\u{1b}[31m\"", 1)
                .to_string()
                .contains('\u{1b}')
        );
    }

    #[test]
    fn json_has_exactly_the_promised_keys() {
        let json = findings_json(&[finding("x", 1)]);
        assert_eq!(
            json,
            serde_json::json!({"findings": [{
                "severity": "error", "path": "profiles.orders.methd", "file": "/etc/tokend/tokend.toml",
                "line": 12, "column": 1, "message": "unknown key `methd`", "help": "did you mean `method`?",
            }]})
        );
    }
}
