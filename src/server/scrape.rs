//! `[server] metrics_listen`: the metrics, and nothing else, over TCP. Everybody who can connect
//! may read them, so a monitoring system needs no account on the host. The listener exists only if
//! the configuration asks for it.
//!
//! Clients cannot be told apart here, so none of them may take much. A connection is for one
//! request. The page is rendered on another thread, at most once a second for all clients together.
//! A connection that sends nothing makes room for one that does.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use super::grpc::told_to_stop;
use super::http::{read_wholly, refuse};
use super::metrics;
use super::service::ApiService;
use crate::core::repeated::Repeated;
use crate::core::time::BootTime;

/// The most connections at a time. A monitoring system has one or two; more would only cost memory.
const CONNECTIONS: usize = 32;

/// The time for a whole connection: for its request to come and its answer to be read.
const PATIENCE: Duration = Duration::from_secs(10);

/// The highest age of a page.
const RENEWED: Duration = Duration::from_secs(1);

/// The pause after a failed accept, for instance for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct ScrapeServer {
    service: Arc<ApiService>,
    page: Mutex<Option<(BootTime, Bytes)>>,
}

struct OpenScrape {
    /// Whether its request has come, with its body.
    has_asked: Arc<AtomicBool>,
    task: AbortHandle,
}

pub async fn run(
    listener: TcpListener,
    service: Arc<ApiService>,
    mut shutdown: watch::Receiver<bool>,
) {
    let clock = service.clock.clone();
    let shared = Arc::new(ScrapeServer {
        service,
        page: Mutex::default(),
    });
    let router = Router::new()
        .route("/metrics", get(page))
        .fallback(|| async { (StatusCode::NOT_FOUND, "only /metrics is here\n") })
        .method_not_allowed_fallback(|| async {
            let why = "/metrics takes GET and HEAD only\n";
            (StatusCode::METHOD_NOT_ALLOWED, why)
        })
        .with_state(shared);
    // Where only this host can connect, a foreign name can lead its browsers here (DNS rebinding).
    // Elsewhere any name may be the right one.
    let local = listener
        .local_addr()
        .is_ok_and(|own| own.ip().is_loopback());
    let router = if local {
        router.layer(middleware::from_fn(guard))
    } else {
        router
    };
    let mut open: VecDeque<OpenScrape> = VecDeque::new();
    let mut lines = Repeated::default();
    loop {
        // One connection at a time, so that requests for credentials have a turn in between.
        tokio::task::yield_now().await;
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
            () = told_to_stop(&mut shutdown) => break,
        };
        open.retain(|one| !one.task.is_finished());
        if open.len() >= CONNECTIONS && !close_one(&mut open) {
            debug!("a connection for metrics is closed: all have asked something");
            continue;
        }
        let has_asked = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(serve(stream, router.clone(), has_asked.clone())).abort_handle();
        open.push_back(OpenScrape { has_asked, task });
    }
    for one in open {
        one.task.abort();
    }
}

/// Closes the oldest connection that has sent no request. Returns whether there was one.
fn close_one(open: &mut VecDeque<OpenScrape>) -> bool {
    let silent = open
        .iter()
        .position(|one| !one.has_asked.load(Ordering::Relaxed));
    let Some(one) = silent.and_then(|at| open.remove(at)) else {
        return false;
    };
    one.task.abort();
    true
}

/// Serves one request.
async fn serve(stream: TcpStream, router: Router, has_asked: Arc<AtomicBool>) {
    let router = router.layer(middleware::from_fn(move |request: Request, next: Next| {
        let has_asked = has_asked.clone();
        async move {
            // A client that keeps its body back has not asked; its connection may be closed to make
            // room, like that of a silent client.
            let request = read_wholly(request).await;
            has_asked.store(true, Ordering::Relaxed);
            next.run(request).await
        }
    }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a connection for metrics ended"),
        Err(_) => debug!("a connection for metrics took too long"),
    }
}

async fn page(State(shared): State<Arc<ScrapeServer>>) -> Response {
    let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
    match shared.page().await {
        Some(page) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl ScrapeServer {
    /// The page, rendered anew if it is too old. Clients that come meanwhile wait for the same
    /// page.
    async fn page(&self) -> Option<Bytes> {
        let mut page = self.page.lock().await;
        let now = self.service.clock.now().boot;
        if let Some((made, page)) = &*page
            && now.since(*made) < RENEWED
        {
            return Some(page.clone());
        }
        let service = self.service.clone();
        let render = move || {
            let entries: Vec<_> = service.registry.load().all().into_iter().cloned().collect();
            Bytes::from(metrics::render(&service, &entries))
        };
        // If rendering panics, the panic itself has told where.
        let made = tokio::task::spawn_blocking(render).await.ok()?;
        *page = Some((now, made.clone()));
        Some(made)
    }
}

/// Refuses browsers, and requests that a foreign name led here.
async fn guard(headers: HeaderMap, uri: Uri, request: Request, next: Next) -> Response {
    match refuse(&headers, &uri) {
        Some(why) => (StatusCode::FORBIDDEN, why).into_response(),
        None => next.run(request).await,
    }
}
