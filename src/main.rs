//! tokend: one process per host holds the secrets and serves short-lived credentials.

use std::process::ExitCode;

use tokend::{app, cli, sys};

#[global_allocator]
static ALLOCATOR: sys::Wiping = sys::Wiping;

fn main() -> ExitCode {
    let cli = cli::parse();
    match cli::run_client(&cli.command) {
        Some(code) => code,
        None => app::run(cli.command),
    }
}
