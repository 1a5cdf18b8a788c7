//! From an accepted stream to requests: who is asking, the authority repair, and which of the two languages it is.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Version, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tonic::body::Body;
use tonic::service::Routes;
use tower::{Service, ServiceExt};
use tracing::{debug, warn};

use super::desk::Desk;
use super::grpc::{Admin, Credentials};
use super::health::HealthDesk;
use super::http;
use crate::caller::Callers;
use crate::core::policy::Caller;
use crate::core::profile::Limits;
use crate::proto;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::credential_service_server::CredentialServiceServer;
use crate::socket::authority::RepairAuthority;

/// What is in flight may take this long after a SIGTERM. Attempts are bounded by their own deadline; a watcher's stream
/// would never end by itself.
const DRAIN: Duration = Duration::from_secs(5);

/// Pause after a failed accept: out of descriptors, for instance, which passes when a connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A silent HTTP/2 peer is asked this often whether it is still there, and gets this long to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);

/// Paths of `tokend.v1.CredentialService`.
const CREDENTIAL_SERVICE: &str = "/tokend.v1.CredentialService/";

/// Accepts until told to stop, then drains.
pub async fn accept(
    listener: UnixListener,
    desk: &Arc<Desk>,
    limits: &Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    let callers = Callers::new();
    let languages = Arc::new(Languages::new(desk, limits));
    let builder = builder(limits);
    let places = Arc::new(Semaphore::new(limits.connections as usize));
    let draining = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a connection; trying again");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            warn!(
                limit = limits.connections,
                "too many connections: this one is closed"
            );
            continue;
        };
        let caller = match callers.of(&stream) {
            Ok(caller) => Arc::new(caller),
            Err(error) => {
                warn!(%error, "the kernel does not say who is asking: the connection is closed");
                continue;
            }
        };
        let visit = Arc::new(Visit::new(&languages, caller));
        let service = service_fn(move |request| {
            let visit = visit.clone();
            async move { Ok::<_, Infallible>(visit.answer(request).await) }
        });
        let connection = builder
            .serve_connection(
                TokioIo::new(RepairAuthority::<UnixStream>::new(stream)),
                service,
            )
            .into_owned();
        let connection = draining.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN, draining.shutdown())
        .await
        .is_err()
    {
        debug!("connections that did not end by themselves are closed");
    }
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let header_size = limits.header_size;
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(usize::try_from(header_size).unwrap_or(usize::MAX).max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_header_list_size(header_size)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    builder
}

/// gRPC, and HTTP with JSON.
struct Languages {
    desk: Arc<Desk>,
    /// Largest message, in bytes.
    message_size: usize,
    /// Everything but the service that most calls are for.
    grpc: Router,
    json: Router,
}

impl Languages {
    fn new(desk: &Arc<Desk>, limits: &Limits) -> Languages {
        let message_size = usize::try_from(limits.message_size).unwrap_or(usize::MAX);
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(
                AdminServiceServer::new(Admin(desk.clone()))
                    .max_decoding_message_size(message_size),
            )
            .add_service(tonic_health::pb::health_server::HealthServer::new(
                HealthDesk(desk.clone()),
            ))
            .add_service(
                describe()
                    .build_v1()
                    .expect("our own descriptors are sound"),
            )
            .add_service(
                describe()
                    .build_v1alpha()
                    .expect("our own descriptors are sound"),
            );
        Languages {
            desk: desk.clone(),
            message_size,
            grpc: routes.routes().prepare().into_axum_router(),
            json: http::router(desk.clone()),
        }
    }
}

/// One caller's connection.
struct Visit {
    languages: Arc<Languages>,
    caller: Arc<Caller>,
    /// Called without a router in between, which is a tenth of what an answer from memory costs.
    credentials: CredentialServiceServer<Credentials>,
}

impl Visit {
    fn new(languages: &Arc<Languages>, caller: Arc<Caller>) -> Visit {
        let credentials = Credentials {
            desk: languages.desk.clone(),
            caller: caller.clone(),
        };
        Visit {
            languages: languages.clone(),
            caller,
            credentials: CredentialServiceServer::new(credentials)
                .max_decoding_message_size(languages.message_size),
        }
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let is_grpc = request.version() == Version::HTTP_2
            && request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if is_grpc && http::is_from_a_browser(request.headers()) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = hyper::StatusCode::FORBIDDEN;
            return response;
        }
        if is_grpc && request.uri().path().starts_with(CREDENTIAL_SERVICE) {
            let Ok(response) = self.credentials.clone().call(request).await;
            return response;
        }
        if !is_grpc
            && request.method() == Method::GET
            && let Some(profile) = http::token_of(request.uri().path())
        {
            let (headers, uri) = (request.headers(), request.uri());
            return http::token_at_once(&self.languages.desk, &self.caller, profile, headers, uri)
                .await
                .map(Body::new);
        }
        request.extensions_mut().insert(self.caller.clone());
        let router = if is_grpc {
            &self.languages.grpc
        } else {
            &self.languages.json
        };
        let Ok(response) = router
            .clone()
            .oneshot(request.map(axum::body::Body::new))
            .await;
        response.map(Body::new)
    }
}
