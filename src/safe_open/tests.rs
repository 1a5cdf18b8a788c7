//! Which links are followed, and which folders are safe from other users.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

use super::*;

/// A user id that this machine does not use.
const STRANGER: u32 = 65_301;

/// A folder, or None unless this is root: only root can give files to other users.
fn folder() -> Option<tempfile::TempDir> {
    if !geteuid().is_root() {
        eprintln!("SKIP: needs root, to be several users");
        return None;
    }
    Some(tempfile::tempdir().expect("folder"))
}

fn write(path: &Path) {
    fs::write(path, "text").expect("written");
    mode(path, 0o600);
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
}

fn make(path: &Path, bits: u32, owner: u32) {
    fs::create_dir(path).expect("folder");
    chown(path, Some(owner), Some(owner)).expect("chown");
    mode(path, bits);
}

fn link(target: impl AsRef<Path>, path: &Path, owner: u32) {
    symlink(target, path).expect("linked");
    lchown(path, Some(owner), Some(owner)).expect("chown");
}

fn why<T>(outcome: Result<T, OpenError>) -> String {
    outcome.err().expect("refused").to_string()
}

/// Broken by an open that leaves links to the kernel: a user who renews one file could have any
/// other served in its place.
#[test]
fn a_link_of_somebody_else_is_not_followed_wherever_it_stands() {
    let Some(top) = folder() else { return };
    let at = |name: &str| top.path().join(name);
    write(&at("secret"));
    fs::create_dir(at("other")).expect("folder");
    write(&at("other/token"));
    make(&at("theirs"), 0o755, STRANGER);
    link(at("secret"), &at("theirs/token"), STRANGER);
    link("../other", &at("theirs/folder"), STRANGER);
    for name in ["theirs/token", "theirs/folder/token"] {
        let why = why(file(&at(name)));
        assert!(
            why.contains(&format!("is a link of uid {STRANGER}")) && why.contains("chown -h 0"),
            "{name}: {why}"
        );
    }
    // A link of root's still leads to theirs.
    link(at("theirs/token"), &at("ours"), 0);
    assert!(why(file(&at("ours"))).contains("theirs/token is a link"));
}

#[test]
fn a_file_that_somebody_else_renews_and_links_of_roots_are_read() {
    let Some(top) = folder() else { return };
    let at = |name: &str| top.path().join(name);
    make(&at("theirs"), 0o755, STRANGER);
    write(&at("theirs/token"));
    chown(at("theirs/token"), Some(STRANGER), None).expect("chown");
    assert!(file(&at("theirs/token")).is_ok());
    // This is how Kubernetes mounts a secret: sticky, with all links root's.
    make(&at("volume"), 0o1777, 0);
    make(&at("volume/..1"), 0o755, 0);
    write(&at("volume/..1/token"));
    link("..1", &at("volume/..data"), 0);
    link("..data/token", &at("volume/token"), 0);
    assert!(file(&at("volume/token")).is_ok());
    assert!(file(&at("volume/../theirs/./token")).is_ok());
}

/// Broken by a look at the owner of the link alone: a user who may write the folder can rename a
/// link of root's, and without fs.protected_hardlinks give it a second name.
#[test]
fn a_link_of_roots_that_others_could_have_placed_is_not_followed() {
    let Some(top) = folder() else { return };
    let at = |name: &str| top.path().join(name);
    write(&at("secret"));
    make(&at("open"), 0o777, 0);
    link(at("secret"), &at("open/token"), 0);
    assert!(why(file(&at("open/token"))).contains("others can put one in its place"));
    make(&at("sticky"), 0o1777, 0);
    link(at("secret"), &at("link"), 0);
    fs::hard_link(at("link"), at("sticky/token")).expect("linked");
    assert!(why(file(&at("sticky/token"))).contains("others can put one in its place"));
    assert!(
        file(&at("link")).is_ok(),
        "in a folder of root's it is root's doing"
    );
}

#[test]
fn a_second_name_of_a_file_in_a_folder_of_somebody_else_is_not_read() {
    let Some(top) = folder() else { return };
    let at = |name: &str| top.path().join(name);
    write(&at("secret"));
    make(&at("theirs"), 0o755, STRANGER);
    fs::hard_link(at("secret"), at("theirs/token")).expect("linked");
    assert!(why(file(&at("theirs/token"))).contains("more than one name"));
    assert!(file(&at("secret")).is_ok());
}

