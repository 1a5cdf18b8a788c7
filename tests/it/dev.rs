//! `tokend dev`: one command starts everything, and leaves nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{Log, PATIENCE, Place, Secrets, eventually, exists, has, run};

/// A running `tokend dev`.
struct Dev {
    child: Child,
    out: Log,
    log: Log,
    folder: PathBuf,
    secrets: Secrets,
}

impl Dev {
    /// Starts it with its temporary folder in `place`.
    fn start(place: &Place, arguments: &[&str]) -> Dev {
        let mut child = place
            .tokend(&[&["dev"], arguments].concat())
            .env_remove("TOKEND_SOCKET")
            .env_remove("TOKEND_CONFIG")
            .env("TMPDIR", place.path(""))
            .env("TOKEND_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let out = Log::of(child.stdout.take().expect("piped"));
        let log = Log::of(child.stderr.take().expect("piped"));
        eventually(PATIENCE, || {
            assert_eq!(child.try_wait().expect("waited"), None, "{}", log.text());
            out.text()
                .contains("An API that takes these tokens")
                .then_some(())
        });
        let text = out.text();
        let told = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("folder "));
        let folder = PathBuf::from(told.expect("the folder").trim());
        let secrets = Secrets::default();
        for name in ["oidc.secret", "basic.password", "mtls.key", "jwt.key"] {
            secrets.add(&fs::read_to_string(folder.join(name)).expect(name));
        }
        Dev {
            child,
            out,
            log,
            folder,
            secrets,
        }
    }

    /// The printed lines for the user to paste.
    fn lines(&self) -> Vec<String> {
        let text = self.out.text();
        let after = text
            .split_once("Lines to paste")
            .expect("lines")
            .1
            .to_owned();
        let line = |line: &str| line.strip_prefix("  ").map(str::to_owned);
        after.lines().filter_map(line).collect()
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("tokend.sock")
    }

    /// Sends Ctrl-C and returns the exit code.
    fn interrupt(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("signalled");
        let status = eventually(PATIENCE, || self.child.try_wait().expect("waited"));
        status.code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // The child may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let log = self.log.rest();
        if std::thread::panicking() {
            eprintln!("--- log of tokend dev\n{log}---");
        } else {
            self.secrets.assert_none_in(&log, "the log");
            self.secrets
                .assert_none_in(&self.out.rest(), "standard output");
        }
    }
}

fn sh(line: &str) -> String {
    let ran = run(Command::new("sh")
        .args(["-c", line])
        .env_remove("TOKEND_SOCKET"));
    assert_eq!(ran.code, Some(0), "{line}\n{}", ran.err);
    ran.out
}

fn is_jwt(text: &str) -> bool {
    text.split('.').count() == 3 && text.starts_with("ey")
}

#[test]
fn every_line_that_it_prints_works_and_nothing_is_left() {
    let place = Place::new();
    let start = Instant::now();
    let mut dev = Dev::start(&place, &[]);
    let took = start.elapsed();
    // The promise of two seconds is for a release build on an idle machine. This is neither.
    println!("tokend dev was ready after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert!(
        dev.folder.starts_with(place.path("")),
        "{}",
        dev.folder.display()
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&dev.folder).expect("there"));
    assert_eq!(mode & 0o777, 0o700);

    let lines = dev.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].ends_with(" token oidc"), "{}", lines[0]);
    assert!(is_jwt(sh(&lines[0]).trim()));
    let json = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
    if has("curl") {
        let body = json(sh(&lines[1]));
        assert!(is_jwt(body["token"].as_str().expect("a token")));
        // The API verifies signature and audience, so its answer is the proof.
        let topology = sh(&lines[3]);
        assert!(json(topology.clone()).is_object(), "{topology}");
    }
    if has("python3") {
        let body = json(sh(&lines[2]));
        assert!(is_jwt(body["token"].as_str().expect("a token")));
    }
    assert_eq!(dev.interrupt(), Some(0));
    assert!(!exists(&dev.folder), "the folder is gone");
    assert_eq!(fs::read_dir(place.path("")).expect("folder").count(), 0);
}

