//! What a plugin answers: bytes become a checked credential or a classified failure.
//!
//! No part of an answer gets into a message but the text that the contract has for people, and that
//! only through [`super::spoken::shown`].

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde_json::{Map, Value};

use super::expiry::{left, moment};
use super::request::VERSION;
use super::shape::{self, AnswerShape, is_error, takes};
use super::spoken::{shown, telling};
use crate::core::credential::{Issued, Lifetime, Scheme};
use crate::core::failure::Failure;
use crate::core::oauth::jwt;
use crate::core::oauth::lifetime::{LONGEST, LifetimeError, lifetime};
use crate::core::oauth::response::fits_header;
use crate::core::profile::exec::AnswerFormat;
use crate::core::secret::Secret;
use crate::core::time::{Stamp, WallTime};

/// The longest answer that is read, in bytes.
pub const LONGEST_ANSWER: usize = 64 * 1024;

/// The longest wait that is believed; the profile's own limit is far smaller.
const LONGEST_WAIT: f64 = 10.0 * 366.0 * 86_400.0;

/// What was asked of whom, and when.
#[derive(Clone, Copy, Debug)]
pub struct AskedPlugin<'a> {
    /// The program, for people.
    pub at: &'a str,
    /// How the program ended, if not with exit status 0.
    pub ended: Option<&'a str>,
    pub format: AnswerFormat,
    /// `lifetime` of the profile: for answers that state none.
    pub lifetime: Option<Duration>,
    pub scopes: &'a [String],
    /// `bound_tokens = "refuse"`
    pub refuse_bound: bool,
    /// What no message may repeat.
    pub secrets: &'a [&'a Secret],
    /// The time before the plugin was asked.
    pub asked_at: Stamp,
    /// The time after the answer came.
    pub now: Stamp,
}

/// What a good answer says, in whatever form.
struct AnswerFields {
    token: Secret,
    scheme: Scheme,
    expires_in: Option<Value>,
    /// The end of its life, and of what it may be cached for.
    ends: Option<WallTime>,
    cache_for: Option<Duration>,
    confirmation: Option<String>,
    bound: bool,
}

/// Judges a whole answer.
///
/// # Errors
/// Permanent when somebody has to change something, transient for everything that may pass.
pub fn judge(output: &[u8], asked: &AskedPlugin<'_>) -> Result<Issued, Failure> {
    let text = String::from_utf8_lossy(output);
    let shape = shape::of(&text);
    if let Some(failure) = stated_error(&shape, asked) {
        return Err(failure);
    }
    let at = asked.at;
    if let Some(ended) = asked.ended {
        return Err(Failure::transient(format!(
            "{at} ended with {ended} and told no error that can be read: see what it wrote to \
             standard error in the log"
        )));
    }
    if !takes(asked.format, &shape) && !matches!(shape, AnswerShape::Aws | AnswerShape::Nothing) {
        return Err(Failure::permanent(format!(
            "{at} answered in another form than format = \"{}\" has: change one of the two",
            asked.format.as_str()
        )));
    }
    let fields = match shape {
        AnswerShape::Tokend(members) => {
            version(&members, asked)?;
            generic(members, asked)
        }
        AnswerShape::Plain(members) => generic(members, asked),
        AnswerShape::Google(members) => google(members, asked),
        AnswerShape::Kubernetes(members) => kubernetes(members, asked),
        AnswerShape::Bare(token) => bare(token, asked),
        AnswerShape::Aws => Err(Failure::permanent(format!(
            "{at} answered as AWS's credential_process does: those are keys that sign requests and \
             no token for an Authorization header, and tokend never has a caller's request to \
             sign: name the command in the AWS configuration of the caller"
        ))),
        AnswerShape::Nothing => Err(Failure::transient(format!(
            "{at} wrote nothing to standard output: that is where the answer belongs"
        ))),
        AnswerShape::Damaged => Err(Failure::transient(format!(
            "{at} wrote something that begins like JSON and is none: nothing else than the answer \
             belongs on standard output"
        ))),
        AnswerShape::OtherJson => Err(Failure::transient(format!(
            "{at} answered JSON without a token and without an error: see docs/plugins.md for the \
             forms that are understood"
        ))),
        AnswerShape::Prose => Err(Failure::transient(format!(
            "{at} wrote several words, which are neither a token nor JSON: messages belong on \
             standard error"
        ))),
    }?;
    issued(fields, asked)
}

