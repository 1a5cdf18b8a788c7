//! Writes records to the journal, or to a file that another program rotates.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::Record;
use crate::core::profile::AuditSink;

/// The socket where journald takes entries with fields.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// If the journal accepts nothing for this long, it counts as absent.
const JOURNAL_PATIENCE: Duration = Duration::from_millis(500);

/// Where records go. The next record opens what is not open.
#[derive(Debug)]
pub enum Sink {
    Journal(Option<UnixDatagram>),
    File {
        path: PathBuf,
        open: Option<OpenFile>,
    },
}

#[derive(Debug)]
pub struct OpenFile {
    file: File,
    identity: (u64, u64),
    /// Whether the last line has no end, because the disk was full.
    torn: bool,
}

impl Sink {
    pub fn new(sink: &AuditSink) -> Sink {
        match sink {
            AuditSink::Journald => Sink::Journal(None),
            AuditSink::File(path) => Sink::File {
                path: path.clone(),
                open: None,
            },
        }
    }

    /// Makes the next record open the file or journal again.
    pub fn reopen(&mut self) {
        match self {
            Sink::Journal(socket) => *socket = None,
            Sink::File { open, .. } => *open = None,
        }
    }

    /// Writes records. Returns how many of them were written and, if not all, why the next was not.
    pub fn write(&mut self, records: &[Record]) -> (usize, io::Result<()>) {
        match self {
            Sink::Journal(socket) => {
                for (done, record) in records.iter().enumerate() {
                    if let Err(error) = send(socket, record) {
                        *socket = None;
                        return (done, Err(told(&error, "the journal cannot be reached")));
                    }
                }
                (records.len(), Ok(()))
            }
            Sink::File { path, open } => match append(path, open, records) {
                Ok(()) => (records.len(), Ok(())),
                Err(error) => {
                    let what = format!("{} cannot be written", path.display());
                    (0, Err(told(&error, &what)))
                }
            },
        }
    }
}

fn told(error: &io::Error, what: &str) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn send(socket: &mut Option<UnixDatagram>, record: &Record) -> io::Result<()> {
    let datagram = record.datagram();
    if let Some(open) = socket
        && open.send(&datagram).is_ok()
    {
        return Ok(());
    }
    // Journald may have been restarted since the socket was connected.
    let new = UnixDatagram::unbound()?;
    new.set_write_timeout(Some(JOURNAL_PATIENCE))?;
    new.connect(JOURNAL)?;
    new.send(&datagram)?;
    *socket = Some(new);
    Ok(())
}

/// Appends all records in one piece, so that no foreign line comes in between.
fn append(path: &Path, slot: &mut Option<OpenFile>, records: &[Record]) -> io::Result<()> {
    // The file was moved away or removed without notice: nobody would look for records in it.
    if let Some(open) = slot
        && !fs::symlink_metadata(path).is_ok_and(|there| identity(&there) == open.identity)
    {
        *slot = None;
    }
    let open = match slot {
        Some(open) => open,
        None => slot.insert(opened(path)?),
    };
    let mut text = String::new();
    if open.torn {
        text.push('\n');
    }
    records
        .iter()
        .for_each(|record| text.push_str(&record.line()));
    let length = open.file.metadata()?.len();
    let outcome = open.file.write_all(text.as_bytes());
    if outcome.is_err() {
        // Half a line is worse than none. If it cannot be taken back, the next record begins on a
        // line of its own.
        open.torn = open.file.set_len(length).is_err();
    } else {
        open.torn = false;
    }
    outcome
}

fn opened(path: &Path) -> io::Result<OpenFile> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    Ok(OpenFile {
        file,
        identity: identity(&metadata),
        torn: false,
    })
}

fn identity(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
