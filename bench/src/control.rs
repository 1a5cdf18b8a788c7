//! The servers that tokend is compared with: they answer the same bytes and do nothing else.
//!
//! `grpc` is an ordinary tonic server: generated types, the credential owned and encoded for each
//! answer. `encoded` answers bytes that were encoded before, which is the least that tonic can do.
//! Both have the limits, timeouts and the repair of `:authority` that tokend has. `http` is hyper's
//! HTTP/1.1 with the same body and the same timeout.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokend::proto;
use tokend::socket::authority::RepairAuthority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::transport::server::Connected;
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    #[prost(message, optional, tag = "1")]
    pub credential: Option<proto::Credential>,
    #[prost(message, optional, tag = "2")]
    pub expires_in: Option<prost_types::Duration>,
}

/// Serves until killed. The answer is read from the file beside the socket: SOCKET.answer.
pub fn run(kind: &str, socket: &Path) {
    let answer = std::fs::read(socket.with_extension("answer")).expect("the answer is there");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let listener = UnixListener::bind(socket).expect("bind");
        match kind {
            "http" => http1(listener, answer.into()).await,
            "grpc" => {
                let answer: Answer = prost::Message::decode(answer.as_slice()).expect("answer");
                grpc(listener, Service(Content::Message(Arc::new(answer)))).await;
            }
            "encoded" => {
                let answer: proto::GetTokenResponse =
                    prost::Message::decode(answer.as_slice()).expect("answer");
                grpc(listener, Service(Content::Encoded(Arc::new(answer)))).await;
            }
            other => panic!("no control {other}"),
        }
    });
}

async fn grpc(listener: UnixListener, service: Service) {
    let streams = UnixListenerStream::new(listener)
        .map(|stream| stream.map(|stream| Repaired(RepairAuthority::new(stream, 500))));
    tonic::transport::Server::builder()
        .max_concurrent_streams(256)
        .http2_max_header_list_size(16384)
        .http2_keepalive_interval(Some(Duration::from_secs(60)))
        .http2_keepalive_timeout(Some(Duration::from_secs(20)))
        .add_service(service)
        .serve_with_incoming(streams)
        .await
        .expect("serving");
}

/// A connection as tonic's server accepts it.
struct Repaired(RepairAuthority<UnixStream>);

impl Connected for Repaired {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Repaired {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Repaired {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

async fn http1(listener: UnixListener, answer: Bytes) {
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .max_buf_size(16384);
    loop {
        let (stream, _) = listener.accept().await.expect("accept");
        let answer = answer.clone();
        let service = service_fn(move |_request| {
            let answer = answer.clone();
            async move {
                Ok::<_, Infallible>(
                    Response::builder()
                        .header("content-type", "application/json")
                        .body(Full::new(answer))
                        .expect("a response"),
                )
            }
        });
        tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
    }
}

#[derive(Clone)]
enum Content {
    Message(Arc<Answer>),
    Encoded(Arc<proto::GetTokenResponse>),
}

/// A service as the code generator would make it, for two methods.
#[derive(Clone)]
struct Service(Content);

impl NamedService for Service {
    const NAME: &'static str = "tokend.v1.CredentialService";
}

type Future<T> = Pin<Box<dyn std::future::Future<Output = T> + Send>>;

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Future<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = self.0.clone();
        Box::pin(async move {
            let response = match (request.uri().path(), answer) {
                ("/tokend.v1.CredentialService/GetToken", Content::Message(answer)) => {
                    Grpc::new(ProstCodec::default())
                        .unary(GetToken(answer), request)
                        .await
                }
                ("/tokend.v1.CredentialService/GetToken", Content::Encoded(answer)) => {
                    Grpc::new(ProstCodec::default())
                        .unary(GetToken(answer), request)
                        .await
                }
                (_, Content::Encoded(answer)) => {
                    Grpc::new(ProstCodec::default())
                        .server_streaming(Watch(answer), request)
                        .await
                }
                _ => Status::unimplemented("only two methods").into_http(),
            };
            Ok(response)
        })
    }
}

struct GetToken<T>(Arc<T>);

impl<T: prost::Message + Clone + Default + 'static> UnaryService<proto::GetTokenRequest>
    for GetToken<T>
{
    type Response = T;
    type Future = Future<Result<tonic::Response<T>, Status>>;

    fn call(&mut self, request: tonic::Request<proto::GetTokenRequest>) -> Self::Future {
        let answer = self.0.clone();
        Box::pin(async move {
            assert!(!request.into_inner().profile.is_empty());
            // An answer owns its content, so the content is cloned.
            Ok(tonic::Response::new(T::clone(&answer)))
        })
    }
}

/// A stream that gives its watcher one message and then waits.
struct Watch(Arc<proto::GetTokenResponse>);

impl ServerStreamingService<proto::WatchTokenRequest> for Watch {
    type Response = proto::GetTokenResponse;
    type ResponseStream =
        Pin<Box<dyn tokio_stream::Stream<Item = Result<Self::Response, Status>> + Send>>;
    type Future = Future<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, _request: tonic::Request<proto::WatchTokenRequest>) -> Self::Future {
        let first = tokio_stream::once(Ok(proto::GetTokenResponse::clone(&self.0)));
        let stream = first.chain(tokio_stream::pending());
        Box::pin(async move {
            Ok(tonic::Response::new(
                Box::pin(stream) as Self::ResponseStream
            ))
        })
    }
}
