//! The token request of the client credentials grant (RFC 6749 §4.4) as data.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::federated::JWT_BEARER;
use crate::core::credential::Variant;
use crate::core::profile::client_auth::{Assertion, AssertionSource, ClientAuth};
use crate::core::profile::{GrantType, OAuth2};
use crate::core::secret::Secret;

/// A parameter's value: a text that may be shown, or a secret.
#[derive(Clone, Debug)]
pub enum ParameterValue {
    Text(String),
    Secret(Secret),
}

impl ParameterValue {
    fn expose(&self) -> &str {
        match self {
            ParameterValue::Text(text) => text,
            ParameterValue::Secret(secret) => secret.expose(),
        }
    }
}

/// The client's proof. `client_auth` decides which one is needed.
#[derive(Clone, Copy, Debug)]
pub enum Proof<'a> {
    /// For client_secret_basic and client_secret_post.
    Secret(&'a Secret),
    /// For client_secret_jwt and private_key_jwt: the signed assertion.
    Assertion(&'a Secret),
    /// For `none`, and for methods where the TLS handshake is the proof.
    Nothing,
}

/// A POST to the token endpoint.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The form, in the order in which it is sent. A name can occur more than once (`resource`).
    pub parameters: Vec<(String, ParameterValue)>,
    /// The whole `Authorization` header.
    pub authorization: Option<Secret>,
}

impl TokenRequest {
    /// The token request for `variant`: its scopes and audience go before the profile's own.
    ///
    /// `extra` never replaces or repeats a parameter that is there already (RFC 6749 §3.2:
    /// parameters must not be included more than once).
    #[must_use]
    pub fn new(oauth: &OAuth2, variant: &Variant, proof: Proof<'_>) -> TokenRequest {
        let mut parameters = vec![text("grant_type", oauth.grant.as_str())];
        let mut authorization = None;
        match (&oauth.client_auth, proof) {
            (ClientAuth::SecretBasic(_), Proof::Secret(secret)) => {
                authorization = Some(basic(&oauth.client_id, secret, encode));
            }
            (ClientAuth::SecretBasicPlain(_), Proof::Secret(secret)) => {
                authorization = Some(basic(&oauth.client_id, secret, as_it_is));
            }
            (_, Proof::Secret(secret)) => {
                parameters.push(text("client_id", &oauth.client_id));
                parameters.push((
                    "client_secret".into(),
                    ParameterValue::Secret(secret.clone()),
                ));
            }
            (_, Proof::Assertion(assertion)) => {
                // RFC 7521 §4.2 makes client_id optional here; Entra ID wants it.
                if !oauth.client_id.is_empty() {
                    parameters.push(text("client_id", &oauth.client_id));
                }
                let kind = assertion_type(&oauth.client_auth);
                parameters.push(text("client_assertion_type", kind));
                parameters.push((
                    "client_assertion".into(),
                    ParameterValue::Secret(assertion.clone()),
                ));
            }
            (_, Proof::Nothing) => parameters.push(text("client_id", &oauth.client_id)),
        }
        let scopes = scopes(oauth, variant);
        if !scopes.is_empty() {
            parameters.push(text("scope", &scopes.join(" ")));
        }
        if let Some(audience) = variant.audience.as_ref().or(oauth.audience.as_ref()) {
            parameters.push(text("audience", audience));
        }
        for resource in &oauth.resource {
            parameters.push(text("resource", resource));
        }
        for (name, value) in &oauth.extra {
            if parameters.iter().all(|(known, _)| known != name) {
                parameters.push(text(name, value));
            }
        }
        TokenRequest {
            parameters,
            authorization,
        }
    }

    /// The body, `application/x-www-form-urlencoded`. It is wiped when dropped, and written into
    /// one piece of memory, so that no half-grown copy stays behind.
    #[must_use]
    pub fn form(&self) -> Zeroizing<String> {
        // Each byte becomes at most three bytes.
        let most = self
            .parameters
            .iter()
            .map(|(name, value)| 3 * (name.len() + value.expose().len()) + 2)
            .sum();
        let mut out = Zeroizing::new(String::with_capacity(most));
        for (name, value) in &self.parameters {
            if !out.is_empty() {
                out.push('&');
            }
            encode(name, &mut out);
            out.push('=');
            encode(value.expose(), &mut out);
        }
        out
    }
}

