//! Memory: at rest, per profile, per watcher, and after the watchers have left.

use std::time::Duration;

use crate::Plan;
use crate::client::{self, Grpc, Http};
use crate::daemon::{Config, Issuer, Server};

/// The time in which the work that follows a start ends.
const SETTLE: Duration = Duration::from_secs(2);

/// The time until the daemon has looked at the files again. It then gives back the memory that only
/// the start needed.
const STEADY: Duration = Duration::from_secs(65);

const WATCHERS: usize = 5000;

fn tell(what: &str, server: &Server) {
    let pss = server
        .pss()
        .map_or_else(|| "?".to_owned(), |pss| format!("{pss:.0}"));
    println!(
        "{what:<44} VmRSS {:.0} kB, RssAnon {:.0} kB, Pss {pss} kB, threads {}",
        server.memory("VmRSS"),
        server.memory("RssAnon"),
        std::fs::read_dir(format!("/proc/{}/task", server.pid())).map_or(0, Iterator::count),
    );
}

fn mix(config: Config, oauth2: usize) -> Config {
    (0..oauth2).fold(config.basic("legacy").none("open"), |config, n| {
        config.oauth2(&format!("orders-{n}"), true)
    })
}

pub fn idle(plan: &Plan) {
    let issuer = Issuer::start(36_000);
    let server = Server::tokend(&plan.tokend, mix(Config::new(Some(&issuer)), 8).text());
    std::thread::sleep(SETTLE);
    tell("10 profiles (goal ≤ 12 288 kB)", &server);
}

pub fn profiles(plan: &Plan) {
    let issuer = Issuer::start(36_000);
    let mut token = 0;
    let mut used = [8, 1008].map(|count| {
        let server = Server::tokend(&plan.tokend, mix(Config::new(Some(&issuer)), count).text());
        std::thread::sleep(STEADY);
        tell(&format!("{count} profiles of one issuer"), &server);
        token = token_length(&server);
        server.memory("VmRSS")
    });
    used[1] -= used[0];
    println!(
        "each profile: {:.1} kB (goal ≤ 8 kB + 3 × {token} bytes = {:.1} kB)",
        used[1] / 1000.0,
        8.0 + 3.0 * f64::from(token) / 1024.0
    );
}

fn token_length(server: &Server) -> u32 {
    let mut http = Http::new();
    let body = http.get(&server.socket, "/v1/profiles/orders-0/token");
    let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
    let token = body["token"].as_str().expect("a token");
    u32::try_from(token.len()).expect("short")
}

pub fn watchers(plan: &Plan) {
    let issuer = Issuer::start(36_000);
    let config = mix(Config::new(Some(&issuer)), 8);
    let tokend = Server::tokend(&plan.tokend, config.text());
    let answer = client::answer(&tokend.socket, "orders-0");
    let control = Server::control("encoded", &answer);
    let mut each = [0.0; 2];
    for (n, (name, server)) in [("tokend", &tokend), ("control", &control)]
        .into_iter()
        .enumerate()
    {
        std::thread::sleep(SETTLE);
        let before = server.memory("VmRSS");
        tell(&format!("{name} before"), server);
        let clients = Grpc::connect(&server.socket, WATCHERS);
        let streams = clients.watch("orders-0");
        tell(&format!("{name} with {WATCHERS} watchers"), server);
        each[n] = (server.memory("VmRSS") - before) / WATCHERS as f64;
        drop(streams);
        drop(clients);
        std::thread::sleep(Duration::from_secs(5));
        tell(&format!("{name} 5 s after they left"), server);
        println!(
            "{name}: {:.1} kB a watcher; after: {:.0} kB, goal ≤ 1.5 × {before:.0} + 5 120 = {:.0} kB",
            each[n],
            server.memory("VmRSS"),
            1.5 * before + 5120.0
        );
    }
    println!(
        "a watcher against the control's: {:.3}  goal ≤ 1.15",
        each[0] / each[1]
    );
}
