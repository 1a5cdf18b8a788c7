//! Turns an accepted stream into requests. It finds out who is asking, sets limits, installs the
//! authority repair, and ends the connection.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::accounts::{Accounts, PrincipalAccount};
use super::activity::Activity;
use super::grpc::told_to_stop;
use super::protocols::{ConnectionService, Protocols};
use super::service::ApiService;
use super::session::Session;
use super::turn::{FairConnection, MeteredStream, Turn};
use crate::core::profile::ServerLimits;
use crate::core::repeated::Repeated;
use crate::socket::authority::RepairAuthority;

/// Requests in flight have this long to finish after a SIGTERM. Attempts are bounded by their own
/// deadline, but a watcher's stream would never end by itself.
const DRAIN: Duration = Duration::from_secs(4);

/// A caller that waits longer is told to ask again, and has this long to hear it. Then its
/// connection is cut.
const FAREWELL: Duration = Duration::from_secs(1);

/// A client that waits for no answer has this long to react to the end of its connection. Without a
/// bound, a stopped process would hold up everybody; a process that the machine has no time for
/// loses no call.
const REACTION: Duration = Duration::from_secs(2);

/// A client that connects just before a SIGTERM has this long to send its first request, which is
/// answered. This is longer than a caller needs between connecting and asking, and shorter than a
/// restart takes anyway.
const FIRST_WORDS: Duration = Duration::from_millis(300);

/// How often the daemon checks whether that request has come.
const FIRST_LOOK: Duration = Duration::from_millis(10);

/// The pause after a failed accept. A usual cause is a lack of descriptors, which passes when a
/// connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A silent HTTP/2 peer is pinged this often, and has this long to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(20);

/// A client may reset this many calls within one turn before they have begun. Clients that reset
/// calls for a reason wait for them first. h2 closes the connection of a client that does it more
/// often (rapid reset, CVE-2023-44487).
const RESETS: usize = 20;

/// What a client may send for one call, and on one connection, before any of it has been read, in
/// bytes. With hyper's default of one megabyte, half-sent messages on every connection of one user
/// would take half a gigabyte. Messages are read as they come, so larger ones only take another
/// round.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 256 * 1024;

/// How much of an answer may wait for a slow reader, in bytes. hyper's default is 400 KB.
const SEND_BUFFER: usize = 64 * 1024;

/// The pause between the closing of many connections and giving back the memory that they left.
/// Others that close with them have done so by then.
const TIDY_AFTER: Duration = Duration::from_secs(1);

/// Log lines about connections that callers can cause.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum ConnectionEvent {
    /// Accepting fails, usually because all descriptors are taken.
    NotAccepted,
    /// The kernel does not say who is asking, so nobody can be charged.
    Unknown,
    /// There is no place for the connection.
    Full,
}

/// The daemon accepts at most this many connections after it was told to stop. That is the usual
/// length of the kernel's backlog.
const LATE: usize = 128;

