//! The commands that run a daemon: `serve` and `dev`.
//!
//! The daemon has two threads, each with a runtime of its own. This one serves the socket. The
//! other, `upstream`, talks to identity providers and reads files, so that an RSA signature or a
//! TLS handshake never delays an answer.

pub(crate) mod assembly;
mod configuration;
mod daemon;
mod dev;
mod error;
mod heartbeat;
pub(crate) mod interest;
mod last_good;
mod listener;
pub(crate) mod load;
pub(crate) mod privacy;
mod signals;
mod socket_guard;
mod start;
mod unconfigured;
pub(crate) mod upstream;
mod warm_restart;

use std::process::ExitCode;

use crate::cli::{Command, exit};

#[must_use]
pub fn run(command: Command) -> ExitCode {
    let code = match command {
        Command::Serve(args) => daemon::serve(args),
        Command::Dev(args) => dev::run(&args),
        Command::Check(_)
        | Command::Doctor(_)
        | Command::Plugin(_)
        | Command::Token(_)
        | Command::Wait(_)
        | Command::Watch(_)
        | Command::Status(_)
        | Command::Explain(_)
        | Command::Reload(_)
        | Command::Completions(_)
        | Command::Man => exit::USAGE,
    };
    ExitCode::from(code)
}
