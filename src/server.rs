//! The socket's two protocols, gRPC and HTTP/1.1 with JSON: caller → policy → broker → wire.
//! Generated types stop here.

mod accounts;
mod activity;
mod answered;
mod body;
mod connection;
mod error;
mod explain;
mod grpc;
mod health;
mod http;
mod metrics;
mod protocols;
pub mod scrape;
mod service;
mod session;
mod status;
mod turn;
mod wire;

use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};

pub use self::accounts::Accounts;
pub use self::answered::Answered;
pub use self::connection::Connections;
pub use self::grpc::RELOAD_WAIT;
pub use self::service::ApiService;
pub use self::session::Session;
pub use self::status::in_one_line;
pub use self::wire::encode;

/// Serves `listener` until `shutdown` becomes true, then gives what is in flight a bounded time to
/// finish. A newer listener from `listeners` replaces the one before. Requests that come through
/// `own` are the daemon's own.
pub async fn run(
    listener: UnixListener,
    listeners: mpsc::Receiver<UnixListener>,
    own: mpsc::Receiver<DuplexStream>,
    service: Arc<ApiService>,
    shutdown: watch::Receiver<bool>,
) {
    connection::accept(listener, listeners, own, &service, shutdown).await;
}
