//! What the daemon answers, out of JSON.
//!
//! Problems are told by position only: the JSON library's own messages quote values, and a value may be a credential.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use super::http::{Body, Response};
use super::text::unprintable;
use crate::core::secret::Secret;

/// A credential as the daemon serves it, checked: it fits into a header line.
#[derive(Debug)]
pub struct Credential {
    /// The bare token; empty only for method `none`.
    pub token: Secret,
    /// `Bearer`, `Basic`, or empty for method `none`.
    pub token_type: String,
    /// The whole value of the Authorization header; empty only for method `none`.
    pub authorization: Secret,
    /// None: it does not expire.
    pub expires_at: Option<SystemTime>,
    /// The whole answer as one line of JSON.
    pub json: Secret,
}

impl Credential {
    /// Whether the profile is one that sends no Authorization header.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.token.is_empty()
    }
}

/// The daemon's no.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// A gRPC status code, as `NOT_FOUND`.
    pub code: String,
    /// As in ErrorInfo; may be empty.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When asking again may help.
    pub retry_after: Option<Duration>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = if self.reason.is_empty() {
            &self.code
        } else {
            &self.reason
        };
        if self.message.is_empty() {
            f.write_str(name)
        } else {
            write!(f, "{} ({name})", self.message)
        }
    }
}

/// State of the daemon; the fields are those of `GetStatusResponse`.
#[derive(Debug)]
pub struct Status {
    /// Of the daemon; empty if it does not say.
    pub version: String,
    /// Its process, as it says itself: in its own pid namespace.
    pub pid: Option<i32>,
    /// Whether everything is told: the caller is an administrator.
    pub complete: bool,
    /// In the daemon's order.
    pub profiles: Vec<ProfileState>,
    /// Why the configuration on disk is not in force at all; for administrators.
    pub refused: Vec<String>,
    /// What an operator should know of the daemon itself; for administrators.
    pub warnings: Vec<String>,
    /// What callers may take of the daemon; for administrators.
    pub limits: Vec<Limit>,
    /// What becomes of audit records; for administrators.
    pub audit: Option<Records>,
    /// The whole answer as one line of JSON.
    pub json: String,
}

/// A limit; the fields are those of `LimitStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// As in the configuration.
    pub name: String,
    /// As in the configuration.
    pub limit: String,
    /// How much of it is taken, where that is a number.
    pub used: Option<u64>,
    /// How often it was reached, where that is counted.
    pub refused: Option<u64>,
    /// By whom.
    pub reached_by: Vec<String>,
}

/// What becomes of audit records; the fields are those of `AuditStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Records {
    /// Written since the daemon was started.
    pub written: u64,
    /// Grants and denials without a record.
    pub lost: u64,
    /// Grants and denials that were counted together, and whose the last were.
    pub counted_together: Vec<String>,
    /// Nobody is given a credential, since no record can be written.
    pub refuses: bool,
}

/// Why a caller may or may not; the fields are those of `ExplainResponse`.
#[derive(Debug, Deserialize)]
pub struct Explanation {
    /// Whether the caller may have the credential.
    pub permitted: bool,
    /// `access[N]`, `default` or `none`.
    pub decided_by: String,
    /// In their order.
    pub rules: Vec<Rule>,
    /// Who it is explained for.
    pub caller: Who,
    /// State of the profile.
    pub profile: ProfileState,
    /// Sentences for people.
    pub explanation: Vec<String>,
    /// The whole answer as one line of JSON.
    #[serde(skip)]
    pub json: String,
}

/// An access rule and whether it holds.
#[derive(Debug, Deserialize)]
pub struct Rule {
    /// As in the configuration.
    pub rule: String,
    /// Whether it holds for the caller.
    pub holds: bool,
    /// Why not.
    pub why_not: String,
}

/// Who a caller is taken for.
#[derive(Debug, Deserialize)]
pub struct Who {
    /// Its user.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its supplementary groups.
    pub groups: Vec<u32>,
    /// Its systemd unit; empty: none is known.
    pub unit: String,
}

/// State of one profile; the fields are those of `ProfileStatus`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ProfileState {
    /// Its name.
    pub name: String,
    /// none, basic, static, oauth2, exec or plugin.
    pub method: String,
    /// fresh, stale, fetching, backoff, rejected, expired, asleep or invalid.
    pub state: String,
    /// A usable credential is there now, or will be fetched on first use.
    pub available: bool,
    /// Seconds; None: there is no credential, or it does not expire.
    pub expires_in: Option<f64>,
    /// Seconds; None: nothing is planned.
    pub next_attempt_in: Option<f64>,
    /// None: the last attempt succeeded.
    pub last_error: Option<LastError>,
    /// What an operator should know although it works.
    pub warnings: Vec<String>,
    /// Seconds that the issuer's clock is ahead.
    pub clock_skew: Option<f64>,
    /// Whether its files say what is served.
    pub reload: Reloaded,
    /// Its own certificates: those in use, then those on disk.
    pub certificates: Vec<Certificate>,
}

