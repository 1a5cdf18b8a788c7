//! Measures tokend against bare servers, in ratios: every number is taken beside its control, in
//! the same run, in short slices that alternate. See `bench/run` and docs/performance.md.

mod client;
mod control;
mod daemon;
mod issuer;
mod memory;
mod profiles;
mod spawn;
mod stats;
mod warm;

use std::path::PathBuf;

/// What is measured, and where the programs are.
pub struct Plan {
    /// The executable of the daemon.
    pub tokend: PathBuf,
    /// The number of slices of each side.
    pub rounds: usize,
    /// The length of a slice, in milliseconds.
    pub slice: u64,
}

/// Restricts this process to some cores; its children inherit that. Client and servers share one
/// core: waking a thread on another core costs more than the call that is measured. The exception
/// is a measurement in which two threads have to work at the same time.
fn use_cores(list: &str) {
    let status = std::process::Command::new("taskset")
        .args(["-cp", list])
        .arg(std::process::id().to_string())
        .stdout(std::process::Stdio::null())
        .status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "taskset (util-linux) is needed"
    );
}

type Measurement = (&'static str, fn(&Plan));

const MEASUREMENTS: &[Measurement] = &[
    ("grpc", warm::grpc),
    ("http", warm::http),
    ("oneshot", warm::oneshot),
    ("instructions", warm::instructions),
    ("command", spawn::command),
    ("idle", memory::idle),
    ("profiles", memory::profiles),
    ("watchers", memory::watchers),
    ("callers", profiles::first_callers),
    ("lookup", profiles::lookup),
    ("renewals", profiles::renewals),
    ("fleet", profiles::fleet),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut plan = Plan {
        tokend: PathBuf::from("target/release/tokend"),
        rounds: 15,
        slice: 300,
    };
    let mut wanted = Vec::new();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("an option needs its value");
        match argument.as_str() {
            // This program starts itself as the other side of a measurement.
            "control" => return control::run(&value(), &PathBuf::from(value())),
            "issuer" => return issuer::run(value().parse().expect("seconds")),
            "--tokend" => plan.tokend = value().into(),
            "--rounds" => plan.rounds = value().parse().expect("a number"),
            "--slice" => plan.slice = value().parse().expect("milliseconds"),
            name => wanted.push(name.to_owned()),
        }
    }
    assert!(plan.rounds >= 7, "fewer than 7 rounds prove nothing");
    let known = |name: &String| MEASUREMENTS.iter().any(|(known, _)| known == name);
    if let Some(unknown) = wanted.iter().find(|name| !known(name)) {
        let names: Vec<&str> = MEASUREMENTS.iter().map(|(name, _)| *name).collect();
        eprintln!("no measurement {unknown:?}: there are {}", names.join(", "));
        std::process::exit(2);
    }
    let one = std::env::var("BENCH_CPU").unwrap_or_else(|_| "0".into());
    // The number of cores is read before this process restricts itself.
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let all = format!("0-{}", cores - 1);
    for (name, measure) in MEASUREMENTS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("\n## {name}");
            use_cores(if ["renewals", "fleet"].contains(name) {
                &all
            } else {
                &one
            });
            measure(&plan);
        }
    }
}
