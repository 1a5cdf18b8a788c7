//! Everything but tokens: metadata, keys, and an API on which tokens can be tried.

use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::answer::IssuerAnswer;
use crate::keys::seconds;
use crate::peer::ConnectionPeer;
use crate::{IssuerState, locked};

/// Answers a request that is not for the token endpoint.
pub(crate) fn answer(
    state: &IssuerState,
    method: &Method,
    path: &str,
    bearer: Option<&str>,
    peer: &ConnectionPeer,
) -> IssuerAnswer {
    let respond: &dyn Fn() -> IssuerAnswer = match state.place(path) {
        Some(DocumentPlace::Metadata) => &|| metadata(state),
        Some(DocumentPlace::Keys) => &|| {
            let keys = locked(&state.keys).public();
            IssuerAnswer::json(vec![("keys", keys.into())])
        },
        Some(DocumentPlace::Api) => &|| api(state, bearer, peer),
        None => return IssuerAnswer::text(StatusCode::NOT_FOUND, "nothing here\n"),
    };
    // hyper leaves the body out for HEAD.
    if method == Method::GET || method == Method::HEAD {
        respond()
    } else {
        IssuerAnswer::method_not_allowed("GET, HEAD")
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DocumentPlace {
    Metadata,
    Keys,
    Api,
}

/// Metadata by RFC 8414 §2 and OpenID Connect Discovery 1.0 §3, as far as they apply to an issuer
/// that has no people as users.
fn metadata(state: &IssuerState) -> IssuerAnswer {
    let url = |path: &str| Value::from(format!("{}{path}", state.url));
    let tls = locked(&state.tls).is_some();
    let mut methods = vec![
        "client_secret_basic",
        "client_secret_post",
        "client_secret_jwt",
        "private_key_jwt",
    ];
    if tls {
        methods.extend(["tls_client_auth", "self_signed_tls_client_auth"]);
    }
    methods.push("none");
    let mut scopes: Vec<String> = locked(&state.clients)
        .values()
        .flat_map(|client| client.scopes.clone())
        .collect();
    scopes.sort_unstable();
    scopes.dedup();
    let mut fields = vec![
        ("issuer", state.url.as_str().into()),
        ("token_endpoint", url("/token")),
        ("jwks_uri", url("/jwks")),
        ("grant_types_supported", json!(["client_credentials"])),
        // Both documents require this field and forbid an empty list. `none` means that the issuer
        // returns nothing.
        ("response_types_supported", json!(["none"])),
        ("subject_types_supported", json!(["public"])),
        ("id_token_signing_alg_values_supported", json!(["ES256"])),
        ("token_endpoint_auth_methods_supported", methods.into()),
        (
            "token_endpoint_auth_signing_alg_values_supported",
            json!([
                "ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
                "HS256", "HS384", "HS512"
            ]),
        ),
        ("tls_client_certificate_bound_access_tokens", tls.into()),
    ];
    if !scopes.is_empty() {
        fields.push(("scopes_supported", scopes.into()));
    }
    if tls {
        fields.push((
            "mtls_endpoint_aliases",
            json!({"token_endpoint": url("/mtls/token")}),
        ));
    }
    IssuerAnswer::json(fields)
}

/// An API like that of the Orchestration Cluster: RFC 6750 §2.1 for the token, RFC 8705 §3 for a
/// bound one.
fn api(state: &IssuerState, bearer: Option<&str>, peer: &ConnectionPeer) -> IssuerAnswer {
    let Some(token) = bearer else {
        return IssuerAnswer::bearer_challenge(None);
    };
    let claims = locked(&state.keys).verify(token);
    match claims {
        Some(claims) if is_valid(&claims, state, peer) => IssuerAnswer::json(vec![
            ("brokers", json!([])),
            ("clusterSize", 0.into()),
            ("gatewayVersion", env!("CARGO_PKG_VERSION").into()),
            ("client", claims["client_id"].clone()),
            ("bound", claims["cnf"].is_object().into()),
        ]),
        _ => IssuerAnswer::bearer_challenge(Some("invalid_token")),
    }
}

fn is_valid(claims: &Value, state: &IssuerState, peer: &ConnectionPeer) -> bool {
    let now = state.clock.now().as_secs();
    let alive = seconds(&claims["exp"]).is_some_and(|expires| now < expires);
    let for_us = state.api_audience.as_deref().is_none_or(|audience| {
        claims["aud"] == audience
            || claims["aud"]
                .as_array()
                .is_some_and(|all| all.iter().any(|one| one == audience))
    });
    let holder = match &claims["cnf"]["x5t#S256"] {
        Value::Null => true,
        bound => peer
            .certificate
            .as_ref()
            .is_some_and(|certificate| bound == certificate.thumbprint.as_str()),
    };
    alive && for_us && holder && claims["iss"] == state.url.as_str()
}
