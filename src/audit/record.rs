//! One record, as a line of JSON and as an entry of the journal.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::caller::Peer;
use crate::core::credential::Fingerprint;
use crate::core::policy::Decision;
use crate::core::time::WallTime;

/// Names of profiles are at most this long; what callers send in their place is cut.
const NAME: usize = 128;

/// Names entries of this kind in the journal: `journalctl MESSAGE_ID=…`.
const MESSAGE_ID: &str = "3f1a7c0e5d9b4b6e8a2f4c7d1e0b9a58";

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// A credential, in either language.
    GetToken,
    /// A stream of credentials.
    WatchToken,
    /// Note of a credential that an API refused.
    ReportRejected,
    /// Health of a profile.
    Health,
    /// State of everything.
    GetStatus,
    /// Another look at the files.
    Reload,
    /// Why somebody may or may not.
    Explain,
    /// Metrics.
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

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditEvent {
    /// It was handed out.
    Grant,
    /// It was refused.
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

/// Whom a record is about.
#[derive(Clone, Debug)]
pub enum RecordedCaller {
    /// The other end of one connection.
    Peer(Arc<Peer>),
    /// Several connections: what they have in common.
    Several {
        /// None: they are of several users.
        uid: Option<u32>,
        /// None: it is not the same for all.
        gid: Option<u32>,
        /// None: it is not known to be the same for all.
        unit: Option<Arc<str>>,
    },
}

/// A record that has no number yet, and whose caller's unit has not been looked for.
#[derive(Debug)]
pub struct Draft {
    pub at: WallTime,
    /// When it happened for the first time of those that are counted here.
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
    /// How often it happened.
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

    /// The record with its number. Looks for the caller's unit, which may read many folders.
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
    /// For people.
    message: String,
    /// In this order.
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    /// What concerns the record itself: `start`, `stop`, and `lost` with the number of records that
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

    /// One line of JSON, with its end.
    pub fn line(&self) -> String {
        let mut line = String::with_capacity(512);
        for (name, value) in &self.fields {
            line.push(if line.is_empty() { '{' } else { ',' });
            let _ = write!(line, "\"{name}\":{value}");
        }
        line.push_str("}\n");
        line
    }

    /// The datagram of the journal's native protocol: `NAME=value` lines, and values with a line
    /// break by their length.
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
        // Normal, but worth being kept.
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

/// A name as it is recorded.
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
