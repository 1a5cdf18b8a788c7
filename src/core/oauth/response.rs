//! The token endpoint's answer: its bytes become a checked credential or a classified failure (RFC
//! 6749 §5).
//!
//! No part of a body ever gets into a message (trap 32), with two exceptions that are checked
//! against the known secrets first: the `error` code and a Microsoft code (`AADSTS…`). The granted
//! scopes go further than into messages. They are checked against the secrets too, and against the
//! token.

pub mod cure;
mod errors;
mod granted;

#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use url::Url;

use self::cure::Suspects;
use super::lifetime::{LifetimeError, lifetime};
use super::withhold::{echoes, foreign_place, is_secret, repeats};
use super::{date, jwt};
use crate::core::credential::{Issued, Scheme};
use crate::core::failure::Failure;
use crate::core::secret::Secret;
use crate::core::time::Stamp;

/// The longest body that is read, in bytes. Tokens with a few hundred groups stay below 20 KiB.
pub const LONGEST_BODY: usize = 64 * 1024;

/// The answer. Header values that are not text count as absent.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: u16,
    pub content_type: Option<&'a str>,
    pub content_encoding: Option<&'a str>,
    pub date: Option<&'a str>,
    pub retry_after: Option<&'a str>,
    pub location: Option<&'a str>,
    /// The body; None when it is longer than [`LONGEST_BODY`].
    pub body: Option<&'a [u8]>,
}

/// The request: what was asked, when, and whom.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The token endpoint.
    pub endpoint: &'a Url,
    /// The token endpoint for people: [`super::withhold::place`] of a configured one,
    /// `foreign_place` of a discovered one.
    pub at: &'a str,
    /// What may be wrong with the client, for the advice.
    pub suspects: Suspects<'a>,
    /// The scopes that were asked for. They are granted unless the answer says otherwise (RFC 6749
    /// §5.1).
    pub scopes: &'a [String],
    /// `bound_tokens = "refuse"`
    pub refuse_bound: bool,
    /// All secrets that the server has seen, in every form in which it has seen them.
    pub secrets: &'a [&'a Secret],
    /// The time before the request was sent.
    pub asked_at: Stamp,
    /// The time after the answer came.
    pub now: Stamp,
}

/// The result of a good answer.
#[derive(Debug)]
pub struct Granted {
    pub issued: Issued,
    /// The number of scopes in the answer that are not passed on, because they repeat a secret or
    /// the token, are no scope tokens, or are too many or too long.
    pub withheld: usize,
}

///
/// # Errors
/// Permanent when somebody has to change something, transient for everything that may pass:
/// overload, redirects, nonsense.
pub fn judge(response: &Response<'_>, asked: &Asked<'_>) -> Result<Granted, Failure> {
    let date = response.date.and_then(date::parse);
    if response.status == 200 {
        return success(response, asked, date);
    }
    let retry_after = response
        .retry_after
        .and_then(|text| date::retry_after(text, date, asked.now.wall.0));
    Err(errors::classify(response, asked).with_retry_after(retry_after))
}

/// Whether a token can stand in a header: not empty, visible ASCII only. A line break would split
/// the header.
#[must_use]
pub fn fits_header(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| (0x21..=0x7e).contains(&byte))
}

