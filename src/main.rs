//! tokend: one process per host holds the secrets and serves short-lived credentials.

use std::process::ExitCode;

use tokend::{app, cli, doctor, supervisor, sys, telemetry};

#[global_allocator]
static ALLOCATOR: sys::Wiping = sys::Wiping;

fn main() -> ExitCode {
    // Every command does this: each holds a secret or a credential, if only for a moment.
    telemetry::keep_values_out_of_panics();
    supervisor::harden();
    let cli = cli::parse().unwrap_or_else(|error| {
        // clap prints its message, or the help that was asked for.
        let _ = error.print();
        let served = std::env::args()
            .nth(1)
            .is_some_and(|command| command == "serve");
        if served && error.use_stderr() && supervisor::is_there() {
            std::thread::sleep(supervisor::FAILED_START);
        }
        std::process::exit(error.exit_code())
    });
    match cli::run_client(&cli.command).or_else(|| doctor::run(&cli.command)) {
        Some(code) => code,
        None => app::run(cli.command),
    }
}
