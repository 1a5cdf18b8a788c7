//! Tests the adapter and its purpose: a stock client's request passes through h2 with it and fails
//! without it.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;

use super::super::RepairAuthority;
use super::coder::{PREFACE, frame, put_literal, request};

/// More frames than any test here sends.
const PLENTY: u32 = 1000;

/// A stream that records what is asked of it.
#[derive(Default)]
struct Recorder {
    vectored: Vec<Vec<u8>>,
    asked: Vec<&'static str>,
    refuses_vectors: bool,
}

impl AsyncWrite for Recorder {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.asked.push("write");
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked.push("flush");
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.asked.push("shutdown");
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.vectored = bufs.iter().map(|buf| buf.to_vec()).collect();
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        !self.refuses_vectors
    }
}

impl AsyncRead for Recorder {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn writing_goes_straight_to_the_stream() {
    let mut io = RepairAuthority::new(Recorder::default(), PLENTY);
    assert!(io.is_write_vectored());
    let bufs = [IoSlice::new(b"head"), IoSlice::new(b"payload")];
    assert_eq!(io.write_vectored(&bufs).await.unwrap(), 11);
    assert_eq!(io.stream.vectored, [b"head".to_vec(), b"payload".to_vec()]);
    io.write_all(b"x").await.unwrap();
    io.flush().await.unwrap();
    io.shutdown().await.unwrap();
    assert_eq!(io.stream.asked, ["write", "flush", "shutdown"]);

    let io = RepairAuthority::new(
        Recorder {
            refuses_vectors: true,
            ..Recorder::default()
        },
        PLENTY,
    );
    assert!(!io.is_write_vectored());
}

/// A connection whose client has sent `said`, and the server's task that shuts it down.
async fn shut_down_after(said: &[u8]) -> (UnixStream, tokio::task::JoinHandle<io::Result<()>>) {
    let (server, mut client) = UnixStream::pair().unwrap();
    client.write_all(said).await.unwrap();
    let mut io = RepairAuthority::new(server, PLENTY);
    io.read_exact(&mut vec![0; said.len()]).await.unwrap();
    let shutting_down = tokio::spawn(async move { io.shutdown().await });
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    (client, shutting_down)
}

/// The client's answer to the PING that h2 sends between its two GOAWAYs.
fn knows_the_end() -> Vec<u8> {
    let farewell = [0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];
    [PREFACE, &frame(6, 1, 0, &farewell)].concat()
}

/// Broken by closing the connection as soon as everything is sent: the client's write fails, and it
/// does not read on.
#[tokio::test]
async fn a_call_that_crosses_the_end_can_be_written() {
    let (mut client, shutting_down) = shut_down_after(&knows_the_end()).await;
    for _ in 0..10 {
        client.write_all(&[0; 4096]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(!shutting_down.is_finished());
    drop(client);
    shutting_down.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stays_is_not_waited_for_for_ever() {
    let (mut client, shutting_down) = shut_down_after(&knows_the_end()).await;
    let begin = tokio::time::Instant::now();
    shutting_down.await.unwrap().unwrap();
    assert_eq!(begin.elapsed().as_secs(), 2);
    assert!(client.write_all(b"x").await.is_err());
    // A client that speaks another protocol, or was not told of the end, may have stopped
    // listening.
    for said in [b"GET / HTTP/1.1\r\n\r\n", PREFACE] {
        let (_client, shutting_down) = shut_down_after(said).await;
        let begin = tokio::time::Instant::now();
        shutting_down.await.unwrap().unwrap();
        assert!(begin.elapsed().is_zero());
    }
}

/// The request of a stock client, with this `:authority`.
fn stock_request(authority: &[u8]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86];
    put_literal(&mut block, 0x40, Ok(4), (b"/a.B/C", false));
    put_literal(
        &mut block,
        0x40,
        Err((b":authority", false)),
        (authority, false),
    );
    [PREFACE, &frame(4, 0, 0, b""), &frame(1, 0x05, 1, &block)].concat()
}

#[tokio::test]
async fn only_what_a_read_filled_is_gone_over() {
    let mut block = Vec::new();
    put_literal(&mut block, 0x40, Ok(1), (b"a%2Fb", false));
    let stream = request(&block);
    let (mut client, server) = tokio::io::duplex(1024);
    client.write_all(&stream).await.unwrap();

    // The buffer already holds the same request, which never came through the adapter.
    let mut io = RepairAuthority::new(server, PLENTY);
    let mut space = [0; 256];
    let mut buf = ReadBuf::new(&mut space);
    buf.put_slice(&stream);
    poll_fn(|cx| Pin::new(&mut io).poll_read(cx, &mut buf))
        .await
        .unwrap();
    let (before, fresh) = buf.filled().split_at(stream.len());
    assert_eq!(before, stream);
    assert_eq!(fresh.len(), stream.len());
    assert!(fresh.ends_with(b"a-2Fb"));

    drop(client);
    assert_eq!(
        io.read(&mut [0; 8]).await.unwrap(),
        0,
        "the end stays the end"
    );
}

/// The server's answer on stream 1: the type and payload of the first HEADERS or RST_STREAM frame.
async fn answer<S>(
    server: impl FnOnce(tokio::io::DuplexStream) -> S,
    stream: &[u8],
) -> (u8, Vec<u8>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut client, server_end) = tokio::io::duplex(64 * 1024);
    let io = TokioIo::new(server(server_end));
    tokio::spawn(async move {
        let service = service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Empty::<bytes::Bytes>::new()))
        });
        auto::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await
    });
    client.write_all(stream).await.unwrap();
    loop {
        let mut head = [0; 9];
        client.read_exact(&mut head).await.unwrap();
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        client.read_exact(&mut payload).await.unwrap();
        if head[3] == 1 || head[3] == 3 {
            assert_eq!(head[5..], [0, 0, 0, 1]);
            return (head[3], payload);
        }
    }
}

