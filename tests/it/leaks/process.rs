//! What the kernel shows of the daemon, and what a child process or a core file would get.

use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::digest;
use clap::CommandFactory as _;
use rustix::process::Signal;
use tokend::cli::Cli;

use crate::harness::ask::{Who, as_user};
use crate::harness::{Daemon, PATIENCE, Place, TOKEND, eventually, is_root, say_skipped};

const TOKEN: &str = "a-static-token.Qk3vT8xZ0p.for-all";

/// The user of the daemon in tests where that must not be root.
const DAEMON: u32 = 65021;

fn place() -> Place {
    let place = Place::new();
    place.secret("token", TOKEN);
    place
}

const CONFIG: &str = "[profiles.a]\nmethod = \"static\"\ntoken = { file = \"token\" }\n";

/// Runs a program in a folder with no limit for core files, as a shell would on a developer's
/// machine.
fn with_cores(folder: &Path, line: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &format!("ulimit -c unlimited; {line}")])
        .current_dir(folder)
        .stderr(Stdio::null());
    command
}

/// Broken by a `harden` without either of its first two steps.
#[test]
fn a_crash_leaves_no_core() {
    let place = place();
    place.write("tokend.toml", CONFIG);
    // The control shows whether this machine writes core files at all.
    let control = with_cores(&place.path(""), "kill -ABRT $$").status();
    if !control.expect("it runs").core_dumped() {
        say_skipped("nothing leaves a core here, so nothing is seen of it; only the limits are");
    }
    let mut place = Some(place);
    for signal in [Signal::ABORT, Signal::SEGV] {
        let here = place.take().unwrap_or_else(self::place);
        here.write("tokend.toml", CONFIG);
        let _ = fs::remove_file(here.path("core"));
        let mut command = with_cores(&here.path(""), &format!("exec {TOKEND} serve"));
        command
            .env_remove("NOTIFY_SOCKET")
            .env("TOKEND_SOCKET", here.socket())
            .env("TOKEND_CONFIG", here.path("tokend.toml"));
        let mut daemon = Daemon::start_by(here, command);
        let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
        let limits = limits.expect("anybody may");
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        let words: Vec<&str> = core.expect("a limit").split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{words:?}");
        let status = daemon.killed_by(signal);
        assert_eq!(status.signal(), Some(signal.as_raw()));
        assert!(!status.core_dumped(), "{signal:?}");
        let files = fs::read_dir(daemon.place.path("")).expect("there");
        for name in files.map(|file| file.expect("readable").file_name()) {
            assert!(!name.to_string_lossy().contains("core"), "{name:?}");
        }
    }
}

/// The client commands hold a credential, too, and Ctrl-\ is a way to end `tokend watch`. Broken by
/// a `main` without `harden`.
#[test]
fn a_client_leaves_no_core_either() {
    let daemon = place().serve(CONFIG);
    let watch = format!("exec {TOKEND} watch a");
    let mut child = with_cores(&daemon.place.path(""), &watch)
        .env("TOKEND_SOCKET", daemon.socket())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut first = [0];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut first).expect("a token");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::ABORT).expect("signalled");
    let status = child.wait().expect("waited");
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!status.core_dumped());
}

/// Broken by a `harden` without `set_dumpable_behavior`.
#[test]
fn another_process_of_the_same_user_reads_nothing_of_the_daemon() {
    if !is_root() {
        return;
    }
    let mut place = place();
    place.give_to(DAEMON);
    place.secret("token", TOKEN);
    let daemon = place.serve(CONFIG);
    let mut ordinary = Command::new("sleep");
    let mut ordinary = ordinary
        .arg("60")
        .uid(DAEMON)
        .gid(DAEMON)
        .spawn()
        .expect("started");
    let readable = |pid: u32| {
        as_user(&Who::user(DAEMON), move || {
            ["environ", "mem", "maps", "fd/2", "fdinfo/2", "auxv"]
                .into_iter()
                .filter(|name| {
                    fs::File::open(format!("/proc/{pid}/{name}")).is_ok_and(|mut file| {
                        // Some of these files refuse only at the first byte. `mem` has nothing at
                        // its very beginning.
                        *name == "mem" || std::io::Read::read(&mut file, &mut [0]).is_ok()
                    })
                })
                .collect::<Vec<_>>()
        })
    };
    // The child must have become `sleep`; before, it is still the process that starts it.
    eventually(PATIENCE, || {
        let name = fs::read_to_string(format!("/proc/{}/comm", ordinary.id())).ok()?;
        (name == "sleep\n").then_some(())
    });
    let open = readable(ordinary.id());
    ordinary.kill().expect("killed");
    ordinary.wait().expect("waited");
    assert!(
        open.contains(&"environ") && open.contains(&"maps"),
        "{open:?}"
    );
    assert_eq!(readable(daemon.pid()), [""; 0]);
    let owner = std::os::unix::fs::MetadataExt::uid(
        &fs::metadata(format!("/proc/{}/environ", daemon.pid())).expect("there"),
    );
    assert_eq!(
        owner, 0,
        "the kernel's own mark of a process that is not dumpable"
    );
}

