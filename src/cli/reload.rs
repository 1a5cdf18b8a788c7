//! `tokend reload`: has everything read again, and prints the result for each profile.
//!
//! The command fails if anything is not served as the files say, so that `ExecReload=tokend reload`
//! makes `systemctl reload` fail too.

use std::io::Write;

use super::{ReloadArgs, complaint, exit, print};
use crate::client::text::escaped;
use crate::client::{Client, ClientError};
use crate::proto::{self, ReloadResponse};

/// Runs the command; `client` is Err when no socket could be named. Returns the exit status.
pub fn run(
    args: &ReloadArgs,
    client: Result<Client, ClientError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let reload = match client.and_then(|client| client.reload(args.timeout)) {
        Ok(reload) => reload,
        Err(error) => {
            complaint::error(err, None, &error, None);
            return exit::code_of(&error);
        }
    };
    let text = if args.json {
        format!("{}\n", reload.json)
    } else {
        render(&reload.message)
    };
    match print(out, &text, err) {
        Err(code) => code,
        Ok(_) if reload.message.complete => exit::DONE,
        Ok(_) => exit::FINDINGS,
    }
}

/// A line for each change and each profile that did not come into force, and the number of
/// unchanged profiles.
fn render(reload: &ReloadResponse) -> String {
    let mut text = String::new();
    for line in &reload.refused {
        text.push_str(&format!("tokend.toml is not in force: {}\n", escaped(line)));
    }
    let mut unchanged = 0;
    for profile in &reload.profiles {
        if profile.outcome == "unchanged" {
            unchanged += 1;
            continue;
        }
        let mut line = format!("{}: {}", profile.profile, profile.outcome);
        if !profile.message.is_empty() {
            line.push_str(&format!(": {}", profile.message));
        }
        if let (false, Some(since)) = (profile.message.is_empty(), &profile.since) {
            line.push_str(&format!(" (since {})", proto::json::text(since)));
        }
        text.push_str(&format!("{}\n", escaped(&line)));
    }
    match unchanged {
        0 => {}
        1 => text.push_str("1 profile unchanged\n"),
        many => text.push_str(&format!("{many} profiles unchanged\n")),
    }
    if text.is_empty() {
        text.push_str("no profiles\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> String {
        render(&serde_json::from_str(body).expect("an answer"))
    }

    #[test]
    fn what_changed_is_told_and_the_rest_counted() {
        assert_eq!(
            shown(
                r#"{"complete":false,"profiles":[
                    {"profile":"a","outcome":"unchanged"},
                    {"profile":"b","outcome":"changed","since":"2026-01-01T00:00:00.000Z"},
                    {"profile":"c","outcome":"kept","message":"no key",
                     "since":"2026-01-01T00:00:00.000Z"},
                    {"profile":"d","outcome":"unchanged"}]}"#
            ),
            "b: changed\nc: kept: no key (since 2026-01-01T00:00:00.000Z)\n2 profiles unchanged\n"
        );
        assert_eq!(
            shown(r#"{"complete":false,"refused":["tokend.toml:1:1: no"],"profiles":[]}"#),
            "tokend.toml is not in force: tokend.toml:1:1: no\n"
        );
        assert_eq!(shown(r#"{"complete":true,"profiles":[]}"#), "no profiles\n");
    }
}
