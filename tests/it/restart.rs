//! Restart under a service manager. The tests have a small one of their own, which holds the socket
//! and keeps descriptors as systemd does. tests/systemd uses the real one.

mod last_good;

use std::collections::BTreeMap;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokend_issuer::client::RegisteredClient;
use tokend_issuer::{Issuer, Settings};

use crate::harness::ask::get;
use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{Daemon, PATIENCE, Place, eventually};

/// The part of systemd that serves a service with a socket and a descriptor store.
pub struct Manager {
    folder: tempfile::TempDir,
    listener: UnixListener,
    told: Arc<Mutex<Told>>,
}

#[derive(Default)]
struct Told {
    messages: Vec<String>,
    store: BTreeMap<String, OwnedFd>,
}

impl Manager {
    pub fn new(place: &Place) -> Manager {
        let folder = tempfile::tempdir().expect("folder");
        let notify = UnixDatagram::bind(folder.path().join("notify")).expect("bound");
        let told = Arc::new(Mutex::new(Told::default()));
        let writing = told.clone();
        std::thread::spawn(move || while receive(&notify, &writing) {});
        Manager {
            folder,
            listener: UnixListener::bind(place.socket()).expect("bound"),
            told,
        }
    }

    pub fn start(&self, place: Place) -> Daemon {
        self.start_with(place, &[])
    }

    fn start_with(&self, place: Place, environment: &[(&str, &str)]) -> Daemon {
        let stored = self.stored();
        let serve = place.tokend(&["serve"]);
        let mut command = std::process::Command::new("sh");
        // The shell becomes the daemon; the descriptors from 3 on are for it.
        let (names, count) = match &stored {
            Some((name, _)) => (format!("tokend:{name}"), "2"),
            None => ("tokend".to_owned(), "1"),
        };
        let script = "exec 3<&0 </dev/null\n[ \"$LISTEN_FDS\" = 1 ] || exec 4<&1\nexec >/dev/null\nLISTEN_PID=$$ exec \"$@\"";
        command
            .args(["-c", script, "sh"])
            .arg(serve.get_program())
            .args(serve.get_args());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let listener = self.listener.try_clone().expect("cloned");
        command
            .env("LISTEN_FDS", count)
            .env("LISTEN_FDNAMES", names)
            .env("NOTIFY_SOCKET", self.folder.path().join("notify"))
            .env("FDSTORE", "16")
            .envs(environment.iter().copied())
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .stdout(stored.map_or(Stdio::null(), |(_, memory)| Stdio::from(memory)));
        Daemon::start_by(place, command)
    }

    /// The newest entry of the store, which has one or, for a moment, two.
    fn stored(&self) -> Option<(String, OwnedFd)> {
        let told = self.told.lock().expect("lock");
        let (name, memory) = told.store.iter().next_back()?;
        Some((name.clone(), memory.try_clone().expect("cloned")))
    }

    /// Waits until the store has an entry with another name than this, and returns its name.
    fn stored_after(&self, before: Option<&str>) -> String {
        eventually(PATIENCE, || {
            let (name, _) = self.stored()?;
            let one = self.told.lock().expect("lock").store.len() == 1;
            (one && Some(name.as_str()) != before).then_some(name)
        })
    }

    fn messages(&self) -> Vec<String> {
        self.told.lock().expect("lock").messages.clone()
    }
}

/// Receives one message with its descriptors. Returns whether there may be more.
fn receive(notify: &UnixDatagram, told: &Mutex<Told>) -> bool {
    let mut bytes = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let Ok(got) = recvmsg(notify, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) else {
        return false;
    };
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let text = String::from_utf8(bytes[..got.bytes].to_vec()).expect("text");
    let value = |key: &str| {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(key).map(str::to_owned))
    };
    let mut told = told.lock().expect("lock");
    if let Some(name) = value("FDNAME=") {
        if text.contains("FDSTOREREMOVE=1") {
            told.store.remove(&name);
        } else if let Some(memory) = descriptors.pop() {
            told.store.insert(name, memory);
        }
    }
    told.messages.push(text);
    // All other descriptors, such as that of a barrier, are closed by now.
    true
}

/// An issuer, and a place for the profile `it`. Tokens live for `lifetime` seconds.
fn stage(lifetime: u64, more: &str) -> (Issuer, Place, String) {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        token_lifetime: Duration::from_secs(lifetime),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    let config = idp::idp(&issuer) + &idp::profile("it", "it", more);
    place.write("tokend.toml", &crate::harness::audited(&config));
    (issuer, place, config)
}

/// Kills or stops the daemon, and returns its place.
fn end(mut daemon: Daemon, kill: bool) -> Place {
    if kill {
        daemon.signal(rustix::process::Signal::KILL);
        daemon.ended();
    } else {
        assert_eq!(daemon.stop(), Some(0));
    }
    daemon.into_place()
}

