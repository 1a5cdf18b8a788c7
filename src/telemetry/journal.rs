//! The journal's own protocol. `journalctl` shows only the message, so the message says everything
//! about an event. The event's fields are added so that they can be searched.

use std::fmt::Debug;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// The socket where journald takes entries with fields.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Longer values are cut, in bytes. A datagram has room for about 200 kB, and a larger one is lost
/// without notice.
const LONGEST: usize = 8 * 1024;

/// Sends log events to the journal.
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// # Errors
    /// No process listens on the journal's socket.
    pub fn new() -> io::Result<Journal> {
        Journal::at(PathBuf::from(SOCKET))
    }

    fn at(path: PathBuf) -> io::Result<Journal> {
        let socket = UnixDatagram::unbound()?;
        // An empty datagram tests the socket; the journal discards it.
        socket.send_to(&[], &path)?;
        Ok(Journal { socket, path })
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // If the log cannot be written, there is nowhere to report that.
        let _ = self.socket.send_to(&datagram(event), &self.path);
    }
}

fn datagram(event: &Event<'_>) -> Vec<u8> {
    let mut said = EventText::default();
    event.record(&mut said);
    let metadata = event.metadata();
    let priority = match *metadata.level() {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "5",
        Level::DEBUG => "6",
        Level::TRACE => "7",
    };
    let mut bytes = Vec::with_capacity(512);
    put(&mut bytes, "MESSAGE", &said.message());
    put(&mut bytes, "PRIORITY", priority);
    put(&mut bytes, "SYSLOG_IDENTIFIER", "tokend");
    put(&mut bytes, "TARGET", metadata.target());
    if let (Some(file), Some(line)) = (metadata.file(), metadata.line()) {
        put(&mut bytes, "CODE_FILE", file);
        put(&mut bytes, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &said.fields {
        // The prefix keeps our fields apart from the journal's own.
        let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        put(
            &mut bytes,
            &format!("F_{}", name.to_ascii_uppercase()),
            value,
        );
    }
    bytes
}

/// Writes every value with its length, since it may contain a line break.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    let value = &value[..value.floor_char_boundary(LONGEST)];
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

/// The texts of an event.
#[derive(Default)]
struct EventText {
    words: String,
    fields: Vec<(&'static str, String)>,
}

impl EventText {
    /// `profile: words: cause (other fields)`
    fn message(&self) -> String {
        let mut message = String::new();
        let of = |wanted: &'static [&str]| {
            let fields = self.fields.iter();
            fields.filter(move |(name, _)| wanted.contains(name))
        };
        for (_, profile) in of(&["profile"]) {
            message.push_str(&format!("{profile}: "));
        }
        message.push_str(&self.words);
        for (_, cause) in of(&["error", "why"]) {
            message.push_str(&format!(": {cause}"));
        }
        let others: Vec<String> = self
            .fields
            .iter()
            .filter(|(name, _)| !["profile", "error", "why"].contains(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if !others.is_empty() {
            message.push_str(&format!(" ({})", others.join(", ")));
        }
        message
    }

    fn take(&mut self, field: &Field, value: String) {
        match field.name() {
            "message" => self.words = value,
            name => self.fields.push((name, value)),
        }
    }
}

impl Visit for EventText {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.take(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.take(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The fields that the journal gets for what is logged.
    fn entry(log: impl FnOnce()) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("socket");
        let journal = UnixDatagram::bind(&path).expect("a socket");
        let layer = Journal::at(path).expect("somebody listens");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let mut bytes = vec![0; 64 * 1024];
        assert_eq!(journal.recv(&mut bytes).expect("the empty one"), 0);
        let length = journal.recv(&mut bytes).expect("the entry");
        let mut rest = &bytes[..length];
        let mut fields = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let name = text(&rest[..end]);
            rest = &rest[end + 1..];
            let (length, after) = rest.split_at(8);
            let length = u64::from_le_bytes(length.try_into().expect("eight")) as usize;
            fields.push((name, text(&after[..length])));
            rest = &after[length + 1..];
        }
        fields
    }

    fn value<'a>(entry: &'a [(String, String)], wanted: &str) -> &'a str {
        let mut found = entry.iter().filter(|(name, _)| name == wanted);
        let (_, value) = found.next().expect("it is there");
        assert!(found.next().is_none(), "{wanted} twice");
        value
    }

    /// Broken by a message that has only the event's words.
    #[test]
    fn trap_50_the_journals_message_holds_profile_and_cause() {
        let cause = "the identity provider rejects the client (invalid_client)";
        let none: Option<&str> = None;
        let entry = entry(|| {
            warn!(
                profile = %"orders", error = cause, failures = 3, left_out = none,
                "cannot get a credential"
            );
        });
        assert_eq!(
            value(&entry, "MESSAGE"),
            format!("orders: cannot get a credential: {cause} (failures=3)")
        );
        assert_eq!(value(&entry, "F_PROFILE"), "orders");
        assert_eq!(value(&entry, "F_ERROR"), cause);
        assert_eq!(value(&entry, "F_FAILURES"), "3");
        assert_eq!(value(&entry, "PRIORITY"), "4");
        assert_eq!(value(&entry, "SYSLOG_IDENTIFIER"), "tokend");
    }

    #[test]
    fn a_value_cannot_become_a_field_and_a_long_one_is_cut() {
        let evil = format!("a\nPRIORITY=0\n{}", "ä".repeat(LONGEST));
        let entry = entry(|| info!(error = evil, "x"));
        assert_eq!(value(&entry, "PRIORITY"), "5");
        assert!(value(&entry, "F_ERROR").starts_with("a\nPRIORITY=0\nä"));
        assert!(value(&entry, "MESSAGE").len() <= LONGEST);
    }

    #[test]
    fn a_journal_that_is_not_there_is_told_at_once() {
        assert!(Journal::at(PathBuf::from("/nonexistent/socket")).is_err());
    }
}
