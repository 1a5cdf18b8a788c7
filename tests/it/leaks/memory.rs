//! Memory keeps nothing of a profile that was removed, or of a secret that was replaced.
//!
//! The tests search the whole readable memory of the daemon: heaps, stacks and libraries. A part of
//! a secret can stay behind as well as all of it, so they look for each secret in pieces of
//! [`PIECE`] bytes. Memory that holds twice as many bytes of it in a row, less one, holds at least
//! one piece.
//!
//! The daemon cannot wipe one place: the variables that `{ env = … }` names stay in its environment
//! as long as it lives. `tokend check` warns of this.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokend_issuer::faults::{Fault, Target, Times};

use super::cast::{self, Cast};
use super::secret;
use crate::harness::forms::forms;
use crate::harness::idp;
use crate::harness::{Daemon, PATIENCE, Place, has, is_root};

/// Long enough not to occur by chance, short enough to find remnants.
const PIECE: usize = 16;

/// The number of bytes in one read.
const CHUNK: usize = 1 << 20;

/// The secrets to look for.
#[derive(Default)]
struct Wanted {
    /// Each piece with the name of its secret.
    pieces: HashMap<[u8; PIECE], String>,
}

impl Wanted {
    /// Adds bytes as they are.
    fn bytes(&mut self, name: &str, bytes: &[u8]) {
        assert!(bytes.len() >= PIECE, "{name} is too short to be told apart");
        for piece in bytes.chunks_exact(PIECE) {
            let piece = piece.try_into().expect("its length");
            self.pieces.insert(piece, name.to_owned());
        }
    }

    /// Adds a text in every form in which memory may hold it.
    fn text(&mut self, name: &str, text: &str) {
        for form in forms(text) {
            self.bytes(name, form.as_bytes());
        }
        let wide: Vec<u16> = text.encode_utf16().collect();
        // Passwords of keystores are hashed in this form.
        self.bytes(
            name,
            &wide
                .iter()
                .flat_map(|c| c.to_be_bytes())
                .collect::<Vec<_>>(),
        );
        self.bytes(
            name,
            &wide
                .iter()
                .flat_map(|c| c.to_le_bytes())
                .collect::<Vec<_>>(),
        );
    }

    /// Adds a token. Of a JWT it adds the signature only: the rest is much the same in all JWTs,
    /// and worth nothing without the signature.
    fn token(&mut self, name: &str, token: &str) {
        match token.rsplit_once('.') {
            Some((_, signature)) if token.starts_with("ey") => self.text(name, signature),
            _ => self.text(name, token),
        }
    }

    /// Adds a PKCS#8 key in PEM: as text, in DER, and as the numbers that cryptography computes
    /// with, least significant byte first.
    fn key(&mut self, name: &str, pem: &str) {
        let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
        let body = lines.concat();
        let der = STANDARD.decode(&body).expect("base64");
        let (from, to) = private_part(&der);
        self.bytes(name, &body.as_bytes()[from.div_ceil(12) * 16..to / 12 * 16]);
        let secret = &der[from..to];
        self.bytes(name, secret);
        self.bytes(name, &secret.iter().rev().copied().collect::<Vec<_>>());
    }

    /// The secrets that are in the memory of a process, and where.
    fn found_in(&self, pid: u32) -> Vec<(String, String)> {
        let mut begins = vec![false; 1 << 16];
        for piece in self.pieces.keys() {
            begins[usize::from(piece[0]) << 8 | usize::from(piece[1])] = true;
        }
        let memory = File::open(format!("/proc/{pid}/mem")).expect("root may");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("root may");
        let mut found = Vec::new();
        let mut chunk = vec![0; CHUNK + PIECE];
        for map in maps.lines() {
            let mut words = map.split_whitespace();
            let (range, mode) = (words.next().expect("range"), words.next().expect("mode"));
            // The kernel's own mappings cannot be read this way.
            if !mode.starts_with('r') || map.contains("[v") {
                continue;
            }
            let (start, end) = range.split_once('-').expect("a range");
            let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("hex"));
            let mut at = start;
            while at < end {
                let most = usize::try_from(end - at).unwrap_or(CHUNK).min(chunk.len());
                // Such memory has gone meanwhile, or has nothing behind it.
                let Ok(length @ PIECE..) = memory.read_at(&mut chunk[..most], at) else {
                    break;
                };
                for (offset, window) in chunk[..length].windows(PIECE).enumerate() {
                    if begins[usize::from(window[0]) << 8 | usize::from(window[1])]
                        && let Some(name) = self.pieces.get(window)
                    {
                        let around = offset.saturating_sub(48)..(offset + 64).min(length);
                        let around = String::from_utf8_lossy(&chunk[around]).into_owned();
                        let place = format!("{:x} of {map}: {around:?}", at + offset as u64);
                        found.push((name.clone(), place));
                    }
                }
                at += u64::try_from(length - PIECE + 1).expect("small");
            }
        }
        found
    }

    /// Fails if one of these secrets is not found. A search proves something only if it finds the
    /// secrets that must be there.
    fn assert_all_in(&self, daemon: &Daemon, names: &[String]) {
        let found = self.found_in(daemon.pid());
        for name in names {
            assert!(
                found.iter().any(|(found, _)| found == name),
                "{name} is not found where it must be"
            );
        }
    }

    /// Waits until no secret is there any more: connections end a moment after the profiles that
    /// used them.
    fn assert_none_in(&self, daemon: &Daemon) {
        let start = Instant::now();
        let mut found = self.found_in(daemon.pid());
        while !found.is_empty() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
            found = self.found_in(daemon.pid());
        }
        let lines: Vec<String> = found
            .iter()
            .map(|(name, place)| format!("{name} at {place}"))
            .collect();
        assert!(found.is_empty(), "{}", lines.join("\n"));
    }
}

