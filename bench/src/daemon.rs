//! The programs that are measured, and what the kernel reports about them.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::Http;

/// Every program must have started after this time.
const START: Duration = Duration::from_secs(120);

/// Length of a static token, in bytes; the issuer's are about as long.
const TOKEN: usize = 1200;

/// Length of the audience in the issuer's tokens, in bytes. It makes these JWTs about as long as
/// real ones.
const AUDIENCE: usize = 400;

/// A server on a socket, killed when dropped.
pub struct Server {
    child: Child,
    pub socket: PathBuf,
    _folder: TempDir,
}

impl Server {
    /// Starts tokend and waits until every profile is ready.
    pub fn tokend(program: &Path, config: &str) -> Server {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path();
        // A machine used for measurements usually has no journal. The cost of a record that cannot
        // be written is not what is measured, so the sink is a file.
        let audit = "[audit]\nsink = \"file\"\npath = \"audit.jsonl\"\n";
        fs::write(path.join("tokend.toml"), format!("{config}\n{audit}")).expect("configuration");
        fs::write(path.join("secret"), "secret").expect("secret");
        fs::write(path.join("token"), "t".repeat(TOKEN)).expect("token");
        for file in ["secret", "token", "tokend.toml"] {
            private(&path.join(file));
        }
        let socket = path.join("tokend.sock");
        let child = Command::new(program)
            .args(["serve", "--config"])
            .arg(path.join("tokend.toml"))
            .env("TOKEND_SOCKET", &socket)
            .env("TOKEND_LOG", "warn")
            .spawn()
            .expect("tokend starts: cargo build --release");
        let server = Server {
            child,
            socket,
            _folder: folder,
        };
        server.wait();
        let begin = Instant::now();
        let mut http = Http::new();
        while http.ask(&server.socket, "/readyz").0 != 200 {
            assert!(begin.elapsed() < START, "tokend does not become ready");
            std::thread::sleep(Duration::from_millis(50));
        }
        server
    }

    /// Starts a control that answers these bytes.
    pub fn control(kind: &str, answer: &[u8]) -> Server {
        let folder = TempDir::new().expect("a folder");
        let socket = folder.path().join("control.sock");
        fs::write(socket.with_extension("answer"), answer).expect("answer");
        let child = Command::new(std::env::current_exe().expect("this program"))
            .arg("control")
            .arg(kind)
            .arg(&socket)
            .spawn()
            .expect("the control starts");
        let server = Server {
            child,
            socket,
            _folder: folder,
        };
        server.wait();
        server
    }

    fn wait(&self) {
        let begin = Instant::now();
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            assert!(begin.elapsed() < START, "the server does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The processor time of all threads so far, in nanoseconds.
    pub fn cpu(&self) -> f64 {
        fs::read_dir(format!("/proc/{}/task", self.pid()))
            .expect("the process lives")
            .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
            .filter_map(|text| text.split(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// A line of /proc/PID/status in kilobytes, for instance `VmRSS`.
    pub fn memory(&self, key: &str) -> f64 {
        kilobytes(&format!("/proc/{}/status", self.pid()), key).expect("the process lives")
    }

    /// The memory of the process in kilobytes, with shared pages by share (PSS). None where reading
    /// it is not permitted.
    pub fn pss(&self) -> Option<f64> {
        kilobytes(&format!("/proc/{}/smaps_rollup", self.pid()), "Pss")
    }

    /// Sends a signal, which stops the process or lets it go on.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "kill -s {name}"
        );
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kilobytes(path: &str, key: &str) -> Option<f64> {
    fs::read_to_string(path).ok()?.lines().find_map(|line| {
        let rest = line.strip_prefix(key)?.strip_prefix(':')?;
        rest.trim().strip_suffix(" kB")?.parse().ok()
    })
}

pub fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("permissions");
}

/// The embedded issuer in its own process.
pub struct Issuer {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub token_url: String,
}

impl Issuer {
    pub fn start(lifetime: u64) -> Issuer {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["issuer", &lifetime.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the issuer starts");
        let questions = child.stdin.take().expect("piped");
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let token_url = line(&mut answers);
        Issuer {
            child,
            questions,
            answers,
            token_url,
        }
    }

    /// The number of token requests so far.
    pub fn count(&mut self) -> usize {
        self.questions.write_all(b"\n").expect("asked");
        line(&mut self.answers).parse().expect("a number")
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line.trim().to_owned()
}

/// A configuration that is being built: one identity provider, high limits.
pub struct Config(String);

impl Config {
    pub fn new(issuer: Option<&Issuer>) -> Config {
        let mut text = String::from(
            "[server.limits]\nconnections = 20000\nconnections_per_user = 20000\n\
             streams = 100000\nstreams_per_user = 100000\nwaiting_per_user = 100000\n\
             requests_per_second = 1000000\nprofiles_per_second = 100000000\n",
        );
        if let Some(issuer) = issuer {
            write!(
                text,
                "[idp.bench]\ntoken_url = \"{}\"\nmax_in_flight = 8\nmax_per_second = 1000\n",
                issuer.token_url
            )
            .expect("text");
        }
        Config(text)
    }

    pub fn oauth2(mut self, name: &str, eager: bool) -> Config {
        write!(
            self.0,
            "[profiles.{name}]\nmethod = \"oauth2\"\nidp = \"bench\"\nclient_id = \"bench\"\n\
             client_secret = {{ file = \"secret\" }}\nrefresh = {{ eager = {eager} }}\naudience = \"{}\"\n",
            "a".repeat(AUDIENCE)
        )
        .expect("text");
        self
    }

    pub fn basic(mut self, name: &str) -> Config {
        write!(
            self.0,
            "[profiles.{name}]\nmethod = \"basic\"\nusername = \"demo\"\npassword = {{ file = \"secret\" }}\n"
        )
        .expect("text");
        self
    }

    pub fn fixed(mut self, name: &str) -> Config {
        write!(
            self.0,
            "[profiles.{name}]\nmethod = \"static\"\ntoken = {{ file = \"token\" }}\n"
        )
        .expect("text");
        self
    }

    pub fn none(mut self, name: &str) -> Config {
        write!(self.0, "[profiles.{name}]\nmethod = \"none\"\n").expect("text");
        self
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}
