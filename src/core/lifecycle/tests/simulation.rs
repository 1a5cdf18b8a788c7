//! Runs the simulator on all processors, with the same seeds every time, and prints what it met.
//!
//! `TOKEND_SIM_EVENTS` sets the number of events (default 1 million; CI: 80 million),
//! `TOKEND_SIM_SEED` sets the first world.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::simulator::coverage::Coverage;
use super::simulator::driver::{Broken, Lived, live};
use super::simulator::script::Script;
use super::simulator::{HOUR, MINUTE};

const EVENTS: u64 = 1_000_000;
const EVENTS_PER_PROFILE: u64 = 1500;
const PROFILES: u64 = 256;

/// A run of `LEAST_OF` events meets every (state × event × condition) at least this often.
const LEAST: u64 = 1000;
const LEAST_OF: u64 = 80_000_000;

/// Small numbers scatter, so a short run needs only half of its share.
fn least(events: u64) -> u64 {
    if events < LEAST_OF {
        LEAST * events / LEAST_OF / 2
    } else {
        LEAST
    }
}

fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.replace('_', "").parse().expect("a number"),
        Err(_) => default,
    }
}

#[derive(Default)]
struct Total {
    events: u64,
    attempts: u64,
    years: f64,
    scales: [u64; 4],
    coverage: Coverage,
    broken: Vec<(u64, u64, String)>,
}

impl Total {
    fn add(&mut self, lived: &Lived) {
        self.events += lived.events;
        self.attempts += lived.attempts;
        self.years += lived.time as f64 / (365.25 * 24.0 * HOUR as f64);
        let scale = match lived.scale {
            ..MINUTE => 0,
            MINUTE..HOUR => 1,
            _ if lived.scale < 8 * HOUR => 2,
            _ => 3,
        };
        self.scales[scale] += 1;
    }
}

#[test]
fn no_adversary_makes_it_break_a_promise() {
    let events = setting("TOKEND_SIM_EVENTS", EVENTS);
    let first_world = setting("TOKEND_SIM_SEED", 1);
    let lives = events.div_ceil(EVENTS_PER_PROFILE);
    // A few lives still mean many worlds: the run takes some profiles of many worlds, not all
    // profiles of a few.
    let worlds = lives.div_ceil(PROFILES).max(64);
    let next = AtomicU64::new(0);
    let enough = AtomicBool::new(false);
    let total = Mutex::new(Total::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut mine = Total::default();
                loop {
                    let life = next.fetch_add(1, Ordering::Relaxed);
                    if life >= lives || enough.load(Ordering::Relaxed) {
                        break;
                    }
                    let (world, profile) = (first_world + life % worlds, life / worlds);
                    match live(
                        world,
                        profile,
                        EVENTS_PER_PROFILE,
                        &mut mine.coverage,
                        false,
                    ) {
                        Ok(lived) => mine.add(&lived),
                        Err(Broken { promise, .. }) => {
                            mine.broken.push((world, profile, promise));
                            enough.store(true, Ordering::Relaxed);
                        }
                    }
                }
                let mut total = total.lock().expect("no thread panicked");
                total.events += mine.events;
                total.attempts += mine.attempts;
                total.years += mine.years;
                for (sum, more) in total.scales.iter_mut().zip(mine.scales) {
                    *sum += more;
                }
                total.coverage.add(&mine.coverage);
                total.broken.extend(mine.broken);
            });
        }
    });
    let total = total.into_inner().expect("no thread panicked");
    if let Some((world, profile, promise)) = total.broken.first() {
        panic!("{}", explain(*world, *profile, promise));
    }
    let (table, wrong) = total.coverage.report(least(events));
    println!("{table}");
    println!(
        "{} events of {lives} profiles in {worlds} worlds, {:.0} simulated years, {} attempts; worlds by life of their tokens: \
         below 1 min {}, below 1 h {}, below 8 h {}, up to 24 h {} (profiles)",
        total.events,
        total.years,
        total.attempts,
        total.scales[0],
        total.scales[1],
        total.scales[2],
        total.scales[3],
    );
    assert!(wrong.is_empty(), "coverage:\n{}", wrong.join("\n"));
}