#[tokio::test]
async fn h2_refuses_a_stock_client_without_the_adapter_and_answers_with_it() {
    const RST_STREAM: u8 = 3;
    const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
    // The header block of a response that begins with the index of `:status: 200`.
    const STATUS_200: u8 = 0x88;

    let stock = stock_request(b"run%2Ftokend.sock");
    let (kind, payload) = answer(|io| io, &stock).await;
    assert_eq!(
        (kind, payload.as_slice()),
        (RST_STREAM, &PROTOCOL_ERROR[..])
    );
    for authority in [
        b"run%2Ftokend.sock".as_slice(),
        b"/run/tokend/tokend.sock",
        b"tmp%2Fa:b [c]@",
        b"localhost",
    ] {
        let (kind, payload) = answer(
            |io| RepairAuthority::new(io, PLENTY),
            &stock_request(authority),
        )
        .await;
        assert_eq!((kind, payload[0]), (1, STATUS_200));
    }
}

/// Broken by `poll_read` that does not ask the allowance.
#[tokio::test]
async fn a_flood_ends_the_connection_and_its_answers_do_not_pay_for_it() {
    let ping = frame(6, 0, 0, b"abcdefgh");
    let mut io = RepairAuthority::new(
        tokio::io::join(
            io::Cursor::new([PREFACE, &ping.repeat(10_000)].concat()),
            tokio::io::sink(),
        ),
        PLENTY,
    );
    let mut pings = 0;
    let error = loop {
        match io.read(&mut [0; 17]).await {
            Ok(_) => pings += 1,
            Err(error) => break error,
        }
        io.write_all(&ping).await.unwrap();
    };
    assert!((1000..3000).contains(&pings), "{pings}");
    assert!(
        error.to_string().contains("control_frames_per_second"),
        "{error}"
    );
}

/// Calls may come at any speed, with all frames that go with them. The clock cannot help here.
#[tokio::test(start_paused = true)]
async fn calls_at_full_speed_do_not() {
    let mut block = Vec::new();
    put_literal(&mut block, 0x00, Ok(4), (b"/a.B/C", false));
    let call = [
        frame(1, 0x04, 1, &block),
        frame(0, 0x01, 1, b"a message"),
        frame(8, 0, 0, &[0, 0, 1, 0]),
        frame(8, 0, 1, &[0, 0, 1, 0]),
        frame(6, 0, 0, b"abcdefgh"),
    ]
    .concat();
    let stream = [PREFACE, &call.repeat(20_000)].concat();
    let mut io = RepairAuthority::new(
        tokio::io::join(io::Cursor::new(stream.clone()), tokio::io::sink()),
        PLENTY,
    );
    let mut out = Vec::new();
    io.read_to_end(&mut out).await.unwrap();
    assert_eq!(out, stream);
}

#[tokio::test]
async fn http1_passes_through() {
    let (mut client, server) = tokio::io::duplex(1024);
    let text = b"GET /a%2Fb HTTP/1.1\r\nhost: a%2Fb\r\n\r\n";
    client.write_all(text).await.unwrap();
    drop(client);
    let mut out = Vec::new();
    RepairAuthority::new(server, PLENTY)
        .read_to_end(&mut out)
        .await
        .unwrap();
    assert_eq!(out, text);
}
