//! Sets up the log. The code that logs decides what to log. Secrets cannot get here, because their
//! type has no text.

mod journal;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{IsTerminal, Write};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// The systemd journal's own protocol, with fields.
    Journald,
}

/// Starts logging. `TOKEND_LOG` is a tracing filter, for instance `debug`; the default is `info`.
///
/// # Errors
/// `TOKEND_LOG` is not a filter, or the journal cannot be reached. The text says what to do.
pub fn start(format: Format) -> Result<(), String> {
    let filter = match std::env::var("TOKEND_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("TOKEND_LOG is not a log filter: {error}; try TOKEND_LOG=debug")
        })?,
        _ => EnvFilter::default().add_directive(LevelFilter::INFO.into()),
    };
    let stderr = std::io::stderr;
    let layer = match format {
        Format::Text => tracing_subscriber::fmt::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal())
            .with_target(false)
            .boxed(),
        Format::Json => tracing_subscriber::fmt::layer()
            .json()
            .with_writer(stderr)
            .boxed(),
        Format::Journald => journal::Journal::new()
            .map_err(|error| format!("cannot reach the journal: {error}; use --log-format text"))?
            .boxed(),
    };
    tracing_subscriber::registry()
        .with(
            layer
                .with_filter(filter_fn(may_be_logged))
                .with_filter(filter),
        )
        .try_init()
        .map_err(|error| error.to_string())
}

/// From now on a panic tells where it happened, and only texts that stand in the source as they
/// are. Other texts may hold values: `expect` on a Result adds the error, and a text that is cut in
/// the wrong place is quoted whole, whatever it may be.
pub fn keep_values_out_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let place = panic.location().map(ToString::to_string);
        let mut err = std::io::stderr();
        let line = told(thread.name(), place.as_deref(), panic.payload());
        // Standard error may be closed, and a panic in here would abort.
        let _ = writeln!(err, "{line}");
        // The trace has names of functions and no values. RUST_BACKTRACE asks for it.
        let trace = Backtrace::capture();
        if trace.status() == BacktraceStatus::Captured {
            let _ = writeln!(err, "{trace}");
        }
    }));
}

/// Formats a panic as one line.
fn told(thread: Option<&str>, place: Option<&str>, payload: &(dyn Any + Send)) -> String {
    let words = payload
        .downcast_ref::<&'static str>()
        .unwrap_or(&"what it says is withheld: there may be a secret in it");
    format!(
        "thread '{}' panicked at {}: {words}",
        thread.unwrap_or("?"),
        place.unwrap_or("?")
    )
}

/// Whether an event may be logged. Libraries below us log frames, headers and bodies at their finer
/// levels, and those hold tokens. So only their warnings come through, whatever TOKEND_LOG says.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target() == "tokend" || metadata.target().starts_with("tokend::");
    // This library logs every refused certificate. The failure of the attempt says the same, once
    // and with the profile.
    let repeats_us = metadata.target().starts_with("rustls_platform_verifier");
    // h2 warns of a caller's mistakes as often as the caller makes them: hundreds of thousands of
    // lines in a second.
    let others_do = metadata.target().starts_with("h2::");
    ours || (*metadata.level() <= Level::WARN && !repeats_us && !others_do)
}

#[cfg(test)]
mod tests {
    use std::panic::{UnwindSafe, catch_unwind};

    use super::*;

    fn line(work: impl FnOnce() + UnwindSafe) -> String {
        let payload = catch_unwind(work).expect_err("a panic");
        told(Some("idp"), Some("src/x.rs:1:2"), &*payload)
    }

    fn failed(why: String) -> Result<(), String> {
        Err(why)
    }

    /// Broken by `told` that shows a `String` too, as the standard library does.
    #[test]
    fn trap_32_a_panic_tells_no_values() {
        let secret = String::from("hunter2 \u{e4} hunter2");
        let (one, two, three) = (secret.clone(), secret.clone(), secret);
        for line in [
            line(move || failed(one).expect("why it cannot be")),
            line(move || drop(two[..9].to_owned())),
            line(move || panic!("{three}")),
        ] {
            assert!(!line.contains("hunter2"), "{line}");
            assert!(
                line.starts_with("thread 'idp' panicked at src/x.rs:1:2: "),
                "{line}"
            );
        }
        let fixed = line(|| panic!("the words of the source"));
        assert!(fixed.ends_with(": the words of the source"), "{fixed}");
    }
}
