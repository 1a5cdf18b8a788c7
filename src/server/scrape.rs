//! `[server] metrics_listen`: the metrics, and nothing else, over TCP. Whoever can connect may read them, so that a
//! monitoring system needs no account on the host; it is not there unless it is asked for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

use super::desk::Desk;
use super::grpc::told_to_stop;
use super::http::refuse;
use super::metrics;
use crate::core::repeated::Repeated;

/// Connections at the same time. A monitoring system has one or two; more would only cost memory.
const CONNECTIONS: usize = 16;

/// A request has to have come within this time, and a connection ends when none comes for so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Pause after a failed accept: out of descriptors, for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop.
pub async fn run(listener: TcpListener, desk: Arc<Desk>, mut shutdown: watch::Receiver<bool>) {
    let clock = desk.clock.clone();
    let router = Router::new()
        .route("/metrics", get(page))
        .fallback(|| async { (StatusCode::NOT_FOUND, "only /metrics is here\n") })
        .with_state(desk);
    // Where only this host can connect, its browsers can be led here by a name that somebody else owns (DNS rebinding);
    // elsewhere any name may be the right one.
    let local = listener
        .local_addr()
        .is_ok_and(|own| own.ip().is_loopback());
    let router = if local {
        router.layer(middleware::from_fn(guard))
    } else {
        router
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut lines = Repeated::default();
    loop {
        let place = tokio::select! {
            place = room.clone().acquire_owned() => place.expect("it is never closed"),
            () = told_to_stop(&mut shutdown) => return,
        };
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    if let Some(left_out) = lines.say((), clock.now().boot) {
                        warn!(%error, left_out, "cannot accept a connection for metrics; trying again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = told_to_stop(&mut shutdown) => return,
        };
        let service = TowerToHyperService::new(router.clone());
        let mut shutdown = shutdown.clone();
        tokio::spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    debug!(%error, "a connection for metrics ended");
                },
                () = told_to_stop(&mut shutdown) => {}
            }
            drop(place);
        });
    }
}

async fn page(State(desk): State<Arc<Desk>>) -> Response {
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    ([(header::CONTENT_TYPE, kind)], metrics::render(&desk)).into_response()
}

/// No browser, and no name of somebody else's that leads here.
async fn guard(headers: HeaderMap, uri: Uri, request: Request, next: Next) -> Response {
    match refuse(&headers, &uri) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}