/// The error that an answer states.
fn stated_error(shape: &AnswerShape, asked: &AskedPlugin<'_>) -> Option<Failure> {
    match shape {
        AnswerShape::Tokend(members) => {
            if let Err(failure) = version(members, asked) {
                return Some(failure);
            }
            is_error(members).then(|| own_error(members, asked))
        }
        AnswerShape::Plain(members) if is_error(members) => Some(own_error(members, asked)),
        AnswerShape::Google(members) => match members.get("success") {
            Some(Value::Bool(true)) => None,
            _ => Some(google_error(members, asked)),
        },
        _ => None,
    }
}

/// Refuses another major version by its name.
fn version(members: &Map<String, Value>, asked: &AskedPlugin<'_>) -> Result<(), Failure> {
    let stated = match members.get("version") {
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    };
    let major = stated.split('.').next().unwrap_or_default();
    if major.parse() == Ok(VERSION) {
        return Ok(());
    }
    let named = shown(&stated, asked.secrets)
        .filter(|named| named.len() <= 20)
        .map_or("of no number".to_owned(), |named| {
            format!("version {named}")
        });
    Err(Failure::permanent(format!(
        "{} answers in {named} of the contract, and this tokend understands version {VERSION}: \
         update one of the two",
        asked.at
    )))
}

/// `error` as an object with kind, message and retry_after, or as a text.
fn own_error(members: &Map<String, Value>, asked: &AskedPlugin<'_>) -> Failure {
    let error = members.get("error").unwrap_or(&Value::Null);
    let of = |name: &str| error.get(name);
    let text = |name: &str| of(name).and_then(Value::as_str);
    let said = text("message").or_else(|| error.as_str());
    let said = told(said, members, asked);
    let failure = match text("kind") {
        Some("permanent") => Failure::permanent(said),
        _ => Failure::transient(said),
    };
    failure.with_retry_after(of("retry_after").and_then(seconds))
}

/// AIP-4117: a code and a message. The code is mostly an HTTP status.
fn google_error(members: &Map<String, Value>, asked: &AskedPlugin<'_>) -> Failure {
    let said = told(
        members.get("message").and_then(Value::as_str),
        members,
        asked,
    );
    match members.get("code") {
        Some(Value::String(code)) if matches!(code.as_str(), "400" | "401" | "403") => {
            Failure::permanent(said)
        }
        _ => Failure::transient(said),
    }
}

/// What the plugin says about its failure, without secrets, the answer's own tokens among them.
fn told(said: Option<&str>, members: &Map<String, Value>, asked: &AskedPlugin<'_>) -> String {
    let tokens = ["token", "access_token", "id_token", "refresh_token"];
    let tokens = telling(tokens.into_iter().filter_map(|name| {
        let token = members.get(name)?.as_str()?;
        Some(token.to_owned())
    }));
    let secrets: Vec<&Secret> = asked.secrets.iter().copied().chain(&tokens).collect();
    match said.map(|said| shown(said, &secrets)) {
        Some(Some(said)) => format!("{} says: {said}", asked.at),
        Some(None) => format!(
            "{} reports an error whose text is empty or repeats a secret, and is not shown",
            asked.at
        ),
        None => format!("{} reports an error without a text", asked.at),
    }
}

