//! Attackers at work.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::harness::ask::Who;

/// How often a blocked attacker looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// A kind of attack.
pub struct Attack {
    pub name: &'static str,
    pub ending: Ending,
    pub way: Way,
}

/// Whether the daemon closes the connections of an attack.
#[derive(Clone, Copy)]
pub enum Ending {
    CutOff,
    /// It does nothing that is not allowed, at least for as long as a test looks.
    Kept,
    Either,
    /// It is no attack. That many calls at once slow others is no fault, but that they stop them
    /// is.
    Calls,
}

#[derive(Clone, Copy)]
pub enum Way {
    /// So many connections, each of which sends what opens it and then the rest again and again, as
    /// fast as it is taken; when it is closed another takes its place.
    Flood {
        connections: usize,
        opening: fn() -> Vec<u8>,
        /// Number n of what follows.
        more: fn(u32) -> Vec<u8>,
        reads: bool,
    },
    /// So many connections that send this, and then a byte of the rest now and then.
    Hold {
        connections: usize,
        opening: fn() -> Vec<u8>,
        drips: &'static [u8],
    },
    /// Connections one after another, each of which sends this and goes.
    Churn { sends: fn() -> Vec<u8> },
}

/// An attack that is under way.
pub struct UnderWay {
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
    attackers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    cut_off: AtomicUsize,
    sent: AtomicUsize,
}

/// What became of an attack.
pub struct Outcome {
    /// Connections that were opened.
    pub opened: usize,
    /// Those that the daemon has closed.
    pub cut_off: usize,
    /// Bytes that it has taken.
    pub sent: usize,
}

impl Attack {
    /// Lets it loose, by this user.
    pub fn begin(&self, socket: &Path, who: Option<&Who>) -> UnderWay {
        let over = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let attackers = match self.way {
            Way::Flood { connections, .. } => connections,
            Way::Hold { .. } | Way::Churn { .. } => 1,
        };
        let attackers = (0..attackers).map(|_| {
            let attacker = Attacker {
                socket: socket.to_owned(),
                over: over.clone(),
                counts: counts.clone(),
            };
            let (way, who) = (self.way, who.cloned());
            std::thread::spawn(move || {
                // The daemon is attacked, not the scheduler of the kernel: whoever keeps both cores
                // of a small machine busy slows the victim without any daemon in between.
                rustix::process::nice(19).expect("anybody may be nicer");
                if let Some(who) = who {
                    who.take_over_thread().expect("root may");
                }
                attacker.run(way);
            })
        });
        UnderWay {
            attackers: attackers.collect(),
            over,
            counts,
        }
    }
}

impl UnderWay {
    /// Ends it, and says what became of it.
    pub fn end(self) -> Outcome {
        self.over.store(true, Ordering::Relaxed);
        for attacker in self.attackers {
            attacker.join().expect("attackers do not panic");
        }
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Outcome {
            opened: read(&self.counts.opened),
            cut_off: read(&self.counts.cut_off),
            sent: read(&self.counts.sent),
        }
    }
}

struct Attacker {
    socket: PathBuf,
    over: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Attacker {
    fn run(&self, way: Way) {
        match way {
            Way::Flood {
                opening,
                more,
                reads,
                ..
            } => {
                while !self.is_over() {
                    let Some(connection) = self.connect() else {
                        continue;
                    };
                    std::thread::scope(|scope| {
                        if reads {
                            scope.spawn(|| read_all(&connection));
                        }
                        let mut taken = self.send(&connection, &opening());
                        for n in 0.. {
                            taken = taken && self.send(&connection, &more(n));
                            if !taken {
                                break;
                            }
                        }
                        // Its reader ends with that.
                        let _ = connection.shutdown(Shutdown::Both);
                    });
                }
            }
            Way::Hold {
                connections,
                opening,
                drips,
            } => {
                let open = || {
                    let connection = self.connect()?;
                    self.send(&connection, &opening()).then_some(connection)
                };
                let mut held: Vec<_> = (0..connections).map(|_| open()).collect();
                for drip in drips.chunks(1).cycle() {
                    for place in &mut held {
                        if !place
                            .as_ref()
                            .is_some_and(|connection| self.send(connection, drip))
                        {
                            *place = open();
                        }
                        if self.is_over() {
                            return;
                        }
                    }
                    std::thread::sleep(LOOK);
                }
                while !self.is_over() {
                    std::thread::sleep(LOOK);
                }
            }
            Way::Churn { sends } => {
                while !self.is_over() {
                    if let Some(connection) = self.connect() {
                        self.send(&connection, &sends());
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn connect(&self) -> Option<UnixStream> {
        let connection = UnixStream::connect(&self.socket).ok()?;
        connection.set_write_timeout(Some(LOOK)).ok()?;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        Some(connection)
    }

    /// Sends it all, unless it is over before that or the connection is closed.
    fn send(&self, mut connection: &UnixStream, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            if self.is_over() {
                return false;
            }
            match connection.write(bytes) {
                Ok(written) => {
                    self.counts.sent.fetch_add(written, Ordering::Relaxed);
                    bytes = &bytes[written..];
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.counts.cut_off.fetch_add(1, Ordering::Relaxed);
                    return false;
                }
            }
        }
        !self.is_over()
    }
}

/// Reads whatever comes until nothing can.
fn read_all(mut connection: &UnixStream) {
    let mut bytes = [0; 16 * 1024];
    while connection.read(&mut bytes).is_ok_and(|read| read > 0) {}
}
