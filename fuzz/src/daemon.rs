//! A daemon in this process. The connections are the real ones, with everything behind them but
//! files and identity providers. Its time is tokio's paused time, which advances when nothing else
//! can run, so every timeout passes at once.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokend::audit::Audit;
use tokend::broker::{Broker, Tools};
use tokend::caller::Callers;
use tokend::clock::Clock;
use tokend::core::credential::Fingerprinter;
use tokend::core::policy::Caller;
use tokend::core::profile;
use tokend::core::time::{BootTime, Stamp, WallTime};
use tokend::registry::reload::{Order, ReloadReport};
use tokend::server::{self, Accounts, Answered, ApiService, Connections, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use crate::profiles::{self, CALLER, DEADLINE, IN_FLIGHT};
use crate::script::Script;

pub static DAEMON: LazyLock<Daemon> = LazyLock::new(Daemon::new);

/// After this time the daemon sends nothing more in answer, except on streams that stay open. It is
/// longer than the wait for any answer, and shorter than the life of a silent connection.
const SETTLED: Duration = Duration::from_secs(45);

/// A connection has ended after this time if its peer says no more but still reads. HTTP/1.1
/// answers all requests that it has before it notices the end. That takes a few attempts at most,
/// since no request waits after a failed attempt.
const END: Duration = Duration::from_secs(60);

/// A connection whose peer does not read either has ended after this time. The daemon closes it
/// because the peer is silent, or because it does not answer pings.
const DEAF_END: Duration = Duration::from_secs(1300);

pub struct Daemon {
    runtime: Runtime,
    connections: Connections,
    accounts: Arc<Accounts>,
    /// The number of tasks that exist when no peer is connected.
    resident: usize,
    _stop: (watch::Sender<bool>, watch::Sender<bool>),
}

/// How a peer behaves, whatever it says.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The peer is root.
    pub admin: bool,
    /// The peer waits for answers before it closes its side.
    pub patient: bool,
    /// The peer reads nothing before it has said everything.
    pub deaf: bool,
    /// The most bytes on the way, in each direction.
    pipe: usize,
    /// The number of bytes in each write of the peer; the two sizes alternate.
    parts: [u8; 2],
}

impl Manner {
    /// Reads a manner from the next three bytes of the script.
    pub fn of(script: &mut Script<'_>) -> Manner {
        let how = script.byte();
        Manner {
            admin: how & 1 != 0,
            patient: how & 2 == 0,
            deaf: how & 4 != 0,
            pipe: [65_536, 4_096, 512, 64][usize::from(how >> 3 & 3)],
            parts: [script.byte(), script.byte()],
        }
    }
}

impl Daemon {
    fn new() -> Daemon {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        let (stop, stopping) = watch::channel(false);
        let (close, closing) = watch::channel(false);
        let (connections, accounts) = runtime.block_on(async {
            let clock = clock();
            let (broker, actor) = Broker::new(Tools {
                clock: clock.clone(),
                fingerprints: Fingerprinter::new(&[7; 32]),
                encode: Arc::new(server::encode),
                published: Arc::default(),
                host_seed: 1,
            });
            tokio::spawn(actor);
            let (reload, reloads) = mpsc::channel(64);
            tokio::spawn(answer_reloads(reloads));
            let limits = profiles::limits();
            let registry = profiles::registry(&broker, &clock).await;
            // No caller waits for the record: in paused time, a wait is over at once.
            let audit = profile::AuditSettings {
                sink: profile::AuditSink::File("/dev/null".into()),
                deny_on_failure: false,
            };
            let accounts = Accounts::new(&limits);
            let service = Arc::new(ApiService {
                registry: Arc::new(ArcSwap::from_pointee(registry)),
                changes: Arc::default(),
                broker,
                started: clock.now(),
                clock: clock.clone(),
                callers: Callers::default(),
                accounts: accounts.clone(),
                surveys: Arc::new(Semaphore::new(1)),
                audit: Audit::start(clock.clone(), &audit).expect("a thread"),
                limits,
                answered: Answered::default(),
                reload,
                stopping: stopping.clone(),
            });
            // The eager profiles have their credentials after this.
            tokio::time::sleep(Duration::from_secs(1)).await;
            (Connections::new(&service, stopping, closing), accounts)
        });
        let resident = runtime.metrics().num_alive_tasks();
        Daemon {
            runtime,
            connections,
            accounts,
            resident,
            _stop: (stop, close),
        }
    }

