//! Whose files, folders and listeners the daemon and the commands trust. If another user can change
//! one, they refuse it and say why.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::ask::{Who, as_user, connect};
use crate::harness::{Daemon, PATIENCE, Place, Ran, eventually, is_root, run};

/// Two users that do not run the daemon.
const RENEWER: u32 = 65_301;
const LISTENER: u32 = 65_302;

const PLAIN: &str = "[profiles.p]\nmethod = \"none\"\n";

/// Runs a command to its end. Fails if it does not end by itself.
fn ended(command: &mut Command) -> Ran {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let start = Instant::now();
    while child.try_wait().expect("waited").is_none() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The child has usually ended by now.
    let _ = child.kill();
    let output = child.wait_with_output().expect("ended");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    Ran {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

/// The outcome of each profile as `name=outcome: message`, in the words of `tokend reload --json`.
fn reload(daemon: &Daemon) -> Vec<String> {
    let ran = daemon.place.run(&["reload", "--json"]);
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    let profiles = report["profiles"].as_array().expect("profiles");
    profiles
        .iter()
        .map(|line| {
            let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
            format!(
                "{}={}: {}",
                text("profile"),
                text("outcome"),
                text("message")
            )
        })
        .collect()
}

fn token(daemon: &Daemon, profile: &str) -> String {
    daemon.http_token(profile).text("token").to_owned()
}

fn give(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), Some(uid)).expect("chown");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

/// Broken by an open that follows every link: a user that renews one file could have any file of
/// the daemon's served in its place.
#[test]
fn who_renews_a_file_cannot_have_another_ones_secret_served() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.secret("other", "the-token-of-another-profile");
    place.secret("renewed/token", "the-first-of-the-renewed");
    give(&place.path("renewed"), RENEWER, 0o755);
    give(&place.path("renewed/token"), RENEWER, 0o600);
    let daemon = place.serve(
        "[profiles.mine]\nmethod = \"static\"\ntoken = { file = \"renewed/token\" }\n\
         [profiles.other]\nmethod = \"static\"\ntoken = { file = \"other\" }\n",
    );
    let place = &daemon.place;
    assert_eq!(token(&daemon, "mine"), "the-first-of-the-renewed");
    let put = |make: &dyn Fn(&Path)| {
        let new = place.path("renewed/new");
        make(&new);
        lchown(&new, Some(RENEWER), Some(RENEWER)).expect("chown");
        fs::rename(new, place.path("renewed/token")).expect("renamed");
    };
    let link = |target: &str| {
        let target = place.path(target);
        put(&|new: &Path| symlink(&target, new).expect("linked"));
    };
    link("other");
    let told = reload(&daemon);
    assert!(
        told.iter().any(|line| line.starts_with("mine=kept")
            && line.contains(&format!("is a link of uid {RENEWER}"))),
        "{told:#?}"
    );
    assert_eq!(token(&daemon, "mine"), "the-first-of-the-renewed");
    let check = place.run(&["check"]);
    assert_eq!(check.code, Some(1), "{}", check.out);
    assert!(check.out.contains("is a link of uid"), "{}", check.out);

    place.secrets.add("the-second-of-the-renewed");
    put(&|new: &Path| fs::write(new, "the-second-of-the-renewed").expect("written"));
    let told = reload(&daemon);
    assert!(told.iter().all(|line| !line.contains("kept")), "{told:#?}");
    assert_eq!(token(&daemon, "mine"), "the-second-of-the-renewed");

    // A hard link does not help either, where the kernel lets that user make one.
    put(&|new: &Path| fs::hard_link(place.path("other"), new).expect("linked"));
    let told = reload(&daemon);
    assert!(
        told.iter().any(|line| line.contains("more than one name")),
        "{told:#?}"
    );
    assert_eq!(token(&daemon, "mine"), "the-second-of-the-renewed");
}

