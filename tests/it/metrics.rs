//! `GET /metrics`: on the socket for administrators, and over TCP if that is configured.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::ask::{Who, after_long_body};
use crate::harness::idp;
use crate::harness::{Daemon, PATIENCE, eventually, is_root};

/// The lines of the page. Fails if a line has a wrong form.
fn page(text: &str) -> Vec<String> {
    let (head, body) = text.split_once("\r\n\r\n").expect("HTTP");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert!(
        head.to_ascii_lowercase()
            .contains("text/plain; version=0.0.4"),
        "{head}"
    );
    let lines: Vec<String> = body.lines().map(str::to_owned).collect();
    let mut families = Vec::new();
    for line in &lines {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().expect("a name");
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if !line.starts_with("# HELP ") {
            let end = line.find(['{', ' ']).expect("a value");
            assert_eq!(
                families.last(),
                Some(&&line[..end]),
                "{line} is not of its family"
            );
            let value = line.rsplit(' ').next().expect("a value");
            value.parse::<f64>().expect("a number");
        }
    }
    lines
}

fn scrape(daemon: &Daemon) -> Vec<String> {
    page(&daemon.page("/metrics"))
}

fn has(lines: &[String], line: &str) -> bool {
    lines.iter().any(|one| one == line)
}

#[test]
fn metrics_say_how_every_profile_is() {
    let (issuer, place, config) = idp::one("");
    place.secret("password", "a-password-of-ours");
    let basic = "\n[profiles.basic]\nmethod = \"basic\"\nusername = \"u\"\npassword = { file = \"password\" }\n";
    let daemon = place.serve(&(config + basic));
    let token = eventually(PATIENCE, || daemon.grpc().token("it").ok());
    daemon.grpc().token("nobody").err().expect("refused");
    let lines = scrape(&daemon);
    for line in [
        "tokend_config_refused 0",
        "tokend_profile_available{profile=\"it\",method=\"oauth2\"} 1",
        "tokend_profile_available{profile=\"basic\",method=\"basic\"} 1",
        "tokend_profile_state{profile=\"it\",state=\"fresh\"} 1",
        "tokend_token_requests_total{result=\"profile_not_found\"} 1",
        "tokend_upstream_attempts_total{profile=\"it\",result=\"succeeded\"} 1",
        "tokend_upstream_failures{profile=\"it\"} 0",
        "tokend_reload_in_force{profile=\"it\",outcome=\"added\"} 1",
    ] {
        assert!(has(&lines, line), "no {line} in {lines:#?}");
    }
    let left = lines
        .iter()
        .find_map(|line| line.strip_prefix("tokend_credential_expires_in_seconds{profile=\"it\"} "))
        .expect("it expires");
    let left: f64 = left.parse().expect("a number");
    assert!(left > 0.0 && left <= token.expires_in.expect("it expires"));
    // A Basic credential does not expire.
    assert!(
        !lines
            .iter()
            .any(|line| line.starts_with("tokend_credential_expires_in_seconds{profile=\"basic"))
    );

    // The page shows the rejected profile and the failed reload.
    daemon.place.secret("it.secret", "a-wrong-secret");
    let line = "tokend_reload_in_force{profile=\"it\",outcome=\"rejected\"} 0";
    eventually(PATIENCE, || has(&scrape(&daemon), line).then_some(()));
    daemon.place.write("tokend.toml", "[server");
    eventually(PATIENCE, || {
        has(&scrape(&daemon), "tokend_config_refused 1").then_some(())
    });
    drop(issuer);
}

#[test]
fn metrics_are_for_administrators() {
    if !is_root() {
        return;
    }
    let place = crate::harness::Place::new();
    place.open();
    let daemon = place.serve(
        "[server]\nsocket_mode = \"0666\"\nadmins = [{ user = 65001 }]\n[profiles.a]\nmethod = \"none\"\naccess = [{ user = 65002 }]\n",
    );
    assert_eq!(
        daemon.get_as(Some(&Who::user(65001)), "/metrics").status,
        200
    );
    let answer = daemon.get_as(Some(&Who::user(65002)), "/metrics");
    assert_eq!((answer.status, answer.text("reason")), (403, "NOT_ADMIN"));
}

fn over_tcp(port: u16, path: &str, host: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )
    .expect("written");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("read");
    text
}

/// A port of loopback that is free a moment later.
fn port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").port()
}

#[test]
fn metrics_listen_serves_metrics_and_nothing_else() {
    let port = port();
    let daemon = Daemon::start(&format!(
        "[server]\nmetrics_listen = \"127.0.0.1:{port}\"\n[profiles.a]\nmethod = \"none\"\n"
    ));
    let lines = page(&over_tcp(port, "/metrics", &format!("127.0.0.1:{port}")));
    assert!(has(
        &lines,
        "tokend_profile_available{profile=\"a\",method=\"none\"} 1"
    ));
    let not_there = over_tcp(port, "/v1/profiles/a/token", "localhost");
    assert!(not_there.starts_with("HTTP/1.1 404 "), "{not_there}");
    let led_here = over_tcp(port, "/metrics", "metrics.evil.example");
    assert!(led_here.starts_with("HTTP/1.1 403 "), "{led_here}");
    drop(daemon);
}

/// Trap 58 over TCP: a client that still sends when the connection is closed sees a reset and no
/// answer.
#[test]
fn metrics_listen_answers_however_long_the_body_is() {
    let port = port();
    let daemon = Daemon::start(&format!(
        "[server]\nmetrics_listen = \"127.0.0.1:{port}\"\n[profiles.a]\nmethod = \"none\"\n"
    ));
    for (method, path, more, status) in [
        ("POST", "/nowhere", "", 404),
        ("POST", "/metrics", "Sec-Fetch-Mode: cors\r\n", 405),
        ("GET", "/metrics", "Sec-Fetch-Mode: cors\r\n", 200),
        ("POST", "/metrics", "Origin: http://x\r\n", 403),
    ] {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let answer = after_long_body(stream, method, path, more);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method} {path}: {answer}"
        );
        assert!(!answer.ends_with("\r\n\r\n"), "{method} {path} says why");
    }
    // A client that never sends the rest of its body has not made a request. Its connection makes
    // room.
    let half = "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n";
    let _silent: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
            stream.write_all(half.as_bytes()).expect("sent");
            stream
        })
        .collect();
    let answer = over_tcp(port, "/metrics", "localhost");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    drop(daemon);
}

#[test]
fn a_port_that_is_taken_costs_nobody_a_credential() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let port = taken.local_addr().expect("an address").port();
    let daemon = Daemon::start(&format!(
        "[server]\nmetrics_listen = \"127.0.0.1:{port}\"\n[profiles.a]\nmethod = \"none\"\n"
    ));
    daemon.grpc().token("a").expect("served");
    let said = "metrics_listen: cannot listen";
    eventually(PATIENCE, || daemon.log().contains(said).then_some(()));
}

/// Broken by a name in docs/operations.md that is mistyped.
#[test]
fn the_names_to_watch_are_there() {
    let operations = include_str!("../../docs/operations.md");
    let source = include_str!("../../src/server/metrics.rs");
    let watched: std::collections::BTreeSet<&str> = operations
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("tokend_") || word.starts_with("process_"))
        // The package's file, tokend_VERSION_ARCHITECTURE.deb.
        .filter(|word| {
            word.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        })
        .collect();
    assert!(watched.len() > 8, "{watched:?}");
    for name in watched {
        assert!(source.contains(&format!("\"{name}\"")), "{name}");
    }
}
