//! `tokend completions SHELL` and `tokend man`: derived from the definition of the command line,
//! for packages.
//!
//! Both print and touch nothing. One page documents every command: there are few, and readers also
//! want exit status and files, which all commands share.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{Cli, exit, print};

/// The sections that all commands share, printed below them: a heading, then pairs of a word and
/// its meaning.
const COMMON: &[(&str, &[(&str, &str)])] = &[
    (
        "EXIT STATUS",
        &[
            ("0", "done"),
            ("1", "findings, or partly failed"),
            ("2", "the command line makes no sense"),
            ("3", "the profile is unknown or not permitted"),
            (
                "4",
                "upstream unavailable, deadline or rate: trying again may help",
            ),
            (
                "5",
                "upstream rejected or profile invalid: somebody has to repair something",
            ),
            ("6", "the daemon is not reachable"),
            ("7", "only for administrators"),
            ("78", "the configuration cannot be used"),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            ("TOKEND_SOCKET", "the daemon's socket"),
            ("TOKEND_CONFIG", "the configuration file"),
            ("TOKEND_LOG", "a filter of the daemon's log, such as debug"),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/tokend/tokend.toml",
                "the configuration; not root: $XDG_CONFIG_HOME/tokend/tokend.toml",
            ),
            ("/etc/tokend/profiles.d/*.toml", "more profiles, beside it"),
            (
                "/run/tokend/tokend.sock",
                "the socket; not root: $XDG_RUNTIME_DIR/tokend/tokend.sock",
            ),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGHUP",
                "everything is read again, and the audit file is opened anew",
            ),
            (
                "SIGTERM, SIGINT",
                "calls in flight are answered, then the daemon ends",
            ),
        ],
    ),
];

/// Runs `tokend completions`. Returns the exit status.
pub fn completions(shell: Shell, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tokend", &mut text);
    printed(&text, out, err)
}

/// Runs `tokend man`. Returns the exit status.
pub fn man(out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    printed(&page(), out, err)
}

fn printed(text: &[u8], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = str::from_utf8(text).expect("generated from text");
    print(out, text, err).map_or_else(|code| code, |_| exit::DONE)
}

/// Renders a part of the page with clap_mangen.
type Part<'a> = dyn Fn(&mut dyn Write) -> std::io::Result<()> + 'a;

fn page() -> Vec<u8> {
    // The page has this once for all commands.
    let mut tokend = Cli::command().mut_subcommands(|command| command.disable_help_flag(true));
    // This gives each command its place in the command line.
    tokend.build();
    let top = Man::new(tokend.clone()).title("TOKEND").section("8");
    let mut page = rendered(&|w| top.render_title(w));
    page += &body(&rendered(&|w| top.render_name_section(w)));
    page += &body(&rendered(&|w| top.render_synopsis_section(w)));
    page += &body(&rendered(&|w| top.render_description_section(w)));
    page += ".SH COMMANDS\nEach has \\fB\\-\\-help\\fR.\n";
    for command in tokend.get_subcommands() {
        page += &of_command(command);
    }
    for (heading, entries) in COMMON {
        let mut section = Roff::new();
        section.control("SH", [*heading]);
        for (word, meaning) in *entries {
            section.control("TP", []);
            section.text([bold(*word)]);
            section.text([roman(*meaning)]);
        }
        page += &body(&section.render());
    }
    page.into_bytes()
}

/// One command as a subsection: its purpose, its usage and its options.
fn of_command(command: &clap::Command) -> String {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let mut heading = Roff::new();
    heading.control("SS", [name]);
    let man = Man::new(command.clone());
    // clap_mangen gives each command its own heading. Here that would look like the start of
    // another page.
    let mut text = body(&heading.render());
    text += &without_heading(&rendered(&|w| man.render_description_section(w)));
    text += ".PP\n";
    text += &without_heading(&rendered(&|w| man.render_synopsis_section(w)));
    if command.get_arguments().next().is_some() {
        text += &without_heading(&rendered(&|w| man.render_options_section(w)));
    }
    text
}

fn rendered(part: &Part<'_>) -> String {
    let mut text = Vec::new();
    part(&mut text).expect("a Vec takes everything");
    String::from_utf8(text).expect("generated from text")
}

/// The text without the definition of the apostrophe, which the first part of the page has.
fn body(text: &str) -> String {
    let at = text.find("\n.S").map_or(0, |at| at + 1);
    text[at..].to_owned()
}

fn without_heading(text: &str) -> String {
    let body = body(text);
    let line = body.split_inclusive('\n').next().unwrap_or_default();
    body[line.len()..].to_owned()
}