/// Broken by a check of only the file's mode for others.
#[test]
fn a_fragment_that_others_have_a_hand_in_is_refused_alone_and_its_profiles_are_kept() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    for name in ["a", "b"] {
        let text = format!("[profiles.{name}]\nmethod = \"none\"\n");
        place.write(&format!("profiles.d/{name}.toml"), &text);
    }
    let daemon = place.serve(PLAIN);
    let place = &daemon.place;
    let changed = "[profiles.a]\nmethod = \"none\"\naccess = [{ user = \"65301\" }]\n";
    for (uid, mode, word, cure) in [
        (0, 0o664, "can be written by others", "chmod go-w"),
        (RENEWER, 0o644, "belongs to uid 65301", "chown 0"),
        (RENEWER, 0o664, "belongs to uid 65301", "chown 0"),
    ] {
        place.write("profiles.d/a.toml", changed);
        give(&place.path("profiles.d/a.toml"), uid, mode);
        let told = reload(&daemon);
        let kept: Vec<_> = told.iter().filter(|line| line.contains("=kept")).collect();
        assert!(
            matches!(kept.as_slice(), [it] if it.starts_with("a=") && it.contains(word) && it.contains(cure)),
            "{uid} {mode:o}: {told:#?}"
        );
        let check = place.run(&["check"]);
        assert_eq!(check.code, Some(1), "{}", check.out);
    }
    place.write("profiles.d/a.toml", "[profiles.a]\nmethod = \"none\"\n");
    give(&place.path("profiles.d/a.toml"), 0, 0o600);
    for mode in [0o777, 0o1777] {
        // Neither added nor removed files in such a folder count.
        place.mode("profiles.d", mode);
        place.write("profiles.d/c.toml", "[profiles.c]\nmethod = \"none\"\n");
        fs::remove_file(place.path("profiles.d/b.toml")).expect("removed");
        let told = reload(&daemon);
        for name in ["a", "b"] {
            assert!(
                told.iter()
                    .any(|line| line.starts_with(&format!("{name}=kept"))
                        && line.contains("profiles.d can be written by others")),
                "{mode:o}: {told:#?}"
            );
        }
        assert!(told.iter().all(|line| !line.starts_with("c=")), "{told:#?}");
        place.mode("profiles.d", 0o755);
        fs::remove_file(place.path("profiles.d/c.toml")).expect("removed");
        place.write("profiles.d/b.toml", "[profiles.b]\nmethod = \"none\"\n");
        assert!(reload(&daemon).iter().all(|line| !line.contains("kept")));
    }
}

#[test]
fn a_tokend_toml_that_others_have_a_hand_in_is_status_78() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.write("tokend.toml", PLAIN);
    let refused = |word: &str| {
        for command in ["serve", "check"] {
            let ran = ended(&mut place.tokend(&[command]));
            let said = ran.out + &ran.err;
            assert_eq!(ran.code, Some(78), "{command}: {said}");
            assert!(said.contains(word), "{command}: {said}");
        }
    };
    place.mode("tokend.toml", 0o664);
    refused("chmod go-w");
    give(&place.path("tokend.toml"), RENEWER, 0o600);
    refused("belongs to uid 65301");
    give(&place.path("tokend.toml"), 0, 0o600);
    place.mode("", 0o775);
    refused("chmod go-w");
}

/// Broken by a check of only the socket's own folder.
#[test]
fn each_folder_above_the_socket_is_looked_at_and_a_sticky_one_is_not_its_own() {
    let place = Place::new();
    place.write("tokend.toml", PLAIN);
    fs::create_dir_all(place.path("above/run")).expect("folder");
    let serve = |socket: &str| {
        let socket = place.path(socket);
        let ran = ended(place.tokend(&["serve"]).env("TOKEND_SOCKET", &socket));
        assert_eq!(ran.code, Some(78), "{}", ran.err);
        assert!(!socket.exists());
        ran.err
    };
    let above = format!("the folder {} can be", place.path("above").display());
    place.mode("above", 0o777);
    for socket in ["above/run/t.sock", "above/new/t.sock"] {
        let said = serve(socket);
        assert!(
            said.contains(&above) && said.contains("chmod go-w"),
            "{said}"
        );
    }
    place.mode("above", 0o1777);
    let said = serve("above/t.sock");
    assert!(said.contains(&above), "{said}");
}

