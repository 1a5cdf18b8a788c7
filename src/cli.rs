//! The command line, and the commands that only talk to a running daemon or to nobody.
//!
//! Those commands block and need no asynchronous runtime; see `client`. Names and exit codes are
//! part of the interface.

pub mod complaint;
pub mod exit;
pub mod explain;
pub mod manual;
pub mod paths;
pub mod reload;
pub mod status;
pub mod token;
pub mod wait;
pub mod watch;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::client::{Client, ClientError};
use crate::clock::Clock;

const EXIT_CODES: &str = "\
Exit status: 0 done, 1 findings or partly failed, 2 usage, 3 profile unknown or not permitted, 4 upstream unavailable,
deadline or rate, 5 upstream rejected or profile invalid, 6 daemon not reachable, 7 not an admin, 78 configuration
cannot be used.";

/// A credentials daemon: one process per host holds the secrets and serves short-lived tokens over
/// a Unix socket.
#[derive(Debug, Parser)]
#[command(name = "tokend", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// One command each.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon in the foreground
    Serve(ServeArgs),
    /// Run a daemon with an identity provider of its own and nothing to set up
    Dev(DevArgs),
    /// Validate the configuration without serving
    Check(CheckArgs),
    /// Look for what is usually wrong, and say what to do about it
    Doctor(DoctorArgs),
    /// Print a credential
    #[command(after_help = EXIT_CODES)]
    Token(TokenArgs),
    /// Return when each profile has a usable credential
    #[command(after_help = EXIT_CODES)]
    Wait(WaitArgs),
    /// Print a credential at once and each replacement as it comes
    #[command(after_help = EXIT_CODES)]
    Watch(WatchArgs),
    /// Show the state of every profile that you may see
    #[command(after_help = EXIT_CODES)]
    Status(StatusArgs),
    /// Tell which rule lets a caller have a profile's credential, or why none does, and why that is
    /// or is not fresh
    #[command(after_help = EXIT_CODES)]
    Explain(ExplainArgs),
    /// Have the daemon read its configuration, secrets and certificates again, now, and print what
    /// became of it
    #[command(after_help = EXIT_CODES)]
    Reload(ReloadArgs),
    /// Try out a plugin
    Plugin(PluginArgs),
    /// Print the completions of a shell
    Completions(CompletionsArgs),
    /// Print the manual page
    Man,
}

/// `tokend serve`
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file [default: TOKEND_CONFIG, else /etc/tokend/tokend.toml, or below
    /// XDG_CONFIG_HOME if not root]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
    /// To the systemd journal, with fields
    Journald,
}

/// `tokend dev`
#[derive(Debug, Args)]
pub struct DevArgs {
    /// Where everything lies [default: a fresh temporary folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `tokend check`
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file [default: TOKEND_CONFIG, else /etc/tokend/tokend.toml, or below
    /// XDG_CONFIG_HOME if not root]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Also make one real token request per profile
    #[arg(long)]
    pub online: bool,
    /// Print the findings as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which daemon a command talks to.
#[derive(Debug, Default, Args)]
pub struct SocketArgs {
    /// The daemon's socket [default: TOKEND_SOCKET, else /run/tokend/tokend.sock, or below
    /// XDG_RUNTIME_DIR if not root]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// `tokend doctor`
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration file [default: TOKEND_CONFIG, else /etc/tokend/tokend.toml, or below
    /// XDG_CONFIG_HOME if not root]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Connect to no identity provider
    #[arg(long)]
    pub offline: bool,
    /// Print the findings as JSON, as `tokend check --json` does
    #[arg(long)]
    pub json: bool,
    /// Give the daemon and the identity providers this time, all at once
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = some_time)]
    pub timeout: Duration,
    /// The daemon's socket [default: TOKEND_SOCKET, else what the configuration says, else as for
    /// other commands]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

/// `tokend token`
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// Name of the profile
    #[arg(value_parser = name)]
    pub profile: String,
    /// Print the whole header line; the same as --format header
    #[arg(long, conflicts_with_all = ["json", "format"])]
    pub header: bool,
    /// Print the credential with everything about it; the same as --format json
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
    /// What to print
    #[arg(long, value_name = "FORMAT", default_value = "token")]
    pub format: TokenFormat,
    /// Only a credential that lives for at least this long, such as 30s
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub min_ttl: Option<Duration>,
    /// Give up after this time
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = some_time)]
    pub timeout: Duration,
    /// A narrower credential, out of the scopes that the profile allows; can be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// A credential for this audience, out of those that the profile allows
    #[arg(long)]
    pub audience: Option<String>,
    /// Which daemon to talk to
    #[command(flatten)]
    pub daemon: SocketArgs,
}

/// What `tokend token` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenFormat {
    /// The bare token
    Token,
    /// `Authorization: …`
    Header,
    /// The credential with everything about it
    Json,
    /// ExecCredential of client.authentication.k8s.io, for kubectl
    K8sExec,
    /// The answer of an executable that AIP-4117 describes, for Google's libraries
    GoogleExecutable,
    /// A line for `curl --config -`
    Curl,
}

/// `tokend wait`
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// Names of the profiles
    #[arg(required = true, value_name = "PROFILE", value_parser = name)]
    pub profiles: Vec<String>,
    /// Give up after this time; 0 asks once
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub timeout: Duration,
    /// Which daemon to talk to
    #[command(flatten)]
    pub daemon: SocketArgs,
}