/// The scopes to ask for.
#[must_use]
pub fn scopes<'a>(oauth: &'a OAuth2, variant: &'a Variant) -> &'a [String] {
    if variant.scopes.is_empty() {
        &oauth.scopes
    } else {
        &variant.scopes
    }
}

/// A secret as it stands in a form, to be looked for in answers.
#[must_use]
pub fn encoded(secret: &Secret) -> Secret {
    let mut out = String::with_capacity(3 * secret.expose().len());
    encode(secret.expose(), &mut out);
    Secret::new(out)
}

/// Whether a request that may have been carried out can be sent again: at worst an unused token
/// remains. A request of a grant that uses something up can never be sent again.
#[must_use]
pub fn may_be_repeated(grant: &GrantType) -> bool {
    match grant {
        GrantType::ClientCredentials => true,
    }
}

/// Whether form-urlencoding leaves a client id or secret unchanged.
#[must_use]
pub fn is_plain(text: &str) -> bool {
    let mut out = Zeroizing::new(String::with_capacity(3 * text.len()));
    encode(text, &mut out);
    out.as_str() == text
}

/// The Basic header (RFC 6749 §2.3.1): id and secret are form-urlencoded *before* they are joined
/// and base64-encoded. Strict servers refuse a raw `s3cr3t:+/ %`, and a colon in the id would move
/// the border. `write` encodes them, or leaves them as they are.
fn basic(id: &str, secret: &Secret, write: fn(&str, &mut String)) -> Secret {
    let mut pair = Zeroizing::new(String::with_capacity(
        3 * (id.len() + secret.expose().len()) + 1,
    ));
    write(id, &mut pair);
    pair.push(':');
    write(secret.expose(), &mut pair);
    let mut header = String::with_capacity(6 + pair.len().div_ceil(3) * 4);
    header.push_str("Basic ");
    STANDARD.encode_string(pair.as_bytes(), &mut header);
    Secret::new(header)
}

fn encode(text: &str, out: &mut String) {
    for piece in url::form_urlencoded::byte_serialize(text.as_bytes()) {
        out.push_str(piece);
    }
}

fn as_it_is(text: &str, out: &mut String) {
    out.push_str(text);
}

/// `client_assertion_type`
fn assertion_type(auth: &ClientAuth) -> &str {
    match auth {
        ClientAuth::PrivateKeyJwt(Assertion {
            source: Some(AssertionSource::File { kind, .. }),
            ..
        }) => kind,
        _ => JWT_BEARER,
    }
}