/// A certificate of a profile; the fields are those of `ProfileCertificate`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Certificate {
    /// Key of the configuration that names it.
    pub role: String,
    /// in_use or on_disk.
    pub place: String,
    /// For people.
    pub subject: String,
    /// `x5t#S256`
    pub thumbprint: String,
    /// RFC 3339.
    pub not_after: String,
}

/// What became of a reload; the fields are those of `ReloadResponse`.
#[derive(Debug, Deserialize)]
pub struct Reload {
    /// Everything is served as the files say.
    pub complete: bool,
    /// Why the configuration on disk is not in force at all.
    #[serde(default)]
    pub refused: Vec<String>,
    /// In the daemon's order.
    pub profiles: Vec<Reloaded>,
    /// The whole answer as one line of JSON.
    #[serde(skip)]
    pub json: String,
}

/// Where a profile stands between its files and what is served; the fields are those of `ProfileReload`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Reloaded {
    /// Its name; empty where it is clear.
    pub profile: String,
    /// unchanged, added, changed, removed, staged, rejected, kept or invalid.
    pub outcome: String,
    /// For people.
    pub message: String,
    /// RFC 3339.
    pub since: Option<String>,
}

/// The last failure, until a success; the fields are those of `ProfileError`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LastError {
    /// As in `ErrorInfo`.
    pub reason: String,
    /// For people.
    pub message: String,
    /// The code of RFC 6749 §5.2, where the identity provider gave one.
    pub oauth_error: Option<String>,
    /// RFC 3339.
    pub since: Option<String>,
    /// In a row.
    pub failures: u64,
}

#[derive(Deserialize)]
struct CredentialWire {
    #[serde(default = "no_secret", deserialize_with = "secret")]
    token: Secret,
    #[serde(default)]
    token_type: String,
    #[serde(default = "no_secret", deserialize_with = "secret")]
    authorization: Secret,
    #[serde(default)]
    expires_at: Option<String>,
}

fn no_secret() -> Secret {
    Secret::new(String::new())
}

fn secret<'de, D: Deserializer<'de>>(from: D) -> Result<Secret, D::Error> {
    String::deserialize(from).map(Secret::new)
}

#[derive(Deserialize)]
struct StatusWire {
    #[serde(default)]
    version: String,
    #[serde(default)]
    pid: Option<i32>,
    profiles: Vec<ProfileState>,
    /// Told to administrators alone.
    #[serde(default)]
    refused: Option<Vec<String>>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    limits: Vec<Limit>,
    audit: Option<Records>,
}

#[derive(Deserialize)]
struct ProfilesWire {
    profiles: Vec<NameWire>,
}

#[derive(Deserialize)]
struct NameWire {
    name: String,
}

#[derive(Deserialize)]
struct RefusalWire {
    code: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    retry_after: Option<f64>,
}

/// A credential that can be used, or what is wrong with it.
pub(super) fn credential(body: Body) -> Result<Credential, String> {
    let wire: CredentialWire = object(&body)?;
    let empty = wire.token.is_empty();
    if wire.authorization.is_empty() != empty || wire.token_type.is_empty() != empty {
        return Err("a credential without all of token, token_type and authorization".into());
    }
    if !printable(wire.token.expose()) || !printable(wire.authorization.expose()) {
        return Err("a credential that does not fit into a header line".into());
    }
    let expires_at = match wire.expires_at.as_deref().filter(|text| !text.is_empty()) {
        None => None,
        Some(text) => match humantime::parse_rfc3339(text) {
            Ok(time) => Some(time),
            Err(_) => return Err("expires_at is not a time".into()),
        },
    };
    Ok(Credential {
        token: wire.token,
        token_type: wire.token_type,
        authorization: wire.authorization,
        expires_at,
        json: Secret::new(one_line(&body)?),
    })
}

/// The state, or what is wrong with it.
pub(super) fn status(body: Body) -> Result<Status, String> {
    let wire: StatusWire = object(&body)?;
    Ok(Status {
        version: wire.version,
        pid: wire.pid,
        complete: wire.refused.is_some(),
        profiles: wire.profiles,
        refused: wire.refused.unwrap_or_default(),
        warnings: wire.warnings,
        limits: wire.limits,
        audit: wire.audit,
        json: one_line(&body)?,
    })
}

/// What became of a reload, or what is wrong with the answer.
pub(super) fn reload(body: Body) -> Result<Reload, String> {
    let mut reload: Reload = object(&body)?;
    reload.json = one_line(&body)?;
    Ok(reload)
}

