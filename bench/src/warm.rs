//! Answers from memory, against servers that do nothing else.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Plan;
use crate::client::{self, Grpc, Http, Slice};
use crate::daemon::{Config, Issuer, Server};
use crate::stats;

const PROFILE: &str = "orders";

/// tokend with one profile, and controls that answer the same bytes.
struct Sides {
    tokend: Server,
    control: Server,
    encoded: Server,
    _issuer: Issuer,
}

impl Sides {
    fn start(plan: &Plan) -> Sides {
        let issuer = Issuer::start(36_000);
        let config = Config::new(Some(&issuer)).oauth2(PROFILE, true);
        let tokend = Server::tokend(&plan.tokend, config.text());
        let answer = client::answer(&tokend.socket, PROFILE);
        Sides {
            control: Server::control("grpc", &answer),
            encoded: Server::control("encoded", &answer),
            tokend,
            _issuer: issuer,
        }
    }

    fn all(&self) -> [&Server; 3] {
        [&self.tokend, &self.control, &self.encoded]
    }
}

/// For each side, one number per round.
type Rounds<const N: usize> = [Vec<f64>; N];

/// Takes slices of the sides in turn; each side goes first equally often.
fn rounds<const N: usize>(plan: &Plan, mut slice: impl FnMut(usize)) {
    for side in 0..N {
        slice(side);
    }
    for round in 0..plan.rounds {
        for place in 0..N {
            slice((round + place) % N);
        }
    }
}

pub fn grpc(plan: &Plan) {
    let sides = Sides::start(plan);
    let length = Duration::from_millis(plan.slice);
    let profiles = [PROFILE.to_owned()];
    stats::head("tokend", "control");
    for (connections, in_flight) in [(1, 1), (1, 32), (16, 1), (256, 1)] {
        let clients = sides
            .all()
            .map(|server| Grpc::connect(&server.socket, connections));
        let mut latency: Rounds<3> = Default::default();
        let mut rate: Rounds<3> = Default::default();
        let mut cpu: Rounds<3> = Default::default();
        let mut first = 3;
        rounds::<3>(plan, |side| {
            let before = sides.all()[side].cpu();
            let slice = clients[side].slice(&profiles, in_flight, length);
            let used = sides.all()[side].cpu() - before;
            if first > 0 {
                first -= 1;
                return;
            }
            latency[side].push(slice.micros(0.5));
            rate[side].push(slice.per_second());
            cpu[side].push(used / 1000.0 / slice.latencies.len() as f64);
        });
        for (other, name) in [(1, "control"), (2, "encoded control")] {
            let what = format!("{connections} × {in_flight} against {name}");
            if in_flight * connections == 1 {
                stats::line(
                    &format!("{what}: p50"),
                    "µs",
                    &latency[0],
                    &latency[other],
                    "≤ 1.05",
                );
            } else {
                stats::line(
                    &format!("{what}: rate"),
                    "1/s",
                    &rate[0],
                    &rate[other],
                    "≥ 0.95",
                );
            }
            stats::line(
                &format!("{what}: server CPU"),
                "µs",
                &cpu[0],
                &cpu[other],
                "≤ 1.0",
            );
        }
    }
}

/// An HTTP/1.1 control with the same body.
fn http_control(tokend: &Server) -> Server {
    let body = Http::new()
        .get(&tokend.socket, &format!("/v1/profiles/{PROFILE}/token"))
        .to_vec();
    Server::control("http", &body)
}

pub fn http(plan: &Plan) {
    let sides = Sides::start(plan);
    let control = http_control(&sides.tokend);
    let servers = [&sides.tokend, &control];
    let mut clients = [Http::new(), Http::new()];
    let length = Duration::from_millis(plan.slice);
    stats::head("tokend", "hyper");
    compare(plan, servers, "HTTP/1.1, 1 in flight", "≤ 1.15", |side| {
        clients[side].slice(&servers[side].socket, PROFILE, true, length)
    });
}

