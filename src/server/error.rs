//! Why a request gets no credential, and the one mapping from that to gRPC and HTTP status.

use std::collections::HashMap;
use std::time::Duration;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::broker::NoAnswer;
use crate::core::account::{LimitOwner, Resource, Spent};
use crate::core::lifecycle::{Refusal, RefusalKind};
use crate::proto::{DOMAIN, INVALID_REQUEST};

/// Shortens a caller's text to the length of the longest possible name, in bytes. The text goes
/// into headers, logs and what is kept.
pub fn shortened(text: &str) -> String {
    text[..text.floor_char_boundary(128)].to_owned()
}

/// A refusal, in words for the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct Denial {
    code: Code,
    reason: &'static str,
    message: String,
    oauth_error: Option<String>,
    retry_after: Option<Duration>,
}

impl Denial {
    fn new(code: Code, reason: &'static str, message: String) -> Denial {
        Denial {
            code,
            reason,
            message,
            oauth_error: None,
            retry_after: None,
        }
    }

    /// The profile does not exist or is not permitted. Both cases give the same words.
    pub fn not_found(profile: &str) -> Denial {
        let shown = shortened(profile);
        Denial::new(
            Code::NotFound,
            "PROFILE_NOT_FOUND",
            format!(
                "no profile {shown:?} for this caller: it is not in tokend's configuration, or its `access` does not name this user, group or unit"
            ),
        )
    }

    /// The profile does not exist, for an administrator. `pending`: files have changed and were not
    /// read since. `refused`: what is in force is not what `tokend.toml` says now.
    pub fn not_defined(profile: &str, pending: bool, refused: bool) -> Denial {
        let shown = shortened(profile);
        let (more, after) = match (pending, refused) {
            (true, _) => (
                "; files have just changed and are not taken over yet: ask again",
                Some(Duration::from_secs(1)),
            ),
            (false, true) => (
                "; what tokend.toml says now is not in force: `tokend status` says why",
                None,
            ),
            (false, false) => ("; `tokend status` lists those that there are", None),
        };
        let message = format!("no profile {shown:?} is in the configuration in force{more}");
        Denial::new(Code::NotFound, "PROFILE_NOT_FOUND", message).after(after)
    }

    /// The profile exists and does not permit the caller, who is an administrator.
    pub fn not_named(profile: &str, rules: &str) -> Denial {
        Denial::new(
            Code::NotFound,
            "PROFILE_NOT_FOUND",
            format!(
                "profile {profile} exists, and no rule of its `access` names this caller: it permits {rules}; `tokend explain {profile}` tells rule by rule"
            ),
        )
    }

    /// The configuration cannot be used, and no earlier one is in force.
    pub fn closed(why: &str) -> Denial {
        Denial::new(
            Code::Unavailable,
            "CONFIGURATION_UNUSABLE",
            format!(
                "tokend has no configuration that can be used ({why}); it takes up the repaired file by itself, and `tokend check` tells an administrator more"
            ),
        )
        .after(Some(Duration::from_secs(5)))
    }

    /// The profile's configuration or files cannot be used.
    pub fn invalid(profile: &str, why: &str) -> Denial {
        Denial::new(
            Code::FailedPrecondition,
            "PROFILE_INVALID",
            format!("profile {profile}: {why}"),
        )
    }

    /// The request itself is wrong.
    pub fn bad_request(message: impl Into<String>) -> Denial {
        Denial::new(Code::InvalidArgument, INVALID_REQUEST, message.into())
    }

    /// The caller's own deadline has passed.
    pub fn deadline(profile: &str) -> Denial {
        Denial::new(
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            format!(
                "profile {profile}: no credential within the caller's deadline; the attempt goes on"
            ),
        )
    }

    /// The credential was valid when it was chosen, but this machine then slept or was busy for
    /// longer than the credential lived.
    pub fn too_late(profile: &str) -> Denial {
        Denial::new(
            Code::Unavailable,
            "UPSTREAM_UNAVAILABLE",
            format!("profile {profile}: the credential expired before it could be handed over: ask again"),
        )
        .after(Some(Duration::from_secs(1)))
    }

    /// The profile exists, but each time it was asked, another version had just replaced it.
    pub fn replaced(profile: &str) -> Denial {
        Denial::new(
            Code::Unavailable,
            "UPSTREAM_UNAVAILABLE",
            format!("profile {profile}: it is being replaced by another definition or other material: ask again"),
        )
        .after(Some(Duration::from_secs(1)))
    }

    /// The daemon is ending, so a credential that is not there yet will not come. The daemon's
    /// successor may have one.
    pub fn stopping() -> Denial {
        Denial::new(
            Code::Unavailable,
            "UPSTREAM_UNAVAILABLE",
            "tokend is being stopped, and the credential has not come in time: ask again".into(),
        )
        .after(Some(Duration::from_secs(1)))
    }

    /// The account of the caller's user or unit holds as much as it may.
    pub fn account_full(what: Resource, full: LimitOwner) -> Denial {
        let (things, limit) = match what {
            Resource::Connections => ("connections", "connections_per_user"),
            Resource::Streams => ("open streams", "streams_per_user"),
            Resource::Waiting => ("calls that wait for a credential", "waiting_per_user"),
            Resource::Bytes => (
                "bytes in calls that are not whole and in long answers that are not read",
                "half_sent_per_user",
            ),
        };
        let message = match full {
            LimitOwner::User(most) => {
                format!(
                    "this user has {most} {things}, which is all it may (server.limits.{limit})"
                )
            }
            LimitOwner::Unit(most) => format!(
                "this unit has {most} {things}, three quarters of what its user may have (server.limits.{limit})"
            ),
            LimitOwner::InAll(most) => {
                format!("all callers together have {most} {things}, and there is no room for more")
            }
        };
        Denial::limited(message, Duration::from_secs(1))
    }

