//! What was asked for and is missing in the token, if the token is a JWT. Identity providers leave
//! out what they do not know or permit, and the API refuses the token later.

use super::jwt;
use crate::core::diagnostic::Diagnostic;

/// Scopes that are about other tokens, or stand for what is granted anyway. An access token does
/// not have to name them.
const NOT_NAMED: [&str; 2] = ["openid", "offline_access"];

/// Each missing audience, resource and scope, under the key that asked for it. An opaque token
/// lacks nothing. Nor are scopes missing in a token without any scopes, but a missing audience is
/// always reported.
#[must_use]
pub fn lacking(
    token: &str,
    audience: Option<&str>,
    resources: &[String],
    scopes: &[String],
) -> Vec<Diagnostic> {
    let Some(claims) = jwt::claims(token) else {
        return Vec::new();
    };
    let bare = |text: &str| text.trim_end_matches('/').to_owned();
    let named: Vec<String> = jwt::texts(claims.get("aud"))
        .iter()
        .map(|one| bare(one))
        .collect();
    let asked = audience.map(|one| ("audience", one));
    let asked = asked
        .into_iter()
        .chain(resources.iter().map(|one| ("resource", one.as_str())));
    let mut lines: Vec<Diagnostic> = asked
        .filter(|(_, one)| !named.contains(&bare(one)))
        .map(|(key, one)| {
            let message = format!(
                "the token is not made out to {one:?} (aud), although it was asked for: some identity providers \
                 do not look at {key} and want the API to be configured there, as a scope or a mapper of the client"
            );
            Diagnostic::new(key, message)
        })
        .collect();
    let carried: Vec<String> = ["scope", "scp"]
        .into_iter()
        .flat_map(|name| jwt::texts(claims.get(name)))
        .flat_map(|text| text.split(' ').map(String::from).collect::<Vec<_>>())
        .collect();
    let missing: Vec<&str> = scopes
        .iter()
        .map(String::as_str)
        .filter(|one| !carried.iter().any(|known| known == one))
        .filter(|one| !NOT_NAMED.contains(one) && !one.ends_with("/.default"))
        .collect();
    if !carried.is_empty() && !missing.is_empty() {
        let message = format!(
            "the token does not carry {}, although asked for: allow it to this client at the identity provider, or \
             take it out",
            missing.join(", ")
        );
        lines.push(Diagnostic::new("scopes", message));
    }
    lines
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    #[test]
    fn what_was_asked_and_not_given_is_told() {
        let said = |claims: &str, audience, resource: &str, scopes: &[&str]| {
            let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
            let scopes: Vec<String> = scopes.iter().map(|one| (*one).into()).collect();
            let lines = lacking(&token, audience, &[resource.into()], &scopes);
            lines.into_iter().map(|line| line.key).collect::<Vec<_>>()
        };
        let all = r#"{"aud":["api","https://r.example/"],"scope":"a b"}"#;
        let r = "https://r.example";
        assert_eq!(
            said(all, Some("api"), r, &["a", "openid", "x/.default"]),
            [""; 0]
        );
        assert_eq!(said(all, Some("other"), r, &["a"]), ["audience"]);
        assert_eq!(said(all, None, "https://s.example", &["a"]), ["resource"]);
        assert_eq!(said(all, None, r, &["a", "c"]), ["scopes"]);
        assert_eq!(
            said(r#"{"scp":["b"]}"#, Some("api"), r, &["a"]),
            ["audience", "resource", "scopes"]
        );
        // The token has no scopes at all: other claims may say what it permits.
        assert_eq!(
            said(r#"{"aud":"https://r.example"}"#, None, r, &["a"]),
            [""; 0]
        );
        assert_eq!(lacking("opaque", Some("api"), &[], &["a".into()]), []);
    }
}
