//! Tells which protocol a request speaks, gRPC or HTTP with JSON, and who answers it.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use hyper::body::{Body as _, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method, Request, Response, Version, header};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::service::Routes;
use tower::{Service, ServiceExt};

use super::accounts::{Charge, LONG_ANSWER};
use super::body::{Charged, TimedBody};
use super::error::Denial;
use super::grpc::{Admin, Credentials, told_to_stop};
use super::health::HealthService;
use super::http;
use super::service::ApiService;
use super::session::Session;
use crate::core::account::Resource;
use crate::core::profile::ServerLimits;
use crate::proto;
use crate::proto::admin_service_server::AdminServiceServer;
use crate::proto::credential_service_server::CredentialServiceServer;

/// Calls that answer with a stream that stays open, and services that have only such calls. Each is
/// charged to its caller's account as long as it lasts.
const STREAMS: [&str; 4] = [
    "/tokend.v1.CredentialService/WatchToken",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// The most frequent call.
const GET_TOKEN: &str = "/tokend.v1.CredentialService/GetToken";

/// Paths of `tokend.v1.CredentialService`.
const CREDENTIAL_SERVICE: &str = "/tokend.v1.CredentialService/";

/// Both protocols, shared by all connections.
pub struct Protocols {
    service: Arc<ApiService>,
    /// The largest message, in bytes.
    message_size: usize,
    /// All gRPC services except `CredentialService`, which gets most calls.
    grpc: Router,
    json: Router,
    /// How long the next part of a request may take; `later` is the same for a conversation.
    first: Duration,
    later: Duration,
    /// Becomes true when no call may wait any longer.
    closing: watch::Receiver<bool>,
}

impl Protocols {
    pub fn new(
        service: &Arc<ApiService>,
        limits: &ServerLimits,
        closing: watch::Receiver<bool>,
    ) -> Protocols {
        let message_size = usize::try_from(limits.message_size).unwrap_or(usize::MAX);
        let describe = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let sound = "our own descriptors are sound";
        let mut routes = Routes::builder();
        routes
            .add_service(
                AdminServiceServer::new(Admin(service.clone()))
                    .max_decoding_message_size(message_size),
            )
            .add_service(
                tonic_health::pb::health_server::HealthServer::new(HealthService(service.clone()))
                    .max_decoding_message_size(message_size),
            )
            .add_service(describe().build_v1().expect(sound))
            .add_service(describe().build_v1alpha().expect(sound));
        Protocols {
            service: service.clone(),
            message_size,
            grpc: routes.routes().prepare().into_axum_router(),
            json: http::router(service.clone()),
            first: limits.handshake_timeout,
            later: limits.idle_timeout,
            closing,
        }
    }
}

/// The request headers that gRPC reads.
const READ: [header::HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::TE,
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-message-type"),
];

/// The headers of a usual request take at most this many bytes.
const USUAL: usize = 2048;

/// Drops unused headers from a request whose headers are larger than usual. A call that waits for
/// the rest of its message keeps what it holds, and a caller may have many such calls.
fn lightened(mut request: Request<Incoming>) -> Request<Incoming> {
    let headers = request.headers();
    let size: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if size > USUAL {
        let mut few = HeaderMap::with_capacity(READ.len());
        for name in READ {
            if let Some(value) = headers.get(&name) {
                // Copied, because the original value may be a part of the whole header block.
                if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                    few.insert(name, value);
                }
            }
        }
        *request.headers_mut() = few;
    }
    request
}

/// Whether a request is for a credential and has no body, so that it is answered without a router.
fn is_credential(is_grpc: bool, request: &Request<Incoming>) -> bool {
    !is_grpc
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && http::token_of(request.uri().path()).is_some()
}

/// One caller's connection.
pub struct ConnectionService {
    protocols: Arc<Protocols>,
    session: Arc<Session>,
    /// Called without a router, which would add a tenth to the cost of an answer from memory.
    credentials: CredentialServiceServer<Credentials>,
}

impl ConnectionService {
    pub fn new(protocols: &Arc<Protocols>, session: Arc<Session>) -> ConnectionService {
        let credentials = Credentials {
            service: protocols.service.clone(),
            session: session.clone(),
        };
        ConnectionService {
            protocols: protocols.clone(),
            session,
            credentials: CredentialServiceServer::new(credentials)
                .max_decoding_message_size(protocols.message_size),
        }
    }