fn success(
    response: &Response<'_>,
    asked: &Asked<'_>,
    date: Option<u64>,
) -> Result<Granted, Failure> {
    let at = asked.at;
    let mut answer = object(response, asked)?;
    let token = match answer.remove("access_token") {
        Some(Value::String(token)) => Secret::new(token),
        _ => {
            return Err(Failure::transient(format!(
                "{at} answered HTTP 200 without an access_token{}: check that this is the token endpoint and that \
                 the client may use the client_credentials grant",
                errors::code_of(&answer, asked.secrets)
                    .map(|code| format!(" (error {code})"))
                    .unwrap_or_default(),
            )));
        }
    };
    // The tokens in the answer are secret too, whatever else it says.
    let others: Vec<Secret> = ["refresh_token", "id_token"]
        .into_iter()
        .filter_map(|name| match answer.remove(name) {
            Some(Value::String(other)) => Some(Secret::new(other)),
            _ => None,
        })
        .collect();
    let secrets = asked.secrets.iter().copied();
    let secrets: Vec<&Secret> = secrets.chain([&token]).chain(&others).collect();
    no_error_beside(&answer, at, &secrets)?;
    servable(&token, asked)?;
    token_type(answer.get("token_type"), at)?;
    let facts = jwt::read(token.expose());
    let lifetime = lifetime(
        answer.get("expires_in"),
        facts.as_ref(),
        date,
        asked.asked_at.wall,
    )
    .map_err(|why| no_life(why, at))?;
    if asked.refuse_bound && facts.as_ref().is_some_and(|facts| facts.bound) {
        return Err(Failure::permanent(format!(
            "{at} issued a token that is bound to a key (cnf) and of no use without it, and bound_tokens = \"refuse\": \
             switch binding off for this client at the identity provider, or set bound_tokens = \"serve\" if the API \
             does not check it or the callers hold the certificate"
        )));
    }
    let (scopes, withheld) = match answer.get("scope") {
        Some(Value::String(text)) => granted::scopes(text, asked.scopes, &secrets),
        _ => (asked.scopes.to_vec(), 0),
    };
    let issued = Issued {
        scheme: Scheme::Bearer,
        asked_at: asked.asked_at,
        lifetime,
        scopes,
        confirmation: facts
            .and_then(|facts| facts.confirmation)
            .filter(|print| !repeats(print, asked.secrets)),
        clock_skew: date.map(|date| skew(date, asked.asked_at, asked.now)),
        token,
    };
    Ok(Granted { issued, withheld })
}

/// Refuses an answer that names an error: its token cannot be trusted.
fn no_error_beside(
    answer: &Map<String, Value>,
    at: &str,
    secrets: &[&Secret],
) -> Result<(), Failure> {
    // RFC 6749 §3.2: a parameter without a value counts as missing.
    let no_error = match answer.get("error") {
        None | Some(Value::Null) => true,
        Some(error) => error.as_str() == Some(""),
    };
    if no_error {
        return Ok(());
    }
    let code = errors::code_of(answer, secrets)
        .map(|code| format!(" ({code})"))
        .unwrap_or_default();
    Err(Failure::transient(format!(
        "{at} answered HTTP 200 with an error{code} and an access_token at once, so that the token \
         cannot be trusted: ask the identity provider's operator"
    )))
}

/// Checks whether a token can be passed on at all.
fn servable(token: &Secret, asked: &Asked<'_>) -> Result<(), Failure> {
    let at = asked.at;
    if token.is_empty() {
        return Err(Failure::transient(format!(
            "{at} answered HTTP 200 with an empty access_token: ask the identity provider's operator"
        )));
    }
    if !fits_header(token.expose()) {
        return Err(Failure::transient(format!(
            "{at} issued a token with characters that cannot stand in a header: ask the identity \
             provider's operator"
        )));
    }
    if is_secret(token, asked.secrets) {
        return Err(Failure::permanent(format!(
            "{at} issued as access_token what the client proves itself with (its secret, assertion \
             or Authorization header), and callers must never get that: check that this is the \
             token endpoint and that nothing before it sends requests back, or ask the identity \
             provider's operator"
        )));
    }
    Ok(())
}

/// The end of a message about an encoded answer.
const UNASKED: &str = "and asked for was Accept-Encoding: identity: switch compression of this address off at the identity \
                       provider, or at what stands before it";

/// The members of a JSON object, without what stands before it and despite texts that are not quite
/// UTF-8. Some servers write a byte order mark, or a message for people in ISO 8859-1, and the rest
/// is good all the same (trap 55).
pub(super) fn members(body: &[u8]) -> Option<Map<String, Value>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match serde_json::from_str(&String::from_utf8_lossy(body)) {
        Ok(Value::Object(members)) => Some(members),
        _ => None,
    }
}

/// The coding of a body although none was asked for: as its header says, or as its bytes look.
/// Messages name only codings from a list.
#[must_use]
pub fn coding(content_encoding: Option<&str>, body: &[u8]) -> Option<&'static str> {
    let said = content_encoding.unwrap_or_default().trim();
    if said.is_empty() || said.eq_ignore_ascii_case("identity") {
        return body.starts_with(b"\x1f\x8b").then_some("gzip");
    }
    let known = ["gzip", "x-gzip", "deflate", "br", "zstd", "compress"];
    let known = known.into_iter().find(|it| said.eq_ignore_ascii_case(it));
    Some(known.unwrap_or("(not shown here)"))
}

