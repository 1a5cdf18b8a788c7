//! `tokend explain PROFILE`: tells which rule lets a caller have the credential, or why none does.
//! It also tells why the credential is or is not fresh, and what happens next.
//!
//! The command fails as for an unknown profile if the caller in question may not have the
//! credential, so that scripts can test that.

use std::io::Write;

use super::{ExplainArgs, complaint, exit, print};
use crate::client::text::escaped;
use crate::client::{Client, ClientError};
use crate::proto::ExplainResponse;

/// Runs the command; `client` is Err when no socket could be named. Returns the exit status.
pub fn run(
    args: &ExplainArgs,
    client: Result<Client, ClientError>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> u8 {
    let (user, unit) = (args.as_user.as_deref(), args.as_unit.as_deref());
    let client = match client {
        Ok(client) => client,
        Err(error) => {
            complaint::error(err, None, &error, None);
            return exit::code_of(&error);
        }
    };
    let explained = match client.explain(&args.profile, user, unit, args.timeout) {
        Ok(explained) => explained,
        Err(error) => {
            complaint::error(err, Some(&args.profile), &error, Some(&client));
            return exit::code_of(&error);
        }
    };
    let text = if args.json {
        format!("{}\n", explained.json)
    } else {
        render(&explained.message)
    };
    match print(out, &text, err) {
        Err(code) => code,
        Ok(_) if explained.message.permitted => exit::DONE,
        Ok(_) => exit::NOT_FOUND,
    }
}

/// The verdict, the caller in question, every rule with its reason, and the state of the
/// credential.
fn render(explained: &ExplainResponse) -> String {
    let ExplainResponse {
        rules, decided_by, ..
    } = explained;
    let profile = explained.profile.clone().unwrap_or_default();
    let caller = explained.caller.clone().unwrap_or_default();
    let verdict = match (explained.permitted, decided_by.as_str()) {
        (true, "default") => {
            "permitted: it has no `access`, so root and the daemon's own user may".to_owned()
        }
        (true, rule) => format!("permitted by {rule}"),
        (false, _) if rules.is_empty() => {
            "denied: it has no `access`, so only root and the daemon's own user may".to_owned()
        }
        (false, _) => "denied: no rule holds".to_owned(),
    };
    let groups: Vec<String> = caller.groups.iter().map(u32::to_string).collect();
    let mut lines = vec![
        format!("{} ({}): {verdict}", profile.name, profile.method),
        format!(
            "caller: uid {}, gid {}, groups {}, unit {}",
            caller.uid,
            caller.gid,
            or_none(&groups.join(" ")),
            or_none(&caller.unit),
        ),
    ];
    for (index, rule) in rules.iter().enumerate() {
        let why = if rule.holds {
            "holds".to_owned()
        } else {
            format!("does not hold: {}", rule.why_not)
        };
        lines.push(format!("  access[{index}] {}: {why}", rule.rule));
    }
    lines.extend(explained.explanation.iter().cloned());
    let lines = lines.iter().map(|line| escaped(line).to_string() + "\n");
    lines.collect()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(permitted: bool, decided_by: &str, rules: &str) -> String {
        let body = format!(
            r#"{{"permitted":{permitted},"decided_by":"{decided_by}","rules":{rules},
                "caller":{{"uid":1,"gid":2,"groups":[3,4],"unit":""}},
                "profile":{{"name":"p","method":"static"}},"explanation":["There is a credential."]}}"#
        );
        render(&serde_json::from_str(&body).expect("an answer"))
    }

    #[test]
    fn verdict_caller_rules_and_credential_are_told() {
        assert_eq!(
            shown(
                true,
                "access[1]",
                r#"[{"rule":"{ user = 7 }","holds":false,"why_not":"the user is 1"},{"rule":"{ group = 3 }","holds":true,"why_not":""}]"#
            ),
            "p (static): permitted by access[1]\n\
             caller: uid 1, gid 2, groups 3 4, unit none\n  \
             access[0] { user = 7 }: does not hold: the user is 1\n  \
             access[1] { group = 3 }: holds\n\
             There is a credential.\n"
        );
        assert!(shown(false, "none", "[]").contains("denied: it has no `access`"));
        assert!(shown(true, "default", "[]").contains("permitted: it has no `access`"));
    }
}
