//! Tests of command lines, given as text.

use std::io;

use super::*;
use crate::client::fake::Fake;

pub(super) fn parsed(words: &[&str]) -> Result<Command, clap::Error> {
    Cli::try_parse_from([&["tokend"], words].concat()).map(|cli| cli.command)
}

pub(super) fn to(fake: &Fake) -> Result<Client, ClientError> {
    Ok(Client::new(fake.socket().to_owned(), Clock::system()))
}

/// A reader that has gone away.
pub(super) struct Gone;

impl Write for Gone {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn mistakes_on_the_command_line_are_2() {
    for words in [
        &["token"][..],
        &["token", ""],
        &["token", "p", "--header", "--json"],
        &["token", "p", "--header", "--format", "json"],
        &["token", "p", "--json", "--format", "token"],
        &["token", "p", "--format", "xml"],
        &["token", "p", "--timeout", "30"],
        &["token", "p", "--timeout", "0"],
        &["token", "p", "--min-ttl", "soon"],
        &["token", "p", "q"],
        &["wait"],
        &["serve", "--log-format", "xml"],
        &["help"],
        &["nonsense"],
        &[],
    ] {
        let error = parsed(words).expect_err("it was accepted");
        assert_eq!(error.exit_code(), i32::from(exit::USAGE), "{words:?}");
    }
    let hint = parsed(&["token", "p", "--min-ttl", "30"])
        .unwrap_err()
        .to_string();
    assert!(hint.contains("such as \"30s\""), "{hint}");
}

#[test]
fn every_command_is_understood_and_only_four_are_run_elsewhere() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
    for words in [
        &["serve"][..],
        &["serve", "--config", "x.toml", "--log-format", "journald"],
        &["dev", "--dir", "/tmp/x"],
        &["check", "--config", "x.toml", "--online", "--json"],
        &[
            "doctor",
            "--config",
            "x.toml",
            "--socket",
            "/x",
            "--offline",
            "--json",
            "--timeout",
            "5s",
        ],
    ] {
        assert!(run_client(&parsed(words).unwrap()).is_none());
    }
    let Ok(Command::Token(args)) = parsed(&["token", "p", "--socket", "/x"]) else {
        panic!("not understood");
    };
    assert_eq!(args.timeout, Duration::from_secs(30));
    assert_eq!(client(&args.daemon).unwrap().socket(), "/x");
    let Ok(Command::Wait(args)) = parsed(&["wait", "a", "b", "--timeout", "0"]) else {
        panic!("not understood");
    };
    assert_eq!((args.profiles.len(), args.timeout), (2, Duration::ZERO));
    let Ok(Command::Wait(args)) = parsed(&["wait", "a"]) else {
        panic!("not understood");
    };
    assert_eq!(args.timeout, Duration::from_secs(60));
}

fn printed(run: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>) -> u8) -> String {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    assert_eq!(run(&mut out, &mut err), exit::DONE);
    assert!(err.is_empty());
    String::from_utf8(out).unwrap()
}

fn commands() -> Vec<String> {
    use clap::CommandFactory;
    let names = Cli::command();
    let names = names.get_subcommands().map(|sub| sub.get_name().to_owned());
    names.collect()
}

/// Broken by `hide = true` at a command.
#[test]
fn the_completions_of_every_shell_know_every_command() {
    use clap_complete::Shell;
    for shell in Shell::value_variants() {
        let text = printed(|out, err| manual::completions(*shell, out, err));
        for command in commands() {
            // The name must be a whole word, not a part of another one.
            let found = text
                .split(|c: char| !c.is_ascii_alphanumeric())
                .any(|word| word == command);
            assert!(found, "{shell}: {command}");
        }
        assert!(text.contains("min-ttl"), "{shell}: the options too");
    }
}

/// Broken by `body` that cuts at the second heading, and by `man` that renders the commands as
/// clap_mangen lists them.
#[test]
fn the_manual_page_has_every_command_with_its_options() {
    let page = printed(manual_page);
    assert!(page.starts_with(".ie \\n(.g .ds Aq"), "{page}");
    for command in commands() {
        assert!(
            page.contains(&format!("\n.SS \"tokend {command}\"\n")),
            "{command}: {page}"
        );
    }
    let token = page.split(".SS \"tokend token\"").nth(1).unwrap();
    let token = token.split(".SS ").next().unwrap();
    assert!(token.contains("\\-\\-min\\-ttl"), "{token}");
    assert!(token.contains("Print a credential"), "{token}");
    // Each heading appears once: NAME, SYNOPSIS and OPTIONS are not repeated for each command.
    let mut headings: Vec<_> = page
        .lines()
        .filter(|line| line.starts_with(".SH "))
        .collect();
    let all = headings.len();
    headings.sort_unstable();
    headings.dedup();
    assert_eq!(headings.len(), all, "{headings:?}");
    for heading in [".SH \"EXIT STATUS\"", ".SH FILES"] {
        assert!(headings.contains(&heading), "{headings:?}");
    }
}

fn manual_page(out: &mut Vec<u8>, err: &mut Vec<u8>) -> u8 {
    manual::man(out, err)
}

#[test]
fn a_manual_page_that_nobody_reads_is_no_mistake() {
    assert_eq!(manual::man(&mut Gone, &mut Vec::new()), exit::DONE);
}

#[test]
fn a_shell_that_is_unknown_is_a_mistake() {
    assert!(parsed(&["completions", "tcsh"]).is_err());
    assert!(parsed(&["completions"]).is_err());
    assert!(matches!(parsed(&["man"]), Ok(Command::Man)));
}
