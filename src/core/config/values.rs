//! Rules for single values, wherever they stand.

use url::Url;

use crate::core::policy::unit::KINDS;

/// Why a value is wrong: the rest of a sentence that begins with the key, and advice.
#[derive(Debug)]
pub(super) struct ValueError {
    pub message: String,
    pub help: String,
}

impl ValueError {
    fn new<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, ValueError> {
        Err(ValueError {
            message: message.into(),
            help: help.into(),
        })
    }
}

/// The rule for a text.
pub(super) type TextRule = fn(&str) -> Result<(), ValueError>;

/// The purpose of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UrlRule {
    Target,
    Issuer,
    Token,
    Proxy,
}

/// Accepts texts that are not empty and have no control characters.
pub(super) fn plain(text: &str) -> Result<(), ValueError> {
    if text.is_empty() {
        return ValueError::new("must not be empty", "");
    }
    if text.chars().any(char::is_control) {
        return ValueError::new("must not have control characters", "");
    }
    Ok(())
}

/// Checks an argument of a command: whatever the system takes, an empty one too.
pub(super) fn argument(text: &str) -> Result<(), ValueError> {
    if text.contains('\0') {
        return ValueError::new("must not have a NUL character", "");
    }
    Ok(())
}

/// Checks a user name (RFC 7617 §2): it ends at the first colon.
pub(super) fn username(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if text.contains(':') {
        return ValueError::new(
            "must not have a colon: the header could not be told apart from another user's (RFC 7617 §2)",
            "",
        );
    }
    Ok(())
}

/// Checks a client id (RFC 6749 appendix A.1): printable ASCII. No known provider accepts more, and
/// control characters would split a header.
pub(super) fn client_id(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if !text.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return ValueError::new("must be printable ASCII (RFC 6749 appendix A.1)", "");
    }
    Ok(())
}

/// Checks one scope token (RFC 6749 §3.3).
pub(super) fn scope(text: &str) -> Result<(), ValueError> {
    if text.is_empty() {
        return ValueError::new("has an empty scope", "");
    }
    if text.contains(' ') {
        let parts: Vec<&str> = text.split_whitespace().collect();
        let items: Vec<String> = parts.iter().map(|part| format!("{part:?}")).collect();
        // A text that is no list of scopes is not repeated: a misplaced quote can put anything into
        // it.
        let help = match parts.iter().all(|part| scope(part).is_ok()) {
            true => format!("one list item for each scope: [{}]", items.join(", ")),
            false => "one list item for each scope".into(),
        };
        return ValueError::new("has a scope with a space in it", help);
    }
    if !text
        .bytes()
        .all(|b| b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b))
    {
        return ValueError::new(
            "has a scope with a character that scopes cannot have (RFC 6749 §3.3)",
            "printable ASCII without space, \" and \\",
        );
    }
    Ok(())
}

/// The words that `assertion.audience` accepts besides URLs.
pub(super) const AUDIENCES: [&str; 2] = ["issuer", "token_endpoint"];

/// Accepts one of the words, or a text that is not meant as one of them.
pub(super) fn assertion_audience(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    match nearest(text, AUDIENCES) {
        Some(word) if word != text => ValueError::new(
            "is neither \"issuer\" nor \"token_endpoint\" nor a URL",
            format!("did you mean \"{word}\"?"),
        ),
        _ => Ok(()),
    }
}

/// The short names that `assertion.type` accepts.
const ASSERTION_TYPES: [&str; 2] = ["jwt-bearer", "jwt-spiffe"];

/// Accepts one of the short names, or a URI (RFC 7521 §4.2).
pub(super) fn assertion_type(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if ASSERTION_TYPES.contains(&text) || Url::parse(text).is_ok() {
        return Ok(());
    }
    ValueError::new(
        "is neither \"jwt-bearer\" nor \"jwt-spiffe\" nor a URI",
        match nearest(text, ASSERTION_TYPES) {
            Some(word) => format!("did you mean \"{word}\"?"),
            None => {
                "for instance \"urn:ietf:params:oauth:client-assertion-type:jwt-bearer\"".into()
            }
        },
    )
}

/// Checks a resource (RFC 8707 §2): an absolute URI without fragment.
pub(super) fn resource(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    match Url::parse(text) {
        Ok(url) if url.fragment().is_none() => Ok(()),
        _ => ValueError::new(
            "has an entry that is not an absolute URI without fragment (RFC 8707 §2)",
            "",
        ),
    }
}

/// Checks a name of `extra`: any name that tokend does not set itself.
pub(super) fn parameter(name: &str) -> Result<(), ValueError> {
    plain(name)?;
    let help = match name {
        "grant_type" => "use `grant`",
        "client_id" => "use `client_id` of the profile",
        "client_secret" => "use `client_secret` of the profile",
        "scope" => "use `scopes` of the profile",
        "audience" => "use `audience` of the profile",
        "resource" => "use `resource` of the profile",
        "client_assertion" | "client_assertion_type" => {
            "use `client_auth` and `assertion` of the profile"
        }
        _ => return Ok(()),
    };
    ValueError::new(
        format!("must not set `{name}`: tokend sets this parameter"),
        help,
    )
}

