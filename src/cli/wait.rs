//! `tokend wait PROFILE…`: returns when each profile has a usable credential.
//!
//! It is for ExecStartPre and scripts, so it is patient. The daemon may be starting, the identity
//! provider may be down, and somebody may be repairing a secret. It gives up at once only if
//! waiting cannot help: the running daemon does not know the profile, or the question makes no
//! sense. It prints what it waits for on standard error, once and at each change, since somebody
//! may be there to repair it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{WaitArgs, complaint, exit};
use crate::client::{Client, ClientError, TokenQuery};
use crate::core::time::BootTime;

/// Time limit for one question with `--timeout 0`. The daemon's own attempts end well before.
const ONCE: Duration = Duration::from_secs(30);
/// The pause between attempts, unless the daemon says otherwise. While there is no daemon, another
/// look costs next to nothing.
const PAUSE_WITHOUT_DAEMON: Duration = Duration::from_millis(100);
/// The longest pause between attempts, even if the daemon asks for more: it may recover earlier.
const PAUSE_LONGEST: Duration = Duration::from_secs(1);
/// The shortest pause between attempts. It prevents a busy loop, whatever the daemon says.
const PAUSE_SHORTEST: Duration = Duration::from_millis(50);
/// With less time than this left, another attempt is useless.
const LAST_MOMENT: Duration = Duration::from_millis(20);

/// News about a profile.
enum WaitEvent {
    /// The command asks again, for this reason.
    Waiting(String),
    /// The profile is usable, or will not be in time.
    Over(Result<(), UnusableProfile>),
}

/// The reason why a profile is not usable, and the exit status for it.
struct UnusableProfile {
    error: ClientError,
    exit: u8,
}

/// Runs the command; `client` is Err when no socket could be named. Returns the exit status.
pub fn run(args: &WaitArgs, client: Result<Client, ClientError>, err: &mut dyn Write) -> u8 {
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            complaint::error(err, None, &error, None);
            return exit::code_of(&error);
        }
    };
    let until = (!args.timeout.is_zero()).then(|| client.clock().now().boot.plus(args.timeout));
    let mut unusable = await_all(&args.profiles, &client, until, err);
    unusable.sort_by_key(|(profile, _)| args.profiles.iter().position(|name| name == profile));
    for (profile, why) in &unusable {
        complaint::error(err, Some(profile), &why.error, Some(&client));
    }
    // The exit status is the most useful one: what can never work comes first, then no daemon, then
    // repairs, then time.
    let rank = [
        exit::NOT_FOUND,
        exit::NOT_ADMIN,
        exit::USAGE,
        exit::UNREACHABLE,
        exit::REJECTED,
    ];
    let exits: Vec<u8> = unusable.iter().map(|(_, why)| why.exit).collect();
    match rank.into_iter().find(|code| exits.contains(code)) {
        Some(code) => code,
        None => exits.first().copied().unwrap_or(exit::DONE),
    }
}

/// Waits for all profiles at the same time, since a profile that is fetched on first use starts
/// when it is asked for. Returns the profiles that are not usable at the end, or at once the first
/// that never will be.
fn await_all(
    profiles: &[String],
    client: &Client,
    until: Option<BootTime>,
    err: &mut dyn Write,
) -> Vec<(String, UnusableProfile)> {
    let names: BTreeSet<&String> = profiles.iter().collect();
    let (tell, told) = mpsc::channel();
    for &name in &names {
        let (name, client, tell) = (name.clone(), client.clone(), tell.clone());
        let one = move || {
            // Nobody receives this once another profile has failed for good.
            let tell = |news| drop(tell.send((name.clone(), news)));
            let outcome = await_one(&name, &client, until, |why| tell(WaitEvent::Waiting(why)));
            tell(WaitEvent::Over(outcome));
        };
        // A profile without a thread stays unheard of. The code below handles that.
        let _ = thread::Builder::new().spawn(one);
    }
    drop(tell);
    let mut unusable = Vec::new();
    let mut unheard = names;
    for (name, news) in told {
        let outcome = match news {
            WaitEvent::Waiting(why) => {
                complaint::line(err, Some(&name), &format!("waiting: {why}"));
                continue;
            }
            WaitEvent::Over(outcome) => outcome,
        };
        unheard.remove(&name);
        if let Err(why) = outcome {
            let never = exit::is_final(&why.error);
            unusable.push((name, why));
            if never {
                // The other threads end with the process.
                return unusable;
            }
        }
    }
    // A profile without an answer does not count as usable.
    unusable.extend(unheard.into_iter().map(|name| {
        let error = ClientError::Unreachable {
            socket: Some(client.socket().to_owned()),
            cause: "this process can start no more threads".into(),
            cure: "wait for fewer profiles at a time, or raise the limit on tasks".into(),
        };
        let exit = exit::code_of(&error);
        (name.clone(), UnusableProfile { error, exit })
    }));
    unusable
}

/// Asks until there is a credential. `until` None: once. `waiting` gets the reason for each further
/// wait when it changes.
fn await_one(
    profile: &str,
    client: &Client,
    until: Option<BootTime>,
    waiting: impl Fn(String),
) -> Result<(), UnusableProfile> {
    let query = TokenQuery {
        profile: profile.to_owned(),
        ..TokenQuery::default()
    };
    let mut refused: Option<ClientError> = None;
    let mut said = None;
    loop {
        let left = until.map(|until| until.since(client.clock().now().boot));
        let error = match client.token(&query, left.unwrap_or(ONCE)) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let pause = pause_after(&error);
        let left = until.map_or(Duration::ZERO, |until| {
            until.since(client.clock().now().boot)
        });
        if left <= LAST_MOMENT || exit::is_final(&error) {
            return Err(unusable(error, refused));
        }
        let why = error.to_string();
        if said.as_ref() != Some(&why) {
            waiting(why.clone());
            said = Some(why);
        }
        if matches!(error, ClientError::Refused(_)) {
            refused = Some(error);
        }
        // Near the end the pause is half of the time left, so that the command does not sleep
        // through the last second.
        thread::sleep(pause.min(left / 2));
    }
}

/// Chooses the error to report. It is the last one, unless that is only our own deadline. `refused`
/// is the daemon's last refusal before it.
fn unusable(error: ClientError, refused: Option<ClientError>) -> UnusableProfile {
    let answered =
        refused.is_some() || matches!(error, ClientError::Refused(_) | ClientError::TimedOut(_));
    let error = match (error, refused) {
        (ClientError::TimedOut(_), Some(before)) => before,
        (error, _) => error,
    };
    let exit = match exit::code_of(&error) {
        // The daemon was there, and left while we waited.
        exit::UNREACHABLE if answered => exit::UNAVAILABLE,
        // An error inside the daemon did not pass in time.
        exit::FINDINGS => exit::UNAVAILABLE,
        code => code,
    };
    UnusableProfile { error, exit }
}

fn pause_after(error: &ClientError) -> Duration {
    match error {
        ClientError::Refused(refusal) => refusal
            .retry_after
            .unwrap_or(PAUSE_LONGEST)
            .clamp(PAUSE_SHORTEST, PAUSE_LONGEST),
        _ => PAUSE_WITHOUT_DAEMON,
    }
}

#[cfg(test)]
mod tests;
