//! Every authentication method, and its wrong variants.

use std::time::{Duration, Instant};

use jsonwebtoken::{EncodingKey, Header};
use serde_json::json as object;

use super::*;
use crate::certificates::GeneratedKeyKind;

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

fn client_error() -> (u16, String) {
    (401, "invalid_client".into())
}

fn request_error() -> (u16, String) {
    (400, "invalid_request".into())
}

#[tokio::test]
async fn basic_and_post_with_a_secret_full_of_reserved_characters() {
    let world = world().await;
    let header = basic("se cret", SECRET);
    let response = world.post(None, Some(&header), &[]).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["cache-control"], "no-store");
    assert!(response.headers().contains_key("date"));
    let answer = json(response).await;
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 300);
    let claims = world.claims(&answer).await;
    assert_eq!(claims["client_id"], "se cret");
    assert_eq!(claims["sub"], "se cret");
    assert_eq!(claims["cnf"], Value::Null);
    let lived = claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap();
    assert_eq!(lived, 300);
    let last = world.last();
    assert_eq!(last.client_auth, Some("client_secret_basic"));
    assert_eq!(last.client_id.as_deref(), Some("se cret"));

    assert_eq!(world.ask().await.unwrap().status(), 200);
    let last = world.last();
    assert_eq!(last.client_auth, Some("client_secret_post"));
    assert_eq!(last.outcome, RequestOutcome::Issued);
    assert!(!format!("{last:?}").contains("p+w"));
    assert_eq!(last.parameter("grant_type"), Some("client_credentials"));
}

#[tokio::test]
async fn wrong_secrets_and_malformed_headers_are_invalid_client() {
    use base64::Engine as _;
    let world = world().await;
    let raw = |pair: &str| {
        let pair = base64::engine::general_purpose::STANDARD.encode(pair);
        format!("Basic {pair}")
    };
    for header in [
        basic("se cret", "wrong"),
        basic("nobody", SECRET),
        basic("jwt", SECRET),
        // This secret is not form-urlencoded; RFC 6749 §2.3.1 demands that it is.
        raw(&format!("se cret:{SECRET}")),
        raw("no colon"),
        "Basic ???".into(),
        "Bearer x".into(),
    ] {
        let answer = world.post(None, Some(&header), &[]).await;
        assert_eq!(refused(answer).await, client_error(), "{header}");
        assert_eq!(
            world.last().outcome,
            RequestOutcome::Refused("invalid_client")
        );
    }
    let form = [("client_id", "se cret"), ("client_secret", "wrong")];
    assert_eq!(
        refused(world.post(None, None, &form).await).await,
        client_error()
    );
    assert_eq!(
        refused(world.post(None, None, &[]).await).await,
        client_error()
    );
    // A client with a secret is refused if it sends its name alone.
    let form = [("client_id", "se cret")];
    assert_eq!(
        refused(world.post(None, None, &form).await).await,
        client_error()
    );
}

#[tokio::test]
async fn two_methods_at_once_are_an_invalid_request() {
    let world = world().await;
    let header = basic("se cret", SECRET);
    let form = [("client_id", "se cret"), ("client_secret", SECRET)];
    let answer = world.post(None, Some(&header), &form).await;
    assert_eq!(refused(answer).await, request_error());
    assert_eq!(world.last().client_auth, None);
    // The answer is the same if no client is registered under this name.
    let form = [("client_id", "nobody"), ("client_secret", "x")];
    let header = basic("nobody", "x");
    let answer = world.post(None, Some(&header), &form).await;
    assert_eq!(refused(answer).await, request_error());
    let header = basic("se cret", SECRET);
    let form = [
        ("client_id", "jwt"),
        ("client_secret", "x"),
        ("client_assertion", "y"),
    ];
    assert_eq!(
        refused(world.post(None, None, &form).await).await,
        request_error()
    );
    let answer = world
        .post(None, Some(&header), &[("client_id", "public")])
        .await;
    assert_eq!(refused(answer).await, request_error());
}

#[tokio::test]
async fn a_public_client_has_only_its_name() {
    let world = world().await;
    let answer = world.post(None, None, &[("client_id", "public")]).await;
    assert_eq!(answer.unwrap().status(), 200);
    assert_eq!(world.last().client_auth, Some("none"));
}

