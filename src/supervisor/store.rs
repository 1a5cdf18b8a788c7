//! The service manager's descriptor store: memory that outlives the process, and no disk.
//!
//! The data lies in a sealed memfd that nobody can change any more (all seals). It is stored under
//! a new name before the previous one is removed, so there is always a complete one.
//! `MemorySwapMax=0` in the unit keeps it out of swap.

use std::fs::File;
use std::io::{self, IoSlice, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixDatagram;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};
use rustix::net::{
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr,
};
use rustix::pipe::{PipeFlags, pipe_with};
use sd_notify::NotifyState;
use zeroize::Zeroizing;

/// The prefix of names in the store. A number follows it.
const PREFIX: &str = "tokend-credentials-";

/// The largest content that is read back, in bytes: enough for tens of thousands of profiles with
/// large tokens. The daemon never wrote more.
const LARGEST: u64 = 256 << 20;

/// The service manager has to accept a descriptor within this time. Only then is the previous one
/// removed.
const PATIENCE: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Whether there is a service manager that keeps descriptors. systemd says so since version 254;
/// earlier versions are simply tried.
#[must_use]
pub fn is_there() -> bool {
    super::is_there() && std::env::var("FDSTORE").map_or(true, |room| room != "0")
}

/// The name of a stored item, and its content or why it cannot be read.
pub type StoredItem = (String, io::Result<Zeroizing<Vec<u8>>>);

/// Reads what an earlier run has left, newest name last. Memory that is not sealed was not left by
/// this daemon.
#[must_use]
pub fn read(stored: Vec<(String, OwnedFd)>) -> Vec<StoredItem> {
    let ours = stored
        .into_iter()
        .filter(|(name, _)| number(name).is_some());
    let mut found: Vec<StoredItem> = ours
        .map(|(name, descriptor)| (name, content(descriptor)))
        .collect();
    found.sort_by_key(|(name, _)| number(name));
    found
}

fn number(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Reads sealed memory.
///
/// # Errors
/// The memory is not sealed or is too large, or the system reports an error.
pub fn content(descriptor: OwnedFd) -> io::Result<Zeroizing<Vec<u8>>> {
    if !fcntl_get_seals(&descriptor)?.contains(sealed()) {
        return Err(io::Error::other("it is not sealed"));
    }
    let mut file = File::from(descriptor);
    let length = file.metadata()?.len();
    if length > LARGEST {
        return Err(io::Error::other("it is too large"));
    }
    // One byte more, so that the buffer need not grow to see the end: growing leaves a copy behind.
    let room = usize::try_from(length).map_err(io::Error::other)? + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    // The file position is shared with the process that wrote it.
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sealed() -> SealFlags {
    SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE
}

/// Makes the service manager keep these bytes under this number and forget those under the number
/// `before`. Blocks for as long as that takes.
///
/// # Errors
/// The error of the system. What was kept before is still there then.
pub fn keep(bytes: &[u8], number: u64, before: Option<u64>) -> io::Result<()> {
    let memory = seal(bytes)?;
    let text = format!("FDSTORE=1\nFDNAME={}", name(number));
    hand_over(&text, memory.as_fd())?;
    barrier()?;
    if let Some(before) = before {
        forget(before)?;
    }
    Ok(())
}

/// Puts these bytes into sealed memory that nobody can change.
///
/// # Errors
/// The error of the system.
pub fn seal(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memory()?);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, sealed())?;
    Ok(OwnedFd::from(file))
}

fn name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know NOEXEC_SEAL.
    memfd_create("tokend-credentials", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create("tokend-credentials", flags))
        .map_err(io::Error::from)
}

/// Makes the service manager forget what it keeps under this number.
///
/// # Errors
/// The error of the system.
pub fn forget(number: u64) -> io::Result<()> {
    let text = format!("FDSTOREREMOVE=1\nFDNAME={}", name(number));
    sd_notify::notify(&[NotifyState::Custom(&text)])
}

/// Sends a message with a descriptor (sd_notify(3)).
fn hand_over(text: &str, descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let path = std::env::var_os("NOTIFY_SOCKET")
        .ok_or_else(|| io::Error::other("there is no service manager"))?;
    let socket = UnixDatagram::unbound()?;
    let address = match path.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddrUnix::new_abstract_name(name),
        _ => SocketAddrUnix::new(path.as_os_str()),
    }?;
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    let parts = [IoSlice::new(text.as_bytes())];
    sendmsg_addr(&socket, &address, &parts, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Returns when the service manager has handled everything that it was told before.
fn barrier() -> io::Result<()> {
    let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    hand_over("BARRIER=1", theirs.as_fd())?;
    drop(theirs);
    let mut closed = [PollFd::new(&ours, PollFlags::HUP)];
    match poll(&mut closed, Some(&PATIENCE))? {
        0 => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the service manager does not answer",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_sealed_and_ours_is_read() {
        let make = |seals: SealFlags| {
            let mut file = File::from(memory().expect("made"));
            file.write_all(b"kept").expect("written");
            fcntl_add_seals(&file, seals).expect("sealed");
            OwnedFd::from(file)
        };
        let found = read(vec![
            (name(10), make(sealed())),
            ("stdin".into(), make(sealed())),
            (name(9), make(SealFlags::SHRINK)),
        ]);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["tokend-credentials-9", "tokend-credentials-10"]);
        assert!(found[0].1.is_err(), "somebody could have changed it");
        assert_eq!(found[1].1.as_ref().expect("read").as_slice(), b"kept");
    }
}