/// The JSON object of an answer with status 200.
fn object(response: &Response<'_>, asked: &Asked<'_>) -> Result<Map<String, Value>, Failure> {
    let at = asked.at;
    let Some(body) = response.body else {
        return Err(Failure::transient(format!(
            "{at} answered HTTP 200 with more than {} KiB ({}): check that this is the token endpoint",
            LONGEST_BODY / 1024,
            media_type(response, asked),
        )));
    };
    match (members(body), coding(response.content_encoding, body)) {
        (Some(answer), _) => Ok(answer),
        (None, Some(coding)) => Err(Failure::transient(format!(
            "{at} answered HTTP 200 with a body in the coding {coding}, {UNASKED}"
        ))),
        (None, None) => Err(Failure::transient(format!(
            "{at} answered HTTP 200, but not with a JSON object ({}): check that this is the token endpoint and that \
             no login page or proxy stands before it",
            media_type(response, asked),
        ))),
    }
}

/// Checks the token type. RFC 6749 §7.1: a client must not use a token whose type it does not
/// understand.
fn token_type(value: Option<&Value>, at: &str) -> Result<(), Failure> {
    match value {
        Some(Value::String(kind)) if kind.eq_ignore_ascii_case("bearer") => Ok(()),
        Some(Value::String(kind)) => {
            // Only names from this list are repeated.
            let known = ["DPoP", "mac", "N_A", "PoP"]
                .into_iter()
                .find(|known| kind.eq_ignore_ascii_case(known));
            Err(Failure::permanent(format!(
                "{at} issued a token of type {}, and only Bearer can be served: let the identity provider issue Bearer \
                 tokens to this client",
                known.unwrap_or("unknown")
            )))
        }
        _ => Err(Failure::transient(format!(
            "{at} issued a token without a token_type, which RFC 6749 requires: ask the identity provider's operator"
        ))),
    }
}

fn no_life(why: LifetimeError, at: &str) -> Failure {
    Failure::transient(match why {
        LifetimeError::ExpiresIn => format!(
            "{at} issued a token that says it is already expired (expires_in is zero or less): check the token \
             lifetime of this client at the identity provider"
        ),
        LifetimeError::NotANumber => format!(
            "{at} issued a token whose expires_in is not a number of seconds, so that it may be already expired: ask \
             the identity provider's operator"
        ),
        LifetimeError::Expired => format!(
            "{at} issued a token that says it is already expired (exp has passed): compare the clocks of this machine \
             and of the identity provider"
        ),
        LifetimeError::ExpiredByOne { ours, apart } => {
            let (passed, not_yet) = if ours {
                (
                    "by the clock of this machine",
                    "by the answer's Date header",
                )
            } else {
                (
                    "by the answer's Date header",
                    "by the clock of this machine",
                )
            };
            format!(
                "{at} issued a token that is already expired {passed} and not {not_yet}, and the two are {} apart: \
                 compare the clocks of this machine and of the identity provider, and see that no cache stands between",
                humantime::format_duration(apart)
            )
        }
    })
}

/// How far the issuer's clock is ahead, in seconds. The answer was made between `asked_at` and
/// `now`, within the second that `Date` names; only a difference beyond that is skew.
#[must_use]
pub fn skew(date: u64, asked_at: Stamp, now: Stamp) -> i64 {
    let earliest = asked_at.wall.0.as_secs();
    let latest = now.wall.0.as_secs().max(earliest);
    let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    if date > latest {
        signed(date - latest)
    } else {
        -signed(earliest.saturating_sub(date))
    }
}

/// The media type of an answer, if it looks like one and repeats no secret.
fn media_type(response: &Response<'_>, asked: &Asked<'_>) -> String {
    let Some(text) = response.content_type else {
        return "no content type".into();
    };
    let kind = text.split(';').next().unwrap_or("").trim_ascii();
    let fits = kind.len() <= 64
        && kind.matches('/').count() == 1
        && kind
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"/.+-_".contains(&byte));
    if fits && !echoes(kind, asked.secrets) {
        kind.to_ascii_lowercase()
    } else {
        "a content type that is not shown here".into()
    }
}

/// The target of a redirect: its origin only.
fn redirect(response: &Response<'_>, asked: &Asked<'_>) -> String {
    match response.location.map(|text| asked.endpoint.join(text)) {
        Some(Ok(url)) if url.has_host() => {
            let mut bare = url.clone();
            bare.set_path("");
            let shown = foreign_place(&bare, asked.secrets);
            shown.strip_suffix('/').map(String::from).unwrap_or(shown)
        }
        _ => "a place that it does not name".into(),
    }
}
