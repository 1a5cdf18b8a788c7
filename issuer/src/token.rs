//! The token endpoint without faults (RFC 6749 §4.4, RFC 8707, RFC 9068).

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::{Map, Value, json};
use url::Url;

use crate::answer::IssuerAnswer;
use crate::client::{self, Circumstances, RegisteredClient};
use crate::form::{Form, FormRefusal};
use crate::peer::PeerCertificate;
use crate::{IssuerState, locked};

/// Checks a request and signs a token.
pub(crate) fn answer(
    state: &IssuerState,
    form: &Form,
    certificate: Option<&PeerCertificate>,
) -> Result<IssuerAnswer, FormRefusal> {
    form.check()?;
    let client = authenticated(state, form, certificate)?;
    match form.get("grant_type") {
        Some("client_credentials") => {}
        Some(_) => {
            return Err(FormRefusal::new(
                "unsupported_grant_type",
                "this issuer knows client_credentials only",
            ));
        }
        None => return Err(FormRefusal::request("no grant_type")),
    }
    let scope = granted_scope(&client, form.get("scope"))?;
    let audience = audience(state, form)?;
    let confirmation = match (client.bound_tokens, certificate) {
        (false, _) => None,
        (true, Some(certificate)) => Some(&certificate.thumbprint),
        (true, None) => {
            return Err(FormRefusal::request(
                "tokens of this client are bound to a certificate, and there is none",
            ));
        }
    };

    let issued = state.clock.now().as_secs();
    let lifetime = state.token_lifetime.as_secs();
    let mut claims = Map::new();
    let mut claim = |name: &str, value: Value| claims.insert(name.into(), value);
    claim("iss", state.url.as_str().into());
    claim("sub", client.id.as_str().into());
    claim("client_id", client.id.as_str().into());
    claim("aud", audience);
    claim("iat", issued.into());
    claim("nbf", issued.into());
    claim("exp", issued.saturating_add(lifetime).into());
    claim("jti", random_id()?.into());
    if !scope.is_empty() {
        claim("scope", scope.as_str().into());
    }
    if let Some(thumbprint) = confirmation {
        claim("cnf", json!({"x5t#S256": thumbprint}));
    }
    let token = locked(&state.keys)
        .sign(&Value::Object(claims))
        .map_err(|_| server_error("the token could not be signed"))?;

    let mut fields = vec![
        ("access_token", token.into()),
        ("token_type", "Bearer".into()),
        ("expires_in", lifetime.into()),
    ];
    if !scope.is_empty() {
        fields.push(("scope", scope.into()));
    }
    Ok(IssuerAnswer::json(fields))
}

fn authenticated(
    state: &IssuerState,
    form: &Form,
    certificate: Option<&PeerCertificate>,
) -> Result<RegisteredClient, FormRefusal> {
    // This check comes before the look-up of the client: two methods at once are a malformed
    // request, whichever client sent it.
    client::method(form, None)?;
    if let Some(Err(refusal)) = &form.basic {
        return Err(refusal.clone());
    }
    let id = form
        .claimed_client()
        .ok_or_else(|| FormRefusal::client("no client authentication"))?;
    let client = locked(&state.clients)
        .get(&id)
        .cloned()
        .ok_or_else(|| FormRefusal::client("no such client"))?;
    let mut used = locked(&state.used_assertions);
    let mut around = Circumstances {
        certificate,
        audiences: &state.audiences,
        now: state.clock.now(),
        used: &mut used,
    };
    client::authenticate(&client, form, &mut around)?;
    Ok(client)
}

/// The granted scope (RFC 6749 §3.3). A client that asks for none gets everything that it may have.
fn granted_scope(
    client: &RegisteredClient,
    requested: Option<&str>,
) -> Result<String, FormRefusal> {
    let Some(requested) = requested else {
        return Ok(client.scopes.join(" "));
    };
    let is_token = |scope: &str| {
        !scope.is_empty()
            && scope
                .bytes()
                .all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    };
    if !requested.split(' ').all(is_token) {
        return Err(FormRefusal::new("invalid_scope", "malformed scope"));
    }
    let permitted = |scope: &str| {
        client.scopes.is_empty() || client.scopes.iter().any(|permitted| permitted == scope)
    };
    if !requested.split(' ').all(permitted) {
        return Err(FormRefusal::new(
            "invalid_scope",
            "not among this client's scopes",
        ));
    }
    Ok(requested.to_owned())
}

/// The audience of a token: `audience` as it came and `resource` (RFC 8707 §2), else the issuer's
/// own API. One audience is a text, several are an array.
fn audience(state: &IssuerState, form: &Form) -> Result<Value, FormRefusal> {
    let is_resource =
        |text: &&str| Url::parse(text).is_ok_and(|resource| resource.fragment().is_none());
    if !form.all("resource").all(|text| is_resource(&text)) {
        return Err(FormRefusal::new(
            "invalid_target",
            "resource must be an absolute URI without a fragment",
        ));
    }
    let asked: Vec<&str> = form.all("audience").chain(form.all("resource")).collect();
    Ok(match asked[..] {
        [] => format!("{}/api", state.url).into(),
        [one] => one.into(),
        _ => asked.into(),
    })
}

/// 128 random bits, so that no `jti` occurs twice.
fn random_id() -> Result<String, FormRefusal> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| server_error("no randomness"))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn server_error(description: &'static str) -> FormRefusal {
    FormRefusal {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        ..FormRefusal::new("server_error", description)
    }
}
