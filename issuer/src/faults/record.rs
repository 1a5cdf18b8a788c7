//! What the issuer remembers of what it was asked.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::form::Form;

/// The issuer keeps this many requests; the oldest go first.
const RECORDS_MAX: usize = 100_000;

/// The issuer counts at most this many different paths. Without a limit, a client that makes up
/// paths would fill the memory.
const PATHS_MAX: usize = 1000;

/// Parameters that hold secrets; never recorded.
const SECRETS: [&str; 7] = [
    "client_secret",
    "client_assertion",
    "assertion",
    "password",
    "refresh_token",
    "subject_token",
    "actor_token",
];

/// A token request. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRequest {
    /// When the head of the request had arrived.
    pub arrived: Instant,
    /// `/token`, or the mutual-TLS alias of it.
    pub path: String,
    /// Number of its connection, from 1.
    pub connection: u64,
    /// The client that the request claims to be from.
    pub client_id: Option<String>,
    /// The client authentication method, named as in RFC 8414 §2; None: several at once.
    pub client_auth: Option<&'static str>,
    /// Parameters in the order they came, without those that hold secrets.
    pub parameters: Vec<(String, String)>,
    /// x5t#S256 of the client certificate of the connection.
    pub certificate: Option<String>,
    pub outcome: RequestOutcome,
}

impl RecordedRequest {
    /// The first value of a parameter.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(parameter, _)| parameter == name)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOutcome {
    /// Still waiting, or never answered.
    Unanswered,
    /// A token was issued, unless the script has spoilt it afterwards.
    Issued,
    /// An OAuth error that the client deserved.
    Refused(&'static str),
    /// The script sent something other than what the endpoint would have said.
    Fault,
}

/// The parameters of a token request without those that hold secrets.
pub(crate) fn public_parameters(form: &Form) -> Vec<(String, String)> {
    form.parameters
        .iter()
        .filter(|(name, _)| !SECRETS.contains(&name.as_str()))
        .cloned()
        .collect()
}

#[derive(Debug, Default)]
pub(crate) struct RequestJournal {
    records: VecDeque<RecordedRequest>,
    /// The number of records that were dropped to make room.
    forgotten: u64,
    counts: HashMap<String, usize>,
}

impl RequestJournal {
    pub fn count(&mut self, path: &str) {
        if let Some(count) = self.counts.get_mut(path) {
            *count += 1;
        } else if self.counts.len() < PATHS_MAX {
            self.counts.insert(path.to_owned(), 1);
        }
    }

    pub fn counted(&self, path: &str) -> usize {
        self.counts.get(path).copied().unwrap_or(0)
    }

    /// Keeps a record. The returned number is for [`RequestJournal::conclude`].
    pub fn push(&mut self, record: RecordedRequest) -> u64 {
        if self.records.len() == RECORDS_MAX {
            self.records.pop_front();
            self.forgotten += 1;
        }
        self.records.push_back(record);
        self.forgotten + self.records.len() as u64 - 1
    }

    /// Records the outcome of a request, unless the record has been dropped.
    pub fn conclude(&mut self, number: u64, outcome: RequestOutcome) {
        let record = number
            .checked_sub(self.forgotten)
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.records.get_mut(at));
        if let Some(record) = record {
            record.outcome = outcome;
        }
    }

    /// Every record that is left, oldest first.
    pub fn records(&self) -> Vec<RecordedRequest> {
        self.records.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_a_late_outcome_still_finds_its_record() {
        let record = RecordedRequest {
            arrived: Instant::now(),
            path: "/token".into(),
            connection: 1,
            client_id: None,
            client_auth: None,
            parameters: Vec::new(),
            certificate: None,
            outcome: RequestOutcome::Unanswered,
        };
        let mut journal = RequestJournal::default();
        let first = journal.push(record.clone());
        for _ in 0..RECORDS_MAX {
            journal.push(record.clone());
        }
        let last = journal.push(record);
        journal.conclude(first, RequestOutcome::Issued);
        journal.conclude(last, RequestOutcome::Fault);
        let records = journal.records();
        assert_eq!(records.len(), RECORDS_MAX);
        assert_eq!(records[RECORDS_MAX - 1].outcome, RequestOutcome::Fault);
        assert!(
            records
                .iter()
                .all(|record| record.outcome != RequestOutcome::Issued)
        );
        for path in 0..2 * PATHS_MAX {
            journal.count(&path.to_string());
        }
        assert_eq!(journal.counted("5"), 1);
        assert_eq!(journal.counts.len(), PATHS_MAX);
    }
}