/// Why somebody may or may not, or what is wrong with the answer.
pub(super) fn explanation(body: Body) -> Result<Explanation, String> {
    let mut explanation: Explanation = object(&body)?;
    explanation.json = one_line(&body)?;
    Ok(explanation)
}

/// The names, or what is wrong with them.
pub(super) fn profiles(body: &Body) -> Result<Vec<String>, String> {
    let wire: ProfilesWire = object(body)?;
    Ok(wire
        .profiles
        .into_iter()
        .map(|profile| profile.name)
        .collect())
}

/// The reason; None when it is not tokend that speaks.
pub(super) fn refusal(response: &Response) -> Option<Refusal> {
    let wire: RefusalWire = object(&response.body).ok()?;
    let said = wire
        .retry_after
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Some(Refusal {
        code: wire.code,
        reason: wire.reason,
        message: wire.message,
        retry_after: said.or(response.retry_after),
    })
}

/// Reads an object; the derived code would take an array with the values in order as well.
fn object<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, String> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object".into());
    }
    serde_json::from_slice(body).map_err(|error| {
        format!(
            "it is not the JSON that is expected (line {}, column {})",
            error.line(),
            error.column()
        )
    })
}

/// What may stand in a field value (RFC 9110 §5.5), without the obsolete bytes above 0x7E.
fn printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Valid JSON as one line that a terminal can show: the control characters that JSON allows in a text are escaped, and those
/// that it allows between texts become spaces.
fn one_line(body: &[u8]) -> Result<String, String> {
    let text = std::str::from_utf8(body)
        .map_err(|_| "it is not UTF-8")?
        .trim_ascii();
    // Room for everything at once: growing would leave copies of a credential behind. An escape of six bytes stands for
    // a character of at least one, and only those outside printable ASCII become one.
    let more = text
        .bytes()
        .filter(|byte| !(b' '..=b'~').contains(byte))
        .count()
        * 6;
    let mut line = Zeroizing::new(String::with_capacity(text.len() + more));
    for c in text.chars() {
        match c {
            '\t' | '\n' | '\r' => line.push(' '),
            // All of these lie in the basic plane, so that four digits do.
            c if unprintable(c) => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    Ok(std::mem::take(&mut *line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Credential, String> {
        credential(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_success_without_a_usable_credential_is_none() {
        // Trap 1, and trap 38: a token that would split a header.
        for text in [
            r#"{"token":"","token_type":"Bearer","authorization":"Bearer "}"#,
            r#"{"token":"t","token_type":"Bearer"}"#,
            r#"{"token":"t","authorization":"Bearer t"}"#,
            r#"{"token":"t\r\nX: y","token_type":"Bearer","authorization":"Bearer t"}"#,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t\nX: y"}"#,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t","expires_at":"tomorrow"}"#,
            r#"["t","Bearer","Bearer t"]"#,
            r#"{"token":null}"#,
            r#""t""#,
            "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("{}").unwrap().is_none());
        assert!(
            !parse(r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t"}"#)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn problems_do_not_quote_values() {
        for text in [
            r#"{"token":"hunter2","token_type":"Bearer","authorization":"Bearer hunter2","expires_at":7}"#,
            r#"{"token":["hunter2"]}"#,
            r#"{"token_type":"hunter2"}"#,
            r#"{"token":"t","token_type":"Bearer","authorization":"Bearer t","expires_at":"hunter2"}"#,
        ] {
            let problem = parse(text).unwrap_err();
            assert!(!problem.contains("hunter2"), "{problem}");
        }
    }

    #[test]
    fn json_becomes_one_harmless_line() {
        assert_eq!(
            one_line("{\n\t\"a\": \"x\u{9b}2J\u{7f}\u{202e}\u{e9}\\n\"\r\n}\n".as_bytes()).unwrap(),
            "{  \"a\": \"x\\u009b2J\\u007f\\u202e\u{e9}\\n\"  }"
        );
        assert!(one_line(b"\"\xff\"").is_err());
    }

    #[test]
    fn refusals_prefer_the_body_over_the_header() {
        let response = |body: &str| Response {
            status: 503,
            retry_after: Some(Duration::from_secs(3)),
            body: Zeroizing::new(body.as_bytes().to_vec()),
        };
        let waits = |body| refusal(&response(body)).unwrap().retry_after;
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":2.5}"#),
            Some(Duration::from_millis(2500))
        );
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":null}"#),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":-1}"#),
            Some(Duration::from_secs(3))
        );
        assert_eq!(
            waits(r#"{"code":"UNAVAILABLE","retry_after":1e300}"#),
            Some(Duration::from_secs(3))
        );
        assert_eq!(refusal(&response("<html>")), None);
        assert_eq!(refusal(&response("{}")), None);
    }
}