#[tokio::test]
async fn malformed_requests() {
    let world = world().await;
    let secret = [("client_id", "se cret"), ("client_secret", SECRET)];
    let with = |name, value| [secret[0], secret[1], (name, value)];
    let cases = [
        (with("grant_type", "client_credentials"), "invalid_request"),
        (with("scope", "a  b"), "invalid_scope"),
        (with("scope", "a\"b"), "invalid_scope"),
        (with("resource", "no-uri"), "invalid_target"),
        (with("resource", "https://api.example/#x"), "invalid_target"),
    ];
    for (form, error) in cases {
        let answer = refused(world.post(None, None, &form).await).await;
        assert_eq!(answer, (400, error.into()));
    }
    let url = world.issuer.token_url();
    let browser = world.browser(None);
    let send = async |kind: &str, body: &'static str| {
        let request = browser.post(&url).header("content-type", kind).body(body);
        refused(request.send().await).await.1
    };
    let form = "application/x-www-form-urlencoded";
    assert_eq!(send("application/json", "{}").await, "invalid_request");
    let body = "client_id=public&grant_type=password";
    assert_eq!(send(form, body).await, "unsupported_grant_type");
    let body = "client_id=public&grant_type=";
    assert_eq!(send(form, body).await, "invalid_request");
    let response = browser.get(&url).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "POST");
    let huge = browser
        .post(&url)
        .body(vec![b'a'; 100_000])
        .send()
        .await
        .unwrap();
    assert_eq!(huge.status(), 413);
}

#[tokio::test]
async fn scope_audience_and_resource_are_in_the_token() {
    let world = world().await;
    let form = [
        ("client_id", "scoped"),
        ("client_secret", SECRET),
        ("scope", "write"),
        ("audience", "zeebe"),
        ("resource", "https://a.example"),
        ("resource", "https://b.example"),
    ];
    let answer = json(world.post(None, None, &form).await.unwrap()).await;
    assert_eq!(answer["scope"], "write");
    let claims = world.claims(&answer).await;
    assert_eq!(claims["scope"], "write");
    assert_eq!(
        claims["aud"],
        object!(["zeebe", "https://a.example", "https://b.example"])
    );
    // A client that requests no scope gets all that it may have, for the issuer's own API.
    let answer = json(world.post(None, None, &form[..2]).await.unwrap()).await;
    let claims = world.claims(&answer).await;
    assert_eq!(claims["scope"], "read write");
    assert_eq!(claims["aud"], format!("{}/api", world.issuer.url()));
    let form = [form[0], form[1], ("scope", "read admin")];
    let answer = refused(world.post(None, None, &form).await).await;
    assert_eq!(answer, (400, "invalid_scope".into()));
}