/// `tokend watch`
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Name of the profile
    #[arg(value_parser = name)]
    pub profile: String,
    /// Print each credential with everything about it, one JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Which daemon to talk to
    #[command(flatten)]
    pub daemon: SocketArgs,
}

/// `tokend status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only this profile
    #[arg(value_parser = name)]
    pub profile: Option<String>,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Print it again each second until interrupted
    #[arg(long)]
    pub watch: bool,
    /// Give up after this time
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = some_time)]
    pub timeout: Duration,
    /// Which daemon to talk to
    #[command(flatten)]
    pub daemon: SocketArgs,
}

/// `tokend explain`
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Name of the profile
    #[arg(value_parser = name)]
    pub profile: String,
    /// For this user, by name or number, instead of yourself (admins)
    #[arg(long, value_name = "USER")]
    pub as_user: Option<String>,
    /// For a caller in this systemd unit (admins)
    #[arg(long, value_name = "UNIT")]
    pub as_unit: Option<String>,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
    /// Give up after this time
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = some_time)]
    pub timeout: Duration,
    /// Which daemon to talk to
    #[command(flatten)]
    pub daemon: SocketArgs,
}

/// `tokend reload`
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    pub json: bool,
    /// How long to wait for what is being tried at identity providers
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub timeout: Duration,
    /// Which daemon to talk to
    #[command(flatten)]
    pub daemon: SocketArgs,
}

/// `tokend plugin`
#[derive(Debug, Args)]
pub struct PluginArgs {
    #[command(subcommand)]
    pub command: PluginCommand,
}

#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Run the contract against a command as you, and print what is not kept: `tokend plugin test
    /// -- /path/to/program ARGUMENT…`
    #[command(after_help = EXIT_CODES)]
    Test(PluginTestArgs),
}

/// `tokend plugin test`
#[derive(Debug, Args)]
pub struct PluginTestArgs {
    /// The plugin's socket (not supported by this version)
    #[arg(value_name = "SOCKET", required_unless_present = "run")]
    pub plugin: Option<PathBuf>,
    /// The command, as in `command` of a profile
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "plugin")]
    pub run: Vec<String>,
    /// As `timeout` of a profile
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = some_time)]
    pub timeout: Duration,
    /// As `format` of a profile
    #[arg(long, value_name = "FORMAT", default_value = "auto")]
    pub format: String,
    /// As `lifetime` of a profile
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    pub lifetime: Option<Duration>,
    /// A TOML file with `settings` and `env` as a profile has them. Their values may be secrets,
    /// which everybody could see in arguments
    #[arg(long, value_name = "FILE")]
    pub settings: Option<PathBuf>,
}

/// `tokend completions`
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Reads the command line.
///
/// # Errors
/// Help, version and mistakes, which end the process; mistakes with 2.
pub fn parse() -> Result<Cli, clap::Error> {
    Cli::try_parse()
}

/// Runs a command that only talks to a running daemon or to nobody. None for any other command.
#[must_use]
pub fn run_client(command: &Command) -> Option<ExitCode> {
    let out = &mut io::stdout();
    let err = &mut io::stderr();
    let code = match command {
        Command::Token(args) => token::run(
            args,
            client(&args.daemon),
            &paths::from_environment,
            out,
            err,
        ),
        Command::Wait(args) => wait::run(args, client(&args.daemon), err),
        Command::Watch(args) => watch::run(args, client(&args.daemon), out, err),
        Command::Status(args) => status::run(args, client(&args.daemon), out, err),
        Command::Explain(args) => explain::run(args, client(&args.daemon), out, err),
        Command::Reload(args) => reload::run(args, client(&args.daemon), out, err),
        Command::Completions(args) => manual::completions(args.shell, out, err),
        Command::Man => manual::man(out, err),
        Command::Serve(_)
        | Command::Dev(_)
        | Command::Check(_)
        | Command::Doctor(_)
        | Command::Plugin(_) => return None,
    };
    Some(ExitCode::from(code))
}

/// The client for the chosen daemon. An error if no socket could be named.
fn client(daemon: &SocketArgs) -> Result<Client, ClientError> {
    let socket = match &daemon.socket {
        Some(path) => path.clone(),
        None => paths::default_socket().map_err(|error| ClientError::Unreachable {
            socket: None,
            cause: error.to_string(),
            cure: "let TOKEND_SOCKET or --socket name the daemon's socket".into(),
        })?,
    };
    Ok(Client::new(socket, Clock::system()))
}

/// Writes everything at once. Ok(false): the reader has gone away, and the command ends silently.
pub(crate) fn print(out: &mut dyn Write, text: &str, err: &mut dyn Write) -> Result<bool, u8> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => {
            complaint::line(
                err,
                None,
                &format!("cannot write to standard output: {error}"),
            );
            Err(exit::FINDINGS)
        }
    }
}

/// Refuses an empty name, which is a mistake in a script. The daemon judges all other names.
fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a profile's name is not empty".into());
    }
    Ok(text.to_owned())
}

/// Parses a number with a unit. Without a unit, some people would read seconds and others
/// milliseconds.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a duration needs a unit, such as \"30s\"".into());
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it such as \"30s\" or \"1m 30s\""))
}

fn some_time(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing, such as \"30s\"".into()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests;
