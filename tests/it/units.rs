//! Access by systemd unit. The tests make the cgroups in place of a service manager; the kernel
//! reports them in the same way. tests/systemd covers what systemd itself adds.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::ask::{Who, exchange};
use crate::harness::{
    AUDIT, Daemon, PATIENCE, Place, Ran, audited, eventually, has, is_root, run, say_skipped,
};

const CONFIG: &str = r#"
[server]
socket_mode = "0666"

[profiles.unit]
method = "static"
token = { file = "token" }
access = [{ unit = "orders@*.service" }]

[profiles.both]
method = "static"
token = { file = "token" }
access = [{ user = 65001, unit = "orders@*.service" }]

[profiles.root]
method = "static"
token = { file = "token" }
"#;

const WORKER: u32 = 65001;

/// A part of the cgroup2 hierarchy that belongs to the test as long as this value lives.
struct Cgroups {
    top: PathBuf,
}

impl Cgroups {
    /// None where the machine has no hierarchy that can be written to.
    fn new(name: &str) -> Option<Cgroups> {
        if !is_root() {
            return None;
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("readable");
        let root = mounts.lines().find_map(|line| {
            let (place, kind) = line.split_once(" - ")?;
            kind.starts_with("cgroup2 ")
                .then(|| place.split(' ').nth(4))?
        });
        let top = Path::new(root.unwrap_or("/nowhere"))
            .join(format!("tk{}{name}.slice", std::process::id()));
        match fs::create_dir(&top) {
            Ok(()) => Some(Cgroups { top }),
            Err(error) => {
                say_skipped(&format!("{}: {error}", top.display()));
                None
            }
        }
    }

    fn make(&self, path: &str) -> PathBuf {
        let path = self.top.join(path);
        fs::create_dir_all(&path).expect("a cgroup");
        path
    }

    /// `tokend` in this cgroup.
    fn run(&self, daemon: &Daemon, cgroup: &str, user: Option<u32>, arguments: &[&str]) -> Ran {
        let procs = self.make(cgroup).join("cgroup.procs");
        let inner = daemon.place.tokend_as(user, arguments);
        let mut outer = Command::new("sh");
        // The user changes after the cgroup does, because the cgroup belongs to root.
        outer
            .args(["-c", "echo $$ > \"$1\" && shift && exec \"$@\"", "sh"])
            .arg(&procs);
        if let Some(user) = user {
            let user = user.to_string();
            outer.args([
                "setpriv",
                "--reuid",
                &user,
                "--regid",
                &user,
                "--clear-groups",
            ]);
        }
        outer.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        run(&mut outer)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let mut folders = vec![self.top.clone()];
        let mut at = 0;
        while at < folders.len() {
            let inner = fs::read_dir(&folders[at]).into_iter().flatten().flatten();
            let inner = inner.map(|entry| entry.path()).filter(|path| path.is_dir());
            let inner: Vec<PathBuf> = inner.collect();
            folders.extend(inner);
            at += 1;
        }
        for folder in folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

fn daemon() -> Daemon {
    let place = Place::new();
    place.open();
    place.secret("token", "the-token-of-units");
    place.serve(CONFIG)
}

#[test]
fn the_unit_is_the_one_that_the_service_manager_gave() {
    let Some(cgroups) = Cgroups::new("a") else {
        return;
    };
    let daemon = daemon();
    let code = |cgroup: &str, user, profile| {
        let ran = cgroups.run(&daemon, cgroup, user, &["token", profile]);
        ran.code.unwrap_or_else(|| panic!("{ran:?}"))
    };
    for (cgroup, user, profile, expected) in [
        ("orders@1.service", None, "unit", 0),
        ("inner.slice/orders@2.service", None, "unit", 0),
        ("orders@1.service/payload", None, "unit", 0),
        ("orders.service", None, "unit", 3),
        ("orders@1.scope", None, "unit", 3),
        // A unit cannot choose its own name: it can make the cgroups below it.
        ("evil.service/orders@1.service", None, "unit", 3),
        ("evil.service/x.slice/orders@1.service", None, "unit", 3),
        ("plain", None, "unit", 3),
        ("plain/orders@1.service", None, "unit", 3),
        // All keys of an entry must hold.
        ("orders@1.service", Some(WORKER), "both", 0),
        ("orders@1.service", None, "both", 3),
        ("orders.service", Some(WORKER), "both", 3),
        ("orders.service", None, "root", 0),
    ] {
        assert_eq!(
            code(cgroup, user, profile),
            expected,
            "{cgroup} {user:?} {profile}"
        );
    }
    let text = fs::read_to_string(daemon.place.path(AUDIT)).expect("there");
    let units: BTreeSet<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|record| record["event"] == "grant")
        .filter_map(|record| record["unit"].as_str().map(str::to_owned))
        .collect();
    // The record names the unit even where no rule asked for it.
    assert_eq!(
        units.into_iter().collect::<Vec<_>>(),
        ["orders.service", "orders@1.service", "orders@2.service"]
    );
}

#[test]
fn lists_health_and_readiness_know_the_unit_too() {
    let Some(cgroups) = Cgroups::new("b") else {
        return;
    };
    let daemon = daemon();
    let seen = |cgroup: &str| -> serde_json::Value {
        let ran = cgroups.run(&daemon, cgroup, Some(WORKER), &["status", "--json"]);
        let status: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        let profiles = status["profiles"].as_array().expect("a list").iter();
        profiles.map(|profile| profile["name"].clone()).collect()
    };
    assert_eq!(seen("orders@1.service"), json!(["both", "unit"]));
    assert_eq!(seen("orders.service"), json!([]));
}

#[test]
fn explain_tells_which_rule_decides_and_would_decide() {
    let Some(cgroups) = Cgroups::new("c") else {
        return;
    };
    let daemon = daemon();
    let ran = cgroups.run(&daemon, "orders@1.service", None, &["explain", "unit"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("permitted by access[0]"), "{}", ran.out);
    assert!(ran.out.contains("unit orders@1.service"), "{}", ran.out);
    let explain = |arguments: &[&str]| {
        let ran = daemon.place.run(&[&["explain"], arguments].concat());
        (ran.code, ran.out + &ran.err)
    };
    let (code, text) = explain(&["unit"]);
    assert_eq!(code, Some(3), "{text}");
    assert!(text.contains("denied: no rule holds"), "{text}");
    assert!(text.contains("{ unit = \"orders@*.service\" }: does not hold: the unit is not known"));
    let (code, text) = explain(&["unit", "--as-unit", "orders@7.service"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = explain(&["unit", "--as-unit", "other.service"]);
    assert_eq!(code, Some(3));
    assert!(text.contains("the unit is other.service"), "{text}");
    let (code, text) = explain(&["both", "--as-unit", "orders@7.service"]);
    assert_eq!(code, Some(3));
    assert!(text.contains("the user is 0"), "{text}");
    let (code, text) = explain(&["root", "--as-user", "root"]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = explain(&["root", "--as-user", "no-such-user"]);
    assert_eq!(code, Some(2), "{text}");
}

/// Trap 20. Broken by a descriptor of the caller's process that stays open after the connection.
#[test]
fn trap_20_callers_that_die_leave_no_descriptor() {
    let daemon = daemon();
    let open = || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .expect("readable")
            .count()
    };
    assert_eq!(daemon.http_token("root").status, 200);
    let before = open();
    for n in 0..400 {
        let stream = std::os::unix::net::UnixStream::connect(daemon.socket()).expect("connected");
        if n % 2 == 0 {
            let request = b"GET /v1/profiles/unit/token HTTP/1.1\r\nHost: tokend\r\n\r\n";
            std::io::Write::write_all(&mut &stream, request).expect("written");
        }
        drop(stream);
    }
    assert_eq!(daemon.http_token("root").status, 200);
    eventually(PATIENCE, || (open() <= before + 1).then_some(()));
}

/// Broken by a registry that looks for the unit only where a rule of that very profile depends on
/// it. Then the first answer about an existing profile took the time of the look-up, and the answer
/// about an unknown name did not.
#[test]
fn denied_and_unknown_take_the_same_time() {
    if !is_root() {
        return;
    }
    let daemon = daemon();
    let who = Who::user(65003);
    let mut took: [Vec<Duration>; 2] = [Vec::new(), Vec::new()];
    for round in 0..300 {
        for name in [round % 2, 1 - round % 2] {
            let profile = ["unit", "null"][name];
            let request = format!(
                "GET /v1/profiles/{profile}/token HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n"
            );
            let start = Instant::now();
            let answer = exchange(&daemon.socket(), Some(&who), request.as_bytes());
            took[name].push(start.elapsed());
            assert!(answer.expect("an answer").starts_with(b"HTTP/1.1 404 "));
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64()
    };
    let [there, not_there] = &mut took;
    let ratio = median(there) / median(not_there);
    eprintln!("denied takes {ratio:.3} times what unknown takes");
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

/// `python3 units/process.py`, which says what it does.
fn process(place: &Place, arguments: &[&str]) -> Command {
    let script = place.path("process.py");
    fs::write(&script, include_str!("units/process.py")).expect("written");
    let mut command = Command::new("python3");
    command.arg(script).args(arguments);
    command
}

/// This command, for which the kernel is older than Linux 6.5.
fn on_an_older_kernel(place: &Place, inner: &Command) -> Command {
    let mut command = process(place, &["older"]);
    command.arg(inner.get_program()).args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// A daemon for which the kernel is older than Linux 6.5, with this line in `[server]`.
fn older_daemon(line: &str) -> Daemon {
    let place = Place::new();
    place.open();
    place.secret("token", "the-token-of-units");
    let config = CONFIG.replace("[server]", &format!("[server]\n{line}"));
    place.write("tokend.toml", &audited(&config));
    let mut command = on_an_older_kernel(&place, &place.tokend(&["serve"]));
    command.stdout(std::process::Stdio::null());
    Daemon::start_by(place, command)
}

/// Broken by a daemon that takes a number for a process without being told to, and by one that
/// never does.
#[test]
fn before_linux_6_5_units_are_found_by_number_only_where_the_configuration_says_so() {
    let Some(cgroups) = Cgroups::new("d") else {
        return;
    };
    if !has("python3") {
        return;
    }
    for (line, right, other_text) in [
        ("", 3, Some("unit_identity = \"pid\"")),
        (
            "unit_identity = \"pidfd\"",
            3,
            Some("unit_identity = \"pid\""),
        ),
        ("unit_identity = \"pid\"", 0, None),
    ] {
        let daemon = older_daemon(line);
        let code = |cgroup: &str, user, profile| {
            let ran = cgroups.run(&daemon, cgroup, user, &["token", profile]);
            ran.code.unwrap_or_else(|| panic!("{ran:?}"))
        };
        assert_eq!(code("orders@1.service", None, "unit"), right, "{line}");
        assert_eq!(code("orders@1.service", Some(WORKER), "both"), right);
        assert_eq!(code("orders.service", None, "unit"), 3, "{line}");
        assert_eq!(code("orders@1.service", None, "both"), 3, "{line}");
        assert_eq!(code("orders.service", None, "root"), 0, "{line}");
        let status = daemon.place.run(&["status", "unit"]);
        let inner = daemon.place.tokend(&["doctor", "--offline"]);
        let doctor = run(&mut on_an_older_kernel(&daemon.place, &inner));
        match other_text {
            Some(text) => {
                assert!(status.out.contains(text), "{status:?}");
                assert!(doctor.out.contains(&format!("set {text}")), "{doctor:?}");
            }
            None => {
                assert!(!status.out.contains("units cannot be known"), "{status:?}");
                assert!(doctor.out.contains("its number has to do"), "{doctor:?}");
            }
        }
    }
}

/// Trap 21, with numbers. Broken by a process that is opened when its unit is needed, and not when
/// its connection is accepted.
#[test]
fn trap_21_a_number_that_is_used_again_is_not_believed_before_linux_6_5_either() {
    let Some(cgroups) = Cgroups::new("e") else {
        return;
    };
    if !has("python3") {
        return;
    }
    let daemon = older_daemon("unit_identity = \"pid\"");
    let procs = cgroups.make("orders@1.service").join("cgroup.procs");
    let (socket, procs) = (daemon.socket(), procs.to_str().expect("text").to_owned());
    for (when, status) in [("alive", "200"), ("dead", "404"), ("reused", "404")] {
        let arguments = ["caller", socket.to_str().expect("text"), &procs, when];
        // Whoever forks at that moment may take the number; then there is another caller.
        let ran = eventually(PATIENCE, || {
            let ran = run(&mut process(&daemon.place, &arguments));
            (!ran.err.contains("another process took the number")).then_some(ran)
        });
        assert_eq!(ran.out.trim(), status, "{when}: {ran:?}");
    }
}
