//! The one room that knows everyone: which command runs what.
//!
//! Two threads, each with a runtime of its own: this one serves the socket; the other, `upstream`,
//! talks to identity providers and reads files, so that an RSA signature or a TLS handshake never
//! delays an answer.

mod assembly;
mod check;
mod configuration;
mod daemon;
mod dev;
mod doctor;
mod error;
mod heartbeat;
mod interest;
mod last_good;
mod listener;
mod load;
mod privacy;
mod signals;
mod socket_guard;
mod start;
mod unconfigured;
mod upstream;
mod warm_restart;

use std::process::ExitCode;

use crate::cli::{Command, exit};

/// Runs a command that is not a mere client's.
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let code = match command {
        Command::Serve(args) => daemon::serve(args),
        Command::Dev(args) => dev::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Token(_)
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
