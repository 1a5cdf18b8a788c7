//! Tests names, owners and everything that may be in the way.

use std::os::unix::net::UnixStream;

use rustix::fs::{FlockOperation, Timespec, Timestamps, flock};

use super::*;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("mode");
    folder
}

#[test]
fn the_mode_is_set_and_the_name_goes_with_the_owner() {
    let folder = folder();
    let path = folder.path().join("run/t.sock");
    let bound = bind(&path, 0o660, None).expect("bound");
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o660);
    UnixStream::connect(&path).expect("listening");
    drop(bound);
    assert!(!path.exists());
}

#[test]
fn a_second_one_is_told_who_has_it() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    let _bound = bind(&path, 0o660, None).expect("bound");
    let refusal = bind(&path, 0o660, None).expect_err("taken").to_string();
    assert!(
        refusal.contains(&format!("pid {}", std::process::id())),
        "{refusal}"
    );
    UnixStream::connect(&path).expect("the first still listens");
}

#[test]
fn a_stale_socket_is_replaced_and_other_files_are_not() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "a crash leaves the name");
    drop(bind(&path, 0o660, None).expect("replaced"));
    fs::write(&path, "precious").expect("written");
    assert!(matches!(
        bind(&path, 0o660, None),
        Err(BindError::NotASocket(_))
    ));
    assert_eq!(fs::read_to_string(&path).expect("there"), "precious");
}

#[test]
fn a_name_that_somebody_else_took_is_not_removed() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    let bound = bind(&path, 0o660, None).expect("bound");
    fs::remove_file(&path).expect("removed");
    let _other = UnixListener::bind(&path).expect("bound");
    drop(bound);
    assert!(path.exists());
}

#[test]
fn a_folder_that_others_can_write_is_refused() {
    let folder = folder();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).expect("mode");
    let refusal = bind(&folder.path().join("t.sock"), 0o660, None).expect_err("refused");
    assert!(refusal.to_string().contains("chmod go-w"), "{refusal}");
}

#[test]
fn a_long_path_is_refused_with_the_limit() {
    let folder = folder();
    let path = folder.path().join("x".repeat(120));
    let refusal = bind(&path, 0o660, None).expect_err("refused").to_string();
    assert!(refusal.contains("107"), "{refusal}");
}

#[test]
fn a_lock_that_anybody_can_hold_does_not_keep_us_waiting() {
    let folder = folder();
    let theirs = fs::File::open(folder.path()).expect("open");
    flock(&theirs, FlockOperation::LockShared).expect("locked");
    let path = folder.path().join("t.sock");
    let _bound = bind(&path, 0o660, None).expect("bound");
    UnixStream::connect(&path).expect("listening");
}

#[test]
fn a_file_that_somebody_else_made_is_in_nobodys_way() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    fs::write(folder.path().join(".tk"), "").expect("written");
    let _bound = bind(&path, 0o660, None).expect("bound");
    assert_eq!(names(folder.path()), [".tk", "t.sock"]);
}

#[test]
fn a_full_backlog_is_somebodys() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    let address = SocketAddrUnix::new(&path).expect("short");
    let full = socket().expect("socket");
    rustix::net::bind(&full, &address).expect("bound");
    rustix::net::listen(&full, 0).expect("listening");
    // Kept open, so that they stay in the backlog.
    let mut waiting = Vec::new();
    loop {
        let one = socket().expect("socket");
        match rustix::net::connect(&one, &address) {
            Ok(()) => waiting.push(one),
            Err(error) => break assert_eq!(error, Errno::AGAIN),
        }
    }
    assert!(matches!(
        bind(&path, 0o660, None),
        Err(BindError::Taken { .. })
    ));
    assert_eq!(names(folder.path()), ["t.sock"]);
}

#[test]
fn what_a_killed_daemon_had_in_the_making_is_removed_once_it_is_old() {
    let folder = folder();
    for name in [".tkaaaaa", ".tkbbbbb", ".tkother1"] {
        drop(UnixListener::bind(folder.path().join(name)).expect("bound"));
    }
    let long_ago = Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 0,
    };
    for name in [".tkaaaaa", ".tkother1"] {
        let times = Timestamps {
            last_access: long_ago,
            last_modification: long_ago,
        };
        let path = folder.path().join(name);
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).expect("old");
    }
    let _bound = bind(&folder.path().join("t.sock"), 0o660, None).expect("bound");
    assert_eq!(names(folder.path()), [".tkbbbbb", ".tkother1", "t.sock"]);
}

#[test]
fn the_longest_path_that_fits_can_be_bound_whatever_the_folders_depth() {
    let folder = folder();
    let base = folder.path().as_os_str().len();
    for name in ["t", "tok", "tokend.sock"] {
        let fill = "x".repeat(LONGEST - base - name.len() - 2);
        let path = folder.path().join(fill).join(name);
        assert_eq!(path.as_os_str().len(), LONGEST);
        // Tried often enough that the only possible letter is sometimes the name itself.
        for _ in 0..if name.len() == 1 { 300 } else { 1 } {
            let _bound = bind(&path, 0o660, None).expect("bound");
            assert_eq!(names(path.parent().expect("folder")), [name]);
        }
    }
}

#[test]
fn a_stale_socket_that_became_anothers_in_the_meantime_stays_theirs() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    let new = folder.path().join("new");
    let _theirs = UnixListener::bind(&path).expect("bound");
    let _ours = UnixListener::bind(&new).expect("bound");
    let before = (
        identity(&path).expect("there"),
        identity(&new).expect("there"),
    );
    assert!(!replace(&new, &path, (0, 0)).expect("looked at"));
    let after = (
        identity(&path).expect("there"),
        identity(&new).expect("there"),
    );
    assert_eq!(before, after);
}

#[test]
fn of_many_that_start_together_one_gets_it() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    let bound: Vec<_> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| bind(&path, 0o660, None)))
            .collect();
        starting
            .into_iter()
            .map(|one| one.join().expect("ended"))
            .collect()
    });
    assert_eq!(bound.iter().filter(|one| one.is_ok()).count(), 1);
    UnixStream::connect(&path).expect("listening");
    assert_eq!(names(folder.path()), ["t.sock"]);
}

#[test]
fn of_two_that_find_the_same_stale_socket_one_gets_it() {
    let folder = folder();
    let path = folder.path().join("t.sock");
    for _ in 0..100 {
        drop(UnixListener::bind(&path).expect("bound"));
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| bind(&path, 0o660, None));
            (bind(&path, 0o660, None), other.join().expect("ended"))
        });
        assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        UnixStream::connect(&path).expect("listening");
        assert_eq!(names(folder.path()), ["t.sock"]);
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("there")
        .map(|entry| {
            let name = entry.expect("entry").file_name();
            name.into_string().expect("text")
        })
        .collect();
    names.sort_unstable();
    names
}
