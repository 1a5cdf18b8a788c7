//! Connects to the daemon by a deadline, and explains why it cannot be reached.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as join, socket_with,
};

use super::process::{SocketHolder, held};
use super::{ClientError, Deadline};
use crate::safe_open::{OpenError, guarded_folder};

/// The socket of the system's own daemon: `server.socket` of docs/configuration.md.
const SYSTEM_SOCKET: &str = "/run/tokend/tokend.sock";

/// Where to look next if the daemon is not there.
const WHY_NOT: &str = "`systemctl status tokend` says why it does not run, `tokend check` whether its configuration can be used";

const OTHER_SOCKET: &str = "let TOKEND_SOCKET or --socket name the daemon's socket";

/// Connects. Writes on the connection are bounded by the time that was left.
///
/// The standard library's `connect` waits for ever if the listener's queue is full. Linux applies
/// SO_SNDTIMEO to connecting as well (socket(7)), but it must be set before.
pub(super) fn connect(socket: &Path, deadline: &Deadline<'_>) -> Result<UnixStream, ClientError> {
    let fail = |errno| unreachable(socket, errno);
    let address = SocketAddrUnix::new(socket).map_err(fail)?;
    let fd = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(fail)?;
    let mut hangs = false;
    loop {
        let Some(left) = deadline.left() else {
            // An attempt without time says nothing about the daemon.
            return Err(if hangs {
                fail(Errno::AGAIN)
            } else {
                ClientError::TimedOut(deadline.timeout)
            });
        };
        set_socket_timeout(&fd, Timeout::Send, Some(left)).map_err(fail)?;
        match join(&fd, &address) {
            Ok(()) => {
                believe(socket, &fd)?;
                return Ok(UnixStream::from(fd));
            }
            // A Unix socket that was interrupted or timed out while connecting is not connected, so
            // trying again is right.
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => hangs = true,
            Err(errno) => return Err(fail(errno)),
        }
    }
}

