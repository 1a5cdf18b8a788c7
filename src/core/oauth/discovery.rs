//! The metadata document of an issuer (OpenID Connect Discovery 1.0 §4, RFC 8414 §3, RFC 8705 §5).

use serde_json::Value;
use url::Url;

use super::response::members;
use super::withhold::{foreign_place, origin, place};
use crate::core::profile::is_loopback;
use crate::core::secret::Secret;

/// The parts of the document that the daemon uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The issuer's name for itself: the audience of assertions.
    pub issuer: String,
    pub token_endpoint: Url,
    /// `token_endpoint` as the issuer writes it: the other audience of assertions.
    pub token_endpoint_named: String,
    /// `mtls_endpoint_aliases.token_endpoint`, which asks for a client certificate.
    pub mtls_token_endpoint: Option<Url>,
    /// The known ones of `token_endpoint_auth_methods_supported`; None if the document has no list.
    pub client_auth_methods: Option<Vec<&'static str>>,
}

impl Document {
    /// The address for the token request, with or without a client certificate.
    #[must_use]
    pub fn endpoint(&self, with_certificate: bool) -> &Url {
        match &self.mtls_token_endpoint {
            Some(alias) if with_certificate => alias,
            _ => &self.token_endpoint,
        }
    }

    /// The origin of the token endpoint if it is not the issuer's. That is allowed and mostly
    /// meant, but an operator who checks a configuration should see it. None: it is the issuer's.
    #[must_use]
    pub fn elsewhere(
        &self,
        issuer: &Url,
        with_certificate: bool,
        secrets: &[&Secret],
    ) -> Option<String> {
        let mut there = self.endpoint(with_certificate).clone();
        there.set_path("");
        let shown = foreign_place(&there, secrets);
        (origin(&there) != origin(issuer)).then(|| shown.trim_end_matches('/').into())
    }

    /// The addition to a failure when the issuer does not list the configured `client_auth`.
    /// Issuers' lists are often incomplete, so this alone is no failure.
    #[must_use]
    pub fn hint(&self, client_auth: &str) -> Option<String> {
        let methods = self.client_auth_methods.as_ref()?;
        if methods.contains(&client_auth) {
            return None;
        }
        Some(format!(
            "the issuer does not list client_auth {client_auth} as supported (it lists {})",
            if methods.is_empty() {
                "none that is known here".into()
            } else {
                methods.join(", ")
            }
        ))
    }
}

const KNOWN_METHODS: [&str; 7] = [
    "client_secret_basic",
    "client_secret_post",
    "client_secret_jwt",
    "private_key_jwt",
    "tls_client_auth",
    "self_signed_tls_client_auth",
    "none",
];

/// The places where the document may lie, in the order of the look-ups. OpenID Connect appends its
/// name to the issuer's path, RFC 8414 puts its name before the path.
#[must_use]
pub fn places(issuer: &Url) -> [Url; 2] {
    let path = issuer.path().trim_end_matches('/').to_owned();
    let with_path = |path: &str| {
        let mut url = issuer.clone();
        url.set_path(path);
        url.set_query(None);
        url.set_fragment(None);
        url
    };
    [
        with_path(&format!("{path}/.well-known/openid-configuration")),
        with_path(&format!("/.well-known/oauth-authorization-server{path}")),
    ]
}

/// Why a document cannot be used. Each text is one line with cause and cure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DocumentError {
    /// It is no discovery document: no JSON object, or one without issuer or token endpoint, as
    /// servers answer while they start. The next place may have the document.
    Missing,
    /// It belongs to another issuer; somebody has to change something.
    Foreign(String),
    /// It is the issuer's, but names an endpoint to which no credential may be sent.
    Unusable(String),
}

