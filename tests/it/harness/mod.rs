//! The real daemon in a folder of its own, with the embedded issuer as its identity provider.
//!
//! The daemons of the tests log at trace level. When a daemon ends, the harness searches its log
//! for every secret that the test knows of (traps 31 and 32).

pub mod ask;
pub mod disk;
pub mod forms;
pub mod idp;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use tempfile::TempDir;
use tokio::runtime::Handle;

pub const TOKEND: &str = env!("CARGO_BIN_EXE_tokend");

/// How long a step may take here that takes milliseconds on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The runtime for the asynchronous parts of the tests, on a thread of its own. The tests
/// themselves block.
pub fn runtime() -> &'static Handle {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let handle = runtime.handle().clone();
        std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
        handle
    })
}

/// Waits for a future. The tasks that it spawns go to the tests' runtime. The limit of a minute is
/// reached only by a future that never completes.
pub fn block<T>(coming: impl Future<Output = T>) -> T {
    let bounded = async { tokio::time::timeout(Duration::from_secs(60), coming).await };
    runtime().block_on(bounded).expect("it did not come")
}

/// Calls `look` often, and returns its first Some within `timeout`.
pub fn eventually<T>(timeout: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < timeout, "not within {timeout:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reports that a test cannot run here. Fails where every test must run.
pub fn skip(why: &str) {
    say_skipped(why);
    assert!(std::env::var("CI").is_err(), "CI must not skip: {why}");
}

/// Reports the same for a reason that no installation could change: the kernel of this machine does
/// not allow the test.
pub fn say_skipped(why: &str) {
    // The line must be seen, so it does not go through the captured output of the test.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!(
            "SKIP {}: {why}\n",
            std::thread::current().name().unwrap_or("?")
        )
        .as_bytes(),
    );
}

/// Whether this test may switch users.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("needs root, to be several users");
    }
    root
}

/// Whether this machine can run a program.
pub fn has(program: &str) -> bool {
    let asked = match program {
        "openssl" => "version",
        "keytool" => "-help",
        _ => "--version",
    };
    let there = Command::new(program)
        .arg(asked)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !there {
        skip(&format!("needs {program}"));
    }
    there
}

/// Secrets that must appear in no log.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Mutex<BTreeSet<String>>>);

impl Secrets {
    /// Adds a secret in all forms that it has on its way.
    pub fn add(&self, text: &str) {
        if !text.is_empty() {
            self.0.lock().expect("lock").extend(forms::forms(text));
        }
    }

    /// Adds each line of a key in PEM, but not its labels. The last line is left out if it is so
    /// short that it could occur anywhere.
    pub fn add_lines(&self, pem: &str) {
        for line in pem
            .lines()
            .filter(|line| !line.starts_with("-----") && line.len() >= 16)
        {
            self.add(line);
        }
    }

    pub fn assert_none_in(&self, text: &str, place: &str) {
        for secret in self.0.lock().expect("lock").iter() {
            if let Some(at) = text.find(secret.as_str()) {
                let around = text[..at].rsplit('\n').next().unwrap_or("");
                panic!("a secret in {place}, after: {around}");
            }
        }
    }
}

/// A folder for configuration, secrets and the socket.
pub struct Place {
    folder: TempDir,
    pub secrets: Secrets,
    /// The daemon's user, if that is not the test's user.
    pub user: Option<u32>,
}

impl Place {
    pub fn new() -> Place {
        let folder = tempfile::Builder::new()
            .prefix("tk")
            .permissions(fs::Permissions::from_mode(0o700))
            .tempdir()
            .expect("folder");
        Place {
            folder,
            secrets: Secrets::default(),
            user: None,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("tokend.sock")
    }

    pub fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("mode");
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
        fs::write(&path, text).expect("written");
        self.mode(name, 0o600);
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&path, Some(user), Some(user)).expect("chown");
        }
    }

    /// Writes a file with a secret that must appear nowhere else.
    pub fn secret(&self, name: &str, text: &str) {
        self.secrets.add(text);
        self.write(name, text);
    }

    /// Gives the folder to another user, who will run the daemon. Files that are written from now
    /// on belong to that user.
    pub fn give_to(&mut self, user: u32) {
        self.user = Some(user);
        std::os::unix::fs::chown(self.path(""), Some(user), Some(user)).expect("chown");
    }

    /// Lets other users into the folder; the modes of the files still decide.
    pub fn open(&self) {
        self.mode("", 0o755);
    }

    /// The executable, where every user of this folder can run it.
    fn program(&self) -> PathBuf {
        let program = self.path("tokend");
        if !program.exists() && fs::hard_link(TOKEND, &program).is_err() {
            fs::copy(TOKEND, &program).expect("copied");
        }
        program
    }

    /// `tokend` with this folder's socket and configuration, and with no other setting of this
    /// process.
    pub fn tokend(&self, arguments: &[&str]) -> Command {
        self.tokend_as(self.user, arguments)
    }

    pub fn tokend_as(&self, user: Option<u32>, arguments: &[&str]) -> Command {
        let mut command = match user {
            Some(user) => {
                let mut command = Command::new(self.program());
                command.uid(user).gid(user);
                command
            }
            None => Command::new(TOKEND),
        };
        for name in ["CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "TOKEND_LOG"] {
            command.env_remove(name);
        }
        command
            .args(arguments)
            .env("TOKEND_SOCKET", self.socket())
            .env("TOKEND_CONFIG", self.path("tokend.toml"))
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    /// Runs `tokend` to its end. Fails if its standard error contains a secret.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        let ran = run(&mut self.tokend(arguments));
        self.secrets.assert_none_in(&ran.err, "standard error");
        ran
    }

    /// Starts `tokend serve` and waits until it answers.
    pub fn serve(self, config: &str) -> Daemon {
        self.write("tokend.toml", &audited(config));
        Daemon::start_in(self)
    }
}