    /// The account of the caller's user or unit has spent as much as it may.
    pub fn account_spent(what: Spent, after: Duration) -> Denial {
        let message = match what {
            Spent::Requests => "this user asks too often (server.limits.requests_per_second)",
            Spent::Profiles => {
                "this user asks too often for lists, readiness, status or metrics (server.limits.profiles_per_second)"
            }
            Spent::Renewals => {
                "this user has forced too many renewals, by min_ttl or by reports of rejection (server.limits.forced_renewals_per_minute)"
            }
        };
        Denial::limited(message.to_owned(), after)
    }

    fn limited(message: String, after: Duration) -> Denial {
        Denial::new(Code::ResourceExhausted, "CALLER_RATE_LIMITED", message).after(Some(after))
    }

    /// The grant cannot be recorded, and `audit.on_failure` is `deny`.
    pub fn unrecorded(profile: &str) -> Denial {
        Denial::new(
            Code::Unavailable,
            "AUDIT_UNAVAILABLE",
            format!("profile {profile}: the audit record of this grant cannot be written, and audit.on_failure = \"deny\" lets none go without; `tokend doctor` shows an administrator why"),
        )
        .after(Some(Duration::from_secs(1)))
    }

    /// The reload has not finished.
    pub fn still_reading() -> Denial {
        Denial::new(
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
            "the files were not all read within that time; the reload goes on, and its result is in the status"
                .into(),
        )
    }

    /// The caller is not an administrator.
    pub fn not_admin() -> Denial {
        Denial::new(
            Code::PermissionDenied,
            "NOT_ADMIN",
            "only root, the daemon's own user and whom `[server] admins` names may do this".into(),
        )
    }

    /// The denial for the broker's reason.
    pub fn of(profile: &str, no_answer: NoAnswer) -> Denial {
        match no_answer {
            NoAnswer::Gone => Denial::replaced(profile),
            NoAnswer::Stopped => Denial::stopping(),
            NoAnswer::TooManyVariants => Denial::new(
                Code::ResourceExhausted,
                "CALLER_RATE_LIMITED",
                format!("profile {profile}: too many different scopes or audiences are in use at the same time"),
            )
            .after(Some(Duration::from_secs(60))),
            NoAnswer::Crowded => Denial::new(
                Code::ResourceExhausted,
                "CALLER_RATE_LIMITED",
                format!("profile {profile}: too many callers wait for its credential already"),
            )
            .after(Some(Duration::from_secs(1))),
            NoAnswer::Refused(refusal) => Denial::refused(profile, &refusal),
        }
    }

    /// The denial for the lifecycle's refusal.
    pub fn refused(profile: &str, refusal: &Refusal) -> Denial {
        let (code, reason) = match refusal.kind {
            RefusalKind::Unavailable => (Code::Unavailable, "UPSTREAM_UNAVAILABLE"),
            RefusalKind::Rejected => (Code::FailedPrecondition, "UPSTREAM_REJECTED"),
            RefusalKind::MinTtlTooLong => (Code::OutOfRange, "MIN_TTL_TOO_LONG"),
        };
        let mut denial = Denial::new(
            code,
            reason,
            format!("profile {profile}: {}", refusal.message),
        )
        .after(refusal.retry_after);
        denial.oauth_error.clone_from(&refusal.oauth_error);
        denial
    }

    fn after(mut self, retry_after: Option<Duration>) -> Denial {
        self.retry_after = retry_after;
        self
    }

    /// The fixed name of the cause.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The text for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// After this time it makes sense to ask again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl From<Denial> for Status {
    fn from(denial: Denial) -> Status {
        let metadata: HashMap<String, String> = denial
            .oauth_error
            .into_iter()
            .map(|code| ("oauth_error".to_owned(), code))
            .collect();
        let mut details = ErrorDetails::with_error_info(denial.reason, DOMAIN, metadata);
        if denial.retry_after.is_some() {
            details.set_retry_info(denial.retry_after);
        }
        Status::with_error_details(denial.code, denial.message, details)
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        let (status, code) = match self.code {
            Code::InvalidArgument => (StatusCode::BAD_REQUEST, "INVALID_ARGUMENT"),
            Code::OutOfRange => (StatusCode::BAD_REQUEST, "OUT_OF_RANGE"),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "PERMISSION_DENIED"),
            Code::NotFound => (StatusCode::NOT_FOUND, "NOT_FOUND"),
            Code::FailedPrecondition => (StatusCode::FAILED_DEPENDENCY, "FAILED_PRECONDITION"),
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED"),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        };
        let mut body = json!({
            "code": code,
            "reason": self.reason,
            "message": self.message,
        });
        if let Some(after) = self.retry_after {
            body["retry_after"] = json!(after.as_secs_f64());
        }
        if let Some(code) = self.oauth_error {
            body["oauth_error"] = json!(code);
        }
        let mut response = (status, Json(body)).into_response();
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after
            && matches!(
                status,
                StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
            )
        {
            // Whole seconds (RFC 9110 §10.2.3), rounded up so that nobody asks too early.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by mapping either of them to NOT_FOUND: the caller would take the profile for removed
    /// and give up.
    #[test]
    fn what_will_be_back_is_unavailable_and_not_missing() {
        for passing in [NoAnswer::Gone, NoAnswer::Stopped] {
            let denial = Denial::of("p", passing);
            assert_eq!(denial.code, Code::Unavailable);
            assert_eq!(denial.reason(), "UPSTREAM_UNAVAILABLE");
            assert!(denial.retry_after().is_some());
        }
    }
}
