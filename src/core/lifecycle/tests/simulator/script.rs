//! A life as text: it is printed when a promise is broken, and can be run again from there.

use std::fmt;
use std::time::Duration;

use super::oracle::Oracle;
use super::{IN_FLIGHT, Input, Moment, Nanos, Said};
use crate::core::profile::Refresh;

/// The seed and rules of a lifecycle, with all its inputs.
#[derive(Clone, Default, Debug, PartialEq)]
pub struct Script {
    seed: u64,
    rules: Refresh,
    lines: Vec<(Moment, Input)>,
}

impl Script {
    pub fn new(seed: u64, rules: Refresh) -> Script {
        Script {
            seed,
            rules,
            lines: Vec::new(),
        }
    }

    pub fn push(&mut self, now: Moment, mut input: Input, in_flight: Option<u64>) {
        if let Input::Grant { attempt, .. } | Input::Fail { attempt, .. } = &mut input
            && Some(*attempt) == in_flight
        {
            *attempt = IN_FLIGHT;
        }
        self.lines.push((now, input));
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Runs the script.
    ///
    /// # Errors
    /// The promise that is broken.
    pub fn replay(&self) -> Result<(), String> {
        self.replay_lines(&self.lines)
    }

    fn replay_lines(&self, lines: &[(Moment, Input)]) -> Result<(), String> {
        let mut oracle = Oracle::new(self.rules.clone(), self.seed);
        lines
            .iter()
            .try_for_each(|(now, input)| oracle.step(*now, input).map(|_| ()))
    }

    /// Leaves out all inputs without which the same promise is still broken.
    pub fn shrink(&self) -> Script {
        let promise = |result: Result<(), String>| {
            result.err().map(|text| -> String {
                text.chars()
                    .filter(|c| !c.is_ascii_digit())
                    .take(40)
                    .collect()
            })
        };
        let goal = promise(self.replay());
        let mut lines = self.lines.clone();
        let mut chunk = lines.len() / 2;
        while chunk > 0 {
            let mut at = 0;
            while at < lines.len() {
                let mut fewer = lines.clone();
                fewer.drain(at..(at + chunk).min(lines.len()));
                if promise(self.replay_lines(&fewer)) == goal {
                    lines = fewer;
                } else {
                    at += chunk;
                }
            }
            chunk /= 2;
        }
        Script {
            lines,
            ..self.clone()
        }
    }

    /// Reads the text that Display writes.
    pub fn parse(text: &str) -> Option<Script> {
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let mut head = lines.next()?.split_whitespace();
        let seed = head.next()?.strip_prefix("seed=")?.parse().ok()?;
        let rules = parse_rules(&mut head)?;
        let mut script = Script::new(seed, rules);
        for line in lines {
            let mut words = line.split_whitespace();
            let now = parse_moment(&mut words)?;
            script.push(now, parse_input(&mut words)?, None);
        }
        Some(script)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed={} {}", self.seed, Rules(&self.rules))?;
        for (now, input) in &self.lines {
            write!(f, "{} ", At(now))?;
            match input {
                Input::Tick => writeln!(f, "tick")?,
                Input::Read(min_ttl) => writeln!(f, "read {min_ttl}")?,
                Input::Ask(min_ttl) => writeln!(f, "ask {min_ttl}")?,
                Input::Grant {
                    attempt,
                    token,
                    asked,
                    said,
                } => {
                    let said = match said {
                        Said::Unlimited => "unlimited".to_owned(),
                        Said::Unknown => "unknown".to_owned(),
                        Said::For(life) => life.to_string(),
                    };
                    writeln!(f, "grant {attempt} {token} {} {said}", At(asked))?;
                }
                Input::Fail {
                    attempt,
                    permanent,
                    retry_after,
                } => {
                    let kind = if *permanent { "permanent" } else { "transient" };
                    match retry_after {
                        None => writeln!(f, "fail {attempt} {kind}")?,
                        Some(after) => writeln!(f, "fail {attempt} {kind} {after}")?,
                    }
                }
                Input::Report(token) => writeln!(f, "report {token}")?,
                Input::Again => writeln!(f, "again")?,
            }
        }
        Ok(())
    }
}

/// The true time, boot clock and wall clock, in nanoseconds.
struct At<'a>(&'a Moment);

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.0.truth, self.0.boot, self.0.wall)
    }
}

struct Rules<'a>(&'a Refresh);

impl fmt::Display for Rules<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rules = self.0;
        write!(
            f,
            "{} {} {} {} {} {} {}",
            rules.at,
            rules.jitter,
            rules.margin.as_nanos(),
            rules.min_interval.as_nanos(),
            rules.retry_after_max.as_nanos(),
            rules.default_lifetime.as_nanos(),
            rules.eager
        )
    }
}

type Words<'a> = std::str::SplitWhitespace<'a>;

fn number(words: &mut Words<'_>) -> Option<Nanos> {
    words.next()?.parse().ok()
}

fn parse_moment(words: &mut Words<'_>) -> Option<Moment> {
    Some(Moment {
        truth: number(words)?,
        boot: number(words)?,
        wall: number(words)?,
    })
}

fn parse_rules(words: &mut Words<'_>) -> Option<Refresh> {
    Some(Refresh {
        at: words.next()?.parse().ok()?,
        jitter: words.next()?.parse().ok()?,
        margin: Duration::from_nanos(number(words)?),
        min_interval: Duration::from_nanos(number(words)?),
        retry_after_max: Duration::from_nanos(number(words)?),
        default_lifetime: Duration::from_nanos(number(words)?),
        eager: words.next()?.parse().ok()?,
    })
}

fn parse_input(words: &mut Words<'_>) -> Option<Input> {
    Some(match words.next()? {
        "tick" => Input::Tick,
        "read" => Input::Read(number(words)?),
        "ask" => Input::Ask(number(words)?),
        "grant" => Input::Grant {
            attempt: number(words)?,
            token: number(words)?,
            asked: parse_moment(words)?,
            said: match words.next()? {
                "unlimited" => Said::Unlimited,
                "unknown" => Said::Unknown,
                life => Said::For(life.parse().ok()?),
            },
        },
        "fail" => Input::Fail {
            attempt: number(words)?,
            permanent: words.next()? == "permanent",
            retry_after: match words.next() {
                None => None,
                Some(after) => Some(after.parse().ok()?),
            },
        },
        "report" => Input::Report(number(words)?),
        "again" => Input::Again,
        _ => return None,
    })
}