/// Accepts connections until told to stop, then drains. A new listener replaces the one before,
/// whose name is gone.
pub async fn accept(
    mut listener: UnixListener,
    mut listeners: mpsc::Receiver<UnixListener>,
    mut own: mpsc::Receiver<DuplexStream>,
    service: &Arc<ApiService>,
    mut shutdown: watch::Receiver<bool>,
) {
    let (close, closing) = watch::channel(false);
    let connections = Connections::new(service, shutdown.clone(), closing);
    let accounts = service.accounts.clone();
    let tidying = tokio::spawn(tidy_up(accounts.clone()));
    let mut lines = Repeated::default();
    let mut line = |kind, uid| lines.say((kind, uid), service.clock.now().boot);
    // Each connection holds a sender; the receiver learns when all are gone.
    let (open, all_closed) = mpsc::channel::<()>(1);
    let mut late = 0;
    loop {
        // One connection at a time, so that a crowd of new callers does not hold up those who are
        // already here.
        tokio::task::yield_now().await;
        if *shutdown.borrow() {
            late += 1;
        }
        let stream = tokio::select! {
            biased;
            Some(next) = listeners.recv() => {
                listener = next;
                continue;
            }
            Some(stream) = own.recv() => {
                let session = service.itself();
                tokio::spawn(connections.serve(stream, Arc::new(session), open.clone()));
                continue;
            }
            accepted = listener.accept(), if late <= LATE => match accepted {
                Ok((stream, _)) => stream,
                Err(_) if late > 0 => break,
                Err(error) => {
                    if let Some(left_out) = line(ConnectionEvent::NotAccepted, None) {
                        warn!(%error, left_out, "cannot accept a connection; trying again");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            // Connections made before this are still served: the kernel would reset them.
            _ = shutdown.wait_for(|stop| *stop) => break,
        };
        let peer = match service.callers.of(&stream) {
            Ok(peer) => peer,
            Err(error) => {
                if let Some(left_out) = line(ConnectionEvent::Unknown, None) {
                    warn!(%error, left_out, "the kernel does not say who is asking: the connection is closed");
                }
                continue;
            }
        };
        let now = service.clock.now().boot;
        let named = &service.registry.load().named;
        let mut admitted = accounts.admit(&peer, named, now);
        if let Err(no_place) = &admitted
            && accounts.make_room(no_place, now)
        {
            // The aborted task ends during this.
            tokio::task::yield_now().await;
            admitted = accounts.admit(&peer, named, now);
        }
        let (account, place) = match admitted {
            Ok(admitted) => admitted,
            Err(no_place) => {
                if let Some(left_out) = line(ConnectionEvent::Full, Some(no_place.uid)) {
                    warn!(
                        pid = peer.caller.pid,
                        left_out, "a connection is closed: {no_place}"
                    );
                }
                continue;
            }
        };
        let session = Arc::new(Session::new(peer, account.clone()));
        let held = (place, Silence(account.clone()), open.clone());
        let task = tokio::spawn(connections.serve(stream, session, held));
        account.is_silent(task.abort_handle(), now);
    }
    tidying.abort();
    drop(listener);
    drop(open);
    drain(all_closed, &close).await;
}

/// Waits for connections to end by themselves, then closes the others.
async fn drain(mut all_closed: mpsc::Receiver<()>, close: &watch::Sender<bool>) {
    if tokio::time::timeout(DRAIN, all_closed.recv()).await.is_ok() {
        return;
    }
    close.send_replace(true);
    if tokio::time::timeout(FAREWELL, all_closed.recv())
        .await
        .is_err()
    {
        debug!("connections that did not end by themselves are closed");
    }
}

/// Marks a connection as silent until its first request or its end; dropping this removes the mark.
struct Silence(PrincipalAccount);

impl Drop for Silence {
    fn drop(&mut self) {
        self.0.has_asked();
    }
}

/// What all connections of one daemon share.
pub struct Connections {
    protocols: Arc<Protocols>,
    limits: ServerLimits,
    accounts: Arc<Accounts>,
    shutdown: watch::Receiver<bool>,
}

impl Connections {
    /// `shutdown` asks connections to end. `closing` tells calls that still wait then to ask again.
    #[must_use]
    pub fn new(
        service: &Arc<ApiService>,
        shutdown: watch::Receiver<bool>,
        closing: watch::Receiver<bool>,
    ) -> Connections {
        Connections {
            protocols: Arc::new(Protocols::new(service, &service.limits, closing)),
            limits: service.limits.clone(),
            accounts: service.accounts.clone(),
            shutdown,
        }
    }

    /// Serves this caller on `stream` until the connection ends. Nothing may have been read from
    /// the stream before. `held` is dropped at the end.
    pub fn serve<S, H>(
        &self,
        stream: S,
        session: Arc<Session>,
        held: H,
    ) -> impl Future<Output = ()> + Send + use<S, H>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        H: Send + 'static,
    {
        let activity = session.activity.clone();
        let share = session.account.shared().turns.clone();
        let rounds = self.accounts.rounds().clone();
        let visit = Arc::new(ConnectionService::new(&self.protocols, session));
        let service = service_fn(move |request| visit.clone().answer(request));
        let turn = Turn::default();
        let stream = RepairAuthority::new(
            MeteredStream::new(stream, turn.clone()),
            self.limits.control_frames_per_second,
        );
        let connection = builder(&self.limits, turn.clone())
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let connection = FairConnection::new(connection, turn, share, rounds);
        let patience = IdleTimeouts {
            first: self.limits.handshake_timeout,
            later: self.limits.idle_timeout,
        };
        let shutdown = self.shutdown.clone();
        async move {
            attend(connection, &activity, patience, shutdown).await;
            drop(held);
        }
    }
}

/// Gives memory back to the system when many connections have closed. glibc keeps free memory that
/// lies between pieces in use, so without this the daemon would pay for a storm of callers until it
/// ends.
async fn tidy_up(accounts: Arc<Accounts>) {
    loop {
        accounts.many_left().await;
        tokio::time::sleep(TIDY_AFTER).await;
        // This may take a while, so it does not run on the thread that serves.
        let _ = tokio::task::spawn_blocking(crate::sys::return_free_memory).await;
    }
}

/// How long a connection may be silent before it is closed.
#[derive(Clone, Copy)]
struct IdleTimeouts {
    /// Before its first request.
    first: Duration,
    /// Between requests.
    later: Duration,
}

/// Serves a connection until it ends. The connection is asked to end when the daemon stops and when
/// it has been silent too long. A client that waits for no answer and does not react is dropped
/// after [`REACTION`].
async fn attend<C>(
    mut connection: FairConnection<C>,
    activity: &Activity,
    patience: IdleTimeouts,
    mut shutdown: watch::Receiver<bool>,
) where
    C: GracefulConnection,
    C::Error: std::fmt::Display,
{
    let silence = tokio::time::sleep(patience.first);
    tokio::pin!(silence);
    // The number of requests so far, if none of them is being answered.
    let at_rest = || (!activity.is_busy()).then(|| activity.requests());
    let mut seen = Some(0);
    let mut ending = false;
    loop {
        tokio::select! {
            // The most frequent event is checked first; the others get their turn when it has
            // nothing to do.
            biased;
            outcome = &mut connection => {
                if let Err(error) = outcome {
                    debug!(%error, "connection ended");
                }
                return;
            }
            () = told_to_stop_after_first_words(&mut shutdown, activity), if !ending => {
                ending = true;
                connection.connection().graceful_shutdown();
                seen = at_rest();
                silence.as_mut().reset(tokio::time::Instant::now() + REACTION);
            }
            () = silence.as_mut() => {
                let is = at_rest();
                if is.is_some() && is == seen {
                    if ending {
                        debug!("a silent connection is closed");
                        return;
                    }
                    ending = true;
                    connection.connection().graceful_shutdown();
                }
                seen = is;
                let patience = if ending { REACTION } else { patience.later };
                silence.as_mut().reset(tokio::time::Instant::now() + patience);
            }
        }
    }
}

/// Completes when the daemon has been told to end and a new connection has had time to send its
/// first request. Without that time it would be closed without an answer.
async fn told_to_stop_after_first_words(shutdown: &mut watch::Receiver<bool>, activity: &Activity) {
    told_to_stop(shutdown).await;
    let patience = tokio::time::Instant::now() + FIRST_WORDS;
    while activity.requests() == 0 && tokio::time::Instant::now() < patience {
        tokio::time::sleep(FIRST_LOOK).await;
    }
}

fn builder(limits: &ServerLimits, turn: Turn) -> auto::Builder<Turn> {
    let mut builder = auto::Builder::new(turn);
    let header_size = limits.header_size;
    builder
        .http1()
        .timer(TokioTimer::new())
        // With vectored writes, the head of a 400 overtakes the body of the answer before it while
        // that body waits for its reader.
        .writev(false)
        .header_read_timeout(limits.handshake_timeout)
        .max_buf_size(usize::try_from(header_size).unwrap_or(usize::MAX).max(8192));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .max_pending_accept_reset_streams(RESETS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_header_list_size(header_size)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_ANSWER);
    builder
}
