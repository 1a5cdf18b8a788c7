//! Many profiles, and many callers of one profile.

use std::time::{Duration, Instant};

use crate::Plan;
use crate::client::Grpc;
use crate::daemon::{Config, Issuer, Server};
use crate::stats;

pub fn first_callers(plan: &Plan) {
    for callers in [200_usize, 10_000] {
        let mut issuer = Issuer::start(36_000);
        let config = Config::new(Some(&issuer)).oauth2("lazy", false);
        let server = Server::tokend(&plan.tokend, config.text());
        let clients = Grpc::connect(&server.socket, callers.div_ceil(200));
        let before = issuer.count();
        clients.crowd("lazy", callers);
        println!(
            "{callers} first callers of one lazy profile: {} token requests  goal 1",
            issuer.count() - before
        );
    }
}

pub fn lookup(plan: &Plan) {
    let servers = [10_000, 10].map(|count| {
        let names: Vec<String> = (0..count).map(|n| format!("profile-{n}")).collect();
        let config = names
            .iter()
            .fold(Config::new(None), |config, name| config.fixed(name));
        let server = Server::tokend(&plan.tokend, config.text());
        let client = Grpc::connect(&server.socket, 1);
        (server, client, names)
    });
    let length = Duration::from_millis(plan.slice);
    let mut all: [Vec<f64>; 2] = Default::default();
    let mut one: [Vec<f64>; 2] = Default::default();
    for round in 0..=plan.rounds {
        for place in 0..2 {
            let side = (round + place) % 2;
            let (_, client, names) = &servers[side];
            let every = client.slice(names, 1, length).micros(0.5);
            let same = client.slice(&names[3..4], 1, length).micros(0.5);
            // The first round warms up.
            if round > 0 {
                all[side].push(every);
                one[side].push(same);
            }
        }
    }
    stats::head("10 000", "10");
    stats::line(
        "lookup, always the same profile: p50",
        "µs",
        &one[0],
        &one[1],
        "≤ 1.05",
    );
    stats::line(
        "lookup, each profile in turn: p50",
        "µs",
        &all[0],
        &all[1],
        "≤ 1.05",
    );
}

pub fn renewals(plan: &Plan) {
    // 1 000 profiles at 75 % of 20 s: some 70 renewals a second.
    let mut issuers = [Issuer::start(20), Issuer::start(36_000)];
    let servers = [0, 1].map(|n| {
        let config = (0..1000).fold(Config::new(Some(&issuers[n])), |config, n| {
            config.oauth2(&format!("profile-{n}"), true)
        });
        Server::tokend(&plan.tokend, config.text())
    });
    let clients = [0, 1].map(|n: usize| Grpc::connect(&servers[n].socket, 1));
    let names: Vec<String> = (0..1000).map(|n| format!("profile-{n}")).collect();
    let length = Duration::from_millis(plan.slice.max(1000));
    let before = issuers[0].count();
    let mut p99: [Vec<f64>; 2] = Default::default();
    for round in 0..plan.rounds {
        for place in 0..2 {
            let side = (round + place) % 2;
            // While the quiet daemon is measured, the busy one is stopped.
            servers[0].signal(if side == 0 { "CONT" } else { "STOP" });
            p99[side].push(clients[side].slice(&names, 1, length).micros(0.99));
        }
    }
    servers[0].signal("CONT");
    let renewals = issuers[0].count() - before;
    let seconds = length.as_secs_f64() * plan.rounds as f64;
    println!("{:.0} renewals a second", renewals as f64 / seconds);
    stats::head("renewing", "quiet");
    stats::line(
        "warm p99 with 1 000 profiles",
        "µs",
        &p99[0],
        &p99[1],
        "≤ 1.5",
    );
}

/// The life of the tokens in this measurement, in seconds. It is a fifth of five minutes, so
/// renewals come five times as often.
const SCALED: u64 = 60;

pub fn fleet(plan: &Plan) {
    const PROFILES: usize = 10_000;
    let mut issuer = Issuer::start(SCALED);
    let config = (0..PROFILES).fold(Config::new(Some(&issuer)), |config, n| {
        config.oauth2(&format!("profile-{n}"), true)
    });
    let begin = Instant::now();
    let server = Server::tokend(&plan.tokend, config.text());
    println!(
        "{PROFILES} profiles of one issuer ready after {:.1} s, {} token requests",
        begin.elapsed().as_secs_f64(),
        issuer.count()
    );
    // All profiles started at once, so their first renewals come at once, too. The measurement
    // waits until these are over.
    std::thread::sleep(Duration::from_secs(SCALED));
    let (cpu, asked, begin) = (server.cpu(), issuer.count(), Instant::now());
    std::thread::sleep(Duration::from_secs(2 * SCALED));
    let seconds = begin.elapsed().as_secs_f64();
    let requests = (issuer.count() - asked) as f64 / seconds;
    let share = (server.cpu() - cpu) / 1e9 / seconds;
    let slower = SCALED as f64 / 300.0;
    println!(
        "tokens of {SCALED} s: {requests:.0} requests a second, {:.1} % of one core, {:.0} µs of it for each renewal",
        100.0 * share,
        1e6 * share / requests
    );
    println!(
        "tokens of 5 minutes, from that: {:.0} requests a second, {:.1} % of one core",
        requests * slower,
        100.0 * share * slower
    );
}
