//! Repeats what a server said without secrets that the server may have echoed (trap 32).

use url::Url;

use crate::core::secret::Secret;

/// This many characters of a secret in a row are taken for an echo. A smaller number would withhold
/// honest words by chance.
const TELLING: usize = 8;

/// Whether a server's text repeats a secret, in whole or in part, or is itself part of one. Case is
/// ignored.
#[must_use]
pub fn echoes(text: &str, secrets: &[&Secret]) -> bool {
    let text = text.as_bytes();
    secrets.iter().any(|secret| {
        let secret = secret.expose().as_bytes();
        if secret.is_empty() || text.is_empty() {
            return false;
        }
        holds(text, secret)
            || holds(secret, text)
            || text.windows(TELLING).any(|piece| holds(secret, piece))
    })
}

/// Whether a server's text repeats a secret, in whole or so much of it that chance is ruled out.
/// This is for words that are too many and too short for [`echoes`], which takes every syllable of
/// a long secret for an echo.
#[must_use]
pub fn repeats(text: &str, secrets: &[&Secret]) -> bool {
    let text = text.as_bytes();
    secrets.iter().any(|secret| {
        let secret = secret.expose().as_bytes();
        !secret.is_empty()
            && (holds(text, secret) || text.windows(TELLING).any(|piece| holds(secret, piece)))
    })
}

/// Whether a token is a secret: both are the same, or one contains the other and the shorter is
/// long enough to rule out chance. A common part means nothing, since two JWTs begin alike.
#[must_use]
pub fn is_secret(token: &Secret, secrets: &[&Secret]) -> bool {
    let token = token.expose().as_bytes();
    secrets.iter().any(|secret| {
        let secret = secret.expose().as_bytes();
        if token.len().min(secret.len()) < TELLING {
            return token == secret;
        }
        holds(token, secret) || holds(secret, token)
    })
}

/// A URL for people: scheme, host, port and path; neither user nor query nor fragment.
#[must_use]
pub fn place(url: &Url) -> String {
    format!("{}{}", origin(url), url.path())
}

/// The same for a URL from a server. Only its origin if the path repeats a secret, and nothing if
/// the host does.
#[must_use]
pub fn foreign_place(url: &Url, secrets: &[&Secret]) -> String {
    let origin = origin(url);
    if origin.len() > 300 || echoes(&origin, secrets) {
        "a place that is not shown here".into()
    } else if url.path().len() > 300 || echoes(url.path(), secrets) {
        origin
    } else {
        format!("{origin}{}", url.path())
    }
}

/// `scheme://host[:port]`.
#[must_use]
pub fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or("");
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

fn holds(text: &[u8], piece: &[u8]) -> bool {
    text.windows(piece.len())
        .any(|window| window.eq_ignore_ascii_case(piece))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trap_32_echoes_are_seen_whole_in_part_and_the_other_way_around() {
        let secret = Secret::new("Correct-Horse-Battery".into());
        let empty = Secret::new(String::new());
        let secrets = [&secret, &empty];
        for echo in [
            "Correct-Horse-Battery",
            "error.correct-horse-battery.1",
            "Horse",
            "my-Battery-and-orse-Batt",
        ] {
            assert!(echoes(echo, &secrets), "{echo}");
        }
        for honest in ["temporarily_unavailable", "my_error", ""] {
            assert!(!echoes(honest, &secrets), "{honest}");
        }
    }

    #[test]
    fn a_token_that_is_a_secret_is_told_from_one_that_begins_like_it() {
        let assertion = Secret::new("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln".into());
        let short = Secret::new("abc".into());
        let secrets = [&assertion, &short];
        for (token, expected) in [
            ("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln", true),
            ("x-eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln-x", true),
            ("JpXVCJ9.e30.c2ln", false),
            ("IkpXVCJ9.e30.c2ln", true),
            ("eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e31.YWJj", false),
            ("abc", true),
            ("abcd", false),
        ] {
            let judged = is_secret(&Secret::new(token.into()), &secrets);
            assert_eq!(judged, expected, "{token}");
        }
    }

    #[test]
    fn places_have_neither_user_nor_query() {
        let url = Url::parse("https://u:p@idp.example:8443/a/token?key=v#f").unwrap();
        assert_eq!(place(&url), "https://idp.example:8443/a/token");
        let secret = Secret::new("a/token".into());
        assert_eq!(foreign_place(&url, &[&secret]), "https://idp.example:8443");
        let secret = Secret::new("idp.example".into());
        assert!(!foreign_place(&url, &[&secret]).contains("idp"));
    }
}
