//! One run of a command: its process group, its three pipes, and its end.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, getpid, kill_process_group,
    test_kill_process_group, waitid, waitpgid,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::sync::oneshot;

use crate::core::plugin::answer::LONGEST_ANSWER;

/// The environment of every command, unless `env` says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The most of standard error that is kept, in bytes. The rest is read and dropped.
const LONGEST_STDERR: usize = 16 * 1024;

/// Why a run gave no whole answer.
#[derive(Debug)]
pub enum RunError {
    /// It wrote more than [`LONGEST_ANSWER`].
    TooLong,
    /// A system call failed.
    System(io::Error),
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> RunError {
        RunError::System(error)
    }
}

/// What a command wrote.
#[derive(Default)]
pub struct RunOutput {
    pub answer: Vec<u8>,
    pub stderr: Vec<u8>,
    /// Standard error was longer.
    pub cut: bool,
    /// How it ended, if not with exit status 0.
    pub ended: Option<String>,
    /// When it ended, other processes of its group were still there.
    pub left_behind: bool,
}

/// A running command. When this is dropped, the whole process group is killed and reaped.
pub struct CommandRun {
    group: ProcessGroup,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    output: RunOutput,
}

impl CommandRun {
    /// Starts the command, without a shell and with nothing of ours but three pipes.
    ///
    /// # Errors
    /// That of the system.
    pub fn start(command: &[String], env: &BTreeMap<String, String>) -> io::Result<CommandRun> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut child = Command::new(program)
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(env)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        Ok(CommandRun {
            stdin: child.stdin.take().map(OwnedFd::from),
            stdout: child.stdout.take().map(OwnedFd::from),
            stderr: child.stderr.take().map(OwnedFd::from),
            group: ProcessGroup(Some(child)),
            output: RunOutput::default(),
        })
    }

    /// Ends the run, and returns what the command wrote so far.
    pub fn output(self) -> RunOutput {
        self.output
    }

    /// Hands over the request and reads until the command has ended. What it has started and left
    /// is killed then: a child that keeps standard output open holds up nobody.
    ///
    /// # Errors
    /// See [`RunError`].
    pub async fn to_its_end(&mut self, request: &[u8]) -> Result<(), RunError> {
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut ended = self.group.watched()?;
        let mut stdin = Sender::from_owned_fd(self.stdin.take().ok_or_else(gone)?)?;
        let mut stdout = Receiver::from_owned_fd(self.stdout.take().ok_or_else(gone)?)?;
        let mut stderr = Receiver::from_owned_fd(self.stderr.take().ok_or_else(gone)?)?;
        // Whoever does not read its request closes the pipe, and that is no error.
        let asking = async move {
            let _ = stdin.write_all(request).await;
            drop(stdin);
        };
        tokio::pin!(asking);
        let (mut asked, mut answered, mut silent) = (false, false, false);
        let (mut answer, mut said) = ([0; 8192], [0; 4096]);
        loop {
            tokio::select! {
                _ = &mut ended => break,
                () = &mut asking, if !asked => asked = true,
                read = stdout.read(&mut answer), if !answered => match read? {
                    0 => answered = true,
                    count => self.output.take_answer(&answer[..count])?,
                },
                read = stderr.read(&mut said), if !silent => match read? {
                    0 => silent = true,
                    count => self.output.take_stderr(&said[..count]),
                },
            }
        }
        let (status, left_behind) = self.group.end()?;
        self.output.left_behind = left_behind;
        self.output.ended = told(status);
        while let Ok(count @ 1..) = stdout.try_read(&mut answer) {
            self.output.take_answer(&answer[..count])?;
        }
        while let Ok(count @ 1..) = stderr.try_read(&mut said) {
            self.output.take_stderr(&said[..count]);
        }
        Ok(())
    }
}

impl RunOutput {
    fn take_answer(&mut self, bytes: &[u8]) -> Result<(), RunError> {
        if self.answer.len() + bytes.len() > LONGEST_ANSWER {
            return Err(RunError::TooLong);
        }
        self.answer.extend_from_slice(bytes);
        Ok(())
    }

    fn take_stderr(&mut self, bytes: &[u8]) {
        let room = LONGEST_STDERR - self.stderr.len();
        self.cut |= bytes.len() > room;
        self.stderr
            .extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
}

/// How a command ended, if not well.
fn told(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("exit status {code}")),
        (None, Some(signal)) => Some(format!("signal {signal}")),
        (None, None) => Some("no status".into()),
    }
}

/// The leader of a process group. The group's number is the leader's, which nobody else can get
/// before the leader is reaped: so the group is killed first.
struct ProcessGroup(Option<Child>);

impl ProcessGroup {
    /// Receives a word when the leader has ended, which reaps nobody.
    fn watched(&self) -> io::Result<oneshot::Receiver<()>> {
        let leader = self.0.as_ref().map(Pid::from_child);
        let leader = leader.ok_or(io::ErrorKind::NotFound)?;
        let (ended, watched) = oneshot::channel();
        let watcher = std::thread::Builder::new().name("exec".into());
        watcher.spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            while let Err(Errno::INTR) = waitid(WaitId::Pid(leader), options) {}
            // Whoever has given up the run does not listen any more.
            let _ = ended.send(());
        })?;
        Ok(watched)
    }

    /// Ends a group whose leader has ended. Whether others were left is told as far as the kernel
    /// tells it.
    fn end(&mut self) -> io::Result<(ExitStatus, bool)> {
        let mut leader = self.0.take().ok_or(io::ErrorKind::NotFound)?;
        let group = Pid::from_child(&leader);
        let _ = kill_process_group(group, Signal::KILL);
        let status = leader.wait()?;
        // Only if it is the init of its container, tokend is the parent of what is left.
        let left_behind = test_kill_process_group(group).is_ok();
        reap_orphans(group);
        Ok((status, left_behind))
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        let Some(mut leader) = self.0.take() else {
            return;
        };
        let group = Pid::from_child(&leader);
        let _ = kill_process_group(group, Signal::KILL);
        // A process that hangs in the kernel dies late, and nobody waits for it.
        let reaper = std::thread::Builder::new().name("reaper".into());
        let _ = reaper.spawn(move || {
            let _ = leader.wait();
            reap_orphans(group);
        });
    }
}

/// The init of a container is the parent of what a command has left.
fn reap_orphans(group: Pid) {
    if getpid().is_init() {
        let reaper = std::thread::Builder::new().name("reaper".into());
        let _ = reaper.spawn(
            move || {
                while let Ok(Some(_)) = waitpgid(group, WaitOptions::empty()) {}
            },
        );
    }
}
