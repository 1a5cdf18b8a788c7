//! Where a value stands in the files, and who is hurt if it is wrong.

use std::ops::Range;

use super::finding::shorten;
use crate::core::profile::ProfileName;

/// A range of bytes in one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Span {
    pub file: usize,
    pub start: usize,
    /// The end; this byte is not part of the range.
    pub end: usize,
}

impl Span {
    pub fn of(file: usize, span: Range<usize>) -> Span {
        Span {
            file,
            start: span.start,
            end: span.end,
        }
    }
}

/// Who is hurt by a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The whole configuration.
    Main,
    /// Every profile of one file in `profiles.d`.
    File(usize),
    /// One profile.
    Profile(ProfileName),
    /// Every profile that uses this `[idp.NAME]`.
    Idp(String),
    /// No profile in particular.
    Nobody,
}

/// Where a value stands, its path, and who is hurt if it is wrong.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    pub owner: Owner,
    /// The path from the root, with dots.
    pub path: String,
    pub place: Span,
}

impl Spot {
    /// The spot of something inside this one.
    pub fn child(&self, key: &str, place: Span) -> Spot {
        let bare = !key.is_empty()
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        let key = if bare {
            key.to_owned()
        } else {
            format!("{:?}", shorten(key))
        };
        let dot = if self.path.is_empty() { "" } else { "." };
        Spot {
            owner: self.owner.clone(),
            path: format!("{}{dot}{key}", self.path),
            place,
        }
    }

    /// The spot of one entry of a list.
    pub fn item(&self, index: usize, place: Span) -> Spot {
        Spot {
            owner: self.owner.clone(),
            path: format!("{}[{index}]", self.path),
            place,
        }
    }

    /// The same place with another owner.
    pub fn owned_by(&self, owner: &Owner) -> Spot {
        Spot {
            owner: owner.clone(),
            ..self.clone()
        }
    }
}
