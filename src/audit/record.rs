//! One audit record, as a line of JSON and as a journal entry.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::caller::Peer;
use crate::core::credential::Fingerprint;
use crate::core::policy::Decision;
use crate::core::time::WallTime;

/// The longest name of a profile. Longer names from callers are cut.
const NAME: usize = 128;

/// Identifies audit entries in the journal: `journalctl MESSAGE_ID=…`.
const MESSAGE_ID: &str = "3f1a7c0e5d9b4b6e8a2f4c7d1e0b9a58";

/// The kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A request for a credential, in either protocol.
    GetToken,
    /// A stream of credentials.
    WatchToken,
    /// A report that an API refused a credential.
    ReportRejected,
    /// A look at the health of a profile.
    Health,
    /// A look at the status of everything.
    GetStatus,
    /// A request to read the files again.
    Reload,
    /// An explanation why a caller may or may not.
    Explain,
    Metrics,
}

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Action::GetToken => "GetToken",
            Action::WatchToken => "WatchToken",
            Action::ReportRejected => "ReportRejected",
            Action::Health => "Health",
            Action::GetStatus => "GetStatus",
            Action::Reload => "Reload",
            Action::Explain => "Explain",
            Action::Metrics => "Metrics",
        }
    }
}

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    Grant,
    Deny,
}

impl AuditEvent {
    fn as_str(self) -> &'static str {
        match self {
            AuditEvent::Grant => "grant",
            AuditEvent::Deny => "deny",
        }
    }
}

/// The caller that a record is about.
#[derive(Clone, Debug)]
pub enum RecordedCaller {
    Peer(Arc<Peer>),
    /// What several connections have in common.
    Several {
        /// None: the connections belong to several users.
        uid: Option<u32>,
        /// None: the group is not the same for all.
        gid: Option<u32>,
        /// None: the unit is not known to be the same for all.
        unit: Option<Arc<str>>,
    },
}

/// A record that has no number yet, and whose caller's unit has not been looked up.
#[derive(Debug)]
pub struct Draft {
    pub at: WallTime,
    /// The time of the first of the events that are counted here.
    pub since: Option<WallTime>,
    pub event: AuditEvent,
    pub action: Action,
    pub who: RecordedCaller,
    pub profile: String,
    pub scopes: Vec<String>,
    pub audience: Option<String>,
    pub decision: Decision,
    /// Fingerprint and generation.
    pub credential: Option<(Fingerprint, u64)>,
    /// The number of events.
    pub count: u64,
}

impl Draft {
    pub fn denial(
        at: WallTime,
        who: RecordedCaller,
        action: Action,
        profile: String,
        decision: Decision,
        count: u64,
    ) -> Draft {
        Draft {
            at,
            since: None,
            event: AuditEvent::Deny,
            action,
            who,
            profile,
            scopes: Vec::new(),
            audience: None,
            decision,
            credential: None,
            count,
        }
    }

    /// The record with its number. Looks up the caller's unit, which may read many folders.
    pub fn finished(self, seq: u64) -> Record {
        let (uid, gid, pid, unit) = match &self.who {
            RecordedCaller::Peer(peer) => {
                peer.look_for_unit();
                let caller = &peer.caller;
                let unit = peer.unit().name();
                (Some(caller.uid), Some(caller.gid), caller.pid, unit)
            }
            RecordedCaller::Several { uid, gid, unit } => (*uid, *gid, None, unit.as_deref()),
        };
        let word = self.event.as_str();
        let mut message = format!("{word} {} {}", self.action.as_str(), self.profile);
        // Writing to a text cannot fail.
        let _ = match uid {
            Some(uid) => write!(message, " to uid {uid}"),
            None => write!(message, " to several users"),
        };
        if self.count > 1 {
            let _ = write!(message, ", {} times", self.count);
        }
        let mut fields = Record::begin(self.at, seq, word);
        let mut put = |name, value| fields.push((name, value));
        put("decision", json!(word));
        put("action", json!(self.action.as_str()));
        put("uid", json!(uid));
        put("gid", json!(gid));
        put("pid", json!(pid));
        put("unit", json!(unit));
        put("profile", json!(self.profile));
        put("scopes", json!(self.scopes));
        put("audience", json!(self.audience));
        put("rule", json!(self.decision.to_string()));
        let (fingerprint, generation) = self.credential.unzip();
        put("fingerprint", json!(fingerprint.map(|one| one.to_string())));
        put("generation", json!(generation));
        put("count", json!(self.count));
        put("since", json!(self.since.map(|at| at.to_string())));
        Record { message, fields }
    }
}

