//! What there is to say of a profile and of the files that it names: data until it is shown.

use std::fmt;

/// Something that is wrong or unwise. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The key of the profile that it is about, `tls.certificate` say. Empty: the whole profile.
    pub key: String,
    /// Place, cause and cure in one line.
    pub message: String,
    /// For whom it holds.
    pub scope: Scope,
}

/// Whom something holds for: another process may be able to use what this one cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process on this machine.
    Machine,
    /// Processes of the same user: it is about rights, or about whose links are followed.
    User,
    /// Processes with the same environment variables and systemd credentials.
    Environment,
}

impl Diagnostic {
    /// Something that holds for every process on this machine.
    #[must_use]
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            key: key.into(),
            message: message.into(),
            scope: Scope::Machine,
        }
    }

    /// Of the profile as a whole.
    #[must_use]
    pub fn of_profile(message: impl Into<String>) -> Diagnostic {
        Diagnostic::new("", message)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}
