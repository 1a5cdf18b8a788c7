//! Explains why a caller may or may not have a profile's credential, why the credential is or is
//! not fresh, and what happens next.

use super::error::Denial;
use super::service::ApiService;
use super::session::Session;
use super::{status, wire};
use crate::audit::Action;
use crate::caller::groups_of;
use crate::core::policy::{Caller, Subject, Unit};
use crate::proto::{
    ExplainRequest, ExplainResponse, ExplainedCaller, ExplainedRule, ProfileStatus,
};
use crate::registry::RegistryEntry;

impl ApiService {
    /// Explains access to a profile. Administrators may ask about every caller and profile, others
    /// about themselves and the profiles that they may use.
    pub async fn explain(
        &self,
        session: &Session,
        wanted: ExplainRequest,
    ) -> Result<ExplainResponse, Denial> {
        let admin = self.is_admin(session).await;
        let for_another = !wanted.as_user.is_empty() || !wanted.as_unit.is_empty();
        let entry = if admin {
            let found = self.registry.load().get(&wanted.profile).cloned();
            found.ok_or_else(|| self.absent(&wanted.profile, true))?
        } else if for_another {
            return Err(self
                .for_admins(session, Action::Explain)
                .await
                .err()
                .unwrap_or_else(Denial::not_admin));
        } else {
            let found = self.entry(session, &wanted.profile, Action::Explain).await;
            found?.0
        };
        let supposed = if wanted.as_user.is_empty() {
            None
        } else {
            Some(supposed(wanted.as_user).await?)
        };
        // The look-up costs next to nothing, and an explanation without the unit explains little.
        session.peer.find_unit().await;
        let caller = supposed.as_ref().unwrap_or(&session.peer.caller);
        let unit = match (wanted.as_unit.as_str(), &supposed) {
            ("", None) => session.peer.unit(),
            // The unit of another user is what the request supposes, and it supposed none.
            ("", Some(_)) => Unit::Unknown,
            (unit, _) => Unit::Known(unit),
        };
        let subject = Subject { caller, unit };
        Ok(explained(&entry, subject, self, admin))
    }
}

async fn supposed(user: String) -> Result<Caller, Denial> {
    // The user database may be on the network.
    let name = user.clone();
    let found = tokio::task::spawn_blocking(move || groups_of(&name)).await;
    match found {
        Ok(Ok(Some(caller))) => Ok(caller),
        Ok(Ok(None)) => Err(Denial::bad_request(format!(
            "this host does not know the user {:?}",
            super::error::shortened(&user)
        ))),
        Ok(Err(why)) => Err(Denial::bad_request(format!(
            "the user cannot be looked up now: {why}"
        ))),
        Err(_) => Err(Denial::stopping()),
    }
}

fn explained(
    entry: &RegistryEntry,
    subject: Subject<'_>,
    service: &ApiService,
    admin: bool,
) -> ExplainResponse {
    let decision = entry.decide(subject);
    let rules = entry.access.explain(subject).into_iter();
    let profile = status::profile(&service.audit, entry, service.clock.now());
    let mut explanation = sentences(&profile);
    if admin {
        let refused = service.registry.load();
        explanation.extend(refused.refused.iter().map(|why| {
            let why = sentence(why);
            format!("Warning: tokend.toml is not in force, what was in force before it is: {why}")
        }));
    }
    if service.audit.refuses() {
        explanation.push(match service.audit.trouble().filter(|_| admin) {
            Some(trouble) => format!("Callers are refused all the same: {trouble}."),
            None => format!("All the same, {}.", status::UNRECORDED),
        });
    }
    for also in &entry.also {
        let verdict = match also.decide(subject).permits() {
            true => "they permit this caller",
            false => "they do not permit this caller",
        };
        explanation.push(format!(
            "What is in its files now is not in force as a whole, but its access rules have to permit as well until it is: {}; {verdict}.",
            also.named_ones()
        ));
    }
    ExplainResponse {
        permitted: decision.permits(),
        decided_by: decision.to_string(),
        rules: rules
            .map(|(rule, why_not)| ExplainedRule {
                rule,
                holds: why_not.is_none(),
                why_not: why_not.unwrap_or_default(),
            })
            .collect(),
        caller: Some(ExplainedCaller {
            uid: subject.caller.uid,
            gid: subject.caller.gid,
            groups: subject.caller.groups.clone(),
            unit: subject.unit.name().unwrap_or_default().to_owned(),
        }),
        profile: Some(profile),
        explanation,
    }
}