pub fn oneshot(plan: &Plan) {
    let sides = Sides::start(plan);
    let control = http_control(&sides.tokend);
    let length = Duration::from_millis(plan.slice);
    stats::head("tokend", "control");
    let servers = [&sides.tokend, &control];
    // oidc-agent's plain socket took 1.26 times what this control took where both were measured.
    compare(
        plan,
        servers,
        "one-shot HTTP/1.1",
        "≤ 0.85 oidc-agent = 1.07",
        |side| Http::new().slice(&servers[side].socket, PROFILE, false, length),
    );
    let servers = [&sides.tokend, &sides.control];
    compare(plan, servers, "one-shot gRPC", "≤ 1.1", |side| {
        client::oneshot_grpc(&servers[side].socket, PROFILE, length)
    });
}

fn compare(
    plan: &Plan,
    servers: [&Server; 2],
    what: &str,
    goal: &str,
    mut slice: impl FnMut(usize) -> Slice,
) {
    let mut latency: Rounds<2> = Default::default();
    let mut cpu: Rounds<2> = Default::default();
    let mut first = 2;
    rounds::<2>(plan, |side| {
        let before = servers[side].cpu();
        let slice = slice(side);
        let used = servers[side].cpu() - before;
        if first > 0 {
            first -= 1;
            return;
        }
        latency[side].push(slice.micros(0.5));
        cpu[side].push(used / 1000.0 / slice.latencies.len() as f64);
    });
    stats::line(
        &format!("{what}: p50"),
        "µs",
        &latency[0],
        &latency[1],
        goal,
    );
    stats::line(&format!("{what}: server CPU"), "µs", &cpu[0], &cpu[1], "-");
}

/// The same comparison in instructions, which are repeatable: the difference between many calls and
/// few.
pub fn instructions(plan: &Plan) {
    const FEW: usize = 500;
    const MANY: usize = 2500;
    let issuer = Issuer::start(36_000);
    let config = Config::new(Some(&issuer)).oauth2(PROFILE, true);
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path();
    std::fs::write(path.join("tokend.toml"), config.text()).expect("configuration");
    std::fs::write(path.join("secret"), "secret").expect("secret");
    crate::daemon::private(&path.join("secret"));
    crate::daemon::private(&path.join("tokend.toml"));
    let socket = path.join("tokend.sock");
    let tokend = |count: usize| {
        let mut command = valgrind(&plan.tokend);
        command
            .args(["serve", "--config"])
            .arg(path.join("tokend.toml"))
            .env("TOKEND_SOCKET", &socket)
            .env("TOKEND_LOG", "warn");
        counted(command, &socket, count)
    };
    let ours = (tokend(MANY) - tokend(FEW)) / (MANY - FEW) as f64;
    let answer = {
        let server = Server::tokend(&plan.tokend, config.text());
        client::answer(&server.socket, PROFILE)
    };
    for kind in ["grpc", "encoded"] {
        let socket = path.join(format!("{kind}.sock"));
        std::fs::write(socket.with_extension("answer"), &answer).expect("answer");
        let control = |count: usize| {
            let _ = std::fs::remove_file(&socket);
            let mut command = valgrind(&std::env::current_exe().expect("this program"));
            command.args(["control", kind]).arg(&socket);
            counted(command, &socket, count)
        };
        let theirs = (control(MANY) - control(FEW)) / (MANY - FEW) as f64;
        println!(
            "instructions per warm GetToken: tokend {ours:.0}, control {kind} {theirs:.0}, ratio {:.3}  goal ≤ 1.10",
            ours / theirs
        );
    }
}

fn valgrind(program: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .stderr(Stdio::piped());
    command
}

/// Counts the instructions of a program from its start to its end, with `count` calls in between.
fn counted(mut command: Command, socket: &Path, count: usize) -> f64 {
    let mut child: Child = command.spawn().expect("valgrind is installed");
    for _ in 0..1200 {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Grpc::connect(socket, 1).calls(PROFILE, count);
    let _ = Command::new("kill").arg(child.id().to_string()).status();
    let mut said = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut said)
        .expect("text");
    child.wait().expect("ended");
    said.lines()
        .find_map(|line| line.split("Collected :").nth(1)?.trim().parse().ok())
        .unwrap_or_else(|| panic!("valgrind says no number: {said}"))
}
