//! The Rust client of the socket: blocking, one request per connection, HTTP/1.1 and JSON.
//!
//! Blocking, because a command that asks one question ends sooner than an asynchronous runtime
//! starts. Every call has one deadline that covers connecting, asking and each read of the answer.
//! A connection that ends before its answer is complete is tried once more, since that is what a
//! daemon that is being replaced looks like: no request does harm twice.

mod answer;
mod connect;
#[cfg(test)]
pub(crate) mod fake;
mod http;
mod process;
pub mod text;
pub mod watch;

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::de::DeserializeOwned;

pub use self::answer::{CredentialAnswer, Received, ServerRefusal};

use crate::clock::Clock;
use crate::core::time::BootTime;
use crate::proto::{ExplainResponse, GetStatusResponse, ListProfilesResponse, ReloadResponse};

/// What a daemon that has waited as long as it was told to may need to say so.
const ANSWER_AFTER_WAIT: Duration = Duration::from_secs(5);

/// A daemon that does not even say within this time that it is there does not answer; it takes a
/// thousandth of it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection to the daemon.
    #[error("daemon not reachable{}: {cause}", at(.socket))]
    Unreachable {
        /// Where it was looked for; None when not even that is known.
        socket: Option<PathBuf>,
        /// What is wrong, for people.
        cause: String,
        /// What to do about it, for people.
        cure: String,
    },
    /// Somebody listens who is not the daemon for all that is known: it was asked nothing.
    #[error("what listens at {} is not believed: {cause}", .socket.display())]
    Unbelieved {
        /// Where it listens.
        socket: PathBuf,
        /// What is wrong, for people.
        cause: String,
        /// What to do about it, for people.
        cure: String,
    },
    /// The connection ended before the answer was complete, twice.
    #[error("the daemon closed the connection at {} before its answer was complete", .0.display())]
    Closed(PathBuf),
    /// What answers at the socket does not speak as tokend does. Never holds a part of the answer.
    #[error("what answers at {} is not understood: {problem}", .socket.display())]
    Nonsense {
        /// Where it answers.
        socket: PathBuf,
        /// What about the answer is wrong.
        problem: String,
    },
    /// The caller's own deadline passed.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The daemon says no.
    #[error("{0}")]
    Refused(ServerRefusal),
}

fn at(socket: &Option<PathBuf>) -> String {
    match socket {
        Some(path) => format!(" at {}", path.display()),
        None => String::new(),
    }
}

/// What is asked for in place of the profile's own credential.
#[derive(Clone, Debug, Default)]
pub struct TokenQuery {
    /// Name of the profile.
    pub profile: String,
    /// Least remaining life; None: any that has not expired.
    pub min_ttl: Option<Duration>,
    /// Empty: the profile's own.
    pub scopes: Vec<String>,
    /// None: the profile's own.
    pub audience: Option<String>,
}

/// Asks the daemon behind one socket.
#[derive(Clone)]
pub struct Client {
    socket: PathBuf,
    clock: Clock,
}

impl Client {
    /// Connects to nothing yet: each call does.
    #[must_use]
    pub fn new(socket: PathBuf, clock: Clock) -> Client {
        Client { socket, clock }
    }

    /// Where the daemon is looked for.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The clock that deadlines are measured with.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The credential of a profile, or why there is none. A success is never an empty credential,
    /// except for method `none`.
    pub fn token(
        &self,
        query: &TokenQuery,
        timeout: Duration,
    ) -> Result<CredentialAnswer, ClientError> {
        let mut target = format!("/v1/profiles/{}/token", encoded(&query.profile));
        let mut parameters = Vec::new();
        if let Some(ttl) = query.min_ttl {
            parameters.push(format!("min_ttl={}", unit_of(ttl)));
        }
        for scope in &query.scopes {
            parameters.push(format!("scopes={}", encoded(scope)));
        }
        if let Some(audience) = &query.audience {
            parameters.push(format!("audience={}", encoded(audience)));
        }
        if !parameters.is_empty() {
            target.push('?');
            target.push_str(&parameters.join("&"));
        }
        let body = self.ask("GET", &target, timeout)?;
        answer::credential(body).map_err(|problem| self.nonsense(problem))
    }

    /// State of the daemon and of one profile, or of all that the caller may see.
    pub fn status(
        &self,
        profile: Option<&str>,
        timeout: Duration,
    ) -> Result<Received<GetStatusResponse>, ClientError> {
        let mut target = "/v1/status".to_owned();
        if let Some(name) = profile {
            target.push_str("?profile=");
            target.extend(encoded(name));
        }
        self.ask_for("GET", &target, timeout)
    }

    /// Names of the profiles that the caller may use.
    pub fn profiles(&self, timeout: Duration) -> Result<Vec<String>, ClientError> {
        let list: Received<ListProfilesResponse> = self.ask_for("GET", "/v1/profiles", timeout)?;
        let profiles = list.message.profiles.into_iter();
        Ok(profiles.map(|profile| profile.name).collect())
    }

