//! `method = "exec"`: a command that obtains the credential.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// `format` of the profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerFormat {
    /// The content tells.
    #[default]
    Auto,
    /// tokend's own JSON.
    Tokend,
    /// AIP-4117, as Google's libraries run executables.
    Google,
    /// ExecCredential of client.authentication.k8s.io, as kubectl runs them.
    Kubernetes,
    /// The bare token.
    Token,
}

/// The words in the configuration, in the order of [`AnswerFormat::parse`].
pub const FORMATS: &[&str] = &["auto", "tokend", "google", "k8s", "token"];

impl AnswerFormat {
    /// Reads the word in the configuration.
    #[must_use]
    pub fn parse(word: &str) -> Option<AnswerFormat> {
        Some(match word {
            "auto" => AnswerFormat::Auto,
            "tokend" => AnswerFormat::Tokend,
            "google" => AnswerFormat::Google,
            "k8s" => AnswerFormat::Kubernetes,
            "token" => AnswerFormat::Token,
            _ => return None,
        })
    }

    /// The word in the configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            AnswerFormat::Auto => "auto",
            AnswerFormat::Tokend => "tokend",
            AnswerFormat::Google => "google",
            AnswerFormat::Kubernetes => "k8s",
            AnswerFormat::Token => "token",
        }
    }
}

/// The command and what it is told.
#[derive(Clone, PartialEq)]
pub struct Exec {
    /// `command`: the program's absolute path, then its arguments. Never empty.
    pub command: Vec<String>,
    /// `timeout`: the time for one run.
    pub timeout: Duration,
    pub format: AnswerFormat,
    /// `settings`: part of the request.
    pub settings: BTreeMap<String, String>,
    /// `lifetime`: for answers that state none.
    pub lifetime: Option<Duration>,
    /// `env`: the environment, besides a fixed PATH.
    pub env: BTreeMap<String, String>,
    pub scopes: Vec<String>,
    pub audience: Option<String>,
    pub resource: Vec<String>,
}

impl Exec {
    /// The program, for people and for the file system.
    #[must_use]
    pub fn program(&self) -> &Path {
        Path::new(self.command.first().map_or("", String::as_str))
    }
}

/// Settings and environment may hold secrets, and arguments are no better.
impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec")
            .field("program", &self.program())
            .finish_non_exhaustive()
    }
}
