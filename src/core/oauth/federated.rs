//! Reads an assertion that another program makes: whom it names, and until when.

use serde_json::Value;

use super::jwt;

/// `client_assertion_type` of RFC 7523 §2.2.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// The type that Keycloak wants for a JWT-SVID (draft-schwenkschuster-oauth-spiffe-client-auth).
pub const JWT_SPIFFE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";

/// The claims of RFC 7523 §3. Nothing is verified. Times are whole seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AssertionFacts {
    /// `iss`
    pub issuer: Option<String>,
    /// `sub`
    pub subject: Option<String>,
    /// `aud`, one or more.
    pub audiences: Vec<String>,
    /// `iat`, else `nbf`
    pub issued: Option<u64>,
    /// `exp`
    pub expires: Option<u64>,
}

/// Reads what an assertion says of itself. None if it is encrypted (RFC 7516), since only its
/// audience can read it.
///
/// # Errors
/// Why the text is no assertion.
pub fn read(assertion: &str) -> Result<Option<AssertionFacts>, &'static str> {
    let encrypted = assertion.split('.').count() == 5;
    if encrypted && assertion.split('.').next().and_then(jwt::decoded).is_some() {
        return Ok(None);
    }
    let Some(claims) = jwt::claims(assertion) else {
        return Err(
            "is no JWT (three parts of base64url with dots between, RFC 7519), perhaps written only in part: let \
             whoever makes it write it whole, and nothing else",
        );
    };
    let text = |name: &str| match claims.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Some(text.clone()),
        _ => None,
    };
    let time = |name: &str| claims.get(name).and_then(jwt::seconds);
    Ok(Some(AssertionFacts {
        issuer: text("iss"),
        subject: text("sub"),
        audiences: jwt::texts(claims.get("aud")),
        issued: time("iat").or_else(|| time("nbf")),
        expires: time("exp"),
    }))
}

impl AssertionFacts {
    /// The claims that this kind of assertion needs and that are missing.
    #[must_use]
    pub fn missing(&self, kind: &str) -> Vec<&'static str> {
        let issuer = self.issuer.is_some() || kind != JWT_BEARER;
        [
            ("iss", issuer),
            ("sub", self.subject.is_some()),
            ("aud", !self.audiences.is_empty()),
            ("exp", self.expires.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, there)| (!there).then_some(name))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn jwt(claims: &str) -> String {
        let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part("{}"), part(claims))
    }

    #[test]
    fn whom_it_names_and_until_when() {
        let claims = r#"{"iss":"i","sub":"s","aud":["a","b"],"nbf":1,"iat":2,"exp":3.5}"#;
        let named = read(&jwt(claims)).unwrap().unwrap();
        assert_eq!(
            named,
            AssertionFacts {
                issuer: Some("i".into()),
                subject: Some("s".into()),
                audiences: vec!["a".into(), "b".into()],
                issued: Some(2),
                expires: Some(3),
            }
        );
        assert_eq!(named.missing(JWT_BEARER), [""; 0]);
        let bare = read(&jwt(r#"{"iss":7,"aud":"a"}"#)).unwrap().unwrap();
        assert_eq!(bare.missing(JWT_BEARER), ["iss", "sub", "exp"]);
        assert_eq!(bare.missing(JWT_SPIFFE), ["sub", "exp"]);
    }

    #[test]
    fn what_is_none_is_told_and_an_encrypted_one_is_left_alone() {
        for none in [
            "",
            "secret",
            "a.b",
            "a.b.c",
            "e30.W10.c2ln",
            "<html>",
            "a.b.c.d.e ",
        ] {
            assert!(read(none).is_err(), "{none}");
        }
        assert_eq!(read("e30.AA.AA.AA.AA"), Ok(None));
    }
}