/// Broken by an `Assembly::admit` that takes nothing from the handover.
#[test]
fn credentials_survive_restart_and_sigkill_while_the_identity_provider_is_down() {
    let (issuer, place, _) = stage(3600, "request = { scopes = [\"read\"] }");
    let manager = Manager::new(&place);
    let mut daemon = manager.start(place);
    let read = || tokend::proto::GetTokenRequest {
        scopes: vec!["read".into()],
        ..get("it")
    };
    let first = eventually(PATIENCE, || daemon.grpc().token("it").ok());
    let variant = daemon.grpc().ask(read()).expect("served").credential;
    // The store has both credentials.
    eventually(PATIENCE, || {
        (memory(&manager).matches("\"profile\":\"it\"").count() == 2).then_some(())
    });
    let requests = issuer.count("/token");
    idp::down(&issuer);
    for kill in [false, true, true] {
        let place = end(daemon, kill);
        // No process accepts connections, but none is refused.
        let mut waiting = UnixStream::connect(place.socket()).expect("queued");
        waiting
            .write_all(
                b"GET /v1/profiles/it/token HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\r\n",
            )
            .expect("written");
        daemon = manager.start(place);
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut waiting, &mut answer).expect("answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.40}");
        let again = daemon.grpc().token("it").expect("kept").credential;
        assert_eq!(again.token, first.credential.token);
        assert_eq!(
            again.fingerprint, first.credential.fingerprint,
            "its name too"
        );
        assert_eq!(again.generation, first.credential.generation);
        let end = |one: &tokend::proto::Credential| one.expires_at.map(|at| at.seconds);
        let apart = end(&again).zip(end(&first.credential));
        let apart = apart.map(|(one, other)| one.abs_diff(other));
        assert!(apart.is_some_and(|apart| apart <= 1), "{again:?}");
        let again = daemon.grpc().ask(read()).expect("kept").credential;
        assert_eq!(again.token, variant.token);
    }
    idp::up(&issuer);
    assert_eq!(issuer.count("/token"), requests, "nobody had to be asked");
}

