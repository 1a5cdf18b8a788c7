//! What a plugin is asked: JSON in one line.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::core::credential::Fingerprint;
use crate::core::time::WallTime;

/// The version of the contract. Fields may be added without another number, so whoever reads
/// ignores those it does not know.
pub const VERSION: u64 = 1;

/// Why a credential is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FetchReason {
    /// There is none yet.
    #[default]
    First,
    /// The one there is ends, or a caller needs one that lives longer.
    Renewal,
    /// An API refused the one with this fingerprint.
    Rejected(Fingerprint),
    /// A changed profile is tried before it replaces one that works.
    Canary,
}

impl FetchReason {
    /// The word in the request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            FetchReason::First => "first",
            FetchReason::Renewal => "renewal",
            FetchReason::Rejected(_) => "rejected",
            FetchReason::Canary => "canary",
        }
    }
}

/// Why an attempt is made, and for whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchPurpose {
    pub reason: FetchReason,
    /// The longest life that a waiting caller needs. Zero: any will do.
    pub min_ttl: Duration,
}

/// One request, before it is text.
#[derive(Clone, Copy, Debug)]
pub struct PluginRequest<'a> {
    pub profile: &'a str,
    pub settings: &'a BTreeMap<String, String>,
    pub scopes: &'a [String],
    pub audience: Option<&'a str>,
    pub resource: &'a [String],
    pub purpose: FetchPurpose,
    /// The time that the plugin has.
    pub timeout: Duration,
    /// The same as a moment.
    pub deadline: WallTime,
}

/// The fields of the JSON object.
#[derive(Serialize)]
struct RequestFields<'a> {
    version: u64,
    profile: &'a str,
    why: &'static str,
    /// Of the refused credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    settings: &'a BTreeMap<String, String>,
    scopes: &'a [String],
    audience: Option<&'a str>,
    resource: &'a [String],
    /// Seconds.
    min_ttl: u64,
    /// Seconds.
    timeout: f64,
    /// RFC 3339.
    deadline: String,
}

impl PluginRequest<'_> {
    /// The text, with a line break at its end.
    #[must_use]
    pub fn text(&self) -> String {
        let min_ttl = self.purpose.min_ttl;
        let fields = RequestFields {
            version: VERSION,
            profile: self.profile,
            why: self.purpose.reason.as_str(),
            fingerprint: match self.purpose.reason {
                FetchReason::Rejected(fingerprint) => Some(fingerprint.to_string()),
                _ => None,
            },
            settings: self.settings,
            scopes: self.scopes,
            audience: self.audience,
            resource: self.resource,
            min_ttl: min_ttl.as_secs() + u64::from(min_ttl.subsec_nanos() > 0),
            timeout: self.timeout.as_secs_f64(),
            deadline: self.deadline.to_string(),
        };
        let json = serde_json::to_string(&fields);
        json.expect("texts, numbers and maps of texts can be written") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_request_is_one_line_with_everything_in_it() {
        let settings = BTreeMap::from([("site".to_owned(), "a\n\"b".to_owned())]);
        let fingerprint = Fingerprint::parse(&"ab".repeat(16)).expect("one");
        let request = PluginRequest {
            profile: "corp",
            settings: &settings,
            scopes: &["read".to_owned()],
            audience: Some("api"),
            resource: &[],
            purpose: FetchPurpose {
                reason: FetchReason::Rejected(fingerprint),
                min_ttl: Duration::from_millis(1_500),
            },
            timeout: Duration::from_secs(30),
            deadline: WallTime(Duration::from_secs(1_795_490_940)),
        };
        let text = request.text();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let read: Value = serde_json::from_str(&text).expect("JSON");
        let expected = json!({
            "version": 1, "profile": "corp", "why": "rejected", "fingerprint": "ab".repeat(16),
            "settings": {"site": "a\n\"b"}, "scopes": ["read"], "audience": "api", "resource": [],
            "min_ttl": 2, "timeout": 30.0, "deadline": "2026-11-24T03:29:00.000Z",
        });
        assert_eq!(read, expected);
        let purpose = FetchPurpose::default();
        let first = PluginRequest { purpose, ..request }.text();
        assert!(first.contains(r#""why":"first""#) && !first.contains("fingerprint"));
    }
}
