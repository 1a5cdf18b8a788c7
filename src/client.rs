//! The Rust client of the socket: blocking, one request per connection, HTTP/1.1 and JSON.
//!
//! The client blocks, because a command with one question ends sooner than an asynchronous runtime
//! starts. Every call has one deadline for connecting, asking and each read of the answer. If a
//! connection ends before its answer is complete, the call is tried once more: a daemon that is
//! being replaced looks like that, and no request does harm twice.

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

/// The extra time for the answer of a daemon that has waited as long as it was told to.
const ANSWER_AFTER_WAIT: Duration = Duration::from_secs(5);

/// A daemon that gives no sign of life within this time counts as not answering. A sign of life
/// normally takes a thousandth of it.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// The reason why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no connection to the daemon.
    #[error("daemon not reachable{}: {cause}", at(.socket))]
    Unreachable {
        /// The path that was tried. None if not even that is known.
        socket: Option<PathBuf>,
        /// What is wrong, for people.
        cause: String,
        /// What to do about it, for people.
        cure: String,
    },
    /// A program listens that may not be the daemon. It was asked nothing.
    #[error("what listens at {} is not believed: {cause}", .socket.display())]
    Unbelieved {
        /// The path that it listens at.
        socket: PathBuf,
        /// What is wrong, for people.
        cause: String,
        /// What to do about it, for people.
        cure: String,
    },
    /// The connection ended before the answer was complete, twice.
    #[error("the daemon closed the connection at {} before its answer was complete", .0.display())]
    Closed(PathBuf),
    /// The answer is not one of tokend. This error never holds a part of the answer.
    #[error("what answers at {} is not understood: {problem}", .socket.display())]
    Nonsense {
        /// The path that it answers at.
        socket: PathBuf,
        /// What about the answer is wrong.
        problem: String,
    },
    /// The caller's own deadline passed.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The daemon refused the request.
    #[error("{0}")]
    Refused(ServerRefusal),
}

fn at(socket: &Option<PathBuf>) -> String {
    match socket {
        Some(path) => format!(" at {}", path.display()),
        None => String::new(),
    }
}

/// A request for a credential.
#[derive(Clone, Debug, Default)]
pub struct TokenQuery {
    /// The name of the profile.
    pub profile: String,
    /// The least remaining life. None: any credential that has not expired.
    pub min_ttl: Option<Duration>,
    /// The scopes. Empty: the profile's own.
    pub scopes: Vec<String>,
    /// The audience. None: the profile's own.
    pub audience: Option<String>,
}

/// Asks the daemon behind one socket.
#[derive(Clone)]
pub struct Client {
    socket: PathBuf,
    clock: Clock,
}

impl Client {
    /// Makes a client. Each call connects anew.
    #[must_use]
    pub fn new(socket: PathBuf, clock: Clock) -> Client {
        Client { socket, clock }
    }

    /// The path of the daemon's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The clock that deadlines are measured with.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The credential of a profile, or the reason why there is none. A success never has an empty
    /// credential, except for method `none`.
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

    /// The state of the daemon and of one profile, or of all profiles that the caller may see.
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

    /// The names of the profiles that the caller may use.
    pub fn profiles(&self, timeout: Duration) -> Result<Vec<String>, ClientError> {
        let list: Received<ListProfilesResponse> = self.ask_for("GET", "/v1/profiles", timeout)?;
        let profiles = list.message.profiles.into_iter();
        Ok(profiles.map(|profile| profile.name).collect())
    }

    /// The reason why the caller, or an assumed other caller, may or may not have a profile's
    /// credential.
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

    /// Has everything read again. The daemon waits at most `wait` for its trials, and the client a
    /// little longer for the answer.
    pub fn reload(&self, wait: Duration) -> Result<Received<ReloadResponse>, ClientError> {
        let target = format!("/v1/reload?wait={}", unit_of(wait));
        self.ask_for("POST", &target, wait.saturating_add(ANSWER_AFTER_WAIT))
    }

    /// Returns the message of a 200. Any other answer is an error.
    fn ask_for<T: DeserializeOwned>(
        &self,
        method: &str,
        target: &str,
        timeout: Duration,
    ) -> Result<Received<T>, ClientError> {
        let body = self.ask(method, target, timeout)?;
        answer::received(&body).map_err(|problem| self.nonsense(problem))
    }

    /// Returns the body of a 200. Any other answer is an error.
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

    /// Tells apart the two reasons for silence: the daemon is slow but gives a sign of life, or it
    /// does not answer at all.
    fn silent(&self, stream: &UnixStream, timeout: Duration) -> ClientError {
        // The question is given up, so that a daemon that is answering it does not wait for us.
        let _ = stream.shutdown(Shutdown::Both);
        let deadline = Deadline {
            clock: &self.clock,
            at: self.clock.now().boot.plus(SIGN_OF_LIFE),
            timeout: SIGN_OF_LIFE,
        };
        let alive = connect::connect(&self.socket, &deadline).is_ok_and(|stream| {
            let answer = http::exchange(&stream, "GET", "/healthz", &deadline);
            // The beginning of an answer is a sign of life too.
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

/// The moment by which everything about a question must be over.
struct Deadline<'a> {
    clock: &'a Clock,
    at: BootTime,
    /// The timeout, for messages.
    timeout: Duration,
}

impl Deadline<'_> {
    /// The time left for one blocking step. None if there is none. It is at most an hour, since
    /// socket options do not take every duration: the caller then repeats the step. It is at least
    /// a millisecond, since zero would mean for ever.
    fn left(&self) -> Option<Duration> {
        let left = self.at.since(self.clock.now().boot);
        (!left.is_zero()).then(|| left.clamp(Duration::from_millis(1), Duration::from_secs(3600)))
    }
}

/// Everything but the unreserved characters of RFC 3986 §2.3 is encoded. The result fits a path
/// segment and a query parameter.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

fn encoded(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// Formats a duration as one number with one unit, so that it needs no space. It rounds up to
/// milliseconds, since a caller that asks for a life must not get less.
fn unit_of(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_nanos().div_ceil(1_000_000))
    }
}

#[cfg(test)]
mod tests;
