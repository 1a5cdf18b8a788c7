//! Sentences that cannot be true, whatever the incident: those that deny in one half what the other
//! half says, and those with a time or a number that nobody would write.

use super::places::Where;

/// Fragments that no text may have.
const IMPOSSIBLE: [&str; 22] = [
    // It is over, or has not begun.
    "in 0s",
    "since 0s",
    " 0s ago",
    "for 0s",
    "after 0s",
    "\"0s\"",
    // One of several.
    " 1 profiles",
    " 1 errors",
    " 1 warnings",
    " 1 failures",
    " 1 times",
    " 1 files",
    " 1 folders",
    // A sentence that ends twice, or in the middle.
    "..",
    ";;",
    ": :",
    ".;",
    ":.",
    ",.",
    "()",
    // An answer that came late came from somebody who was reached.
    "cannot be reached: no complete answer",
    // The operator's question, whoever asks it.
    "nothing is wrong",
];

/// Pairs that contradict each other within one text.
const EITHER_OR: [(&str, &str); 4] = [
    ("again does not help", "next attempt"),
    ("again does not help", "tried again in"),
    ("no credential yet", "last credential has ended"),
    ("There is no credential", "served until"),
];

/// The command that shows a text must not be its cure.
const ITSELF: [(Where, &str); 4] = [
    (Where::Status, "`tokend status`"),
    (Where::Explain, "`tokend explain"),
    (Where::Doctor, "`tokend doctor`"),
    (Where::Check, "`tokend check`"),
];

/// Fails if the text has a sentence that cannot be true.
pub fn assert_possible(text: &str, place: Where) {
    if place == Where::Metrics {
        return;
    }
    for part in IMPOSSIBLE {
        assert!(!text.contains(part), "{place:?} says {part:?}:\n{text}");
    }
    for (one, other) in EITHER_OR {
        let both = text.contains(one) && text.contains(other);
        assert!(!both, "{place:?} says {one:?} and {other:?}:\n{text}");
    }
    for (at, cure) in ITSELF {
        let circle = at == place && text.contains(cure);
        assert!(!circle, "{place:?} sends its reader to {cure}:\n{text}");
    }
}
