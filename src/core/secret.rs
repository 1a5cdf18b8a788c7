//! The secret type: what must never be printed, compared in the open or left in memory.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// Text that nobody may see by accident: no Display, no Serialize, no PartialEq; Debug says
/// `[redacted]`; wiped when dropped.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Takes over a text; its old place is given to the new owner, not copied.
    #[must_use]
    pub fn new(text: String) -> Secret {
        Secret(SecretString::from(text))
    }

    /// The text itself. The one way to it, so that every use can be found by this name.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_it() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[redacted]");
    }
}
