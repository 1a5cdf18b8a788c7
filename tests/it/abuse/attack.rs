//! What a caller can do to a daemon that costs the caller nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::frames::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM,
    SETTINGS, UNKNOWN, WINDOW_UPDATE, call, frame, head, message, opening, stream,
};
use crate::harness::ask::Who;

/// How often a blocked attacker looks whether it is over.
const LOOK: Duration = Duration::from_millis(20);

/// A kind of attack.
pub struct Attack {
    pub name: &'static str,
    pub ending: Ending,
    way: Way,
}

/// Whether the daemon closes the connections of an attack.
#[derive(Clone, Copy)]
pub enum Ending {
    CutOff,
    /// It does nothing that is not allowed, at least for as long as a test looks.
    Kept,
    Either,
}

#[derive(Clone, Copy)]
enum Way {
    /// So many connections, each of which sends what opens it and then the rest again and again, as fast as it is taken;
    /// when it is closed another takes its place.
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

/// Attackers at a time: one for each core of a small machine is what one bad program is, and this is worse.
const FEW: usize = 4;
const MANY: usize = 400;

/// Frames that are written at once.
const GUSH: usize = 2000;

fn flood(name: &'static str, opening: fn() -> Vec<u8>, more: fn(u32) -> Vec<u8>) -> Attack {
    Attack {
        name,
        ending: Ending::CutOff,
        way: Way::Flood {
            connections: FEW,
            opening,
            more,
            reads: true,
        },
    }
}

impl Attack {
    /// The same without reading any answer.
    fn deaf(mut self, name: &'static str) -> Attack {
        self.name = name;
        if let Way::Flood { reads, .. } = &mut self.way {
            *reads = false;
        }
        self
    }

    /// By one connection instead of several.
    fn alone(mut self, name: &'static str) -> Attack {
        self.name = name;
        if let Way::Flood { connections, .. } = &mut self.way {
            *connections = 1;
        }
        self
    }
}

fn pings(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, b"abcdefgh").repeat(GUSH)
}

fn settings(_: u32) -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1]).repeat(GUSH)
}

/// An open call that waits for the rest of its message.
fn waiting() -> Vec<u8> {
    [opening(), frame(HEADERS, END_HEADERS, 1, &head())].concat()
}

fn block(kind: u8, n: u32, more: &[u8]) -> Vec<u8> {
    frame(
        kind,
        END_HEADERS | END_STREAM,
        stream(n),
        &[&head(), more].concat(),
    )
}

/// A field of 4000 bytes for the dynamic table.
fn huge_entry() -> Vec<u8> {
    // Its length is 127 + 0x1f + 0x1e << 7.
    let mut field = b"\x40\x01x\x7f\xa1\x1e".to_vec();
    field.extend([b'a'; 4000]);
    [opening(), block(HEADERS, 0, &field)].concat()
}

/// Every kind there is.
pub fn all() -> Vec<Attack> {
    let hold = |name, opening, drips| Attack {
        name,
        ending: Ending::Kept,
        way: Way::Hold {
            connections: MANY,
            opening,
            drips,
        },
    };
    let churn = |name, sends| Attack {
        name,
        ending: Ending::Either,
        way: Way::Churn { sends },
    };
    vec![
        flood("rapid reset", opening, |n| {
            let pair = |n| {
                [
                    frame(HEADERS, END_HEADERS, stream(n), &head()),
                    frame(RST_STREAM, 0, stream(n), &[0, 0, 0, 8]),
                ]
                .concat()
            };
            (100 * n..100 * (n + 1)).flat_map(pair).collect()
        }),
        flood(
            "CONTINUATION without an end",
            || [opening(), frame(HEADERS, 0, 1, &head())].concat(),
            |_| frame(CONTINUATION, 0, 1, b"\0\x01a\x01b").repeat(GUSH),
        ),
        flood("PING", opening, pings).alone("PING, one connection"),
        flood("PING", opening, pings),
        flood("PING", opening, pings).deaf("PING, answers not read"),
        flood("PING answers nobody asked for", opening, |_| {
            frame(PING, ACK, 0, b"abcdefgh").repeat(GUSH)
        }),
        flood("SETTINGS", opening, settings),
        flood("SETTINGS", opening, settings).deaf("SETTINGS, answers not read"),
        flood("WINDOW_UPDATE", waiting, |n| {
            let on = |stream| frame(WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).repeat(GUSH);
            // No more than fits into the window of the connection, and of the stream.
            on(if n % 2 == 0 { 0 } else { 1 })
        }),
        flood("PRIORITY", opening, |_| {
            frame(PRIORITY, 0, 7, &[0, 0, 0, 3, 16]).repeat(GUSH)
        }),
        flood(
            "RST_STREAM of what has ended",
            || [opening(), call(1, "a")].concat(),
            |_| frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]).repeat(GUSH),
        ),
        flood("unknown frames", opening, |_| {
            frame(UNKNOWN, 0, 0, b"").repeat(GUSH)
        }),
        flood("empty DATA", waiting, |_| {
            frame(DATA, 0, 1, b"").repeat(GUSH)
        }),
        flood("DATA byte by byte", waiting, |_| {
            let mut bytes = vec![0, 0, 0, 0xff, 0xff];
            bytes.extend([b'a'; GUSH]);
            bytes
                .iter()
                .flat_map(|byte| frame(DATA, 0, 1, &[*byte]))
                .collect()
        }),
        flood(
            "header bomb: one huge field again and again",
            huge_entry,
            |n| {
                // Index 62 is the newest of the dynamic table; sixteen of it are all that is allowed.
                (50 * n + 1..50 * (n + 1) + 1)
                    .flat_map(|n| block(HEADERS, n, &[0xbe; 15]))
                    .collect()
            },
        ),
        flood("header bomb: beyond all limits", huge_entry, |n| {
            block(HEADERS, n + 1, &[0xbe; 8000])
        }),
        flood("header bomb: a thousand fields", opening, |n| {
            // Index 16 is `accept-encoding: gzip, deflate`, of 60 bytes.
            (4 * n..4 * (n + 1))
                .flat_map(|n| block(HEADERS, n, &[0x90; 1000]))
                .collect()
        }),
        flood("header bomb: held", opening, |n| {
            let block = [&head()[..], &[0x90; 1000]].concat();
            frame(HEADERS, END_HEADERS, stream(n), &block)
        }),
        hold(
            "slow HTTP/1.1",
            || b"GET /v1/profiles/a/token HTTP/1.1\r\nHost: tokend\r\nX: ".to_vec(),
            b"abc",
        ),
        hold(
            "slow HTTP/2",
            waiting,
            &[0, 0, 8, PING, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8],
        ),
        hold(
            "half a frame and silence",
            || [&waiting()[..], &frame(DATA, 0, 1, &message("a"))[..7]].concat(),
            b"",
        ),
        churn("connect and go", Vec::new),
        churn("connect, open and go", opening),
        churn("connect, half a call and go", waiting),
        flood("calls (what is allowed)", opening, |n| {
            (50 * n..50 * (n + 1))
                .flat_map(|n| call(stream(n), "a"))
                .collect()
        }),
    ]
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
                // The daemon is attacked, not the scheduler of the kernel: whoever keeps both cores of a small machine
                // busy slows the victim without any daemon in between.
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
