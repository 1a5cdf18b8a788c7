//! Which of the known forms an answer has. Its content tells; the profile's `format` may insist.

use serde_json::{Map, Value};

use crate::core::profile::exec::AnswerFormat;

/// Whether an answer of this form will do.
pub(super) fn takes(format: AnswerFormat, shape: &AnswerShape) -> bool {
    match (format, shape) {
        (AnswerFormat::Auto, _)
        | (AnswerFormat::Tokend, AnswerShape::Tokend(_))
        | (AnswerFormat::Google, AnswerShape::Google(_))
        | (AnswerFormat::Kubernetes, AnswerShape::Kubernetes(_))
        | (AnswerFormat::Token, AnswerShape::Bare(_)) => true,
        // Whoever fails says so in any form.
        (_, AnswerShape::Plain(members)) => is_error(members),
        _ => false,
    }
}

/// The form of an answer, with what it consists of.
pub(super) enum AnswerShape {
    Tokend(Map<String, Value>),
    Google(Map<String, Value>),
    Kubernetes(Map<String, Value>),
    /// `token` or `access_token` with an expiry, as many tools print it, or an error without a
    /// version.
    Plain(Map<String, Value>),
    /// Keys that sign requests.
    Aws,
    /// One word.
    Bare(String),
    /// JSON that is none of these.
    OtherJson,
    /// Begins like JSON.
    Damaged,
    /// Several words.
    Prose,
    Nothing,
}

/// Tells the form of an answer.
pub(super) fn of(text: &str) -> AnswerShape {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.is_empty() {
        return AnswerShape::Nothing;
    }
    if !text.starts_with(['{', '[', '"']) {
        let one_word = !text.contains(|c: char| c.is_whitespace() || c.is_control());
        return match one_word {
            true => AnswerShape::Bare(text.to_owned()),
            false => AnswerShape::Prose,
        };
    }
    let members = match serde_json::from_str(text) {
        Ok(Value::Object(members)) => members,
        Ok(_) => return AnswerShape::OtherJson,
        Err(_) => return AnswerShape::Damaged,
    };
    let has = |name: &str| members.get(name).is_some_and(|value| !value.is_null());
    if has("AccessKeyId") || has("SecretAccessKey") {
        AnswerShape::Aws
    } else if has("apiVersion") || has("kind") {
        AnswerShape::Kubernetes(members)
    } else if has("success") {
        AnswerShape::Google(members)
    } else if has("version") {
        AnswerShape::Tokend(members)
    } else if has("token") || has("access_token") || is_error(&members) {
        AnswerShape::Plain(members)
    } else {
        AnswerShape::OtherJson
    }
}

/// Whether an answer names an error.
pub(super) fn is_error(members: &Map<String, Value>) -> bool {
    match members.get("error") {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(_) => true,
    }
}
