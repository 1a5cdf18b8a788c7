//! A token request as it came: form parameters and the `Authorization` header, decoded strictly.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

/// Parameters that may be repeated (RFC 8707 §2, RFC 8693 §2.1).
const REPEATABLE: [&str; 2] = ["resource", "audience"];

/// A token request. It holds secrets and therefore has no Debug.
pub(crate) struct Form {
    /// The parameters in the order they came, without those that have no value (RFC 6749 §3.2).
    pub parameters: Vec<(String, String)>,
    /// Client id and secret of the `Authorization` header, if that is Basic.
    pub basic: Option<Result<(String, String), FormRefusal>>,
    is_form: bool,
}

impl Form {
    /// Takes a request apart. [`Form::check`] and client authentication report later what is wrong
    /// with it.
    pub fn parse(headers: &HeaderMap, body: &[u8]) -> Form {
        let is_form = headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|kind| {
                kind.trim()
                    .eq_ignore_ascii_case("application/x-www-form-urlencoded")
            });
        let authorization = headers
            .get(AUTHORIZATION)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Form {
            parameters: url::form_urlencoded::parse(body)
                .into_owned()
                .filter(|(_, value)| !value.is_empty())
                .collect(),
            basic: authorization.as_deref().map(parse_basic),
            is_form,
        }
    }

    /// The first value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a parameter.
    pub fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.parameters
            .iter()
            .filter(move |(parameter, _)| parameter == name)
            .map(|(_, value)| value.as_str())
    }

    /// Reports what is wrong with the request, whichever client sent it: RFC 6749 §3.2 and §4.4.2.
    pub fn check(&self) -> Result<(), FormRefusal> {
        if !self.is_form {
            return Err(FormRefusal::request(
                "the body must be application/x-www-form-urlencoded",
            ));
        }
        let repeated = self.parameters.iter().enumerate().any(|(at, (name, _))| {
            !REPEATABLE.contains(&name.as_str())
                && self.parameters[..at].iter().any(|(other, _)| other == name)
        });
        if repeated {
            return Err(FormRefusal::request("a parameter is repeated"));
        }
        Ok(())
    }

    /// The client that the request claims to be from, by any method. Nothing is proven.
    pub fn claimed_client(&self) -> Option<String> {
        if let Some(Ok((id, _))) = &self.basic {
            return Some(id.clone());
        }
        if let Some(id) = self.get("client_id") {
            return Some(id.to_owned());
        }
        let assertion = self.get("client_assertion")?;
        let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(assertion).ok()?;
        claims["sub"].as_str().map(str::to_owned)
    }
}

/// Why there is no token: an error of RFC 6749 §5.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FormRefusal {
    pub status: StatusCode,
    pub code: &'static str,
    pub description: &'static str,
}

impl FormRefusal {
    pub fn new(code: &'static str, description: &'static str) -> FormRefusal {
        FormRefusal {
            status: StatusCode::BAD_REQUEST,
            code,
            description,
        }
    }

    /// `invalid_request`
    pub fn request(description: &'static str) -> FormRefusal {
        FormRefusal::new("invalid_request", description)
    }

    /// The request uses another method than POST.
    pub fn method() -> FormRefusal {
        FormRefusal {
            status: StatusCode::METHOD_NOT_ALLOWED,
            ..FormRefusal::request("method not allowed")
        }
    }

    /// `invalid_client`, the only error with status 401.
    pub fn client(description: &'static str) -> FormRefusal {
        FormRefusal {
            status: StatusCode::UNAUTHORIZED,
            ..FormRefusal::new("invalid_client", description)
        }
    }
}

/// Reads a Basic header: base64 of `id:secret`, each form-urlencoded before (RFC 6749 §2.3.1).
fn parse_basic(header: &str) -> Result<(String, String), FormRefusal> {
    let bad = || FormRefusal::client("the Authorization header is not Basic as in RFC 6749 §2.3.1");
    let (scheme, encoded) = header.split_once(' ').ok_or_else(bad)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(bad());
    }
    let pair = STANDARD.decode(encoded.trim()).map_err(|_| bad())?;
    let pair = String::from_utf8(pair).map_err(|_| bad())?;
    let (id, secret) = pair.split_once(':').ok_or_else(bad)?;
    Ok((
        form_decode(id).ok_or_else(bad)?,
        form_decode(secret).ok_or_else(bad)?,
    ))
}

/// Undoes form-urlencoding. Returns None for text that no encoder writes, above all for a secret
/// that was not encoded at all. It accepts `~ ! ' ( )`: common encoders leave them as they are.
fn form_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
                out.push(u8::try_from(value).ok()?);
            }
            b'*' | b'-' | b'.' | b'_' | b'~' | b'!' | b'\'' | b'(' | b')' => out.push(byte),
            _ if byte.is_ascii_alphanumeric() => out.push(byte),
            _ => return None,
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_decoding_is_strict() {
        assert_eq!(form_decode("a%2Fb+c%C3%A9").as_deref(), Some("a/b cé"));
        for bad in ["a/b", "a=b", "50%", "%zz", "a b", "%ff", "é", "%+1"] {
            assert_eq!(form_decode(bad), None, "{bad}");
        }
    }
}