/// The claims of a good assertion, altered by `different`.
fn assertion_claims(world: &World, different: Value) -> Value {
    let now = WallClock::system().now().as_secs();
    let mut claims = object!({
        "iss": "jwt", "sub": "jwt", "aud": world.issuer.url(), "iat": now, "exp": now + 60,
        "jti": format!("{:?}", Instant::now()),
    });
    for (name, value) in different.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

async fn assert_with(
    world: &World,
    header: &Header,
    claims: &Value,
    key: &EncodingKey,
) -> reqwest::Result<reqwest::Response> {
    let assertion = jsonwebtoken::encode(header, claims, key).unwrap();
    let form = [
        ("client_assertion_type", TYPE),
        ("client_assertion", &assertion),
    ];
    world.post(None, None, &form).await
}

#[tokio::test]
async fn private_key_jwt_is_checked_claim_by_claim() {
    let world = world().await;
    let key = EncodingKey::from_ec_pem(world.pinned.key_pem().as_bytes()).unwrap();
    let header = Header::new(Algorithm::ES256);
    let now = WallClock::system().now().as_secs();
    let token_url = world.issuer.token_url();
    for good in [
        object!({}),
        object!({"aud": token_url}),
        object!({"aud": ["x", token_url]}),
    ] {
        let claims = assertion_claims(&world, good);
        let answer = assert_with(&world, &header, &claims, &key).await;
        assert_eq!(answer.unwrap().status(), 200);
        let last = world.last();
        assert_eq!(last.client_auth, Some("private_key_jwt"));
        assert_eq!(last.client_id.as_deref(), Some("jwt"));
        assert_eq!(last.parameter("client_assertion"), None);
        // The same assertion is refused the second time: its jti was used.
        let answer = assert_with(&world, &header, &claims, &key).await;
        assert_eq!(refused(answer).await, client_error());
    }
    for bad in [
        object!({"iss": "other"}),
        object!({"sub": "nobody", "iss": "nobody"}),
        object!({"aud": "https://elsewhere.example"}),
        object!({"aud": null}),
        object!({"exp": now - 1}),
        object!({"exp": now + 7200}),
        object!({"exp": "soon"}),
        object!({"exp": null}),
        object!({"nbf": now + 60}),
        object!({"iat": now + 60}),
        object!({"jti": null}),
        object!({"jti": ""}),
    ] {
        let claims = assertion_claims(&world, bad.clone());
        let answer = assert_with(&world, &header, &claims, &key).await;
        assert_eq!(refused(answer).await, client_error(), "{bad}");
    }
    // Another key of the same kind, a public key taken for an HMAC secret, no JWT at all, another
    // type.
    let claims = || assertion_claims(&world, object!({}));
    let other = EncodingKey::from_ec_pem(world.identity.key_pem().as_bytes()).unwrap();
    let answer = assert_with(&world, &header, &claims(), &other).await;
    assert_eq!(refused(answer).await, client_error());
    let confused = EncodingKey::from_secret(world.pinned.public_key_pem.as_bytes());
    let answer = assert_with(&world, &Header::new(Algorithm::HS256), &claims(), &confused).await;
    assert_eq!(refused(answer).await, client_error());
    let good = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
    for (kind, assertion) in [(TYPE, "x.y.z"), ("saml", good.as_str())] {
        let form = [
            ("client_id", "jwt"),
            ("client_assertion_type", kind),
            ("client_assertion", assertion),
        ];
        assert_eq!(
            refused(world.post(None, None, &form).await).await,
            client_error()
        );
    }
}

#[tokio::test]
async fn assertions_of_every_kind_of_key_registered_in_every_form() {
    let world = world().await;
    let register = |public_key: String| {
        let credential = ClientCredential::Assertion { public_key };
        world
            .issuer
            .set_client(RegisteredClient::new("jwt", credential));
    };
    for (kind, algorithms) in [
        (GeneratedKeyKind::Ec, vec![Algorithm::ES256]),
        (GeneratedKeyKind::Ed25519, vec![Algorithm::EdDSA]),
        (
            GeneratedKeyKind::Rsa,
            vec![Algorithm::RS256, Algorithm::PS256],
        ),
    ] {
        let options = ClientOptions {
            key: kind,
            ..ClientOptions::default()
        };
        let pair = world.authority.client("jwt", &options).unwrap();
        let pem = pair.key_pem().as_bytes();
        let key = match kind {
            GeneratedKeyKind::Ec => EncodingKey::from_ec_pem(pem),
            GeneratedKeyKind::Ed25519 => EncodingKey::from_ed_pem(pem),
            GeneratedKeyKind::Rsa => EncodingKey::from_rsa_pem(pem),
        }
        .unwrap();
        for algorithm in algorithms {
            let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap();
            let jwk = serde_json::to_string(&jwk).unwrap();
            for registered in [
                pair.certificate_pem.clone(),
                pair.public_key_pem.clone(),
                jwk,
            ] {
                let by_certificate = registered == pair.certificate_pem;
                register(registered);
                let claims = || assertion_claims(&world, object!({}));
                let mut header = Header::new(algorithm);
                header.x5t_s256 = Some(pair.thumbprint.clone());
                let answer = assert_with(&world, &header, &claims(), &key).await;
                assert_eq!(answer.unwrap().status(), 200, "{kind:?} {algorithm:?}");
                if by_certificate {
                    header.x5t_s256 = Some(world.identity.thumbprint.clone());
                    let answer = assert_with(&world, &header, &claims(), &key).await;
                    assert_eq!(refused(answer).await, client_error());
                }
            }
        }
    }
}

#[tokio::test]
async fn client_secret_jwt() {
    let world = world().await;
    let different = object!({"iss": "se cret", "sub": "se cret"});
    let header = Header::new(Algorithm::HS256);
    for (secret, status) in [(SECRET, 200), ("wrong", 401)] {
        let claims = assertion_claims(&world, different.clone());
        let key = EncodingKey::from_secret(secret.as_bytes());
        let answer = assert_with(&world, &header, &claims, &key).await;
        assert_eq!(answer.unwrap().status(), status);
        assert_eq!(world.last().client_auth, Some("client_secret_jwt"));
    }
}

#[tokio::test]
async fn certificates_by_name_by_uri_and_by_thumbprint() {
    let world = world().await;
    let (worker, pinned) = (&world.identity, &world.pinned);
    for (client, identity, method) in [
        ("mtls", Some(worker), Some("tls_client_auth")),
        ("uri", Some(worker), Some("tls_client_auth")),
        ("pinned", Some(pinned), Some("self_signed_tls_client_auth")),
        ("mtls", Some(pinned), None),
        ("uri", Some(pinned), None),
        ("pinned", Some(worker), None),
        ("mtls", None, None),
        ("pinned", None, None),
    ] {
        let answer = world.post(identity, None, &[("client_id", client)]).await;
        match method {
            Some(method) => {
                assert_eq!(answer.unwrap().status(), 200);
                assert_eq!(world.last().client_auth, Some(method));
            }
            None => assert_eq!(refused(answer).await, client_error(), "{client}"),
        }
        let thumbprint = identity.map(|pair| pair.thumbprint.clone());
        assert_eq!(world.last().certificate, thumbprint);
    }
}

#[tokio::test]
async fn certificates_that_nobody_vouches_for_end_the_handshake() {
    let world = world().await;
    let stranger = Authority::new("test root", &WallClock::system()).unwrap();
    let options = ClientOptions::default();
    let expired = ClientOptions {
        lifetime: Duration::ZERO,
        ..ClientOptions::default()
    };
    let early = ClientOptions {
        not_before: 3600,
        ..ClientOptions::default()
    };
    let bad = [
        stranger.client("worker", &options).unwrap(),
        world.authority.client("worker", &expired).unwrap(),
        world.authority.client("worker", &early).unwrap(),
        world.authority.server(&["worker"]).unwrap(),
    ];
    for (failed, pair) in bad.iter().enumerate() {
        let answer = world.post(Some(pair), None, &[("client_id", "mtls")]).await;
        assert!(answer.is_err());
        assert_eq!(world.issuer.failed_handshakes(), failed + 1);
    }
    assert_eq!(world.issuer.count("/token"), 0);
    // The issuer accepts the certificate if the chain contains the intermediate.
    let middle = world.authority.intermediate("middle").unwrap();
    let pair = middle.client("worker", &options).unwrap();
    let answer = world
        .post(Some(&pair), None, &[("client_id", "mtls")])
        .await;
    assert_eq!(answer.unwrap().status(), 200);
}

#[tokio::test]
async fn bound_tokens_carry_the_thumbprint_and_need_the_certificate() {
    let world = world().await;
    let secret = [("client_id", "bound"), ("client_secret", SECRET)];
    let answer = world
        .post(Some(&world.pinned), None, &secret)
        .await
        .unwrap();
    let claims = world.claims(&json(answer).await).await;
    assert_eq!(claims["cnf"]["x5t#S256"], world.pinned.thumbprint.as_str());
    assert_eq!(
        refused(world.post(None, None, &secret).await).await,
        request_error()
    );

    let mtls = [("client_id", "mtls")];
    let answer = world
        .post(Some(&world.identity), None, &mtls)
        .await
        .unwrap();
    let answer = json(answer).await;
    let claims = world.claims(&answer).await;
    assert_eq!(
        claims["cnf"]["x5t#S256"],
        world.identity.thumbprint.as_str()
    );
    let url = format!("{}/api/topology", world.issuer.url());
    for (identity, status) in [
        (Some(&world.identity), 200),
        (Some(&world.pinned), 401),
        (None, 401),
    ] {
        let response = world
            .browser(identity)
            .get(&url)
            .bearer_auth(answer["access_token"].as_str().unwrap())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status);
        if status == 401 {
            let challenge = response.headers()["www-authenticate"].to_str().unwrap();
            assert!(challenge.starts_with("Bearer ") && challenge.contains("invalid_token"));
        }
    }
}
