//! `tokend wait PROFILE…`: returns when each profile has a usable credential.
//!
//! For ExecStartPre and scripts, so it is patient: the daemon may be starting, the identity
//! provider may be down, and somebody may be repairing a secret. Only what waiting cannot change
//! ends it at once: a profile that the running daemon does not know, or a question that makes no
//! sense. What it waits for is said on standard error, once and whenever that changes: somebody may
//! be there to repair it.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{WaitArgs, complaint, exit};
use crate::client::{Client, ClientError, TokenQuery};
use crate::core::time::BootTime;

/// How long one question may stay open with `--timeout 0`: the daemon's own attempts end well
/// before.
const ONCE: Duration = Duration::from_secs(30);
/// Between attempts, unless the daemon says otherwise. While there is no daemon, looking again
/// costs next to nothing.
const PAUSE_WITHOUT_DAEMON: Duration = Duration::from_millis(100);
/// Between attempts, and the most that is made of what the daemon says: it may have recovered
/// earlier.
const PAUSE_LONGEST: Duration = Duration::from_secs(1);
/// Nothing that the daemon says makes it a busy loop.
const PAUSE_SHORTEST: Duration = Duration::from_millis(50);
/// With less time than this left, another attempt is no use.
const LAST_MOMENT: Duration = Duration::from_millis(20);

/// What is heard of a profile.
enum WaitEvent {
    /// It is being asked for again, because of this.
    Waiting(String),
    /// It is usable, or will not be within the time.
    Over(Result<(), UnusableProfile>),
}

/// Why a profile is not usable, and the exit status that follows.
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
    // The one that tells most about what has to be done: what never can be, then no daemon, then
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

/// All at the same time, since a profile that is fetched on first use begins when it is asked for.
/// Returns what is not usable in the end, or at once the first that never will be.
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
            // Nobody listens any more once another profile has failed for good.
            let tell = |news| drop(tell.send((name.clone(), news)));
            let outcome = await_one(&name, &client, until, |why| tell(WaitEvent::Waiting(why)));
            tell(WaitEvent::Over(outcome));
        };
        // Without a thread the profile stays unheard of, which is dealt with below.
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
    // What nobody vouched for does not count as usable.
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

/// Asks until there is a credential. `until` None: once. `waiting` is told why it goes on, whenever
/// that changes.
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
        // Halving what is left near the end keeps the last second from being slept away.
        thread::sleep(pause.min(left / 2));
    }
}

/// What is told is the last error, unless that is only our own deadline; `refused` is the daemon's
/// last no before it.
fn unusable(error: ClientError, refused: Option<ClientError>) -> UnusableProfile {
    let answered =
        refused.is_some() || matches!(error, ClientError::Refused(_) | ClientError::TimedOut(_));
    let error = match (error, refused) {
        (ClientError::TimedOut(_), Some(before)) => before,
        (error, _) => error,
    };
    let exit = match exit::code_of(&error) {
        // It was there, and left while we waited.
        exit::UNREACHABLE if answered => exit::UNAVAILABLE,
        // An error inside the daemon, which did not pass in time.
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