/// The content of the store, as text.
fn memory(manager: &Manager) -> String {
    let Some((_, memory)) = manager.stored() else {
        return String::new();
    };
    let mut file = std::fs::File::from(memory);
    let mut bytes = Vec::new();
    std::io::Seek::rewind(&mut file).expect("rewound");
    std::io::Read::read_to_end(&mut file, &mut bytes).expect("read");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Broken by a comparison without the scopes, and by one that includes the secret.
#[test]
fn what_is_somebody_elses_is_not_taken_back_and_other_material_is_only_renewed() {
    let (issuer, place, config) = stage(3600, "");
    let manager = Manager::new(&place);
    let daemon = manager.start(place);
    let first = eventually(PATIENCE, || daemon.grpc().token("it").ok()).credential;
    manager.stored_after(None);
    let place = end(daemon, false);

    // After a change of the secret the token stays the same, and a new one comes at once.
    issuer.set_client_secret("it", "another-secret-of-restart");
    place.secret("it.secret", "another-secret-of-restart");
    let requests = issuer.count("/token");
    let daemon = manager.start(place);
    let taken = daemon.grpc().token("it").expect("kept").credential;
    assert!(taken.fingerprint == first.fingerprint || taken.generation > first.generation);
    let renewed = eventually(PATIENCE, || {
        let now = daemon.grpc().token("it").expect("served").credential;
        (now.fingerprint != first.fingerprint).then_some(now)
    });
    assert!(renewed.generation > first.generation);
    assert_eq!(issuer.count("/token"), requests + 1);
    manager.stored_after(None);
    let place = end(daemon, false);

    // A token with other scopes is another token, whatever the profile is called.
    let other = config.replace("client_id", "scopes = [\"other\"]\nclient_id");
    place.write("tokend.toml", &crate::harness::audited(&other));
    idp::down(&issuer);
    let daemon = manager.start(place);
    let why = daemon.grpc().token("it").err().expect("nothing is there");
    assert_eq!(why.reason, "UPSTREAM_UNAVAILABLE");
}

#[test]
fn what_has_expired_meanwhile_is_not_taken_back() {
    let (issuer, place, _) = stage(3, LAZY);
    let manager = Manager::new(&place);
    let daemon = manager.start(place);
    let first = daemon.grpc().token("it").expect("served").credential;
    manager.stored_after(None);
    let place = end(daemon, true);
    idp::down(&issuer);
    std::thread::sleep(Duration::from_secs(4));
    let daemon = manager.start(place);
    let why = daemon.grpc().token("it").err().expect("it has expired");
    assert_eq!(why.reason, "UPSTREAM_UNAVAILABLE");
    idp::up(&issuer);
    let next = eventually(PATIENCE, || daemon.grpc().token("it").ok());
    assert_ne!(next.credential.token, first.token);
}

/// Broken by a `Handover::decode` without its checksum, and by a daemon that does not start with a
/// damaged handover.
#[test]
fn what_is_damaged_or_not_sealed_is_said_and_forgotten() {
    let (issuer, place, _) = stage(3600, LAZY);
    let manager = Manager::new(&place);
    let make = |bytes: &[u8], seal: bool| {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = std::fs::File::from(memfd_create("test", flags).expect("made"));
        file.write_all(bytes).expect("written");
        if seal {
            let all = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
            fcntl_add_seals(&file, all).expect("sealed");
        }
        OwnedFd::from(file)
    };
    let mut place = place;
    for (bytes, seal, said) in [
        (
            &b"not ours at all, and long enough to have a head and a body"[..],
            true,
            "another version",
        ),
        (b"tokend\x001", true, "damaged"),
        (b"tokend\x001", false, "not sealed"),
    ] {
        let name = "tokend-credentials-7".to_owned();
        manager.told.lock().expect("lock").store.clear();
        let memory = make(bytes, seal);
        manager
            .told
            .lock()
            .expect("lock")
            .store
            .insert(name, memory);
        let daemon = manager.start(place);
        daemon.grpc().token("it").expect("served");
        assert!(daemon.log().contains(said), "{said}");
        place = end(daemon, false);
    }
    assert_eq!(issuer.count("/token"), 3);
}

#[test]
fn the_service_manager_is_told_how_it_goes() {
    let (_issuer, place, _) = stage(3600, "");
    let manager = Manager::new(&place);
    let daemon = manager.start_with(place, &[("WATCHDOG_USEC", "600000")]);
    let has = |text: &str| {
        eventually(PATIENCE, || {
            let messages = manager.messages();
            messages.into_iter().find(|message| message.contains(text))
        })
    };
    assert!(has("READY=1").contains("STATUS="));
    has("STATUS=serving, 1 profile");
    has("WATCHDOG=1");
    daemon.signal(rustix::process::Signal::HUP);
    let reloading = has("RELOADING=1");
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    eventually(PATIENCE, || {
        let messages = manager.messages();
        let at = |text| messages.iter().rposition(|message| message.contains(text));
        (at("READY=1") > at("RELOADING=1")).then_some(())
    });
    let _place = end(daemon, false);
    has("STOPPING=1");
    let socket = UnixStream::connect(manager_path(&manager)).map(|_| ());
    assert!(
        socket.is_ok(),
        "the socket is the service manager's, and stays"
    );
}

fn manager_path(manager: &Manager) -> PathBuf {
    let address = manager.listener.local_addr().expect("address");
    address.as_pathname().expect("a path").to_owned()
}

/// Broken by signs of life from a timer: a blocked thread would go unnoticed.
#[test]
fn a_daemon_that_stands_still_gives_no_sign_of_life() {
    let (_issuer, place, _) = stage(3600, LAZY);
    let manager = Manager::new(&place);
    let daemon = manager.start_with(place, &[("WATCHDOG_USEC", "600000")]);
    let signs = || {
        let messages = manager.messages();
        messages
            .iter()
            .filter(|message| message.contains("WATCHDOG=1"))
            .count()
    };
    eventually(PATIENCE, || (signs() > 1).then_some(()));
    // The test stops only the threads that serve and that write.
    daemon.signal(rustix::process::Signal::STOP);
    std::thread::sleep(Duration::from_millis(300));
    let before = signs();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(signs(), before);
    daemon.signal(rustix::process::Signal::CONT);
    eventually(PATIENCE, || (signs() > before).then_some(()));
}

#[test]
fn without_a_service_manager_nothing_is_kept_and_that_is_said() {
    let (_issuer, place, config) = stage(3600, LAZY);
    let daemon = place.serve(&config);
    eventually(PATIENCE, || {
        daemon
            .log()
            .contains("credentials do not survive a restart")
            .then_some(())
    });
}

/// The daemon serves a thousand profiles at once although their identity provider is down. The test
/// prints how long it took: 290 ms without optimisation; with it (`cargo test --release`), less
/// than the goal of 50 ms.
#[test]
fn a_thousand_profiles_are_there_at_once() {
    let clients = (0..1000).map(|n| RegisteredClient::with_secret(&format!("c{n}"), SECRET));
    let issuer = idp::issuer(clients.collect());
    let place = Place::new();
    let mut config = idp::idp(&issuer);
    for n in 0..1000 {
        config += &format!(
            "[profiles.p{n}]\nmethod = \"oauth2\"\nidp = \"it\"\nclient_id = \"c{n}\"\nclient_secret = {{ file = \"secret\" }}\n"
        );
    }
    place.secret("secret", SECRET);
    place.write("tokend.toml", &crate::harness::audited(&config));
    let manager = Manager::new(&place);
    let daemon = manager.start(place);
    eventually(Duration::from_secs(60), || {
        (memory(&manager).matches("\"profile\":\"p").count() == 1000).then_some(())
    });
    idp::down(&issuer);
    let place = end(daemon, true);
    let ready = || {
        let messages = manager.messages();
        let of_them = messages.iter().filter(|said| said.contains("READY=1"));
        of_them.count()
    };
    let before = ready();
    let begin = Instant::now();
    let daemon = manager.start(place);
    let took = begin.elapsed();
    eventually(PATIENCE, || (ready() > before).then_some(()));
    for n in [0, 500, 999] {
        daemon.grpc().token(&format!("p{n}")).expect("kept");
    }
    eprintln!("start to the first answer, 1 000 profiles: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}
