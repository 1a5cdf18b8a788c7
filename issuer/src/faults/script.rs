//! Which fault comes next.

use std::collections::HashMap;
use std::time::Duration;

use super::{Fault, Target, Times};

/// The faults that are still to come.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: Vec<FaultRule>,
    /// What [`Fault::SameToken`] repeats, per client and parameters.
    firsts: HashMap<String, RepeatedToken>,
}

#[derive(Debug)]
struct FaultRule {
    target: Target,
    fault: Fault,
    times: Times,
}

/// A token that is issued again and again.
#[derive(Clone, Debug)]
pub(crate) struct RepeatedToken {
    /// `access_token` as JSON.
    pub token: String,
    /// When it was issued, since 1970.
    pub at: Duration,
}

impl Script {
    /// Adds a fault at the end of the script.
    pub fn push(&mut self, target: Target, fault: Fault, times: Times) {
        if times == Times::Next(0) {
            return;
        }
        self.rules.push(FaultRule {
            target,
            fault,
            times,
        });
    }

    /// Forgets every fault and every repeated token.
    pub fn clear(&mut self) {
        *self = Script::default();
    }

    /// Returns the first fault that is meant for this request, and uses up one of its times.
    /// `client` is None for a request that is not for a token, and for a token request that names
    /// no client.
    pub fn take(&mut self, path: &str, is_token: bool, client: Option<&str>) -> Option<Fault> {
        let at = self.rules.iter().position(|rule| match &rule.target {
            Target::Token => is_token,
            Target::Client(id) => is_token && client == Some(id),
            Target::Path(wanted) => wanted == path,
        })?;
        let rule = &mut self.rules[at];
        match &mut rule.times {
            Times::Next(1) => Some(self.rules.remove(at).fault),
            Times::Next(left) => {
                *left = left.saturating_sub(1);
                Some(rule.fault.clone())
            }
            Times::Always => Some(rule.fault.clone()),
        }
    }

    /// Returns the token that is repeated for `key`. If there is none yet, `fresh` is it from now
    /// on.
    pub fn first(&mut self, key: String, fresh: RepeatedToken) -> RepeatedToken {
        self.firsts.entry(key).or_insert(fresh).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(fault: Option<Fault>) -> String {
        format!("{fault:?}")
    }

    #[test]
    fn faults_are_used_up_in_order_and_only_by_what_they_are_for() {
        let mut script = Script::default();
        script.push(Target::Client("a".into()), Fault::Html200, Times::Next(2));
        script.push(Target::Token, Fault::Hang, Times::Next(1));
        script.push(
            Target::Path("/jwks".into()),
            Fault::EchoSecret,
            Times::Always,
        );
        assert_eq!(
            name(script.take("/token", true, Some("a"))),
            "Some(Html200)"
        );
        assert_eq!(name(script.take("/token", true, Some("b"))), "Some(Hang)");
        assert_eq!(name(script.take("/token", true, Some("b"))), "None");
        assert_eq!(
            name(script.take("/token", true, Some("a"))),
            "Some(Html200)"
        );
        assert_eq!(name(script.take("/token", true, Some("a"))), "None");
        assert_eq!(name(script.take("/jwks", false, None)), "Some(EchoSecret)");
        assert_eq!(name(script.take("/jwks", false, None)), "Some(EchoSecret)");
        script.clear();
        assert_eq!(name(script.take("/jwks", false, None)), "None");
    }

    #[test]
    fn a_fault_for_no_request_is_never_taken() {
        let mut script = Script::default();
        script.push(Target::Token, Fault::Hang, Times::Next(0));
        assert_eq!(name(script.take("/token", true, None)), "None");
    }
}
