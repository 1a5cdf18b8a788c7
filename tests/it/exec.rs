//! `method = "exec"` and `tokend plugin test` through the executable: a whole life, and programs
//! that do everything wrong.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::harness::ask::{Answer, exchange};
use crate::harness::{Daemon, PATIENCE, Place, eventually, run};

/// Writes a program of the shell.
fn program(place: &Place, name: &str, script: &str) -> String {
    place.write(name, &format!("#!/bin/sh\n{script}\n"));
    place.mode(name, 0o700);
    place.path(name).display().to_string()
}

fn profile(name: &str, program: &str, lines: &str) -> String {
    format!("[profiles.{name}]\nmethod = \"exec\"\ncommand = [\"{program}\"]\n{lines}\n")
}

fn report(daemon: &Daemon, profile: &str, fingerprint: &str) {
    let body = format!("{{\"fingerprint\":\"{fingerprint}\"}}");
    let request = format!(
        "POST /v1/profiles/{profile}/rejected HTTP/1.1\r\nHost: tokend\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = exchange(&daemon.socket(), None, request.as_bytes()).expect("an answer");
    assert_eq!(Answer::read(&answer).status, 200);
}

/// The command lines of all processes that name this word.
fn processes(word: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").expect("there").flatten();
    all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.split(' ').any(|part| part == word))
        .collect()
}