    /// Answers one request. The answer comes at the latest when the daemon can wait no longer.
    ///
    /// The runtime allocates this future for each call, and its memory is wiped afterwards. So it
    /// is small: the answer's own future is in a box, and the request is in that.
    pub fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let busy = self.session.activity.request();
        if self.session.activity.requests() == 1 {
            self.session.account.has_asked();
        }
        let mut closing = self.protocols.closing.clone();
        let is_grpc = request.version() == Version::HTTP_2
            && request
                .headers()
                .get(header::CONTENT_TYPE)
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let answer = self.route(is_grpc, request);
        async move {
            let _busy = busy;
            tokio::select! {
                // An answer from memory is ready at the first look, and then nothing else costs
                // anything.
                biased;
                response = answer => response,
                () = told_to_stop(&mut closing) => {
                    let goodbye = Denial::stopping();
                    Ok(if is_grpc {
                        tonic::Status::from(goodbye).into_http()
                    } else {
                        goodbye.into_response().map(Body::new)
                    })
                }
            }
        }
    }

    fn route(
        self: Arc<Self>,
        is_grpc: bool,
        request: Request<Incoming>,
    ) -> BoxFuture<Response<Body>, Infallible> {
        if is_grpc && http::is_from_a_browser(request.headers()) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = hyper::StatusCode::FORBIDDEN;
            return Box::pin(ready(Ok(response)));
        }
        let request = if is_grpc { lightened(request) } else { request };
        // Most calls are one of these two, and they are not charged here.
        if is_grpc && request.uri().path() == GET_TOKEN {
            return self.credential(request);
        }
        if is_credential(is_grpc, &request) {
            return Box::pin(async move {
                let (headers, uri) = (request.headers(), request.uri());
                let profile = http::token_of(uri.path()).unwrap_or_default();
                let (service, session) = (&self.protocols.service, &self.session);
                let answer = http::token_at_once(service, session, profile, headers, uri);
                Ok(self.weighed(answer.await.map(Body::new)))
            });
        }
        Box::pin(async move { Ok(self.another(is_grpc, request).await) })
    }

    async fn another(&self, is_grpc: bool, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        if is_grpc && STREAMS.iter().any(|stream| path.starts_with(stream)) {
            return match self.session.account.charge(Resource::Streams, 1) {
                Ok(charge) => {
                    let response = self.reply(is_grpc, request).await;
                    response.map(|body| Body::new(Charged::new(body, Arc::new(charge))))
                }
                Err(full) => tonic::Status::from(full).into_http(),
            };
        }
        let mut response = self.reply(is_grpc, request).await;
        if is_grpc {
            // A message was charged where its length became known.
            let charge = response.extensions_mut().remove::<Arc<Charge>>();
            return match charge {
                Some(charge) => response.map(|body| Body::new(Charged::new(body, charge))),
                None => response,
            };
        }
        self.weighed(response)
    }

    /// Charges an answer of known length if it is long.
    fn weighed(&self, response: Response<Body>) -> Response<Body> {
        match hyper::body::Body::size_hint(response.body()).exact() {
            Some(size) if size > LONG_ANSWER => self.charged(response, size),
            _ => response,
        }
    }

    /// Charges a long answer, or refuses it if there is no room for it.
    fn charged(&self, response: Response<Body>, size: u64) -> Response<Body> {
        match self.session.account.charge(Resource::Bytes, size) {
            Ok(charge) => response.map(|body| Body::new(Charged::new(body, Arc::new(charge)))),
            Err(full) => full.into_response().map(Body::new),
        }
    }

    /// Calls `CredentialService`, which gets most calls.
    fn credential(&self, request: Request<Incoming>) -> BoxFuture<Response<Body>, Infallible> {
        let (patience, session) = (self.protocols.first, self.session.clone());
        let request = request.map(|body| TimedBody::new(body, patience, session));
        self.credentials.clone().call(request)
    }

    async fn reply(&self, is_grpc: bool, mut request: Request<Incoming>) -> Response<Body> {
        if is_grpc && request.uri().path().starts_with(CREDENTIAL_SERVICE) {
            let Ok(response) = self.credential(request).await;
            return response;
        }
        request.extensions_mut().insert(self.session.clone());
        // Reflection is a conversation with pauses.
        let (router, patience) = if is_grpc {
            (&self.protocols.grpc, self.protocols.later)
        } else {
            (&self.protocols.json, self.protocols.first)
        };
        let session = self.session.clone();
        let request =
            request.map(|body| axum::body::Body::new(TimedBody::new(body, patience, session)));
        let Ok(response) = router.clone().oneshot(request).await;
        response.map(Body::new)
    }
}