#[test]
fn links_end_and_what_is_no_file_says_so() {
    let top = tempfile::tempdir().expect("folder");
    let at = |name: &str| top.path().join(name);
    symlink("b", at("a")).expect("linked");
    symlink("a", at("b")).expect("linked");
    let kind = |path: &Path| match file(path) {
        Err(OpenError::System(error)) => error.raw_os_error(),
        other => panic!("{other:?}"),
    };
    assert_eq!(kind(&at("a")), Some(Errno::LOOP.raw_os_error()));
    assert_eq!(kind(&at("none")), Some(Errno::NOENT.raw_os_error()));
    write(&at("file"));
    assert_eq!(kind(&at("file/x")), Some(Errno::NOTDIR.raw_os_error()));
    assert!(
        file(top.path()).is_ok(),
        "a folder is for the caller to refuse"
    );
}

/// Broken by a look at the last folder alone: a user who can rename a folder on the way can put
/// another in its place.
#[test]
fn every_folder_on_the_way_counts() {
    let Some(top) = folder() else { return };
    let at = |name: &str| top.path().join(name);
    let us = geteuid().as_raw();
    for (bits, owner, word) in [
        (0o777, 0, "chmod go-w"),
        (0o775, 0, "chmod go-w"),
        (0o755, STRANGER, "chown"),
        // The owner of a sticky folder can rename what is in it, unlike others.
        (0o1777, STRANGER, "chown"),
    ] {
        make(&at("above"), bits, owner);
        make(&at("above/run"), 0o755, 0);
        let why = why(guarded_folder(&at("above/run"), us));
        let place = at("above").display().to_string();
        assert!(
            why.starts_with(&place) && why.contains(word),
            "{bits:o}: {why}"
        );
        link(at("above/run"), &at("link"), 0);
        assert!(
            guarded_folder(&at("link"), us).is_err(),
            "through a link too"
        );
        fs::remove_file(at("link")).expect("removed");
        fs::remove_dir_all(at("above")).expect("removed");
    }
    make(&at("above"), 0o1777, 0);
    make(&at("above/run"), 0o755, 0);
    assert!(guarded_folder(&at("above/run"), us).is_ok());
    make(&at("above/theirs"), 0o755, STRANGER);
    assert!(guarded_folder(&at("above/theirs"), us).is_err());
    assert!(
        guarded_folder(&at("above/theirs"), STRANGER).is_ok(),
        "it is that user's own"
    );
    assert!(
        guarded_folder(&at("above"), us).is_err(),
        "sticky: others can make names in it"
    );
}

#[test]
fn a_guarded_file_is_ours_and_nobody_else_can_write_it() {
    let Some(top) = folder() else { return };
    let at = |name: &str| top.path().join(name);
    fs::create_dir(at("d")).expect("folder");
    write(&at("d/a"));
    assert!(guarded_file(&at("d/a"), 0).is_ok());
    for bits in [0o664, 0o646] {
        mode(&at("d/a"), bits);
        let why = why(guarded_file(&at("d/a"), 0));
        assert!(
            why.contains("chmod go-w") && why.contains("can be written by others"),
            "{why}"
        );
    }
    mode(&at("d/a"), 0o644);
    chown(at("d/a"), Some(STRANGER), None).expect("chown");
    assert!(why(guarded_file(&at("d/a"), 0)).contains(&format!("belongs to uid {STRANGER}")));
    assert!(
        guarded_file(&at("d/a"), STRANGER).is_ok(),
        "that user's own"
    );
    chown(at("d/a"), Some(0), None).expect("chown");
    for bits in [0o777, 0o1777] {
        mode(&at("d"), bits);
        assert!(why(guarded_file(&at("d/a"), 0)).contains("chmod go-w"));
    }
    mode(&at("d"), 0o755);
    write(&at("b"));
    link(at("d/a"), &at("c"), STRANGER);
    assert!(guarded_file(&at("c"), 0).is_err());
}
