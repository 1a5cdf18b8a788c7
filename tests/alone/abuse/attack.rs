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

/// A blocked attacker checks this often whether the attack is over.
const LOOK: Duration = Duration::from_millis(20);

pub struct Attack {
    pub name: &'static str,
    pub ending: Ending,
    pub way: Way,
}

/// Whether the daemon closes the connections of an attack.
#[derive(Clone, Copy)]
pub enum Ending {
    CutOff,
    /// The attack does nothing forbidden, at least for as long as a test looks.
    Kept,
    Either,
    /// These are allowed calls and no attack. So many calls at once may slow other callers, but
    /// must not stop them.
    Calls,
}

#[derive(Clone, Copy)]
pub enum Way {
    /// Several connections. Each sends `opening` and then `more` again and again, as fast as the
    /// daemon takes it. When one is closed, another takes its place.
    Flood {
        connections: usize,
        opening: fn() -> Vec<u8>,
        /// Returns part number n of what follows.
        more: fn(u32) -> Vec<u8>,
        reads: bool,
    },
    /// Several connections. Each sends `opening`, and then a byte of `drips` now and then.
    Hold {
        connections: usize,
        opening: fn() -> Vec<u8>,
        drips: &'static [u8],
    },
    /// Connections one after another. Each sends this and closes.
    Churn { sends: fn() -> Vec<u8> },
}

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

pub struct Outcome {
    /// The number of connections that were opened.
    pub opened: usize,
    /// The number of connections that the daemon has closed.
    pub cut_off: usize,
    /// The number of bytes that the daemon has taken.
    pub sent: usize,
}

impl Attack {
    /// Starts the attack as this user.
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
                // The target is the daemon, not the kernel's scheduler. Attackers that keep both
                // cores of a small machine busy slow the victim even without a daemon in between.
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
    /// Ends the attack and returns its outcome.
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
                        // The shutdown ends the reader, too.
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

    /// Sends all bytes, unless the attack ends first or the connection is closed.
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

/// Reads until nothing more can come.
fn read_all(mut connection: &UnixStream) {
    let mut bytes = [0; 16 * 1024];
    while connection.read(&mut bytes).is_ok_and(|read| read > 0) {}
}