#[test]
fn it_has_one_profile_per_way_in_and_all_work() {
    let place = Place::new();
    let mut dev = Dev::start(&place, &[]);
    let token = |profile: &str| {
        let socket = dev.socket();
        let arguments = ["token", profile, "--json"];
        let ran = run(place.tokend(&arguments).env("TOKEND_SOCKET", socket));
        assert_eq!(ran.code, Some(0), "{profile}: {}", ran.err);
        serde_json::from_str::<Value>(&ran.out).expect("JSON")
    };
    assert_eq!(token("none")["authorization"], "");
    assert_eq!(token("basic")["token_type"], "Basic");
    for profile in ["oidc", "mtls", "jwt"] {
        let body = token(profile);
        assert!(
            is_jwt(body["token"].as_str().expect("a token")),
            "{profile}"
        );
        let bound = body["confirmation"]
            .as_str()
            .is_some_and(|it| !it.is_empty());
        assert_eq!(bound, profile == "mtls", "{profile}");
    }
    let config = dev.folder.join("tokend.toml");
    let check = [
        "check",
        "--online",
        "--config",
        config.to_str().expect("text"),
    ];
    let ran = place.run(&check);
    assert_eq!(ran.code, Some(0), "{}", ran.out);
    assert_eq!(dev.interrupt(), Some(0));
}

#[test]
fn two_run_side_by_side_and_a_folder_that_was_there_stays() {
    let place = Place::new();
    let given = place.path("given folder");
    fs::create_dir(&given).expect("folder");
    place.write("given folder/note", "mine");
    place.mode("given folder", 0o700);
    let path = given.to_str().expect("text");
    let mut one = Dev::start(&place, &["--dir", path]);
    let mut other = Dev::start(&place, &[]);
    assert_ne!(one.folder, other.folder);
    for dev in [&one, &other] {
        assert!(
            is_jwt(sh(&dev.lines()[0]).trim()),
            "quoted where it must be"
        );
    }
    // The command does not touch what it finds.
    let again = place.run(&["dev", "--dir", path]);
    assert_eq!(again.code, Some(1), "{}", again.err);
    assert!(again.err.contains("left alone"), "{}", again.err);
    assert_eq!(one.interrupt(), Some(0));
    assert_eq!(other.interrupt(), Some(0));
    assert_eq!(left_in(&given), ["note"]);
    assert!(!exists(&other.folder));
}

#[test]
fn told_to_stop_at_any_moment_it_leaves_nothing() {
    let place = Place::new();
    for (signal, delay) in [
        (Signal::INT, 0),
        (Signal::INT, 10),
        (Signal::TERM, 20),
        (Signal::INT, 40),
        (Signal::HUP, 80),
        (Signal::INT, 150),
    ] {
        let folder = place.path("dev");
        let mut child = start_quietly(&place, &folder);
        std::thread::sleep(Duration::from_millis(delay));
        // The signal comes before anything was made, and may kill the command.
        let made = exists(&folder);
        kill_process(Pid::from_child(&child), signal).expect("signalled");
        let status = eventually(PATIENCE, || child.try_wait().expect("waited"));
        assert!(!exists(&folder), "{signal:?} after {delay} ms: {status}");
        assert!(!made || status.code() == Some(0), "{signal:?}: {status}");
    }
    // From this moment there is something to remove.
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = place.path("dev");
        let mut child = start_quietly(&place, &folder);
        let start = Instant::now();
        while !exists(&folder) {
            assert!(start.elapsed() < PATIENCE, "it makes its folder");
            std::thread::yield_now();
        }
        kill_process(Pid::from_child(&child), signal).expect("signalled");
        let status = eventually(PATIENCE, || child.try_wait().expect("waited"));
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(!exists(&folder), "{signal:?}");
    }
}

fn start_quietly(place: &Place, folder: &Path) -> Child {
    place
        .tokend(&["dev", "--dir", folder.to_str().expect("text")])
        .env_remove("TOKEND_SOCKET")
        .env_remove("TOKEND_CONFIG")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("started")
}

fn left_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("there");
    entries
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect()
}
