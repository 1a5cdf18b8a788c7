//! The reasons why the daemon does not run, and their exit codes.

use std::io;

use crate::cli::exit;
use crate::core::config;
use crate::socket::bind::BindError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the configuration cannot be used")]
    Config(Box<config::ConfigOutcome>),
    #[error("{0}")]
    ConfigFile(String),
    #[error("[server] socket_group: this host does not know the group {0:?}")]
    Group(String),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    #[error("the thread that talks to identity providers has ended; see the log")]
    Upstream,
}

impl StartError {
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Config(_)
            | StartError::ConfigFile(_)
            | StartError::Group(_)
            | StartError::Bind(
                BindError::Folder { .. } | BindError::NotASocket(_) | BindError::TooLong { .. },
            ) => exit::CONFIG,
            StartError::Bind(_) | StartError::System(_) | StartError::Upstream => exit::FINDINGS,
        }
    }
}