/// Reads a document that came from one of [`places`].
///
/// `secrets` are withheld from messages, since the server may know them from earlier requests.
///
/// # Errors
/// [`DocumentError`]
pub fn parse(
    body: &[u8],
    issuer: &Url,
    allow_insecure_http: bool,
    secrets: &[&Secret],
) -> Result<Document, DocumentError> {
    let Some(fields) = members(body) else {
        return Err(DocumentError::Missing);
    };
    let at = place(issuer);
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let (Some(named), Some(endpoint_named)) = (text("issuer"), text("token_endpoint")) else {
        return Err(DocumentError::Missing);
    };
    match Url::parse(named) {
        Ok(url) if same(&url, issuer) => {}
        // Mixing up issuers is an attack (RFC 8414 §6.2), and in most cases a wrong setting.
        Ok(url) => {
            return Err(DocumentError::Foreign(foreign(
                issuer,
                &url,
                endpoint_named,
                secrets,
            )));
        }
        Err(_) => return Err(DocumentError::Missing),
    }
    // The document of an https issuer may lead only to https, not even to plain HTTP on loopback:
    // the secret would go in the clear to whatever listens there.
    let usable = |url: &Url| {
        let scheme = match (issuer.scheme(), url.scheme()) {
            (_, "https") => true,
            ("http", "http") => allow_insecure_http || is_loopback(url),
            _ => false,
        };
        scheme && url.has_host() && url.username().is_empty() && url.password().is_none()
    };
    let endpoint = |text: &str| Url::parse(text).ok().filter(usable);
    let Some(token_endpoint) = endpoint(endpoint_named) else {
        return Err(DocumentError::Unusable(format!(
            "the discovery document of {at} names no token_endpoint with https://: check issuer, or set token_url \
             instead"
        )));
    };
    let alias = fields
        .get("mtls_endpoint_aliases")
        .and_then(|aliases| aliases.get("token_endpoint"))
        .and_then(Value::as_str);
    let mtls_token_endpoint = match alias.map(endpoint) {
        Some(None) => {
            return Err(DocumentError::Unusable(format!(
                "the discovery document of {at} names an mtls_endpoint_aliases.token_endpoint that is not https://: \
                 ask the identity provider's operator, or set token_url instead"
            )));
        }
        Some(url) => url,
        None => None,
    };
    let client_auth_methods = fields
        .get("token_endpoint_auth_methods_supported")
        .and_then(Value::as_array)
        .map(|methods| {
            KNOWN_METHODS
                .into_iter()
                .filter(|known| methods.iter().any(|method| method == known))
                .collect()
        });
    Ok(Document {
        issuer: named.into(),
        token_endpoint,
        token_endpoint_named: endpoint_named.into(),
        mtls_token_endpoint,
        client_auth_methods,
    })
}

/// The advice for a document that names another issuer. The token endpoint always helps: it needs
/// no document.
fn foreign(issuer: &Url, named: &Url, endpoint: &str, secrets: &[&Secret]) -> String {
    let said = format!(
        "the discovery document of {} belongs to another issuer ({})",
        place(issuer),
        foreign_place(named, secrets)
    );
    // An endpoint that is configured with https:// must not be asked without it.
    let endpoint = Url::parse(endpoint).ok().and_then(|mut url| {
        if issuer.scheme() == "https" && url.scheme() == "http" && origin_host(&url, issuer) {
            url.set_scheme("https").ok()?;
            url.set_port(issuer.port()).ok()?;
        }
        let usable = url.scheme() == "https" || issuer.scheme() == "http";
        (usable && url.has_host()).then(|| foreign_place(&url, secrets))
    });
    let token_url = match &endpoint {
        Some(endpoint) => format!("set token_url = \"{endpoint}\" instead of issuer"),
        None => "set token_url to its token endpoint instead of issuer".into(),
    };
    let path = |url: &Url| url.path().trim_end_matches('/').to_owned();
    let template = named.path().contains("%7B") || named.path().contains('{');
    if template {
        format!(
            "{said}, a template for many: put the tenant's own identifier into issuer, in place of a name for all (common, \
             organizations), or {token_url}"
        )
    } else if named.scheme() == "http" && issuer.scheme() == "https" {
        format!(
            "{said}, since it does not know that TLS ends before it: {token_url}, or let its operator set its public \
             address (X-Forwarded-Proto, hostname)"
        )
    } else if named.origin() == issuer.origin() && path(named).starts_with(&path(issuer)) {
        format!("{said}, below it: set issuer to exactly what it says there, or {token_url}")
    } else if named.origin() == issuer.origin() && path(issuer).starts_with(&path(named)) {
        format!(
            "{said}, above it: {token_url}, or set issuer to exactly what it says there, if that has a document too"
        )
    } else {
        format!(
            "{said}: set issuer to exactly what it says there, if that is meant, or {token_url}"
        )
    }
}

fn origin_host(one: &Url, other: &Url) -> bool {
    one.host_str() == other.host_str()
}

