//! Why an attempt failed. The kind decides what happens next; the text is for people.

use std::time::Duration;

/// How the lifecycle treats a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Asking again may help: the network failed, a server was overloaded, the answer made no
    /// sense.
    Transient,
    /// Asking again will not help until somebody changes something: a wrong secret, an unknown
    /// client, a refused scope.
    Permanent,
}

/// A failed attempt. It never holds a secret, a token or any part of a response body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    /// The cause and the cure, in one line, without the profile's name.
    pub message: String,
    /// The OAuth error code (RFC 6749 §5.2), where the identity provider gave one.
    pub oauth_error: Option<String>,
    /// The time that the identity provider asked the daemon to wait (RFC 9110 §10.2.3).
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure that may pass by itself.
    #[must_use]
    pub fn transient(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Transient, message.into())
    }

    /// A failure that somebody has to repair.
    #[must_use]
    pub fn permanent(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Permanent, message.into())
    }

    fn new(kind: FailureKind, message: String) -> Failure {
        Failure {
            kind,
            message,
            oauth_error: None,
            retry_after: None,
        }
    }

    /// The same failure with the identity provider's error code.
    #[must_use]
    pub fn with_oauth_error(mut self, code: Option<String>) -> Failure {
        self.oauth_error = code;
        self
    }

    /// The same failure with the time to wait that the identity provider asked for.
    #[must_use]
    pub fn with_retry_after(mut self, after: Option<Duration>) -> Failure {
        self.retry_after = after;
        self
    }
}