    /// Why the caller, or another one that is supposed, may or may not have the credential of a
    /// profile.
    pub fn explain(
        &self,
        profile: &str,
        as_user: Option<&str>,
        as_unit: Option<&str>,
        timeout: Duration,
    ) -> Result<Received<ExplainResponse>, ClientError> {
        let supposed = [("as_user", as_user), ("as_unit", as_unit)];
        let parameters: Vec<String> = supposed
            .iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", encoded((*value)?))))
            .collect();
        let target = format!(
            "/v1/profiles/{}/explain?{}",
            encoded(profile),
            parameters.join("&")
        );
        self.ask_for("GET", &target, timeout)
    }

    /// Has everything read again; waits at most so long for what is being tried then, and a little
    /// longer for the answer.
    pub fn reload(&self, wait: Duration) -> Result<Received<ReloadResponse>, ClientError> {
        let target = format!("/v1/reload?wait={}", unit_of(wait));
        self.ask_for("POST", &target, wait.saturating_add(ANSWER_AFTER_WAIT))
    }

    /// The message of a 200, and nothing else.
    fn ask_for<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        timeout: Duration,
    ) -> Result<Received<T>, ClientError> {
        let body = self.ask(method, target, timeout)?;
        answer::received(&body).map_err(|problem| self.nonsense(problem))
    }

    /// The body of a 200, and nothing else.
    fn ask(
        &self,
        method: &str,
        target: &str,
        timeout: Duration,
    ) -> Result<http::ResponseBody, ClientError> {
        let deadline = Deadline {
            clock: &self.clock,
            at: self.clock.now().boot.plus(timeout),
            timeout,
        };
        let mut answer = self.attempt(method, target, &deadline);
        if matches!(answer, Err(ClientError::Closed(_))) {
            answer = self.attempt(method, target, &deadline);
        }
        let response = answer?;
        if response.status == 200 {
            return Ok(response.body);
        }
        Err(match answer::refusal(&response) {
            Some(refusal) => ClientError::Refused(refusal),
            None => self.nonsense(format!(
                "status {} without the reason that tokend gives",
                response.status
            )),
        })
    }

    fn attempt(
        &self,
        method: &str,
        target: &str,
        deadline: &Deadline<'_>,
    ) -> Result<http::HttpResponse, ClientError> {
        let stream = connect::connect(&self.socket, deadline)?;
        http::exchange(&stream, method, target, deadline).map_err(|broken| match broken {
            http::HttpError::TimedOut => ClientError::TimedOut(deadline.timeout),
            http::HttpError::Silent => self.silent(&stream, deadline.timeout),
            http::HttpError::Closed => ClientError::Closed(self.socket.clone()),
            http::HttpError::Nonsense(problem) => self.nonsense(problem.to_owned()),
        })
    }

    /// Why nothing came: the daemon is slow, since it does say that it is there; or it does not
    /// answer at all.
    fn silent(&self, stream: &UnixStream, timeout: Duration) -> ClientError {
        // The question is given up: a daemon that is at its answer is not to wait for us.
        let _ = stream.shutdown(Shutdown::Both);
        let deadline = Deadline {
            clock: &self.clock,
            at: self.clock.now().boot.plus(SIGN_OF_LIFE),
            timeout: SIGN_OF_LIFE,
        };
        let alive = connect::connect(&self.socket, &deadline).is_ok_and(|stream| {
            let answer = http::exchange(&stream, "GET", "/healthz", &deadline);
            // The beginning of an answer is a sign of life, too.
            matches!(answer, Ok(_) | Err(http::HttpError::TimedOut))
        });
        match alive {
            true => ClientError::TimedOut(timeout),
            false => connect::mute(&self.socket, Some(stream)),
        }
    }

    fn nonsense(&self, problem: String) -> ClientError {
        ClientError::Nonsense {
            socket: self.socket.clone(),
            problem,
        }
    }
}

/// The one moment by which everything about a question has to be over.
struct Deadline<'a> {
    clock: &'a Clock,
    at: BootTime,
    /// For telling.
    timeout: Duration,
}

impl Deadline<'_> {
    /// Time left for one blocking step; None when there is none. At most an hour, since socket
    /// options do not take every duration: whoever waits asks again. At least a millisecond, since
    /// zero would mean for ever.
    fn left(&self) -> Option<Duration> {
        let left = self.at.since(self.clock.now().boot);
        (!left.is_zero()).then(|| left.clamp(Duration::from_millis(1), Duration::from_secs(3600)))
    }
}

/// All but the unreserved characters of RFC 3986 §2.3 is encoded: fits a path segment as well as a
/// query parameter.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// A duration as one number with one unit, so that it needs no space; rounded up to milliseconds,
/// since a caller that asks for a life must not get less.
fn unit_of(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_nanos().div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests;