/// Whether both are the same issuer, apart from a slash at the end.
fn same(one: &Url, other: &Url) -> bool {
    one.as_str().trim_end_matches('/') == other.as_str().trim_end_matches('/')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    fn read(document: Value) -> Result<Document, DocumentError> {
        parse(
            document.to_string().as_bytes(),
            &url("https://idp.example/realms/a"),
            false,
            &[],
        )
    }

    #[test]
    fn both_places_with_and_without_a_path() {
        assert_eq!(
            places(&url("https://idp.example/realms/a/")).map(String::from),
            [
                "https://idp.example/realms/a/.well-known/openid-configuration",
                "https://idp.example/.well-known/oauth-authorization-server/realms/a",
            ]
        );
        assert_eq!(
            places(&url("https://idp.example")).map(String::from),
            [
                "https://idp.example/.well-known/openid-configuration",
                "https://idp.example/.well-known/oauth-authorization-server",
            ]
        );
    }

    /// Broken by advice that ignores what the document says.
    #[test]
    fn a_document_of_another_issuer_comes_with_advice_that_can_be_followed() {
        for (issuer, named, endpoint, expected) in [
            (
                "https://sso.example/realms/a",
                "http://sso.example/realms/a",
                "http://sso.example/realms/a/token",
                "set token_url = \"https://sso.example/realms/a/token\"",
            ),
            (
                "https://sso.example:8443/a",
                "http://sso.example:8080/a",
                "http://sso.example:8080/a/token",
                "set token_url = \"https://sso.example:8443/a/token\"",
            ),
            (
                "https://login.example/common/v2.0",
                "https://login.example/{tenantid}/v2.0",
                "https://login.example/common/oauth2/v2.0/token",
                "put the tenant's own identifier into issuer",
            ),
            (
                "https://idp.example/a/b",
                "https://idp.example/a",
                "https://idp.example/a/token",
                "above it: set token_url = \"https://idp.example/a/token\"",
            ),
            (
                "https://idp.example/a",
                "https://idp.example/a/b",
                "https://idp.example/a/b/token?q",
                "below it: set issuer to exactly what it says there, or set token_url = \"https://idp.example/a/b/token\"",
            ),
            (
                "https://idp.example/a",
                "https://other.example/a",
                "http://other.example/token",
                "or set token_url to its token endpoint",
            ),
        ] {
            let document = json!({ "issuer": named, "token_endpoint": endpoint }).to_string();
            match parse(document.as_bytes(), &url(issuer), false, &[]) {
                Err(DocumentError::Foreign(message)) => {
                    assert!(message.contains(expected), "{message}")
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Trap 55.
    #[test]
    fn a_byte_order_mark_or_an_odd_byte_leaves_a_document_what_it_is() {
        let body = b"\xef\xbb\xbf{\"issuer\":\"https://idp.example\",\"token_endpoint\":\"https://idp.example/t\",\"name\":\"M\xfcller\"}";
        assert!(parse(body, &url("https://idp.example"), false, &[]).is_ok());
    }

    #[test]
    fn a_document_is_read_with_its_mtls_alias() {
        let document = read(json!({
            "issuer": "https://idp.example/realms/a/",
            "token_endpoint": "https://idp.example/token",
            "mtls_endpoint_aliases": { "token_endpoint": "https://mtls.idp.example/token" },
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "evil\u{1b}[0m"],
        }))
        .unwrap();
        assert_eq!(document.issuer, "https://idp.example/realms/a/");
        assert_eq!(document.endpoint(false), &url("https://idp.example/token"));
        assert_eq!(
            document.endpoint(true),
            &url("https://mtls.idp.example/token")
        );
        assert_eq!(document.hint("private_key_jwt"), None);
        assert_eq!(
            document.hint("client_secret_post").unwrap(),
            "the issuer does not list client_auth client_secret_post as supported (it lists private_key_jwt)"
        );
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let good = "https://idp.example/realms/a";
        let token = "https://idp.example/token";
        for (issuer, endpoint, expected) in [
            (
                "https://idp.example/realms/b",
                token,
                "another issuer (https://idp.example/realms/b)",
            ),
            ("http://idp.example/realms/a", token, "another issuer"),
            (good, "http://idp.example/token", "no token_endpoint"),
            // A name below localhost is what DNS says it is.
            (good, "http://idp.localhost/token", "no token_endpoint"),
            (good, "http://localhost.example/", "no token_endpoint"),
            (good, "http://127.0.0.1:8080/token", "no token_endpoint"),
            (good, "http://localhost/token", "no token_endpoint"),
            (good, "ftp://idp.example/token", "no token_endpoint"),
            (good, "https://u:p@idp.example/token", "no token_endpoint"),
            (good, "/token", "no token_endpoint"),
        ] {
            let refused = read(json!({ "issuer": issuer, "token_endpoint": endpoint }));
            let message = match refused.unwrap_err() {
                DocumentError::Foreign(message) if issuer != good => message,
                DocumentError::Unusable(message) if issuer == good => message,
                other => panic!("{other:?}"),
            };
            assert!(message.contains(expected), "{message}");
        }
        let alias = json!({
            "issuer": good, "token_endpoint": token,
            "mtls_endpoint_aliases": { "token_endpoint": "http://idp.example/" },
        });
        assert!(
            matches!(read(alias), Err(DocumentError::Unusable(message)) if message.contains("mtls"))
        );
    }

    /// This holds even where plain HTTP is permitted: the issuer is asked with https.
    #[test]
    fn trap_48_an_https_issuer_leads_to_https_only() {
        let issuer = "https://idp.example/realms/a";
        for plain in [
            "http://127.0.0.1:1/t",
            "http://[::1]/t",
            "http://idp.example/t",
        ] {
            for document in [
                json!({ "issuer": issuer, "token_endpoint": plain }),
                json!({
                    "issuer": issuer, "token_endpoint": "https://idp.example/t",
                    "mtls_endpoint_aliases": { "token_endpoint": plain },
                }),
            ] {
                let read = parse(document.to_string().as_bytes(), &url(issuer), true, &[]);
                assert!(
                    matches!(read, Err(DocumentError::Unusable(_))),
                    "{document}"
                );
            }
        }
    }

    #[test]
    fn an_endpoint_elsewhere_is_told_by_its_origin() {
        let issuer = url("https://idp.example/realms/a");
        let elsewhere = |endpoint: &str, secrets: &[&Secret]| {
            read(json!({ "issuer": issuer.as_str(), "token_endpoint": endpoint }))
                .unwrap()
                .elsewhere(&issuer, false, secrets)
        };
        assert_eq!(elsewhere("https://idp.example/token", &[]), None);
        assert_eq!(elsewhere("https://idp.example:443/token", &[]), None);
        let other = "https://tokens.example:8443/t?key=v";
        assert_eq!(
            elsewhere(other, &[]).as_deref(),
            Some("https://tokens.example:8443")
        );
        let secret = Secret::new("tokens.example".into());
        assert_eq!(
            elsewhere(other, &[&secret]).as_deref(),
            Some("a place that is not shown here")
        );
    }

    #[test]
    fn what_is_no_document_sends_to_the_next_place() {
        for body in [
            "<html>",
            "[]",
            r#"{"status":"starting"}"#,
            r#"{"issuer":"https://idp.example/realms/a"}"#,
            r#"{"issuer":"https://other.example"}"#,
            r#"{"issuer":"","token_endpoint":"https://idp.example/token"}"#,
            r#"{"issuer":7,"token_endpoint":"https://idp.example/token"}"#,
            r#"{"token_endpoint":"https://idp.example/token"}"#,
        ] {
            let read = parse(
                body.as_bytes(),
                &url("https://idp.example/realms/a"),
                false,
                &[],
            );
            assert_eq!(read, Err(DocumentError::Missing), "{body}");
        }
    }

    #[test]
    fn plain_http_follows_the_configured_rule() {
        let document =
            json!({ "issuer": "http://idp.internal/", "token_endpoint": "http://idp.internal/t" });
        let read = |allow| {
            parse(
                document.to_string().as_bytes(),
                &url("http://idp.internal"),
                allow,
                &[],
            )
        };
        assert!(read(false).is_err());
        assert!(read(true).is_ok());
        let local =
            json!({ "issuer": "http://127.0.0.1:1", "token_endpoint": "http://127.0.0.1:1/t" });
        assert!(
            parse(
                local.to_string().as_bytes(),
                &url("http://127.0.0.1:1"),
                false,
                &[]
            )
            .is_ok()
        );
    }
}