/// Checks that the listener can be the daemon. Any other program would learn the question, and its
/// answer would pass for a credential. The listener must be root (systemd hands over its socket) or
/// the user who owns the socket's folder, if nobody else can put a socket there.
fn believe(socket: &Path, connection: &OwnedFd) -> Result<(), ClientError> {
    let fail = |errno| unreachable(socket, errno);
    let unbelieved = |cause, cure| ClientError::Unbelieved {
        socket: socket.to_owned(),
        cause,
        cure,
    };
    let uid = socket_peercred(connection).map_err(fail)?.uid.as_raw();
    if uid == 0 {
        return Ok(());
    }
    let failed = |error: io::Error| fail(Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let path = std::path::absolute(socket).map_err(failed)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let owner = fs::metadata(folder).map_err(failed)?.uid();
    if uid != owner {
        return Err(unbelieved(
            format!(
                "it is uid {uid}'s process, and only root's or uid {owner}'s, whose folder {} is, could be the daemon",
                folder.display()
            ),
            format!("find out what it is (`ss -xlp`) and end it, or {OTHER_SOCKET}"),
        ));
    }
    guarded_folder(folder, uid).map_err(|error| match error {
        OpenError::System(error) => failed(error),
        OpenError::Refused(refused) => unbelieved(
            format!("{} {}", refused.place.display(), refused.why),
            refused.cure,
        ),
    })
}

/// Makes the error with its cause and its cure. It looks at the file system, since the errno alone
/// does not tell the causes apart.
fn unreachable(socket: &Path, errno: Errno) -> ClientError {
    let (cause, cure) = match errno {
        Errno::NOENT => (
            "there is no such socket".to_owned(),
            if socket != Path::new(SYSTEM_SOCKET) && Path::new(SYSTEM_SOCKET).exists() {
                format!("the system's daemon listens at {SYSTEM_SOCKET}: set TOKEND_SOCKET to that")
            } else {
                format!(
                    "start the daemon ({WHY_NOT}), or let TOKEND_SOCKET or --socket name its socket"
                )
            },
        ),
        Errno::CONNREFUSED if !is_socket(socket) => {
            ("it is not a socket".to_owned(), OTHER_SOCKET.to_owned())
        }
        Errno::CONNREFUSED => (
            "connection refused: the socket was left behind by a daemon that has ended".to_owned(),
            format!("start the daemon, it replaces the socket; {WHY_NOT}"),
        ),
        Errno::ACCESS | Errno::PERM => denied(socket),
        Errno::AGAIN => return mute(socket, None),
        Errno::NAMETOOLONG | Errno::INVAL => (
            "the path cannot be that of a socket: at most 107 bytes, none of them zero".to_owned(),
            "let TOKEND_SOCKET or --socket name a shorter path".to_owned(),
        ),
        other => (io::Error::from(other).to_string(), OTHER_SOCKET.to_owned()),
    };
    ClientError::Unreachable {
        socket: Some(socket.to_owned()),
        cause,
        cure,
    }
}

/// Makes the error for a socket that a process holds but that nobody answers at. `connection` leads
/// to it. None: not even a connection was possible.
pub(super) fn mute(socket: &Path, connection: Option<&UnixStream>) -> ClientError {
    let pid = connection
        .and_then(|connection| socket_peercred(connection).ok())
        .map(|peer| peer.pid.as_raw_nonzero().get())
        // The system's socket usually belongs to systemd.
        .or_else(|| (socket == Path::new(SYSTEM_SOCKET)).then_some(1));
    let does = match connection {
        Some(_) => "answers nothing, not even that it is there",
        None => "accepts no connections in the time given",
    };
    let (cause, cure) = match held(pid) {
        SocketHolder::ByManager => (
            "systemd holds the socket, and no daemon runs behind it".to_owned(),
            WHY_NOT.to_owned(),
        ),
        SocketHolder::Stopped(pid) => (
            format!("the daemon, process {pid}, is stopped (SIGSTOP or a debugger)"),
            format!("`kill -CONT {pid}` lets it go on; `systemctl status tokend` shows its state, `systemctl restart tokend` starts it anew"),
        ),
        SocketHolder::By(pid) => (
            format!("the daemon, process {pid}, {does}: it hangs or is overloaded"),
            "`systemctl status tokend` and `journalctl -u tokend` show what it does; `systemctl restart tokend` starts it anew".to_owned(),
        ),
        SocketHolder::ByNobodyKnown => (
            format!("it {does}: the daemon hangs or is overloaded"),
            "`systemctl status tokend` and `journalctl -u tokend` show what it does".to_owned(),
        ),
    };
    ClientError::Unreachable {
        socket: Some(socket.to_owned()),
        cause,
        cure,
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// Finds the file that keeps this process out, and the group that would let it in.
fn denied(socket: &Path) -> (String, String) {
    // This is the first path that can be looked at: the socket itself, or else the folder whose
    // content cannot be seen.
    let shut = socket
        .ancestors()
        .find_map(|path| Some((path, fs::metadata(path).ok()?)));
    let Some((path, found)) = shut else {
        return (
            "permission denied".to_owned(),
            "ask for access to the socket's folder".to_owned(),
        );
    };
    let group = group_name(found.gid());
    let what = if path == socket {
        "the socket"
    } else {
        "the folder"
    };
    let cause = format!(
        "permission denied: {what} {} has mode {:04o} and belongs to group {group}, and this process is uid {}",
        path.display(),
        found.mode() & 0o7777,
        rustix::process::geteuid().as_raw(),
    );
    let open_to_group = if path == socket { 0o020 } else { 0o010 };
    let cure = if found.mode() & open_to_group == 0 {
        "it is closed to its group too: `socket_mode` and `socket_group` in [server] decide who may connect".to_owned()
    } else if is_own_group(found.uid(), found.gid()) {
        format!(
            "{group} is the daemon's own group, where nobody else belongs: give the socket one for its callers \
             (`SocketGroup=` in tokend.socket, else `socket_group` in [server]), and add the user to that"
        )
    } else {
        format!(
            "add the user to group {group} and log in again (`SupplementaryGroups={group}` in a systemd unit)"
        )
    };
    (cause, cure)
}

/// Whether this is the primary group of a user other than root. Members of the daemon's own group
/// may read what the daemon may.
fn is_own_group(uid: u32, gid: u32) -> bool {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut users = users.lines().map(|line| line.split(':').skip(2));
    let (uid_text, gid_text) = (uid.to_string(), gid.to_string());
    uid != 0
        && users.any(|mut fields| {
            fields.next() == Some(uid_text.as_str()) && fields.next() == Some(gid_text.as_str())
        })
}

/// The name in /etc/group, or else the number. Name services would need foreign code, which is too
/// much for a hint.
fn group_name(gid: u32) -> String {
    let number = gid.to_string();
    let groups = fs::read_to_string("/etc/group").unwrap_or_default();
    groups
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1) == Some(number.as_str())).then(|| name.to_owned())
        })
        .unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::time::Duration;

    use rustix::net::{bind, listen};

    use super::*;
    use crate::clock::Clock;

    fn try_connect(socket: &Path, timeout: Duration) -> Result<UnixStream, ClientError> {
        let clock = Clock::system();
        let at = clock.now().boot.plus(timeout);
        connect(
            socket,
            &Deadline {
                clock: &clock,
                at,
                timeout,
            },
        )
    }

    fn cause_and_cure(error: ClientError) -> (String, String) {
        match error {
            ClientError::Unreachable { cause, cure, .. } => (cause, cure),
            other => panic!("{other}"),
        }
    }

    fn why(socket: &Path) -> String {
        cause_and_cure(try_connect(socket, Duration::from_secs(5)).expect_err("it connects")).0
    }

    #[test]
    fn each_way_of_being_unreachable_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(why(&dir.path().join("none")), "there is no such socket");

        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert_eq!(why(&file), "it is not a socket");

        let stale = dir.path().join("stale");
        drop(UnixListener::bind(&stale).unwrap());
        assert!(why(&stale).starts_with("connection refused: "));

        assert!(why(&dir.path().join("x".repeat(200))).contains("107 bytes"));
        assert_eq!(
            why(&PathBuf::from("/dev/null/tokend.sock")),
            io::Error::from(Errno::NOTDIR).to_string()
        );
    }

    #[test]
    fn a_listener_that_never_accepts_does_not_outlast_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("full");
        let listener = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&listener, 0).unwrap();
        let first = try_connect(&path, Duration::from_secs(5)).unwrap();
        let (cause, _) = cause_and_cure(try_connect(&path, Duration::from_millis(60)).unwrap_err());
        assert!(cause.contains("accepts no connections"), "{cause}");
        drop(first);
    }

    #[test]
    fn without_time_to_try_nothing_is_said_about_the_daemon() {
        let error = try_connect(Path::new("/nonexistent"), Duration::ZERO).unwrap_err();
        assert!(matches!(error, ClientError::TimedOut(_)), "{error}");
    }

    #[test]
    fn permission_denied_names_file_mode_and_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let group = group_name(fs::metadata(&path).unwrap().gid());

        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        let (cause, cure) = cause_and_cure(unreachable(&path, Errno::ACCESS));
        assert!(
            cause.contains(&format!("the socket {}", path.display())),
            "{cause}"
        );
        assert!(
            cause.contains(&format!("mode 0660 and belongs to group {group}")),
            "{cause}"
        );
        assert!(
            cure.contains(&format!("add the user to group {group}")),
            "{cure}"
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (_, cure) = cause_and_cure(unreachable(&path, Errno::ACCESS));
        assert!(cure.contains("socket_mode"), "{cure}");
    }

    /// Broken by sending callers into the group that may read what the daemon may.
    #[test]
    fn nobody_is_told_to_join_the_daemons_own_group() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(is_own_group(1, 1) && !is_own_group(1, 2) && !is_own_group(0, 0));
        // This is the user `daemon`, with the primary group of that name.
        if std::os::unix::fs::chown(&path, Some(1), Some(1)).is_ok() {
            let (_, cure) = cause_and_cure(unreachable(&path, Errno::ACCESS));
            assert!(cure.contains("the daemon's own group"), "{cure}");
            assert!(!cure.contains("add the user to group"), "{cure}");
        }
    }

    #[test]
    fn group_names_come_from_the_file_and_fall_back_to_the_number() {
        assert_eq!(group_name(0), "root");
        assert_eq!(group_name(3_999_999_999), "3999999999");
    }
}
