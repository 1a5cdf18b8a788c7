//! `tokend plugin test`: runs the contract against a command, as this user, and prints what is kept
//! and what is not.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Deserialize;

use crate::cli::{PluginArgs, PluginCommand, PluginTestArgs, exit, print};
use crate::clock::Clock;
use crate::core::credential::{Fingerprinter, Issued, Lifetime, Variant};
use crate::core::failure::Failure;
use crate::core::plugin::request::{FetchPurpose, FetchReason};
use crate::core::profile::exec::{AnswerFormat, Exec, FORMATS};
use crate::core::profile::{Method, Profile, ProfileName, Refresh, RequestSettings};
use crate::core::secret::Secret;
use crate::material::program;
use crate::provider::Shared;
use crate::provider::exec::run::RunOutput;
use crate::provider::exec::{ExecProvider, says_secret};

/// The name of the profile in the requests.
const PROFILE: &str = "plugin-test";

pub fn run(args: &PluginArgs) -> u8 {
    let PluginCommand::Test(args) = &args.command;
    let usage = |why: &str| {
        eprintln!("tokend: {why}");
        exit::USAGE
    };
    if args.run.is_empty() {
        return usage(
            "plugins on a socket are not supported by this version: a command goes behind --, as \
             in `tokend plugin test -- /path/to/program`",
        );
    }
    let Some(format) = AnswerFormat::parse(&args.format) else {
        return usage(&format!("--format is one of {}", FORMATS.join(", ")));
    };
    let settings = match args
        .settings
        .as_deref()
        .map_or(Ok(ProgramSettings::default()), settings)
    {
        Ok(settings) => settings,
        Err(why) => return usage(&why),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let mut report = ContractReport::default();
    match runtime {
        Ok(runtime) => runtime.block_on(test(args, format, settings, &mut report)),
        Err(error) => report.broken(&format!("nothing can be run here: {error}")),
    }
    if let Err(code) = print(&mut io::stdout(), &report.text, &mut io::stderr()) {
        return code;
    }
    match report.broken {
        0 => exit::DONE,
        _ => exit::FINDINGS,
    }
}

/// What is kept, and what is not.
#[derive(Default)]
struct ContractReport {
    text: String,
    broken: usize,
}

impl ContractReport {
    fn kept(&mut self, what: &str) {
        self.text += &format!("kept      {what}\n");
    }

    fn broken(&mut self, what: &str) {
        self.text += &format!("NOT KEPT  {what}\n");
        self.broken += 1;
    }

    fn note(&mut self, what: &str) {
        self.text += &format!("note      {what}\n");
    }
}

/// What `--settings` names.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ProgramSettings {
    settings: BTreeMap<String, String>,
    env: BTreeMap<String, String>,
}

/// Reads the file. What is wrong is told without its text, in which there may be secrets.
fn settings(path: &Path) -> Result<ProgramSettings, String> {
    let told = |why: &str| format!("--settings {}: {why}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(&error.to_string()))?;
    toml::from_str(&text)
        .map_err(|_| told("is not TOML with only `settings` and `env`, tables of texts"))
}

async fn test(
    args: &PluginTestArgs,
    format: AnswerFormat,
    told: ProgramSettings,
    report: &mut ContractReport,
) {
    let exec = Exec {
        command: args.run.clone(),
        timeout: args.timeout,
        format,
        settings: told.settings,
        lifetime: args.lifetime,
        env: told.env,
        scopes: Vec::new(),
        audience: None,
        resource: Vec::new(),
    };
    let path = exec.program();
    if !path.has_root() {
        return report.broken(
            "command: begins with the absolute path of a program, and no shell looks for it",
        );
    }
    match program::check(path, rustix::process::geteuid().as_raw()) {
        Ok(()) => report.kept("nobody but you and root can change the program"),
        Err(why) => return report.broken(&format!("command: {why}")),
    }
    if path.starts_with(Path::new("/home")) || path.starts_with(Path::new("/tmp")) {
        report.note(
            "the service sees neither /home nor this /tmp: put the program below /usr/libexec",
        );
    }
    let profile = profile(exec.clone());
    let provider = ExecProvider::new(&profile, &exec, &Shared::new(Clock::system()));
    let fingerprint = Fingerprinter::new(&[0; 32]);
    let mut before: Option<Issued> = None;
    for reason in ["first", "renewal", "rejected", "canary"] {
        let purpose = FetchPurpose {
            reason: match (reason, &before) {
                ("renewal", _) => FetchReason::Renewal,
                ("rejected", Some(held)) => {
                    FetchReason::Rejected(fingerprint.of(held.scheme, &held.token))
                }
                ("canary", _) => FetchReason::Canary,
                _ => FetchReason::First,
            },
            ..FetchPurpose::default()
        };
        let (outcome, output) = provider.run(&Variant::default(), purpose).await;
        judged(reason, &outcome, output.as_ref(), report);
        let Ok(issued) = outcome else {
            return report.note("the other requests were not made");
        };
        if let ("rejected", Some(held)) = (reason, &before)
            && held.token.expose() == issued.token.expose()
        {
            report.note("rejected: the refused token came again; a cache should leave it out then");
        }
        before = Some(issued);
    }
}

/// Judges one run.
fn judged(
    reason: &str,
    outcome: &Result<Issued, Failure>,
    output: Option<&RunOutput>,
    report: &mut ContractReport,
) {
    match outcome {
        Ok(issued) => {
            let life = match issued.lifetime {
                Lifetime::For(life) => format!("lives {}", humantime::format_duration(life)),
                Lifetime::Unknown | Lifetime::Unlimited => {
                    "does not say how long it lives: refresh.default_lifetime counts".into()
                }
            };
            report.kept(&format!(
                "{reason}: a {} token that {life}",
                issued.scheme.as_str()
            ));
        }
        Err(failure) => report.broken(&format!("{reason}: {}", failure.message)),
    }
    let Some(output) = output else { return };
    if output.left_behind {
        report.broken(&format!(
            "{reason}: processes were left when the command ended; they were killed"
        ));
    }
    let secret = outcome.as_ref().ok().map(|issued| issued.token.clone());
    if secret.is_some_and(|token: Secret| says_secret(output, &token)) {
        report.broken(&format!(
            "{reason}: the token is on standard error, whose lines go into the log"
        ));
    }
    if output.cut {
        report.broken(&format!("{reason}: standard error is longer than 16 KiB"));
    }
}

fn profile(exec: Exec) -> Profile {
    Profile {
        name: ProfileName::parse(PROFILE).expect("a name"),
        target: None,
        method: Method::Exec(Box::new(exec)),
        access: Vec::new(),
        refresh: Refresh::default(),
        request: RequestSettings::default(),
        refuse_bound_tokens: false,
        warnings: Vec::new(),
    }
}
