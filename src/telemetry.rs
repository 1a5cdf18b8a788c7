//! Log set-up. What is logged is decided where it happens; secrets have no way here, since their type has no text.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people, on standard error.
    Text,
    /// One JSON object a line, on standard error.
    Json,
    /// The systemd journal's own protocol, with fields.
    Journald,
}

/// Starts logging; `TOKEND_LOG` is a tracing filter, for instance `debug`. Default: `info`.
///
/// # Errors
/// When `TOKEND_LOG` is no filter or the journal cannot be reached; says what to do.
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
        Format::Journald => tracing_journald::layer()
            .map_err(|error| format!("cannot reach the journal: {error}; use --log-format text"))?
            .with_syslog_identifier("tokend".to_owned())
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

/// Libraries below us log frames, headers and bodies at their finer levels, and those hold tokens: whatever TOKEND_LOG
/// says, only their warnings come through.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let ours = metadata.target() == "tokend" || metadata.target().starts_with("tokend::");
    // It logs every refused certificate; the failure of the attempt says the same, once and with the profile.
    let repeats_us = metadata.target().starts_with("rustls_platform_verifier");
    // It warns of what a caller does wrong, as often as the caller does it: hundreds of thousands of lines in a second.
    let others_do = metadata.target().starts_with("h2::");
    ours || (*metadata.level() <= Level::WARN && !repeats_us && !others_do)
}