/// The position of the private numbers in a PKCS#8 key: the scalar of a curve; for RSA, the primes
/// and the numbers derived from them.
fn private_part(der: &[u8]) -> (usize, usize) {
    if der.len() > 1000 {
        // Two primes, two exponents and a coefficient of 128 bytes each, at the end.
        return (der.len() - 650, der.len());
    }
    // OCTET STRING of 32 bytes: the scalar of P-256.
    let at = der.windows(2).position(|two| two == [0x04, 0x20]);
    let from = at.expect("a P-256 key") + 2;
    (from, from + 32)
}

/// The secrets of the cast, and the names of those that stay in use after they were read.
fn of(cast: &Cast) -> (Wanted, Vec<String>) {
    let mut wanted = Wanted::default();
    let mut in_use = Vec::new();
    for (name, pem) in &cast.keys {
        wanted.key(&format!("{name} key"), pem);
        in_use.push(format!("{name} key"));
    }
    for (name, config) in &cast.profiles {
        wanted.text(&format!("{name} secret"), &secret(name));
        // The secrets of Basic and static profiles are searched for as tokens.
        if config.contains("client_secret") {
            in_use.push(format!("{name} secret"));
        }
    }
    (wanted, in_use)
}

/// A daemon that has handed out a credential of every profile, and the secrets that must be in its
/// memory now.
fn in_use(cast: &mut Cast) -> (Daemon, Wanted) {
    cast.with_file("opaque", "");
    let opaque = Fault::token(Some("opaque-token-5fH_2kQ.8dYw~RtB0xNz+Lc/Me4Vu1="));
    cast.issuer
        .script_for(Target::Client("opaque".into()), opaque, Times::Always);
    let (mut wanted, mut in_use) = of(cast);
    let place = std::mem::replace(&mut cast.place, Place::new());
    let daemon = place.serve(&cast.config());
    for (name, _) in &cast.profiles {
        let token = daemon.grpc().token(name);
        let token = token.unwrap_or_else(|why| panic!("{name}: {why:?}"));
        wanted.token(&format!("{name} token"), &token.credential.token);
        in_use.push(format!("{name} token"));
        assert_eq!(daemon.http_token(name).status, 200);
    }
    wanted.assert_all_in(&daemon, &in_use);
    (daemon, wanted)
}

/// Makes the daemon read everything, and waits for the result. Old connections have carried the
/// replaced secrets. The daemon closes an unused connection after half a minute; here the issuer
/// closes it at once.
fn reload(daemon: &Daemon, cast: &Cast) {
    let ran = daemon.place.run(&["reload"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    idp::down(&cast.issuer);
}

/// Broken by a binary without `sys::Wiping`: tokens, secrets and keys stayed in memory that
/// libraries had freed.
#[test]
fn memory_holds_nothing_of_a_profile_that_was_removed() {
    if !is_root() || !has("openssl") {
        return;
    }
    let mut cast = cast::sound();
    let (daemon, wanted) = in_use(&mut cast);
    let stays = format!("{}\n[profiles.stays]\nmethod = \"none\"\n", cast.idp);
    daemon.place.write("tokend.toml", &stays);
    reload(&daemon, &cast);
    assert_eq!(daemon.grpc().profiles(), ["stays"]);
    wanted.assert_none_in(&daemon);
}

/// Broken by a binary without `sys::Wiping`.
#[test]
fn memory_holds_nothing_of_a_secret_that_was_replaced() {
    if !is_root() || !has("openssl") {
        return;
    }
    let mut cast = cast::sound();
    let (daemon, mut wanted) = in_use(&mut cast);
    // The test does not replace these.
    for name in ["opaque", "sealed", "stored"] {
        wanted.pieces.retain(|_, of| !of.starts_with(name));
    }
    cast.rotate(&daemon.place);
    reload(&daemon, &cast);
    for name in ["by-header", "fixed", "ec", "mtls"] {
        let generation = daemon
            .grpc()
            .token(name)
            .expect("served")
            .credential
            .generation;
        assert!(generation > 1, "{name}: {generation}");
    }
    wanted.assert_none_in(&daemon);
}