/// Explains in sentences why the credential is as it is, and what happens next.
fn sentences(profile: &ProfileStatus) -> Vec<String> {
    let left = profile.expires_in.as_ref().map(wire::text);
    let life = match &left {
        Some(left) => format!("expires in {left}"),
        None => "does not expire".to_owned(),
    };
    let had_one = profile.generation > 0;
    let mut said = vec![match profile.state.as_str() {
        "fresh" => format!("There is a credential, and it {life}."),
        "stale" => format!("There is a credential that {life}, but the last attempt to renew it failed."),
        "fetching" if had_one => "The last credential has ended, and the next one has not come yet.".to_owned(),
        "fetching" => "There is no credential yet: the first attempt to get one has had no result.".to_owned(),
        "backoff" => "There is no credential: the last attempt to get one failed.".to_owned(),
        "rejected" => "The identity provider rejects what it is shown: a changed secret, certificate or configuration is what helps, and is tried at once.".to_owned(),
        "asleep" => "Nobody has asked lately, so none is kept: the next who asks gets a new one.".to_owned(),
        "invalid" => "The profile or one of its files cannot be used.".to_owned(),
        other => format!("The state is {other}."),
    }];
    if let Some(error) = &profile.last_error {
        said.push(format!("{}: {}", error.reason, sentence(&error.message)));
    }
    if let Some(next) = &profile.next_attempt_in {
        let next = wire::text(next);
        said.push(match profile.state.as_str() {
            "fresh" => format!("It is renewed in {next}."),
            "rejected" => {
                format!("Whether it still does is looked at now and then, next in {next}.")
            }
            _ => format!("The next attempt is made in {next}."),
        });
    }
    let warnings = profile.warnings.iter();
    let warnings = warnings.filter(|warning| *warning != status::UNRECORDED);
    said.extend(warnings.map(|warning| format!("Warning: {}", sentence(warning))));
    said
}

/// The text with one full stop at its end.
fn sentence(text: &str) -> String {
    format!("{}.", text.trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by a text of 0.7 s that says 0s, and by the same words for a first and a later fetch.
    #[test]
    fn every_state_is_explained_and_what_comes_is_told() {
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let told = |state: &str, expires_in, next_attempt_in| {
            sentences(&ProfileStatus {
                state: state.into(),
                expires_in,
                next_attempt_in,
                ..ProfileStatus::default()
            })
        };
        assert_eq!(
            told("fresh", seconds(61), seconds(30)),
            [
                "There is a credential, and it expires in 1m 1s.",
                "It is renewed in 30s."
            ]
        );
        assert_eq!(
            told("fresh", None, None),
            ["There is a credential, and it does not expire."]
        );
        assert_eq!(
            told("backoff", None, seconds(2))[1],
            "The next attempt is made in 2s."
        );
        // The rest of a second is not nothing.
        assert_eq!(
            told("stale", seconds(0), seconds(0)),
            [
                "There is a credential that expires in less than a second, but the last attempt to renew it failed.",
                "The next attempt is made in less than a second."
            ]
        );
        // An attempt that is made is not called useless.
        let rejected = told("rejected", None, seconds(2)).concat();
        assert!(rejected.contains("next in 2s") && !rejected.contains("not help"));
        for state in ["stale", "fetching", "rejected", "asleep", "invalid"] {
            assert!(
                !told(state, None, None)[0].starts_with("The state is"),
                "{state}"
            );
        }
        let later = ProfileStatus {
            state: "fetching".into(),
            generation: 3,
            warnings: vec![status::UNRECORDED.into(), "its files are odd.".into()],
            ..ProfileStatus::default()
        };
        assert_eq!(
            sentences(&later),
            [
                "The last credential has ended, and the next one has not come yet.",
                "Warning: its files are odd."
            ]
        );
    }
}
