//! Answers with a status other than 200.

use serde_json::{Map, Value};

use super::{Asked, Response, UNASKED, coding, media_type, members, redirect};
use crate::core::failure::{Failure, FailureKind};
use crate::core::oauth::withhold::echoes;
use crate::core::secret::Secret;

/// Error codes with their kind and cure: RFC 6749 §5.2 and §4.1.2.1, RFC 8628 §3.5, RFC 8707 §2.
/// The codes in this table are the daemon's own words and may always be shown.
const CODES: [(&str, FailureKind, &str); 11] = [
    ("invalid_client", FailureKind::Permanent, ""),
    (
        "unauthorized_client",
        FailureKind::Permanent,
        "this client may not use the client_credentials grant: allow it at the identity provider (service account)",
    ),
    (
        "invalid_grant",
        FailureKind::Permanent,
        "the identity provider refuses the grant or the assertion: check client_auth, the assertion and the clock",
    ),
    (
        "invalid_scope",
        FailureKind::Permanent,
        "the identity provider does not grant these scopes to this client: check scopes",
    ),
    (
        "invalid_target",
        FailureKind::Permanent,
        "the identity provider does not know the resource or audience: check resource and audience",
    ),
    (
        "invalid_request",
        FailureKind::Permanent,
        "the identity provider misses or does not understand a parameter: check client_auth, scopes, audience, \
         resource and extra",
    ),
    (
        "unsupported_grant_type",
        FailureKind::Permanent,
        "the identity provider does not support the client_credentials grant: check issuer or token_url",
    ),
    (
        "access_denied",
        FailureKind::Permanent,
        "the identity provider's policy denies this client: ask its operator",
    ),
    (
        "temporarily_unavailable",
        FailureKind::Transient,
        "the identity provider is overloaded or in maintenance: it is asked again by itself",
    ),
    (
        "server_error",
        FailureKind::Transient,
        "the identity provider has an internal error: it is asked again by itself; if it stays, see its log",
    ),
    (
        "slow_down",
        FailureKind::Transient,
        "the identity provider is asked too often: raise refresh.min_interval or lower max_per_second",
    ),
];

/// The failure for an answer that is not 200, without its `Retry-After`.
pub(super) fn classify(response: &Response<'_>, asked: &Asked<'_>) -> Failure {
    let at = asked.at;
    let status = response.status;
    let read = response.body.and_then(members);
    let coded = match &read {
        None => coding(response.content_encoding, response.body.unwrap_or_default()),
        Some(_) => None,
    };
    let is_json = read.is_some();
    let answer = read.unwrap_or_default();
    let code = code_of(&answer, asked.secrets);
    let stated = matches!(answer.get("error"), Some(Value::String(_)));
    let shown = match (&code, stated) {
        (Some(code), _) => format!(", error {code}"),
        (None, true) => ", an unregistered error code (withheld)".into(),
        (None, false) => String::new(),
    };
    let microsoft = microsoft_code(&answer, asked.secrets)
        .map(|code| format!(" ({code})"))
        .unwrap_or_default();
    let said = format!("{at} answered HTTP {status}{shown}{microsoft}");
    let failure = match status {
        400 | 401 | 403 if stated => stated_error(&said, status, code.as_deref(), asked),
        400 | 401 | 403 if coded.is_some() => Failure::transient(format!(
            "{said} with a body in the coding {}, {UNASKED}",
            coded.unwrap_or_default()
        )),
        // Token endpoints give a reason in JSON (RFC 6749 §5.2). What stands before them does not:
        // firewalls, gateways, challenges.
        400 | 403 if !is_json => Failure::transient(format!(
            "{said} without a reason ({}), as a gateway, firewall or proxy does{} see that it lets token requests of \
             this host through, and check token_url or issuer; it is asked again by itself",
            media_type(response, asked),
            who_else(response, asked)
        )),
        401 | 403 => Failure::permanent(format!(
            "{at} refused the client (HTTP {status}): {}",
            asked.suspects.cure()
        )),
        300..=399 => Failure::transient(format!(
            "{said}, a redirect to {}, and credentials never follow one: set token_url (or issuer) to the final address",
            redirect(response, asked)
        )),
        404 | 405 => Failure::transient(format!(
            "{said}: there is no token endpoint; check token_url or issuer, or wait until the identity provider is up"
        )),
        408 | 425 | 429 => Failure::transient(format!(
            "{said}: the identity provider asks for patience; if it stays, raise refresh.min_interval or lower \
             max_per_second"
        )),
        500..=599 => Failure::transient(format!(
            "{said}: the identity provider or a proxy before it has trouble; it is asked again by itself"
        )),
        _ => Failure::transient(format!(
            "{said}, which is no answer of a token endpoint: check token_url or issuer"
        )),
    };
    failure.with_oauth_error(code)
}

/// Who refuses without a reason besides what stands before an identity provider. Glewlwyd answers
/// every client that it does not accept with 403 and an empty body.
fn who_else(response: &Response<'_>, asked: &Asked<'_>) -> String {
    match response
        .body
        .is_some_and(|body| body.trim_ascii().is_empty())
    {
        true => format!(
            ", and some identity providers to a client that they do not accept: {}; otherwise",
            asked.suspects.cure()
        ),
        false => " and no token endpoint:".to_owned(),
    }
}

/// The failure for an answer with an error code, which may be one that cannot be shown.
fn stated_error(said: &str, status: u16, code: Option<&str>, asked: &Asked<'_>) -> Failure {
    let known = CODES.iter().find(|(known, ..)| code == Some(*known));
    let (kind, cure) = match known {
        Some(("invalid_client", kind, _)) => (*kind, asked.suspects.cure()),
        // RFC 6749 §5.2 has 401 for clients that fail to prove their identity. Keycloak answers so
        // to a wrong secret, and to a client without a service account.
        Some(("unauthorized_client", kind, grant)) if status == 401 => (
            *kind,
            format!("{}; or {grant}", asked.suspects.cure()),
        ),
        Some((_, kind, cure)) => (*kind, (*cure).to_owned()),
        None => (
            FailureKind::Permanent,
            "the identity provider refuses the request: look the code up in its documentation or log"
                .into(),
        ),
    };
    let message = format!("{said}: {cure}");
    match kind {
        FailureKind::Permanent => Failure::permanent(message),
        FailureKind::Transient => Failure::transient(message),
    }
}

/// The `error` code, if it may be shown: a known one, or 1 to 40 characters of `[a-z_]` that repeat
/// no secret. Registered codes are all of that form; secrets, keys and their encodings (hex,
/// base64) almost never are.
pub(super) fn code_of(answer: &Map<String, Value>, secrets: &[&Secret]) -> Option<String> {
    let code = answer.get("error")?.as_str()?;
    let known = CODES.iter().any(|(known, ..)| *known == code);
    let backwards: String = code.chars().rev().collect();
    let harmless = (1..=40).contains(&code.len())
        && code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        && !echoes(code, secrets)
        && !echoes(&backwards, secrets);
    (known || harmless).then(|| code.into())
}

/// The real code of Entra ID, which stands in error_description: the first `AADSTS` with 4 to 8
/// digits. No other part of that text is used.
fn microsoft_code(answer: &Map<String, Value>, secrets: &[&Secret]) -> Option<String> {
    let text = answer.get("error_description")?.as_str()?;
    let (_, rest) = text.split_once("AADSTS")?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let code = format!("AADSTS{}", &rest[..digits]);
    ((4..=8).contains(&digits) && !echoes(&code, secrets)).then_some(code)
}