#[test]
fn a_whole_life_by_a_command() {
    let place = Place::new();
    let requests = place.path("requests").display().to_string();
    let script = |prefix: &str, life: u32| {
        format!(
            "cat >> {requests}; n=$(wc -l < {requests})\n\
             echo \"using {prefix}-tok-$n\" >&2; echo hello >&2\n\
             echo '{{\"version\":1,\"token\":\"'{prefix}-tok-$n'\",\"expires_in\":{life}}}'"
        )
    };
    for n in 1..40 {
        place.secrets.add(&format!("one-tok-{n}"));
        place.secrets.add(&format!("two-tok-{n}"));
    }
    let path = program(&place, "corp", &script("one", 300));
    let config = profile("corp", &path, "settings = { site = \"berlin\" }\n");
    let daemon = place.serve(&config);
    let mut watch = daemon.place.tokend(&["watch", "corp"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("started");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("a line").expect("text");
    let first = eventually(PATIENCE, || {
        Some(daemon.http_token("corp")).filter(|answer| answer.status == 200)
    });
    assert_eq!(first.text("token"), "one-tok-1");
    assert_eq!(next(), "one-tok-1");
    // An API refuses it, and the program is another one by now: that one runs.
    program(&daemon.place, "corp", &script("two", 2));
    report(&daemon, "corp", first.text("fingerprint"));
    assert_eq!(next(), "two-tok-2");
    // That one lives two seconds: it is renewed before it ends.
    assert_eq!(next(), "two-tok-3");
    let _ = watch.kill();
    let _ = watch.wait();
    let asked = fs::read_to_string(daemon.place.path("requests")).expect("written");
    let asked: Vec<serde_json::Value> = asked
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(asked[0]["why"], "first");
    assert_eq!(asked[0]["settings"]["site"], "berlin");
    assert_eq!(
        (&asked[0]["version"], &asked[0]["profile"]),
        (&1.into(), &"corp".into())
    );
    assert_eq!(asked[1]["why"], "rejected");
    assert_eq!(asked[1]["fingerprint"], first.text("fingerprint"));
    assert_eq!(asked[2]["why"], "renewal");
    // Lines with the token are left out of the log, which the harness looks through, too.
    let log = daemon.log();
    assert!(
        log.contains("the command says: hello") && log.contains("left_out=1"),
        "{log}"
    );
    let status = daemon.place.run(&["status", "--json"]).out;
    assert!(status.contains(&path), "{status}");
}

/// Broken by a daemon that passes on its environment, or a descriptor that was left open for it.
#[test]
fn a_command_gets_no_more_than_it_is_given() {
    let place = Place::new();
    let out = place.path("given").display().to_string();
    let config = format!(
        "[profiles.p]\nmethod = \"exec\"\nlifetime = \"5m\"\nenv = {{ HOME = \"/nowhere\" }}\n\
         command = [\"/bin/sh\", \"-c\", \"tr '\\\\0' '\\\\n' < /proc/$$/environ > {out}; \
         ls /proc/$$/fd >> {out}; pwd >> {out}; echo bare-tok-1\"]\n[audit]\nsink = \"file\"\n\
         path = \"audit.jsonl\"\n"
    );
    place.write("tokend.toml", &config);
    let tokend = place.tokend(&["serve"]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell
        .args(["-c", "exec 9</dev/null; exec \"$0\" serve"])
        .arg(tokend.get_program())
        .envs(
            tokend
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("SECRET_OF_OURS", "x");
    let daemon = Daemon::start_by(place, shell);
    let token = eventually(PATIENCE, || daemon.grpc().token("p").ok());
    assert!((250.0..=300.0).contains(&token.expires_in.expect("it ends")));
    let given = fs::read_to_string(daemon.place.path("given")).expect("written");
    // A shell keeps descriptors of its own from 10 on.
    let mut given: Vec<&str> = given.lines().filter(|line| *line != "10").collect();
    given.sort_unstable();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(given, ["/", "0", "1", "2", "HOME=/nowhere", path]);
}

/// Name, script, the reason of the refusal, and what its message says.
const HOSTILE: &[(&str, &str, &str, &str)] = &[
    (
        "endless",
        "while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done",
        "UPSTREAM_UNAVAILABLE",
        "more than 64 KiB",
    ),
    (
        "silent",
        "sleep 61234",
        "UPSTREAM_UNAVAILABLE",
        "did not end within 1s",
    ),
    (
        "noisy",
        "while :; do echo y >&2; done",
        "UPSTREAM_UNAVAILABLE",
        "did not end within 1s",
    ),
    (
        "error",
        "echo please log in",
        "UPSTREAM_UNAVAILABLE",
        "several words",
    ),
    (
        "past",
        "echo '{\"token\":\"t\",\"expires_at\":\"2001-01-01T00:00:00Z\"}'",
        "UPSTREAM_UNAVAILABLE",
        "has expired",
    ),
    (
        "version",
        "echo '{\"version\":2,\"token\":\"t\",\"expires_in\":9}'",
        "UPSTREAM_REJECTED",
        "version 2",
    ),
    (
        "aws",
        "echo '{\"Version\":1,\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s\"}'",
        "UPSTREAM_REJECTED",
        "credential_process",
    ),
    (
        "status",
        "echo '{\"token\":\"t\",\"expires_in\":9}'; exit 3",
        "UPSTREAM_UNAVAILABLE",
        "exit status 3",
    ),
    ("killed", "kill -9 $$", "UPSTREAM_UNAVAILABLE", "signal 9"),
    (
        "refused",
        "echo '{\"error\":{\"kind\":\"permanent\",\"message\":\"no account\"}}'; exit 1",
        "UPSTREAM_REJECTED",
        "says: no account",
    ),
    (
        "teller",
        "read x; echo '{\"error\":\"it is hunter-two-three\"}'; echo hunter-two-three >&2",
        "UPSTREAM_UNAVAILABLE",
        "not shown",
    ),
];

#[test]
fn programs_that_do_everything_wrong_hurt_only_their_own_profile() {
    let place = Place::new();
    place.secrets.add("hunter-two-three");
    let mut config = String::new();
    let settings = "timeout = \"1s\"\nsettings = { password = \"hunter-two-three\" }\n";
    for (name, script, ..) in HOSTILE {
        let path = program(&place, name, script);
        config += &profile(name, &path, settings);
    }
    let stays = "sleep 61235 &\necho '{\"token\":\"good-tok-1\",\"expires_in\":300}'";
    let path = program(&place, "stays", stays);
    config += &profile("good", &path, "timeout = \"60s\"\n");
    let started = Instant::now();
    let mut daemon = place.serve(&config);
    let token = eventually(PATIENCE, || daemon.grpc().token("good").ok());
    assert_eq!(token.credential.token, "good-tok-1");
    assert!(
        started.elapsed() < Duration::from_secs(15),
        "a child held it up"
    );
    eventually(PATIENCE, || processes("61235").is_empty().then_some(()));
    for (name, _, reason, says) in HOSTILE {
        let refusal = eventually(PATIENCE, || {
            daemon
                .grpc()
                .token(name)
                .err()
                .filter(|it| it.message.contains(says))
        });
        assert_eq!(refusal.reason, *reason, "{name}: {}", refusal.message);
    }
    // In the middle of a run, the daemon ends: nothing is left of the run.
    eventually(PATIENCE, || (!processes("61234").is_empty()).then_some(()));
    assert_eq!(daemon.stop(), Some(0));
    eventually(PATIENCE, || processes("61234").is_empty().then_some(()));
}

#[test]
fn a_program_that_others_can_change_is_not_run() {
    let place = Place::new();
    let ran = place.path("ran");
    let script = format!(
        "touch {}; echo '{{\"token\":\"t-1\",\"expires_in\":300}}'",
        ran.display()
    );
    let path = program(&place, "corp", &script);
    place.mode("corp", 0o722);
    place.write("tokend.toml", &profile("corp", &path, ""));
    let check = place.run(&["check"]);
    assert_eq!(check.code, Some(1));
    assert!(
        check.out.contains("tokend.toml:3:") && check.out.contains("chmod go-w"),
        "{}",
        check.out
    );
    place.mode("corp", 0o700);
    fs::create_dir(place.path("open")).expect("made");
    let inner = program(&place, "open/corp", &script);
    place.mode("open", 0o777);
    place.write("tokend.toml", &profile("corp", &inner, ""));
    assert!(
        place
            .run(&["check"])
            .out
            .contains("can be written by others")
    );
    place.write(
        "tokend.toml",
        &profile("corp", &format!("{path}-missing"), ""),
    );
    assert!(place.run(&["check"]).out.contains("cannot be opened"));
    place.mode("corp", 0o600);
    place.write("tokend.toml", &profile("corp", &path, ""));
    assert!(place.run(&["check"]).out.contains("cannot be run"));
    place.mode("corp", 0o722);
    let daemon = place.serve(&profile("corp", &path, ""));
    let refusal = eventually(PATIENCE, || daemon.grpc().token("corp").err());
    assert_eq!(refusal.reason, "PROFILE_INVALID");
    assert!(!ran.exists());
    // It is mended, and tokend notices.
    daemon.place.mode("corp", 0o700);
    eventually(PATIENCE, || daemon.grpc().token("corp").ok());
}

#[test]
fn plugin_test_prints_what_is_not_kept() {
    let place = Place::new();
    let test = |place: &Place, rest: &[&str]| {
        let arguments = [&["plugin", "test"], rest].concat();
        run(&mut place.tokend(&arguments))
    };
    let good = program(
        &place,
        "good",
        "cat > /dev/null; echo '{\"version\":1,\"token\":\"tok-1234567\",\"expires_in\":300}'",
    );
    let ran = test(&place, &["--", &good]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    assert!(
        ran.out
            .contains("kept      canary: a Bearer token that lives 5m"),
        "{}",
        ran.out
    );
    assert!(!ran.out.contains("tok-1234567"));
    let loud = program(&place, "loud", "echo tok-1234567 >&2; echo tok-1234567");
    let ran = test(&place, &["--lifetime", "5m", "--", &loud]);
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.out
            .contains("NOT KEPT  first: the token is on standard error"),
        "{}",
        ran.out
    );
    for (command, says) in [
        ("sh", "absolute path"),
        ("/nowhere/x", "cannot be opened"),
        ("/bin/false", "exit status 1"),
    ] {
        let ran = test(&place, &["--", command]);
        assert_eq!(ran.code, Some(1), "{command}");
        assert!(
            ran.out.contains("NOT KEPT") && ran.out.contains(says),
            "{}",
            ran.out
        );
    }
    let asks = program(
        &place,
        "asks",
        "grep -q '\"site\":\"berlin\"' && test $HOME = /h && printf '{\"error\":\"seen\"}'",
    );
    place.write(
        "settings.toml",
        "settings = { site = \"berlin\" }\nenv = { HOME = \"/h\" }\n",
    );
    let settings = place.path("settings.toml").display().to_string();
    let told = ["--settings", &settings, "--", &asks];
    assert!(test(&place, &told).out.contains("says: seen"));
    assert_eq!(test(&place, &["/run/x.sock"]).code, Some(2));
    assert_eq!(test(&place, &[]).code, Some(2));
}
