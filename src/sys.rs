//! Calls that no crate in use here offers. This is the only module with `unsafe`; each place gives
//! its argument.

#![allow(unsafe_code, reason = "see the argument at each place")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// NGROUPS_MAX of Linux: no process has more groups than this.
const GROUPS_MAX: usize = 65536;

/// Has every descriptor beyond standard error closed in programs that this process starts,
/// whoever left it open.
pub fn keep_descriptors_from_children() {
    let open: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor| *descriptor > libc::STDERR_FILENO)
        .collect();
    for descriptor in open {
        // SAFETY: the call takes three numbers and touches no memory. It fails for a descriptor
        // that is closed by now, and the flag takes nothing from whoever owns one.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// The supplementary groups of the other end at the time of its `connect`: SO_PEERGROUPS.
///
/// # Errors
/// The error of `getsockopt`; ENOPROTOOPT before Linux 4.13.
pub fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut groups: Vec<libc::gid_t> = vec![0; 32];
    loop {
        let mut length = libc::socklen_t::try_from(size_of_val(groups.as_slice()))
            .map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: the descriptor is borrowed for the call; `groups` is initialised memory of
        // `length` bytes, aligned for gid_t, and the kernel writes at most `length` bytes and puts
        // the size that it wrote or needs into `length`.
        let outcome = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let count = length as usize / size_of::<libc::gid_t>();
        if outcome == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        let grow = error.raw_os_error() == Some(libc::ERANGE)
            && count > groups.len()
            && count <= GROUPS_MAX;
        if !grow {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The process that called `connect`, held so that no other process can take its place under the
/// same number: SO_PEERPIDFD.
///
/// # Errors
/// The error of `getsockopt`; ENOPROTOOPT before Linux 6.5, and others for a process that is gone.
pub fn peer_process(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let mut process: libc::c_int = -1;
    let mut length = size_of_val(&process) as libc::socklen_t;
    // SAFETY: the descriptor is borrowed for the call; the kernel writes at most `length` bytes,
    // which is the size of `process`, into it, and the size that it wrote into `length`.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut process).cast(),
            &raw mut length,
        )
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    if process < 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the kernel made this descriptor (close-on-exec) for this call, and nobody else knows
    // of it.
    Ok(unsafe { OwnedFd::from_raw_fd(process) })
}

/// The uid and gid that the kernel puts in place of ids that have no number here:
/// kernel.overflowuid and overflowgid. The kernel itself is asked, because a sandbox may hide
/// /proc/sys. For data that was sent to a socket before the receiver asked for its sender, the
/// kernel reports no process and these two ids.
///
/// # Errors
/// The error of the system, and `InvalidData` when the kernel reports something else.
pub fn overflow_ids() -> io::Result<(u32, u32)> {
    let (here, there) = UnixDatagram::pair()?;
    there.send(&[0])?;
    rustix::net::sockopt::set_socket_passcred(&here, true)?;
    let mut byte = [0_u8];
    let mut part = libc::iovec {
        iov_base: byte.as_mut_ptr().cast(),
        iov_len: byte.len(),
    };
    // This has room for more than a header and three numbers, and is aligned for the header.
    let mut control = [0_u64; 8];
    // SAFETY: it consists of integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    // SAFETY: the descriptor is borrowed for the call; the kernel writes at most one byte into
    // `byte` and at most `msg_controllen` bytes into `control`, both of which outlive it.
    let outcome =
        unsafe { libc::recvmsg(here.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) };
    if outcome < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has filled `message`, and what CMSG_FIRSTHDR gives is null or a whole
    // header within `control`.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message).as_ref() };
    let wanted = header.filter(|it| {
        // SAFETY: computes a number.
        let least = unsafe { libc::CMSG_LEN(size_of::<libc::ucred>() as u32) } as usize;
        (it.cmsg_level, it.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_CREDENTIALS)
            && it.cmsg_len >= least
    });
    let header = wanted.ok_or(io::ErrorKind::InvalidData)?;
    // SAFETY: the kernel says that a `ucred` follows this header; it need not be aligned.
    let told = unsafe { std::ptr::read_unaligned(libc::CMSG_DATA(header).cast::<libc::ucred>()) };
    // If there were a process, the ids would be its own.
    (told.pid == 0)
        .then_some((told.uid, told.gid))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Takes over a descriptor that the service manager left open for this process. Each may be taken
/// once, and only those that sd_listen_fds(3) counts.
pub fn inherited(descriptor: RawFd) -> OwnedFd {
    // SAFETY: the service manager passed it to this process by number (LISTEN_FDS, LISTEN_PID), it
    // is open, and nothing else here knows of it: `supervisor::inherit` is the only caller, and
    // runs once.
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

/// The id of the cgroup that a process is in: PIDFD_GET_INFO. None: the kernel does not say.
///
/// # Errors
/// The error of `ioctl`; ENOTTY before Linux 6.13, ESRCH for a process that is gone.
pub fn cgroup_id(process: &OwnedFd) -> io::Result<Option<u64>> {
    // SAFETY: it consists of integers, for which zero is a value.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = u64::from(libc::PIDFD_INFO_CGROUPID);
    // SAFETY: the descriptor is borrowed for the call, and the kernel writes at most the size of
    // `info`, which is part of the request's number, into it. Of a descriptor that is no pidfd it
    // knows no such request.
    let outcome = unsafe { libc::ioctl(process.as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    let says = info.mask & u64::from(libc::PIDFD_INFO_CGROUPID) != 0;
    Ok(says.then_some(info.cgroupid).filter(|id| *id != 0))
}

/// Whether the process that a pidfd holds is alive. A process that cannot be examined counts as
/// ended.
pub fn is_alive(process: &OwnedFd) -> bool {
    // A pidfd becomes readable when its process ends (pidfd_open(2)).
    let mut ended = [PollFd::new(process, PollFlags::IN)];
    matches!(poll(&mut ended, Some(&Timespec::default())), Ok(0))
}

/// Gives free memory back to the system. glibc's allocator by itself does so only at the end of its
/// heaps. This takes about a millisecond for each ten megabytes, and threads that allocate
/// meanwhile wait.
pub fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called from any thread at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The system's allocator, with freed memory wiped. Secrets pass through buffers of libraries
/// (HTTP, TLS, JSON, base64) that do not know what they hold. The next owner of such memory, or a
/// process that reads it, must not find them. A block that grows or shrinks is moved, which is the
/// default of `GlobalAlloc`: the system's own `realloc` may leave the old block behind as it was,
/// and then it could not be wiped any more.
///
/// C libraries that call `malloc` themselves are not covered. aws-lc, the one here that sees
/// secrets, wipes by itself.
pub struct Wiping;

// SAFETY: every block comes from `System` and goes back to it with the layout that it was asked for
// with, so the promises of GlobalAlloc are `System`'s; it neither unwinds nor allocates in between.
unsafe impl GlobalAlloc for Wiping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises of `layout` what `System` demands.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above. Pages fresh from the kernel need not be zeroed again, which the default
        // would do.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises that `block` came from here with this `layout` and is not
        // used any more, so that `layout.size()` bytes can be written. Not `write_bytes`: nobody
        // reads them before they are freed, and the optimiser removes such writes; it knows nothing
        // of what explicit_bzero does, which the C library promises to do always.
        unsafe {
            libc::explicit_bzero(block.cast(), layout.size());
            System.dealloc(block, layout);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Broken by anything that has to be read from /proc/sys, which the shipped unit cannot see.
    #[test]
    fn the_kernel_itself_tells_its_overflow_ids() {
        let read = |name: &str| -> u32 {
            let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}"));
            text.expect("readable").trim().parse().expect("a number")
        };
        let told = overflow_ids().expect("told");
        assert_eq!(told, (read("overflowuid"), read("overflowgid")));
    }
}
