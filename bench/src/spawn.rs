//! `tokend token P` from spawn to exit, compared with curl for the same request.

use std::process::{Command, Stdio};
use std::time::Instant;

use crate::Plan;
use crate::daemon::{Config, Server};
use crate::stats;

/// The number of runs of each side in one round.
const RUNS: usize = 20;

pub fn command(plan: &Plan) {
    let tokend = Server::tokend(&plan.tokend, Config::new(None).fixed("orders").text());
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..plan.rounds {
        for (side, times) in times.iter_mut().enumerate() {
            let runs: Vec<f64> = (0..RUNS).map(|_| run(plan, &tokend, side)).collect();
            times.push(stats::median(&runs));
        }
    }
    stats::head("tokend", "curl");
    stats::line("spawn to exit", "µs", &times[0], &times[1], "≤ 0.25");
}

fn run(plan: &Plan, server: &Server, side: usize) -> f64 {
    let mut command = if side == 0 {
        let mut command = Command::new(&plan.tokend);
        command.args(["token", "orders"]);
        command.env("TOKEND_SOCKET", &server.socket);
        command
    } else {
        let mut command = Command::new("curl");
        command.args(["-sS", "--unix-socket"]).arg(&server.socket);
        command.arg("http://tokend/v1/profiles/orders/token");
        command
    };
    command.stdout(Stdio::null());
    let begin = Instant::now();
    let status = command.status().expect("it starts");
    let took = begin.elapsed();
    assert!(status.success());
    took.as_nanos() as f64 / 1000.0
}