/// The shortest script that breaks the same promise, ready to be pasted into a test.
fn explain(world: u64, profile: u64, promise: &str) -> String {
    match live(
        world,
        profile,
        EVENTS_PER_PROFILE,
        &mut Coverage::default(),
        true,
    ) {
        Ok(_) => format!(
            "{promise}\nworld {world}, profile {profile}: not reproduced; is something not seeded?"
        ),
        Err(broken) => {
            let short = broken.script.shrink();
            format!(
                "{promise}\nworld {world}, profile {profile}; {} of {} inputs matter (truth, boot clock, wall clock in ns; input):\n{short}",
                short.len(),
                broken.script.len()
            )
        }
    }
}

#[test]
fn a_life_can_be_lived_again_from_its_script() {
    // This script breaks a promise by itself: it serves a caller from before time began for its
    // token.
    let mut coverage = Coverage::default();
    let lived = live(1, 1, EVENTS_PER_PROFILE, &mut coverage, true);
    assert!(lived.is_ok());
    let text = "seed=7 0.75 0.1 5000000000 1000000000 3600000000000 300000000000 true\n\
        1000000000000 1000000000000 1800001000000000000 tick\n\
        1000500000000 1000500000000 1800001000500000000 grant 1 1 1000000000000 1000000000000 1800001000000000000 100000000000\n\
        1010000000000 1010000000000 1800001010000000000 read 0\n\
        1011000000000 1011000000000 1800001011000000000 report 1\n\
        1012000000000 1012000000000 1800001012000000000 fail 2 transient 30000000000\n";
    let script = Script::parse(text).expect("a script");
    assert_eq!(script.to_string(), text);
    assert_eq!(script.replay(), Ok(()));
}

/// Found in 80 million events. A token first said to live for ever later got an end, towards which
/// repetitions halve as for any other token. The books did not allow these repetitions.
#[test]
fn a_token_that_lives_for_ever_and_then_does_not_is_halved_towards_its_end() {
    let text = "seed=12848058593599703677 0.9 0.5 5000000000 1000000000 60000000000 5583166424683 true\n\
        1122862564487833 920606894777105 1834010709187037094 tick\n\
        1169832782144828 955607348230734 1834062907638985437 grant 0 21 1169832761466967 955607327552873 1834062907618307576 unlimited\n\
        1247034337679691 995874326301611 1831591451486128870 report 21\n\
        1247034380117036 995874368738956 1831591451528566215 grant 0 21 1247034337679691 995874326301611 1831591451486128870 14753739535394\n\
        1251997882050333 998701537690791 1831596410041693589 tick\n\
        1251997882050333 998701537690791 1831596410041693589 grant 0 21 1251997430010287 998701085650745 1831596409589653543 2648669486787642289\n\
        1260129550232077 1006808362120043 1831604526190495015 tick\n\
        1260129858671767 1006808670559733 1831604526498934705 grant 0 21 1260129550232077 1006808362120043 1831604526190495015 2405329582009694383\n\
        1262318661173713 1008715868198369 1831606434323744994 tick\n\
        1262318694500816 1008715901525472 1831606434357072097 grant 0 21 1262318661173713 1008715868198369 1831606434323744994 800850988363752275\n\
        1263272276656582 1009669483681238 1831607668922108133 tick\n\
        1263272290406802 1009669497431458 1831607668935858353 grant 0 21 1263272276656582 1009669483681238 1831607668922108133 616784213198632766\n\
        1263749074609575 1010146281634231 1831608151336265842 tick\n\
        1263749307844535 1010146514869191 1831608151569500802 grant 0 21 1263749074609575 1010146281634231 1831608151336265842 147090055105081817\n\
        1263987583328442 1010384790353098 1831608389844984709 tick\n\
        1263993435367535 1010390642392191 1831608395697023802 grant 0 21 1263993369392601 1010390576417257 1831608395631048868 905349544487462680\n\
        1264109647089942 1010506854114598 1831608511908746209 tick\n\
        1264109782081757 1010506989106413 1831608512043738024 grant 0 21 1264109647089942 1010506854114598 1831608511908746209 3041090281731605921\n\
        1264167820447053 1010565027471709 1831608570082103320 tick\n\
        1264167825770529 1010565032795185 1831608570087426796 grant 0 21 1264167820447053 1010565027471709 1831608570082103320 678499512968398224\n";
    let script = Script::parse(text).expect("a script");
    assert_eq!(script.replay(), Ok(()));
}
