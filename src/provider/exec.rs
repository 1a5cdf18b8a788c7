//! `method = "exec"`: a command that obtains the credential. It runs once per attempt, in a process
//! group of its own, and nothing of it is left afterwards.

pub mod run;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tracing::{info, warn};

use self::run::{CommandRun, RunError, RunOutput};
use super::{Attempt, Provider, Shared};
use crate::clock::Clock;
use crate::core::credential::{Issued, Variant};
use crate::core::failure::Failure;
use crate::core::oauth::withhold::repeats;
use crate::core::plugin::answer::{AskedPlugin, LONGEST_ANSWER, judge};
use crate::core::plugin::request::{FetchPurpose, PluginRequest};
use crate::core::plugin::spoken::{shown, telling};
use crate::core::profile::exec::Exec;
use crate::core::profile::{Profile, ProfileName};
use crate::core::secret::Secret;
use crate::material::program;

/// The broker gives up a run only if the run did not end itself at its own deadline.
const SLACK: Duration = Duration::from_secs(5);

/// At most this many lines of standard error go into the log, per run.
const LINES: usize = 20;

/// A command with everything it is told.
pub struct ExecProvider {
    clock: Clock,
    profile: ProfileName,
    exec: Exec,
    refuse_bound: bool,
    /// Values of `settings` and `env`, and the last token. No line of the log repeats them.
    secrets: Vec<Secret>,
    last: Mutex<Option<Secret>>,
}

impl ExecProvider {
    /// Makes one for the command of a profile. It runs nothing yet.
    #[must_use]
    pub fn new(profile: &Profile, exec: &Exec, shared: &Shared) -> ExecProvider {
        let told = exec.settings.values().chain(exec.env.values());
        ExecProvider {
            clock: shared.clock.clone(),
            profile: profile.name.clone(),
            exec: exec.clone(),
            refuse_bound: profile.refuse_bound_tokens,
            secrets: telling(told.cloned()),
            last: Mutex::new(None),
        }
    }

    async fn ask(&self, variant: &Variant, purpose: FetchPurpose) -> Result<Issued, Failure> {
        let (issued, output) = self.run(variant, purpose).await;
        if let Some(output) = output {
            self.tell(&output, issued.as_ref());
        }
        if let Ok(issued) = &issued {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(issued.token.clone());
        }
        issued
    }

    /// Runs the command once. With the outcome comes what it wrote, as far as it ran.
    pub async fn run(
        &self,
        variant: &Variant,
        purpose: FetchPurpose,
    ) -> (Result<Issued, Failure>, Option<RunOutput>) {
        let (exec, asked_at) = (&self.exec, self.clock.now());
        let scopes = match variant.scopes.is_empty() {
            true => &exec.scopes,
            false => &variant.scopes,
        };
        let request = PluginRequest {
            profile: self.profile.as_str(),
            settings: &exec.settings,
            scopes,
            audience: variant.audience.as_deref().or(exec.audience.as_deref()),
            resource: &exec.resource,
            purpose,
            timeout: exec.timeout,
            deadline: asked_at.wall.plus(exec.timeout),
        };
        let (program, at) = (
            exec.program().to_owned(),
            exec.program().display().to_string(),
        );
        let (command, env) = (exec.command.clone(), exec.env.clone());
        // The file system may hang, and starting a process takes milliseconds.
        let starting = tokio::task::spawn_blocking(move || {
            let us = rustix::process::geteuid().as_raw();
            program::check(&program, us)
                .map_err(|why| Failure::permanent(format!("command: {why}")))?;
            CommandRun::start(&command, &env).map_err(|error| {
                let program = program.display();
                Failure::transient(format!("{program} cannot be started: {error}"))
            })
        });
        let (mut running, request) = (None, request.text());
        let whole = async {
            let run = starting.await.unwrap_or_else(|_| {
                Err(Failure::transient(
                    "the command was not started: tokend ends",
                ))
            })?;
            let ended = running.insert(run).to_its_end(request.as_bytes());
            ended.await.map_err(|why| match why {
                RunError::TooLong => Failure::transient(format!(
                    "{at} wrote more than {} KiB to standard output, which is no answer, and was \
                     killed",
                    LONGEST_ANSWER / 1024
                )),
                RunError::System(error) => {
                    Failure::transient(format!("{at} cannot be watched: {error}"))
                }
            })
        };
        let outcome = tokio::time::timeout(exec.timeout, whole).await;
        let outcome = outcome.unwrap_or_else(|_| {
            Err(Failure::transient(format!(
                "{at} did not end within {}, and was killed: does it wait for somebody? `timeout` \
                 sets the limit",
                humantime::format_duration(exec.timeout)
            )))
        });
        let output = running.map(|run| run.output());
        let secrets: Vec<&Secret> = self.secrets.iter().collect();
        let judged = outcome.and_then(|()| {
            let output = output.as_ref();
            let asked = AskedPlugin {
                at: &at,
                ended: output.and_then(|output| output.ended.as_deref()),
                format: exec.format,
                lifetime: exec.lifetime,
                scopes,
                refuse_bound: self.refuse_bound,
                secrets: &secrets,
                asked_at,
                now: self.clock.now(),
            };
            judge(output.map_or(&[], |output| &output.answer), &asked)
        });
        (judged, output)
    }

    /// Puts what the command wrote to standard error into the log.
    fn tell(&self, output: &RunOutput, issued: Result<&Issued, &Failure>) {
        let last = self
            .last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let answer = match issued {
            Ok(issued) => Some(issued.token.clone()),
            // What could not be read may be a token.
            Err(_) => Some(Secret::new(
                String::from_utf8_lossy(&output.answer).trim().to_owned(),
            )),
        };
        let secrets: Vec<&Secret> = self.secrets.iter().chain(&last).chain(&answer).collect();
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.trim().is_empty())
            .collect();
        let mut said: Vec<String> = lines
            .iter()
            .take(LINES)
            .filter_map(|line| shown(line, &secrets))
            .collect();
        // A secret may be cut to pieces by line breaks.
        if shown(&said.join("\n"), &secrets).is_none() {
            said.clear();
        }
        let left_out = lines.len() - said.len();
        let (profile, program) = (&self.profile, self.exec.program().display());
        for line in &said {
            match issued {
                Ok(_) => info!(%profile, %program, "the command says: {line}"),
                Err(_) => warn!(%profile, %program, "the command says: {line}"),
            }
        }
        if left_out > 0 || output.cut {
            info!(
                %profile, %program, left_out,
                "the command wrote more to standard error: too much, or what repeats a secret"
            );
        }
    }
}

/// Whether standard error repeats a token.
#[must_use]
pub fn says_secret(output: &RunOutput, token: &Secret) -> bool {
    let text = String::from_utf8_lossy(&output.stderr);
    repeats(&text, &[token])
}

impl Provider for ExecProvider {
    fn fetch<'a>(&'a self, variant: &'a Variant) -> Attempt<'a> {
        self.fetch_for(variant, FetchPurpose::default())
    }

    fn fetch_for<'a>(&'a self, variant: &'a Variant, purpose: FetchPurpose) -> Attempt<'a> {
        Box::pin(self.ask(variant, purpose))
    }

    fn deadline(&self) -> Duration {
        self.exec.timeout + SLACK
    }
}