    /// Sends these bytes on a connection and closes that side of it. Returns everything that came
    /// back until the daemon closed the other side, which must be soon.
    pub fn hears(&self, manner: Manner, bytes: &[u8]) -> Vec<u8> {
        let caller = Caller {
            uid: if manner.admin { 0 } else { CALLER },
            gid: CALLER,
            groups: Vec::new(),
            pid: None,
        };
        self.runtime.block_on(async {
            let (here, there) = tokio::io::duplex(manner.pipe);
            let session = Arc::new(Session::new(
                Callers::default().known_by_ids(caller.clone()),
                self.accounts.without_place(caller.uid, "fuzz"),
            ));
            let serving = tokio::spawn(self.connections.serve(there, session, ()));
            let (mut reader, mut writer) = tokio::io::split(here);
            let (listen, told) = watch::channel(!manner.deaf);
            let hearing = tokio::spawn(async move {
                let mut told = told;
                // An error means that there is nothing to wait for.
                let _ = told.wait_for(|listens| *listens).await;
                let mut heard = Vec::new();
                reader.read_to_end(&mut heard).await.expect("in memory");
                heard
            });
            for part in parts(bytes, manner.parts) {
                // An error means that the daemon has closed the connection. It has usually sent the
                // reason.
                if writer.write_all(part).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            if manner.patient {
                tokio::time::sleep(SETTLED).await;
            }
            let _ = writer.shutdown().await;
            let closed = Instant::now();
            let most = if manner.deaf { DEAF_END } else { END };
            tokio::time::timeout(most, serving)
                .await
                .unwrap_or_else(|_| panic!("still open after {:?}", closed.elapsed()))
                .expect("it does not panic");
            listen.send_replace(true);
            let heard = hearing.await.expect("it does not panic");
            // A caller that leaves cancels nothing, so attempts may still be under way.
            tokio::time::sleep(DEADLINE).await;
            let left = self.runtime.metrics().num_alive_tasks();
            assert!(
                left <= self.resident + usize::try_from(IN_FLIGHT).expect("a few"),
                "{left} tasks are left where {} were",
                self.resident
            );
            heard
        })
    }
}

/// A clock whose boot time and wall time follow tokio's time.
fn clock() -> Clock {
    let start = Instant::now();
    Clock::given(move || {
        let since = start.elapsed();
        Stamp {
            boot: BootTime(Duration::from_secs(100) + since),
            wall: WallTime(Duration::from_secs(1_800_000_000) + since),
        }
    })
}

/// Answers every reload as if the files could not be read.
async fn answer_reloads(mut reloads: mpsc::Receiver<Order>) {
    while let Some(order) = reloads.recv().await {
        tokio::time::sleep(Duration::from_millis(100)).await;
        order.0.send_replace(Some(Arc::new(ReloadReport {
            generation: 1,
            refused: vec!["the file cannot be read".into()],
            profiles: Vec::new(),
            settled: true,
        })));
    }
}

/// Cuts the text into parts of these sizes in turn; 0 stands for all the rest.
fn parts(mut text: &[u8], sizes: [u8; 2]) -> impl Iterator<Item = &[u8]> {
    let mut sizes = sizes.into_iter().cycle();
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let size = match sizes.next() {
            None | Some(0) => text.len(),
            Some(size) => text.len().min(size.into()),
        };
        let (part, rest) = text.split_at(size);
        text = rest;
        Some(part)
    })
}