fn text(name: &str, value: &str) -> (String, ParameterValue) {
    (name.into(), ParameterValue::Text(value.into()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use url::Url;

    use super::*;
    use crate::core::profile::{Endpoint, GrantType, Http, Idp, SecretRef, TrustSource};

    fn oauth(client_auth: ClientAuth) -> OAuth2 {
        OAuth2 {
            idp: Idp {
                endpoint: Endpoint::Token(Url::parse("https://idp.example/token").unwrap()),
                max_in_flight: 1,
                max_per_second: 1,
                http: Http {
                    connect_timeout: Duration::from_secs(1),
                    timeout: Duration::from_secs(1),
                    proxy: None,
                },
                trust: TrustSource::System,
                identity: None,
                allow_insecure_http: false,
            },
            grant: GrantType::ClientCredentials,
            client_id: "orders app".into(),
            client_auth,
            scopes: vec!["a".into(), "b".into()],
            audience: Some("api".into()),
            resource: vec!["https://one.example".into(), "urn:two".into()],
            extra: BTreeMap::from([
                ("organization".into(), "x&y".into()),
                ("scope".into(), "never".into()),
            ]),
        }
    }

    fn nowhere() -> SecretRef {
        SecretRef::Env("UNUSED".into())
    }

    /// `audience`, `resource` and `extra` at the end of every form below.
    const REST: &str = "scope=a+b&audience=api&resource=https%3A%2F%2Fone.example&resource=urn%3Atwo&organization=x%26y";

    fn form(client_auth: ClientAuth, proof: Proof<'_>) -> (String, Option<String>) {
        let request = TokenRequest::new(&oauth(client_auth), &Variant::default(), proof);
        (
            request.form().to_string(),
            request.authorization.map(|header| header.expose().into()),
        )
    }

    #[test]
    fn client_secret_basic_to_the_byte() {
        for (id, secret, pair) in [
            // Id and secret are each form-urlencoded before they are joined.
            ("orders", "s3cr3t:+/ %", "orders:s3cr3t%3A%2B%2F+%25"),
            ("my:app", "p", "my%3Aapp:p"),
            (
                "käse",
                "пароль-✓~",
                "k%C3%A4se:%D0%BF%D0%B0%D1%80%D0%BE%D0%BB%D1%8C-%E2%9C%93%7E",
            ),
        ] {
            let header = basic(id, &Secret::new(secret.into()), encode);
            assert_eq!(header.expose(), format!("Basic {}", STANDARD.encode(pair)));
        }
        let header = basic("orders", &Secret::new("s3cr3t:+/ %".into()), encode);
        assert_eq!(
            header.expose(),
            "Basic b3JkZXJzOnMzY3IzdCUzQSUyQiUyRislMjU="
        );
    }

    #[test]
    fn each_client_authentication_sends_what_its_rfc_says() {
        let secret = Secret::new("s &=".into());
        assert_eq!(
            form(ClientAuth::SecretBasic(nowhere()), Proof::Secret(&secret)),
            (
                format!("grant_type=client_credentials&{REST}"),
                Some(format!("Basic {}", STANDARD.encode("orders+app:s+%26%3D")))
            )
        );
        assert_eq!(
            form(
                ClientAuth::SecretBasicPlain(nowhere()),
                Proof::Secret(&secret)
            )
            .1,
            Some(format!("Basic {}", STANDARD.encode("orders app:s &=")))
        );
        assert_eq!(
            form(ClientAuth::SecretPost(nowhere()), Proof::Secret(&secret)),
            (
                format!(
                    "grant_type=client_credentials&client_id=orders+app&client_secret=s+%26%3D&{REST}"
                ),
                None
            )
        );
        assert_eq!(
            form(ClientAuth::Tls, Proof::Nothing),
            (
                format!("grant_type=client_credentials&client_id=orders+app&{REST}"),
                None
            )
        );
        assert_eq!(
            form(
                ClientAuth::None,
                Proof::Assertion(&Secret::new("h.p.s".into()))
            ),
            (
                format!(
                    "grant_type=client_credentials&client_id=orders+app&client_assertion_type=\
                     urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=h.p.s&{REST}"
                ),
                None
            )
        );
    }

    /// Broken by `scopes` that gives the profile's own first.
    #[test]
    fn trap_25_a_variant_goes_before_the_profiles_own() {
        let variant = Variant {
            scopes: vec!["c".into()],
            audience: Some("other".into()),
        };
        let request = TokenRequest::new(&oauth(ClientAuth::None), &variant, Proof::Nothing);
        let form = request.form();
        assert!(form.contains("&scope=c&audience=other&"), "{}", *form);
        assert_eq!(form.matches("scope=").count(), 1);
    }

    #[test]
    fn debug_shows_no_secret() {
        let secret = Secret::new("hunter2".into());
        for client_auth in [
            ClientAuth::SecretBasic(nowhere()),
            ClientAuth::SecretPost(nowhere()),
        ] {
            let request = TokenRequest::new(
                &oauth(client_auth),
                &Variant::default(),
                Proof::Secret(&secret),
            );
            let shown = format!("{request:?}");
            assert!(
                !shown.contains("hunter2") && !shown.contains("aHVud"),
                "{shown}"
            );
        }
    }
}