/// The audit file of a daemon whose configuration does not say otherwise: most test machines have
/// no journal.
pub const AUDIT: &str = "audit.jsonl";

/// A configuration with [`AUDIT`], unless it configures audit itself.
pub fn audited(config: &str) -> String {
    if config.contains("[audit]") {
        config.to_owned()
    } else {
        format!("{config}\n[audit]\nsink = \"file\"\npath = \"{AUDIT}\"\n")
    }
}

/// The result of a program.
#[derive(Debug)]
pub struct Ran {
    /// The exit code; None if a signal killed the program.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

pub fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// A running `tokend serve`.
pub struct Daemon {
    pub place: Place,
    child: Child,
    log: Log,
    /// The time from start to the first answer.
    pub ready_after: Duration,
}

impl Daemon {
    /// Starts a daemon in a folder of its own.
    pub fn start(config: &str) -> Daemon {
        Place::new().serve(config)
    }

    /// Starts a daemon in a folder that has its configuration.
    pub fn start_in(place: Place) -> Daemon {
        let mut command = place.tokend(&["serve"]);
        command.stdout(Stdio::null());
        Daemon::start_by(place, command)
    }

    /// Starts a daemon by a command that becomes `tokend serve`.
    pub fn start_by(place: Place, mut command: Command) -> Daemon {
        let started = Instant::now();
        let mut child = command
            .env("TOKEND_LOG", "trace")
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let log = Log::of(child.stderr.take().expect("piped"));
        let mut daemon = Daemon {
            place,
            child,
            log,
            ready_after: Duration::ZERO,
        };
        eventually(PATIENCE, || {
            if let Some(status) = daemon.child.try_wait().expect("waited") {
                panic!("tokend serve ended at once with {status}");
            }
            ask::is_up(&daemon.place.socket()).then_some(())
        });
        daemon.ready_after = started.elapsed();
        daemon
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("signalled");
    }

    /// Waits for the end of the daemon, which must be soon, and returns its exit code.
    pub fn ended(&mut self) -> Option<i32> {
        eventually(PATIENCE, || self.child.try_wait().expect("waited")).code()
    }

    /// Sends a signal until the daemon dies of it, and returns the exit status. One signal may not
    /// be enough: the standard library's handler of SIGSEGV takes the first one from another
    /// process for a fault that will come again, and removes itself.
    pub fn killed_by(&mut self, signal: rustix::process::Signal) -> ExitStatus {
        eventually(PATIENCE, || {
            self.signal(signal);
            self.child.try_wait().expect("waited")
        })
    }

    /// Sends SIGTERM and returns the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.ended()
    }

    pub fn socket(&self) -> PathBuf {
        self.place.socket()
    }
}

impl Daemon {
    /// Ends the daemon, searches its log for secrets, and returns its folder for the next daemon.
    pub fn into_place(mut self) -> Place {
        self.look_back();
        std::mem::replace(&mut self.place, Place::new())
    }

    fn look_back(&mut self) {
        // The child may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log.rest();
        // A test may have moved the record, or have none.
        let audit = fs::read_to_string(self.place.path(AUDIT)).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("--- log of the daemon\n{log}---");
        } else {
            self.place.secrets.assert_none_in(&log, "the log");
            self.place.secrets.assert_none_in(&audit, "the audit file");
            assert!(!log.contains("panicked at"), "{log}");
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.look_back();
    }
}

/// The collected output of a process.
pub struct Log {
    pipe: Arc<Mutex<Pipe>>,
    reader: Option<JoinHandle<()>>,
}

struct Pipe {
    end: fs::File,
    bytes: Vec<u8>,
}

impl Pipe {
    /// Takes the output that is there. Returns false if no more will come.
    fn drain(&mut self) -> bool {
        match self.end.read_to_end(&mut self.bytes) {
            Ok(_) => false,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

impl Log {
    pub fn of(stream: impl Into<OwnedFd>) -> Log {
        let end = fs::File::from(stream.into());
        rustix::io::ioctl_fionbio(&end, true).expect("not blocking");
        let waiting = end.try_clone().expect("a descriptor");
        let bytes = Vec::new();
        let pipe = Arc::new(Mutex::new(Pipe { end, bytes }));
        let copy = pipe.clone();
        // Without a reader the pipe would fill up.
        let reader = std::thread::spawn(move || {
            let mut waited = [PollFd::new(&waiting, PollFlags::IN)];
            loop {
                let there = poll(&mut waited, None);
                if there.is_ok() && !copy.lock().expect("lock").drain() {
                    return;
                }
            }
        });
        Log {
            pipe,
            reader: Some(reader),
        }
    }

    /// All output that was written before this call.
    pub fn text(&self) -> String {
        let mut pipe = self.pipe.lock().expect("lock");
        pipe.drain();
        String::from_utf8_lossy(&pipe.bytes).into_owned()
    }

    /// All output, once the process has ended.
    pub fn rest(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// Whether a file exists; a symbolic link counts itself.
pub fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// `VmRSS` in kB.
pub fn resident(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.expect("a number").parse().expect("a number")
}
