//! Diagnostics of a profile and of the files that it names: data until they are shown.

use std::fmt;

/// A fact that is wrong or unwise. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The key of the profile that the diagnostic is about, for instance `tls.certificate`. Empty:
    /// the whole profile.
    pub key: String,
    /// The place, the cause and the cure, in one line.
    pub message: String,
    /// The processes for which the diagnostic holds.
    pub scope: Scope,
}

/// The processes for which a diagnostic holds: another process may be able to use what this one
/// cannot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every process on this machine.
    Machine,
    /// Processes of the same user. The diagnostic is about rights, or about whose links are
    /// followed.
    User,
    /// Processes with the same environment variables and systemd credentials.
    Environment,
}

impl Diagnostic {
    /// A diagnostic that holds for every process on this machine.
    #[must_use]
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Diagnostic {
        Diagnostic {
            key: key.into(),
            message: message.into(),
            scope: Scope::Machine,
        }
    }

    /// A diagnostic of the profile as a whole.
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
