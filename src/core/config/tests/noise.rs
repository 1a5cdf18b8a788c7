//! Whatever the files contain, loading gives an outcome.

use proptest::prelude::*;

use super::*;
use crate::core::config::findings_json;

const EXAMPLE: &str = include_str!("../../../../docs/tokend.example.toml");

/// Loads a text as each kind of file, renders everything, and checks what holds for any outcome.
fn survive(text: &str) {
    for outcome in [one(text), many("", &[("profiles.d/a.toml", text)])] {
        for finding in &outcome.findings {
            assert!(finding.line >= 1 && finding.column >= 1);
            assert!(!finding.message.is_empty());
            assert!(!finding.to_string().contains('\u{1b}'));
            assert!(!finding.one_line().contains('\n'), "{finding:?}");
        }
        let _ = findings_json(&outcome.findings);
        match &outcome.config {
            None => assert!(!errors(&outcome).is_empty()),
            Some(config) => {
                for invalid in config.profiles.values().filter_map(|p| p.as_ref().err()) {
                    assert!(!errors(&outcome).is_empty(), "{invalid:?}");
                    assert!(!invalid.message.is_empty());
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text(text in any::<String>()) {
        survive(&text);
    }

    #[test]
    fn text_that_looks_like_toml(text in "([\\[\\]{}=\"'#.,\n \t\r\\\\]|[a-c0-9]|profiles|idp|server|method|tls|access|\u{e4}|\u{1b}){0,60}") {
        survive(&text);
    }

    #[test]
    fn the_example_with_pieces_cut_out_and_put_in(
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..40, "[\\[\\]{}=\"'\n a5.\u{e4}]{0,4}"), 1..5)
    ) {
        let mut chars: Vec<char> = EXAMPLE.chars().collect();
        for (at, length, piece) in cuts {
            let start = at.index(chars.len());
            let end = (start + length).min(chars.len());
            chars.splice(start..end, piece.chars());
        }
        survive(&chars.into_iter().collect::<String>());
    }

    #[test]
    fn the_example_with_lines_swapped(swaps in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..6)) {
        let mut lines: Vec<&str> = EXAMPLE.lines().collect();
        for (one, other) in swaps {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
        }
        survive(&lines.join("\n"));
    }

    #[test]
    fn literal_secrets_in_a_damaged_file_are_never_shown(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..4, "[\\[\\]{}=\"'\n,.]{0,3}"), 1..6),
        private in any::<bool>(),
    ) {
        let mut text = EXAMPLE.to_owned();
        for reference in [
            "{ file = \"/etc/tokend/secrets/orders\" }", "{ credential = \"billing-key-password\" }",
            "{ file = \"client.jks.password\" }", "{ file = \"reports.password\" }", "{ file = \"trust.password\" }",
            "{ file = \"mail.key.password\" }", "{ file = \"legacy.password\" }", "{ env = \"FIXED_TOKEN\" }",
        ] {
            assert!(text.contains(reference), "{reference}");
            text = text.replace(reference, "\"hunter2hunter2\"");
        }
        let mut chars: Vec<char> = text.chars().collect();
        for (at, length, piece) in damage {
            let start = at.index(chars.len());
            let end = (start + length).min(chars.len());
            chars.splice(start..end, piece.chars());
        }
        let text: String = chars.into_iter().collect();
        let mut main = file("tokend.toml", &text);
        main.private = private;
        let outcome = load(&Sources { main, fragments: Vec::new() });
        let shown = format!("{outcome:?}");
        let at = shown.find("hunter2hunter2").map(|at| shown[at.saturating_sub(300)..].chars().take(400).collect::<String>());
        prop_assert!(at.is_none(), "{}", at.unwrap_or_default());
    }
}