/// tokend's own fields, and those of the many tools that print much the same.
fn generic(
    mut members: Map<String, Value>,
    asked: &AskedPlugin<'_>,
) -> Result<AnswerFields, Failure> {
    let token = ["token", "access_token"]
        .into_iter()
        .find_map(|name| members.remove(name).filter(|value| !value.is_null()));
    let scheme = match members.get("token_type") {
        None | Some(Value::Null) => Some(Scheme::Bearer),
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => Some(Scheme::Bearer),
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("basic") => Some(Scheme::Basic),
        Some(_) => None,
    };
    let Some(scheme) = scheme else {
        return Err(Failure::permanent(format!(
            "{} answered a token_type that is neither Bearer nor Basic: callers could not present \
             such a token",
            asked.at
        )));
    };
    let mut ends = None;
    for name in ["expires_at", "expiration"] {
        ends = ends
            .into_iter()
            .chain(end(members.get(name), name, asked)?)
            .min();
    }
    let cache_for = match members.get("cache_for") {
        None | Some(Value::Null) => None,
        Some(value) => Some(seconds(value).filter(|it| !it.is_zero()).ok_or_else(|| {
            Failure::transient(format!(
                "{} answered a cache_for that is no number of seconds above 0",
                asked.at
            ))
        })?),
    };
    let expires_in = members.remove("expires_in");
    let stated = members.get("confirmation").filter(|it| !it.is_null());
    let confirmation = stated
        .and_then(|it| it.as_str().or_else(|| it.get("x5t#S256")?.as_str()))
        .filter(|print| is_thumbprint(print))
        .map(String::from);
    Ok(AnswerFields {
        token: text_of(token, asked)?,
        scheme,
        expires_in,
        ends,
        cache_for,
        bound: stated.is_some(),
        confirmation,
    })
}

/// AIP-4117. `access_token` is what some executables write although the proposal has no such type.
fn google(
    mut members: Map<String, Value>,
    asked: &AskedPlugin<'_>,
) -> Result<AnswerFields, Failure> {
    version(&members, asked)?;
    if members.contains_key("saml_response") {
        return Err(Failure::permanent(format!(
            "{} answered a SAML assertion, which goes into no Authorization header",
            asked.at
        )));
    }
    let ends = end(members.get("expiration_time"), "expiration_time", asked)?;
    let token = members
        .remove("id_token")
        .or_else(|| members.remove("access_token"));
    Ok(AnswerFields::bearer(text_of(token, asked)?, ends))
}

/// ExecCredential.
fn kubernetes(
    members: Map<String, Value>,
    asked: &AskedPlugin<'_>,
) -> Result<AnswerFields, Failure> {
    let at = asked.at;
    let stated = members.get("apiVersion").and_then(Value::as_str);
    let stated = stated.unwrap_or_default();
    if !matches!(
        stated,
        "client.authentication.k8s.io/v1" | "client.authentication.k8s.io/v1beta1"
    ) {
        let named = shown(stated, asked.secrets).filter(|named| named.len() <= 60);
        return Err(Failure::permanent(format!(
            "{at} answers in apiVersion {}, and this tokend understands \
             client.authentication.k8s.io/v1 and v1beta1: set KUBERNETES_EXEC_INFO in env",
            named.unwrap_or_else(|| "(none)".into())
        )));
    }
    let status = members.get("status").unwrap_or(&Value::Null);
    let token = status.get("token").filter(|token| !token.is_null());
    if token.is_none() && status.get("clientKeyData").is_some() {
        return Err(Failure::permanent(format!(
            "{at} answered a client certificate and no token, and that goes into no header"
        )));
    }
    const EXPIRY: &str = "expirationTimestamp";
    let ends = end(status.get(EXPIRY), EXPIRY, asked)?;
    Ok(AnswerFields::bearer(text_of(token.cloned(), asked)?, ends))
}

fn bare(token: String, asked: &AskedPlugin<'_>) -> Result<AnswerFields, Failure> {
    // Programs that fail with exit status 0 print such words.
    let word = token.to_ascii_lowercase();
    let says_no = word.ends_with(':')
        || word.starts_with('<')
        || matches!(
            word.as_str(),
            "null" | "none" | "nil" | "undefined" | "error" | "false"
        );
    if says_no {
        return Err(Failure::transient(format!(
            "{} wrote a word that is no token, as programs do that fail with exit status 0",
            asked.at
        )));
    }
    let stated = jwt::read(&token).is_some_and(|claims| claims.expires.is_some());
    if asked.lifetime.is_none() && !stated {
        return Err(Failure::permanent(format!(
            "{} wrote a bare token, which does not say how long it lives: set `lifetime`, or let \
             it answer JSON",
            asked.at
        )));
    }
    Ok(AnswerFields::bearer(Secret::new(token), None))
}

