//! What the issuer does wrong, as data: a script of faults. Each fault is for some requests, and
//! the issuer plays the faults in the order of the script.
//!
//! A fault waits, replaces the answer, or alters it; [`Fault::All`] combines them, for instance a
//! slow answer with a bad field. `play` is the interpreter.

pub(crate) mod pace;
pub(crate) mod play;
pub mod record;
pub(crate) mod script;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::record::{RecordedRequest, RequestJournal};
use self::script::Script;
use crate::answer::json_text;
use crate::{Issuer, locked};

/// One way to misbehave.
#[derive(Clone, Debug)]
pub enum Fault {
    // These faults wait; then the request is answered as usual.
    /// Waits before the first byte of the answer.
    SlowHeaders(Duration),
    /// Waits for a permit and uses it up. A test can hold requests with it and release them one by
    /// one.
    Hold(Arc<Semaphore>),
    /// Never answers; ends when the client leaves.
    Hang,
    /// Closes the connection without an answer, on HTTP/2 too.
    CloseConnection,

    // These faults replace the answer; the issuer does not look at the request.
    /// Any status, body and headers.
    Status {
        status: u16,
        /// The body, sent as it is.
        body: String,
        /// Names and values of headers; `Content-Type` is absent unless it is here.
        headers: Vec<(String, String)>,
    },
    /// A status, usually 429 or 503, with `Retry-After` in whole seconds (RFC 9110 §10.2.3).
    RetryAfter(u16, Duration),
    /// A status with `Retry-After` as a date: the time now plus this duration.
    RetryAfterDate(u16, Duration),
    /// A login page with status 200.
    Html200,
    /// An error as in RFC 6749 §5.2.
    OAuthError {
        status: u16,
        /// `error`
        code: String,
    },
    /// A token answer of this many bytes. The token fills it up.
    BigBody(usize),
    /// A token answer whose token never ends, until the client leaves.
    EndlessBody,
    /// A redirect (RFC 9110 §15.4).
    Redirect {
        /// 301, 302, 303, 307 or 308.
        status: u16,
        /// `Location`
        location: String,
    },
    /// An OAuth error whose code and description repeat the secret, assertion and `Authorization`
    /// that the client sent.
    EchoSecret,

    // These faults alter the answer.
    /// Half of the body that `Content-Length` promises; then the connection closes.
    Truncated,
    /// One byte of the body per interval.
    SlowBody(Duration),
    /// Sets a field of a JSON answer to this JSON, or leaves the field out. The JSON is not checked
    /// and may be nonsense.
    Field {
        name: String,
        /// Raw JSON; None leaves the field out.
        json: Option<String>,
    },
    /// Returns the first token that was issued under this script to the same client for the same
    /// parameters.
    SameToken {
        /// If true, `expires_in` is what is left of the token's life, at least 0. If false, it
        /// stays what it was at first, which is a lie.
        shrinking: bool,
    },
    /// One more header, or another value for a header that is there.
    ExtraHeader {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// A `Date` header that is wrong by this many seconds.
    Date(i64),

    /// Several faults at once. Of those that replace the answer, the first wins.
    All(Vec<Fault>),
}

impl Fault {
    /// `expires_in` as this raw JSON (`"\"3600\""`, `-1`, `1e99`, `null`), or absent.
    #[must_use]
    pub fn expires_in(json: Option<&str>) -> Fault {
        Fault::field("expires_in", json)
    }

    /// `token_type` as this text, or absent.
    #[must_use]
    pub fn token_type(text: Option<&str>) -> Fault {
        Fault::field("token_type", text.map(json_text).as_deref())
    }

    /// `access_token` as this text, whatever characters it has, or absent. Use [`Fault::field`] for
    /// a value that is no text.
    #[must_use]
    pub fn token(text: Option<&str>) -> Fault {
        Fault::field("access_token", text.map(json_text).as_deref())
    }

    /// A metadata document that names another issuer; script it for the document's path.
    #[must_use]
    pub fn wrong_issuer(issuer: &str) -> Fault {
        Fault::field("issuer", Some(&json_text(issuer)))
    }

    /// Any field as raw JSON, or absent.
    #[must_use]
    pub fn field(name: &str, json: Option<&str>) -> Fault {
        Fault::Field {
            name: name.into(),
            json: json.map(Into::into),
        }
    }

    /// An error of RFC 6749 §5.2 with status 400, or 401 for `invalid_client`.
    #[must_use]
    pub fn oauth_error(code: &str) -> Fault {
        Fault::OAuthError {
            status: if code == "invalid_client" { 401 } else { 400 },
            code: code.into(),
        }
    }

    /// The faults of [`Fault::All`] in order, or this one fault.
    fn steps(self) -> Vec<Fault> {
        match self {
            Fault::All(faults) => faults.into_iter().flat_map(Fault::steps).collect(),
            fault => vec![fault],
        }
    }
}

/// Which requests a fault is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Every token request.
    Token,
    /// Token requests that claim this client id, with proof or without.
    Client(String),
    /// Requests for this path, for instance `/.well-known/openid-configuration`.
    Path(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// For the next matching requests, this many.
    Next(usize),
    /// Until the script is cleared.
    Always,
}

/// What tests write and read while the issuer runs.
#[derive(Debug, Default)]
pub(crate) struct Instrumentation {
    pub script: Mutex<Script>,
    pub journal: Mutex<RequestJournal>,
    pub in_flight: AtomicUsize,
    pub max_in_flight: AtomicUsize,
}

impl Issuer {
    /// Token requests in the order they arrived, the last 100 000.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        locked(&self.state.faults.journal).records()
    }

    /// The number of requests for a path so far, for instance `/token`, answered or not.
    #[must_use]
    pub fn count(&self, path: &str) -> usize {
        locked(&self.state.faults.journal).counted(path)
    }

    /// The most token requests that were in flight at the same time.
    #[must_use]
    pub fn max_in_flight_seen(&self) -> usize {
        self.state.faults.max_in_flight.load(Ordering::Relaxed)
    }

    /// Adds a fault for the next token requests, behind the faults that were scripted before.
    pub fn script(&self, fault: Fault, times: Times) {
        self.script_for(Target::Token, fault, times);
    }

    /// Adds a fault for some requests only.
    pub fn script_for(&self, target: Target, fault: Fault, times: Times) {
        locked(&self.state.faults.script).push(target, fault, times);
    }

    /// Removes all faults, so that the issuer behaves from now on. A fault that a request already
    /// suffers goes on.
    pub fn clear_script(&self) {
        locked(&self.state.faults.script).clear();
    }
}
