//! `tokend watch PROFILE`: prints a line at once, and one per change. It waits for a daemon that is
//! restarted.

use std::io::Write;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::{WatchArgs, complaint, exit, print};
use crate::client::watch::WatchEvent;
use crate::client::{Client, ClientError};
use crate::proto::Credential;

/// The pause between looks at a daemon that has gone away.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs the command until standard output is closed. Returns the exit status.
pub fn run(
    args: &WatchArgs,
    client: Result<Client, ClientError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            complaint::error(err, None, &error, None);
            return exit::code_of(&error);
        }
    };
    let mut connected = false;
    let mut last = None;
    loop {
        let mut ended = None;
        let mut tell = |news: WatchEvent| {
            connected = true;
            // After a reconnection the same credential comes again, which is not a change.
            let print_of = fingerprint(&news);
            if print_of.is_some() && print_of == last {
                return true;
            }
            last = print_of;
            let done = show(args, &news, out, err);
            ended = done;
            done.is_none()
        };
        let outcome = client.watch(&args.profile, &mut tell);
        if let Some(code) = ended {
            return code;
        }
        let Err(error) = outcome else {
            return exit::DONE;
        };
        let gone = matches!(
            error,
            ClientError::Closed(_) | ClientError::Unreachable { .. }
        );
        if !(gone && connected) {
            complaint::error(err, Some(&args.profile), &error, Some(&client));
            return exit::code_of(&error);
        }
        thread::sleep(PAUSE);
    }
}

fn fingerprint(news: &WatchEvent) -> Option<String> {
    match news {
        WatchEvent::Credential(credential) => Some(credential.fingerprint.clone()),
        WatchEvent::Unavailable(_) => None,
    }
}

/// Prints one line. Some: the command ends with this status.
fn show(
    args: &WatchArgs,
    news: &WatchEvent,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Option<u8> {
    let line = match news {
        WatchEvent::Credential(credential) if args.json => json_of(credential).to_string(),
        WatchEvent::Credential(credential) => credential.token.clone(),
        WatchEvent::Unavailable(unavailable) if args.json => json!({
            "unavailable": { "reason": unavailable.reason, "message": unavailable.message },
        })
        .to_string(),
        WatchEvent::Unavailable(unavailable) => {
            complaint::line(err, Some(&args.profile), &unavailable.message);
            return None;
        }
    };
    match print(out, &format!("{line}\n"), err) {
        Ok(true) => None,
        Ok(false) => Some(exit::DONE),
        Err(code) => Some(code),
    }
}

/// The fields of the credential in one flat object, as in the HTTP answer.
fn json_of(credential: &Credential) -> Value {
    let mut body = json!({
        "token": credential.token,
        "token_type": credential.token_type,
        "authorization": credential.authorization,
        "scopes": credential.scopes,
        "stale": credential.stale,
        "fingerprint": credential.fingerprint,
        "generation": credential.generation,
        "target": credential.target,
        "confirmation": credential.confirmation,
    });
    for (name, time) in [
        ("expires_at", &credential.expires_at),
        ("refresh_at", &credential.refresh_at),
    ] {
        if let Some(time) = time {
            body[name] = json!(time.to_string());
        }
    }
    body
}