/// A record as it is written.
#[derive(Debug)]
pub struct Record {
    /// The text for people.
    message: String,
    /// The fields, in this order.
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// A record about the log itself: `start`, `stop`, or `lost` with the number of records that
    /// could not be written.
    pub fn own(at: WallTime, seq: u64, event: &str, more: Vec<(&'static str, Value)>) -> Record {
        let mut fields = Record::begin(at, seq, event);
        let mut message = format!("audit: {event}");
        for (name, value) in more {
            let _ = write!(message, " {name} {value}");
            fields.push((name, value));
        }
        Record { message, fields }
    }

    fn begin(at: WallTime, seq: u64, event: &str) -> Vec<(&'static str, Value)> {
        vec![
            ("time", json!(at.to_string())),
            ("seq", json!(seq)),
            ("event", json!(event)),
        ]
    }

    /// One line of JSON, with its line break.
    pub fn line(&self) -> String {
        let mut line = String::with_capacity(512);
        for (name, value) in &self.fields {
            line.push(if line.is_empty() { '{' } else { ',' });
            let _ = write!(line, "\"{name}\":{value}");
        }
        line.push_str("}\n");
        line
    }

    /// The datagram of the journal's native protocol: `NAME=value` lines. Values with a line break
    /// are written with their length.
    pub fn datagram(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(512);
        let mut put = |name: &str, value: &str| {
            bytes.extend_from_slice(name.as_bytes());
            if value.contains('\n') {
                bytes.push(b'\n');
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                bytes.push(b'=');
            }
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        };
        put("MESSAGE", &self.message);
        put("MESSAGE_ID", MESSAGE_ID);
        // Normal, but significant.
        put("PRIORITY", "5");
        put("SYSLOG_IDENTIFIER", "tokend");
        for (name, value) in &self.fields {
            let name = format!("TOKEND_{}", name.to_ascii_uppercase());
            match value {
                Value::Null => {}
                Value::String(text) => put(&name, text),
                Value::Array(texts) => {
                    let texts: Vec<&str> = texts.iter().filter_map(Value::as_str).collect();
                    put(&name, &texts.join(" "));
                }
                other => put(&name, &other.to_string()),
            }
        }
        bytes
    }
}

/// Cuts a name to the length that is recorded.
pub fn shortened(profile: &str) -> String {
    profile.chars().take(NAME).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_value_cannot_become_a_field_of_its_own() {
        let at = WallTime(Duration::ZERO);
        let evil = "x\nTOKEND_DECISION=grant\n";
        let record = Record::own(at, 7, "lost", vec![("profile", json!(evil))]);
        let line = record.line();
        assert_eq!(line.matches('\n').count(), 1, "{line}");
        assert!(
            line.starts_with("{\"time\":\"1970-01-01T00:00:00.000Z\",\"seq\":7,\"event\":\"lost\"")
        );
        let datagram = record.datagram();
        let mut by_length = b"TOKEND_PROFILE\n".to_vec();
        by_length.extend_from_slice(&(evil.len() as u64).to_le_bytes());
        by_length.extend_from_slice(evil.as_bytes());
        assert!(
            datagram
                .windows(by_length.len())
                .any(|window| window == by_length)
        );
    }
}