/// Broken by a command that asks any listener: it would take the answer for a credential, and
/// `doctor` would take it for the truth.
#[test]
fn a_listener_that_is_neither_roots_nor_the_folders_owners_is_asked_nothing() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    place.write("tokend.toml", PLAIN);
    place.open();
    fs::create_dir(place.path("run")).expect("folder");
    place.mode("run", 0o777);
    let socket = place.path("run/t.sock");
    let path = socket.clone();
    let listener = as_user(&Who::user(LISTENER), move || UnixListener::bind(path)).expect("bound");
    let text = socket.to_str().expect("text");
    for command in [
        &["token", "p"][..],
        &["status"],
        &["reload"],
        &["explain", "p"],
        &["watch", "p"],
        &["wait", "p", "--timeout", "100ms"],
    ] {
        let ran = ended(&mut place.tokend(&[command, &["--socket", text]].concat()));
        assert_eq!(ran.code, Some(6), "{command:?}: {ran:?}");
        assert!(ran.out.is_empty(), "{command:?}: {ran:?}");
        assert!(
            ran.err
                .contains("is not believed: it is uid 65302's process"),
            "{command:?}: {ran:?}"
        );
    }
    let ran = place.run(&["doctor", "--offline", "--json", "--socket", text]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("is not believed"), "{}", ran.out);
    assert!(!ran.out.contains("the daemon's user 65302"), "{}", ran.out);
    // All commands have connected, and none has sent anything.
    listener.set_nonblocking(true).expect("not blocking");
    let mut came = 0;
    while let Ok((mut stream, _)) = listener.accept() {
        let mut said = Vec::new();
        stream.read_to_end(&mut said).expect("ended");
        assert!(said.is_empty(), "{}", String::from_utf8_lossy(&said));
        came += 1;
    }
    assert!(came >= 7, "{came}");
}

/// Broken by trust in the owner of a folder that others can write: any of them could listen there
/// under that owner's name.
#[test]
fn the_folders_owner_is_believed_only_if_nobody_else_can_put_a_socket_there() {
    if !is_root() {
        return;
    }
    let mut place = Place::new();
    place.give_to(LISTENER);
    let daemon = place.serve(PLAIN);
    let status = || run(&mut daemon.place.tokend_as(None, &["status"]));
    assert_eq!(status().code, Some(0), "{:?}", status());
    daemon.place.mode("", 0o777);
    let ran = status();
    daemon.place.mode("", 0o700);
    assert_eq!(ran.code, Some(6), "{ran:?}");
    assert!(ran.err.contains("can be written by others"), "{ran:?}");
}

/// Broken by a doctor that counts one descriptor for each connection: the daemon would reach a
/// limit that the doctor calls enough.
#[test]
fn connections_take_no_more_descriptors_than_doctor_says_are_needed() {
    if !is_root() {
        return;
    }
    let limits = "[server.limits]\nconnections = 400\nconnections_per_user = 400\n";
    let daemon = Place::new().serve(&format!("{limits}{PLAIN}"));
    let ran = daemon.place.run(&["doctor", "--offline"]);
    let line = ran.out.lines().find(|line| line.contains(" limits: "));
    let numbers = line
        .unwrap_or_default()
        .split(|it: char| !it.is_ascii_digit());
    let needed: usize = numbers
        .filter_map(|number| number.parse().ok())
        .next_back()
        .unwrap_or_else(|| panic!("no number: {}", ran.out));
    let connections: Vec<_> = (0..390)
        .map(|_| connect(&daemon.socket(), None).expect("connected"))
        .collect();
    let open = || {
        let folder = fs::read_dir(format!("/proc/{}/fd", daemon.pid()));
        folder.expect("readable").count()
    };
    eventually(PATIENCE, || (open() >= connections.len()).then_some(()));
    // By now the daemon accepts the last connections.
    assert_eq!(daemon.get("/healthz").status, 200);
    assert!(
        open() <= needed,
        "{} are open, and {needed} are needed",
        open()
    );
    assert!(
        open() > connections.len() + 100,
        "one each: doctor asks for too many"
    );
}