/// This version starts no child process; if a later one does, this test protects it. Descriptors
/// that the daemon was started with are not its own: where the test has more than standard input,
/// output and error, they are left out here.
#[test]
fn a_child_would_inherit_no_descriptor() {
    if !is_root() {
        return;
    }
    let inherited = inheritable("self");
    let config = format!("[server]\nmetrics_listen = \"127.0.0.1:0\"\n{CONFIG}");
    let daemon = place().serve(&config);
    let _open = daemon.grpc();
    assert_eq!(daemon.place.run(&["reload"]).code, Some(0));
    let all = fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
    // Two listeners, a connection, inotify, and what two runtimes need.
    assert!(all.expect("root may").count() >= inherited.len() + 10);
    let mut left = inheritable(&daemon.pid().to_string());
    left.retain(|one| !matches!(one.0.as_str(), "0" | "1" | "2") && !inherited.contains(one));
    assert!(left.is_empty(), "{left:?}");
}

/// The descriptors that a child would get: number and target.
fn inheritable(pid: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for file in fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("root may") {
        let file = file.expect("readable");
        let number = file.file_name().to_string_lossy().into_owned();
        // A descriptor that is closed meanwhile does not count.
        let (Ok(text), Ok(what)) = (
            fs::read_to_string(file.path()),
            fs::read_link(format!("/proc/{pid}/fd/{number}")),
        ) else {
            continue;
        };
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.expect("flags").trim(), 8).expect("octal");
        if flags & rustix::fs::OFlags::CLOEXEC.bits() == 0 {
            found.push((number, what));
        }
    }
    found
}

/// Every user of the machine can see command lines.
#[test]
fn no_argument_is_for_a_secret() {
    let mut commands = vec![Cli::command()];
    let mut seen = 0;
    while let Some(command) = commands.pop() {
        for argument in command.get_arguments() {
            let long = argument.get_long().unwrap_or_default();
            let values = argument.get_value_names().unwrap_or_default();
            let names = [argument.get_id().as_str(), long].map(str::to_lowercase);
            let names = names
                .into_iter()
                .chain(values.iter().map(|name| name.to_lowercase()));
            for name in names {
                for word in [
                    "secret",
                    "pass",
                    "token",
                    "key",
                    "credential",
                    "assertion",
                    "auth",
                    "pin",
                ] {
                    assert!(!name.contains(word), "{} {name}", command.get_name());
                }
            }
            seen += 1;
        }
        commands.extend(command.get_subcommands().cloned());
    }
    assert!(seen > 20, "{seen}");
}

/// Broken by a `Fingerprinter` with a fixed key.
#[test]
fn fingerprints_are_keyed_by_each_daemon_and_no_plain_hash() {
    let print = || {
        let daemon = place().serve(CONFIG);
        let one = daemon
            .grpc()
            .token("a")
            .expect("a token")
            .credential
            .fingerprint;
        assert_eq!(daemon.http_token("a").text("fingerprint"), one);
        let status = daemon.get("/v1/status");
        assert_eq!(status.body["profiles"][0]["fingerprint"], one.as_str());
        one
    };
    let (one, other) = (print(), print());
    assert_ne!(one, other);
    assert_eq!(one.len(), 32);
    for algorithm in [
        &digest::SHA1_FOR_LEGACY_USE_ONLY,
        &digest::SHA224,
        &digest::SHA256,
        &digest::SHA384,
        &digest::SHA512,
        &digest::SHA3_256,
    ] {
        for text in [
            TOKEN.to_owned(),
            format!("{TOKEN}\n"),
            format!("Bearer {TOKEN}"),
            format!("Authorization: Bearer {TOKEN}"),
        ] {
            let hash = digest::digest(algorithm, text.as_bytes());
            let hex: String = hash
                .as_ref()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            assert!(
                !hex.contains(&one[..16]) && !hex.contains(&one[16..]),
                "{algorithm:?}"
            );
        }
    }
}