impl AnswerFields {
    fn bearer(token: Secret, ends: Option<WallTime>) -> AnswerFields {
        AnswerFields {
            token,
            scheme: Scheme::Bearer,
            expires_in: None,
            ends,
            cache_for: None,
            confirmation: None,
            bound: false,
        }
    }
}

fn text_of(token: Option<Value>, asked: &AskedPlugin<'_>) -> Result<Secret, Failure> {
    match token {
        Some(Value::String(token)) => Ok(Secret::new(token)),
        _ => Err(Failure::transient(format!(
            "{} answered without a token and without an error",
            asked.at
        ))),
    }
}

fn end(
    value: Option<&Value>,
    name: &str,
    asked: &AskedPlugin<'_>,
) -> Result<Option<WallTime>, Failure> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => moment(value).map(Some).ok_or_else(|| {
            Failure::transient(format!(
                "{} answered a {name} that is neither RFC 3339 (\"2026-11-24T03:29:00Z\") nor a \
                 number of seconds since 1970",
                asked.at
            ))
        }),
    }
}

/// The last checks, which are the same for all forms.
fn issued(fields: AnswerFields, asked: &AskedPlugin<'_>) -> Result<Issued, Failure> {
    let at = asked.at;
    if !fits_header(fields.token.expose()) {
        return Err(Failure::transient(format!(
            "{at} answered a token that is empty or has characters that cannot stand in a header: \
             let it write the bare token, without \"Bearer\" before it"
        )));
    }
    let facts = jwt::read(fields.token.expose());
    let bound = fields.bound || facts.as_ref().is_some_and(|facts| facts.bound);
    if asked.refuse_bound && bound {
        return Err(Failure::permanent(format!(
            "{at} answered a token that is bound to a key, and bound_tokens = \"refuse\": let it \
             get one that is not, or set bound_tokens = \"serve\""
        )));
    }
    let wall = asked.asked_at.wall;
    let mut stated = lifetime(fields.expires_in.as_ref(), facts.as_ref(), None, wall)
        .map_err(|why| no_life(why, asked))?;
    if let Some(end) = fields.ends {
        let left = left(end, asked.asked_at, asked.now);
        if left.is_zero() {
            return Err(no_life(LifetimeError::Expired, asked));
        }
        stated = sooner(stated, left);
    }
    if let (Lifetime::Unknown, Some(known)) = (stated, asked.lifetime) {
        stated = Lifetime::For(known);
    }
    if let Some(cache_for) = fields.cache_for {
        stated = sooner(stated, cache_for);
    }
    Ok(Issued {
        scheme: fields.scheme,
        asked_at: asked.asked_at,
        lifetime: stated,
        scopes: asked.scopes.to_vec(),
        confirmation: fields
            .confirmation
            .or_else(|| facts.and_then(|facts| facts.confirmation)),
        clock_skew: None,
        token: fields.token,
    })
}

fn sooner(stated: Lifetime, left: Duration) -> Lifetime {
    Lifetime::For(match stated {
        Lifetime::For(other) => other.min(left),
        Lifetime::Unknown | Lifetime::Unlimited => left.min(LONGEST),
    })
}

fn no_life(why: LifetimeError, asked: &AskedPlugin<'_>) -> Failure {
    let (at, now) = (asked.at, asked.now.wall);
    Failure::transient(match why {
        LifetimeError::NotANumber => format!("{at} answered an expires_in that is no number"),
        LifetimeError::ExpiresIn => {
            format!("{at} answered an expires_in of 0 or less: the token has expired on arrival")
        }
        LifetimeError::Expired | LifetimeError::ExpiredByOne { .. } => format!(
            "{at} answered a token that has expired, by this machine's clock ({now}): does it keep \
             old ones, or is a clock wrong?"
        ),
    })
}

/// A number of seconds, or digits.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    (seconds >= 0.0).then(|| Duration::from_secs_f64(seconds.min(LONGEST_WAIT)))
}

fn is_thumbprint(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte);
    (1..=64).contains(&text.len()) && text.bytes().all(fits)
}
