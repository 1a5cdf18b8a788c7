//! A daemon in this process: the connections are the real ones, with everything behind them but
//! files and identity providers. Its time is tokio's paused one, which moves when nothing else can,
//! so that every timeout is over at once.

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

/// The one of this process.
pub static DAEMON: LazyLock<Daemon> = LazyLock::new(Daemon::new);

/// After this nothing more comes of what was sent, but from streams that stay open: longer than any
/// answer is waited for, and shorter than a silent connection is kept.
const SETTLED: Duration = Duration::from_secs(45);

/// A connection whose peer says no more and listens has ended after this. HTTP/1.1 answers what has
/// been asked before it notices; that takes a few attempts at most, since after a failed one nobody
/// waits.
const END: Duration = Duration::from_secs(60);

/// One whose peer does not listen either is closed for its silence, or for not answering pings.
const DEAF_END: Duration = Duration::from_secs(1300);

/// What serves.
pub struct Daemon {
    runtime: Runtime,
    connections: Connections,
    accounts: Arc<Accounts>,
    /// Tasks that are there when nobody is connected.
    resident: usize,
    _stop: (watch::Sender<bool>, watch::Sender<bool>),
}

/// How a peer behaves, apart from what it says.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// It is root.
    pub admin: bool,
    /// It waits for answers before it closes its side.
    pub patient: bool,
    /// It reads nothing before it has said everything.
    pub deaf: bool,
    /// How many bytes are on the way at most, in each direction.
    pipe: usize,
    /// How many bytes it writes at a time, in turn.
    parts: [u8; 2],
}

impl Manner {
    /// As the script says, with its next three bytes.
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
            // Nobody waits for it: time that stands still is over at once.
            let audit = profile::AuditSettings {
                sink: profile::AuditSink::File("/dev/null".into()),
                deny_on_failure: false,
            };
            let accounts = Accounts::new(&limits);
            let service = Arc::new(ApiService {
                registry: Arc::new(ArcSwap::from_pointee(registry)),
                broker,
                started: clock.now(),
                clock: clock.clone(),
                callers: Callers::new(),
                accounts: accounts.clone(),
                surveys: Arc::new(Semaphore::new(1)),
                audit: Audit::start(clock.clone(), &audit).expect("a thread"),
                limits,
                answered: Answered::default(),
                reload,
                stopping: stopping.clone(),
            });
            // The eager ones have their credentials now.
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

    /// Says this on a connection, closes that side of it, and returns what came back until the
    /// other side was closed too, which has to be soon.
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
                Callers::new().known_by_ids(caller.clone()),
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
                // An error means that the daemon has closed the connection. It has something to say
                // about it as a rule.
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
            // Callers that left cancel nothing: attempts may be under way still.
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

/// Boot and wall time go as tokio's does.
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

/// The files are always the same, and cannot be read.
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

/// The text in parts of these sizes, in turn; 0 stands for all the rest.
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
