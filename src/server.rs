//! The socket's two languages, gRPC and HTTP/1.1 with JSON: caller → policy → broker → wire. Generated types stop here.

mod activity;
mod body;
mod connection;
mod desk;
mod error;
mod grpc;
mod health;
mod http;
mod languages;
mod metrics;
mod pace;
mod places;
pub mod scrape;
mod status;
mod wire;

use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

pub use self::desk::Desk;
pub use self::metrics::Answered;
pub use self::pace::Pace;
pub use self::wire::encode;
use crate::core::profile::Limits;

/// Serves `listener`, or the newest of `listeners` that has come since, until `shutdown` says true; then lets what is in
/// flight finish for a bounded time.
pub async fn run(
    listener: UnixListener,
    listeners: mpsc::Receiver<UnixListener>,
    desk: Arc<Desk>,
    limits: &Limits,
    shutdown: watch::Receiver<bool>,
) {
    connection::accept(listener, listeners, &desk, limits, shutdown).await;
}