/// Checks the name of a systemd unit, which may have wildcards.
pub(super) fn unit(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if text.contains('/') || text.contains(char::is_whitespace) {
        return ValueError::new(
            "must be the name of a systemd unit",
            "for instance \"orders@*.service\"",
        );
    }
    if !text.ends_with(['*', '?']) && !KINDS.iter().any(|kind| text.ends_with(kind)) {
        return ValueError::new(
            "means no unit that a process can be in",
            "the whole name with its kind, for instance \"orders.service\"; a slice only holds units",
        );
    }
    Ok(())
}

/// Checks a file name in systemd's credentials directory.
pub(super) fn credential(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if text.contains('/') || text == "." || text == ".." || text.len() > 255 {
        return ValueError::new(
            "must be the name of a systemd credential, not a path",
            "for a path, use { file = \"…\" }",
        );
    }
    Ok(())
}

/// Checks the name of an environment variable.
pub(super) fn variable(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if text.contains('=') {
        return ValueError::new("must be the name of an environment variable", "");
    }
    Ok(())
}

/// Checks that the system takes the text as a path.
pub(super) fn path(text: &str) -> Result<(), ValueError> {
    if text.is_empty() {
        return ValueError::new("must not be empty", "");
    }
    if text.contains('\0') {
        return ValueError::new("must not have a NUL character", "");
    }
    Ok(())
}

/// Checks the name of a user or group.
pub(super) fn account(text: &str) -> Result<(), ValueError> {
    plain(text)?;
    if text.contains([':', '/', ',']) || text.contains(char::is_whitespace) {
        return ValueError::new("is not a name that a user or group can have", "");
    }
    Ok(())
}

/// Checks a URL for its purpose. Other code decides whether plain `http` is permitted, since that
/// depends on other keys. No message repeats the text, as it may contain a password.
pub(super) fn url(text: &str, rule: UrlRule) -> Result<Url, ValueError> {
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(url::ParseError::RelativeUrlWithoutBase) => {
            return ValueError::new(
                "is not an absolute URL",
                "it begins with https://, as in \"https://idp.example/realms/a\"",
            );
        }
        Err(error) => return ValueError::new(format!("is not a URL: {error}"), ""),
    };
    if rule == UrlRule::Issuer {
        issuer(&url)?;
    }
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return ValueError::new("must be an https:// or http:// URL", "");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return ValueError::new(
            "must not have a user or password in it: URLs end up in logs",
            "",
        );
    }
    if url.fragment().is_some() {
        return ValueError::new("must not have a fragment (#…)", "");
    }
    if rule == UrlRule::Issuer && url.query().is_some() {
        return ValueError::new(
            "must not have a query (?…) (RFC 8414 §2)",
            "the token endpoint itself goes into `token_url`",
        );
    }
    Ok(url)
}

/// Reports URLs that cannot be issuers.
fn issuer(url: &Url) -> Result<(), ValueError> {
    const DOCUMENTS: &str = "/.well-known/";
    if let Some((before, after)) = url.path().split_once(DOCUMENTS) {
        // RFC 8414 §3 puts the well-known name before the issuer's path.
        let rest = after.split_once('/').map_or("", |(_, rest)| rest);
        let between = if rest.is_empty() { "" } else { "/" };
        return ValueError::new(
            "is the address of a discovery document, which is found by itself",
            format!(
                "the issuer alone: \"{}{before}{between}{rest}\"",
                url.origin().ascii_serialization()
            ),
        );
    }
    if url.path().contains("%7B") || url.path().contains('{') {
        return ValueError::new(
            "has a placeholder ({…}) in it",
            "put in its place what it stands for, the tenant's identifier for instance",
        );
    }
    Ok(())
}

/// The known word that is nearest to a misspelled one, if any is near.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| -> String {
        text.chars()
            .filter(|c| c.is_alphanumeric())
            .flat_map(char::to_lowercase)
            .take(64)
            .collect()
    };
    let word = plain(word);
    let length = word.chars().count();
    known
        .into_iter()
        .map(|candidate| {
            let letters = plain(candidate);
            let reach = (length.max(letters.chars().count()) / 3).max(1);
            // The distance counts insertions, deletions, replacements, and exchanges of neighbours.
            (strsim::osa_distance(&word, &letters), reach, candidate)
        })
        .filter(|(distance, reach, candidate)| {
            distance <= reach && (*distance < length || candidate.is_empty())
        })
        .min_by_key(|(distance, ..)| *distance)
        .map(|(.., candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word() {
        let known = ["client_id", "client_secret", "client_auth", "method", "at"];
        for (word, expected) in [
            ("clientid", Some("client_id")),
            ("clientSecret", Some("client_secret")),
            ("client-auth", Some("client_auth")),
            ("mehtod", Some("method")),
            ("colour", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), expected, "{word}");
        }
    }
}
