//! Real tokens end to end: every client authentication method, both protocols, and an identity
//! provider that stops and starts again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokend_issuer::certificates::{self, Authority, ClientOptions, Pair};
use tokend_issuer::client::{CertificateMatch, ClientCredential, RegisteredClient};
use tokend_issuer::clock::WallClock;
use tokend_issuer::faults::{Fault, Times};
use tokend_issuer::{Issuer, IssuerTls, Settings};
use tokio::sync::Semaphore;
use tonic::Request;

use crate::harness::ask::{Answer, Token, get};
use crate::harness::idp::{self, LAZY, SECRET};
use crate::harness::{PATIENCE, Place, block, eventually, runtime};

/// Both protocols give the same answer: that is the contract of `/v1/profiles/NAME/token`.
fn assert_same(grpc: &Token, http: &Answer) {
    let credential = &grpc.credential;
    assert_eq!(http.status, 200, "{}", http.body["message"]);
    for (name, value) in [
        ("token", &credential.token),
        ("token_type", &credential.token_type),
        ("authorization", &credential.authorization),
        ("fingerprint", &credential.fingerprint),
        ("target", &credential.target),
        ("confirmation", &credential.confirmation),
    ] {
        assert_eq!(http.body[name], json!(value), "{name}");
    }
    assert_eq!(http.body["scopes"], json!(credential.scopes));
    assert_eq!(http.body["stale"], json!(credential.stale));
    assert_eq!(http.body["generation"], json!(credential.generation));
    for (name, at) in [
        ("expires_at", &credential.expires_at),
        ("refresh_at", &credential.refresh_at),
    ] {
        let at = at.map(|at| at.seconds as f64 + f64::from(at.nanos) / 1e9);
        let told = http.body[name].as_str().map(|text| {
            let time = humantime::parse_rfc3339(text).expect("RFC 3339");
            time.duration_since(std::time::UNIX_EPOCH)
                .expect("after")
                .as_secs_f64()
        });
        // HTTP truncates times to milliseconds, and the daemon reads both clocks for every answer.
        match (at, told) {
            (Some(at), Some(told)) => assert!((at - told).abs() < 0.1, "{name}: {at} {told}"),
            (at, told) => assert_eq!(at, told, "{name}"),
        }
    }
    match (grpc.expires_in, http.body["expires_in"].as_f64()) {
        (Some(first), Some(second)) => assert!(second <= first && first - second < 10.0),
        (first, second) => assert_eq!(first, second),
    }
}

fn assert_credential(token: &Token, name: &str, thumbprint: &str) {
    let credential = &token.credential;
    assert_eq!(credential.token_type, "Bearer");
    assert_eq!(
        credential.authorization,
        format!("Bearer {}", credential.token)
    );
    assert_eq!(credential.target, format!("https://api.example/{name}"));
    assert_eq!(credential.scopes, ["read", "write"]);
    assert!(!credential.stale);
    assert_eq!(credential.generation, 1);
    assert_eq!(credential.confirmation, thumbprint);
    // The life is five minutes, less the margin of five seconds.
    let left = token.expires_in.expect("it expires");
    assert!((270.0..=295.0).contains(&left), "{name}: {left}");
}

/// An issuer with a client for each authentication method.
fn issuer_of_every_way(authority: &Authority, pinned: &Pair, signing: &Pair) -> Issuer {
    let bound = |id: &str, certificate| RegisteredClient {
        bound_tokens: true,
        ..RegisteredClient::new(id, ClientCredential::Certificate(certificate))
    };
    idp::with(Settings {
        tls: Some(IssuerTls {
            server: authority.server(&["localhost"]).expect("certificate"),
            client_roots: vec![
                authority.certificate_pem().to_owned(),
                pinned.certificate_pem.clone(),
            ],
        }),
        clients: vec![
            RegisteredClient::with_secret("we:ird id+%", SECRET),
            RegisteredClient::with_secret("post", SECRET),
            RegisteredClient::with_secret("hmac", SECRET),
            RegisteredClient::new(
                "jwt",
                ClientCredential::Assertion {
                    public_key: signing.public_key_pem.clone(),
                },
            ),
            bound("mtls", CertificateMatch::CommonName("mtls".into())),
            bound(
                "pinned",
                CertificateMatch::Thumbprint(pinned.thumbprint.clone()),
            ),
            RegisteredClient::new("public", ClientCredential::None),
        ],
        ..Settings::default()
    })
}

/// Profile, `client_auth`, client, the rest of the profile, and what its tokens are bound to.
type ClientAuthentication<'a> = (
    &'static str,
    &'static str,
    &'static str,
    String,
    Option<&'a String>,
);

fn ways<'a>(identity: &'a Pair, pinned: &'a Pair) -> [ClientAuthentication<'a>; 7] {
    let secret = "client_secret = { file = \"it.secret\" }";
    [
        (
            "basic",
            "client_secret_basic",
            "we:ird id+%",
            secret.to_owned(),
            None,
        ),
        (
            "post",
            "client_secret_post",
            "post",
            secret.to_owned(),
            None,
        ),
        ("hmac", "client_secret_jwt", "hmac", secret.to_owned(), None),
        (
            "jwt",
            "private_key_jwt",
            "jwt",
            "assertion = { key = \"jwt.key\" }".to_owned(),
            None,
        ),
        (
            "mtls",
            "tls_client_auth",
            "mtls",
            tls("mtls"),
            Some(&identity.thumbprint),
        ),
        (
            "pinned",
            "self_signed_tls_client_auth",
            "pinned",
            tls("pinned"),
            Some(&pinned.thumbprint),
        ),
        ("public", "none", "public", String::new(), None),
    ]
}

#[test]
fn every_client_authentication_gets_a_token_that_verifies_in_both_languages() {
    let clock = WallClock::system();
    let authority = Authority::new("root", &clock).expect("authority");
    let options = ClientOptions::default();
    let identity = authority.client("mtls", &options).expect("certificate");
    let pinned = certificates::self_signed("pinned", &options, &clock).expect("certificate");
    let signing = certificates::self_signed("jwt", &options, &clock).expect("certificate");
    let issuer = issuer_of_every_way(&authority, &pinned, &signing);
    let place = Place::new();
    place.secret("it.secret", SECRET);
    place.write("ca.pem", authority.certificate_pem());
    for (name, pair) in [("mtls", &identity), ("pinned", &pinned), ("jwt", &signing)] {
        place.write(&format!("{name}.pem"), &pair.certificate_pem);
        place.secret(&format!("{name}.key"), pair.key_pem());
    }
    let ways = ways(&identity, &pinned);
    let mut config = idp::idp(&issuer) + "tls = { ca = \"ca.pem\" }\n";
    for (name, method, client, more, _) in &ways {
        config += &format!(
            "[profiles.{name}]\nmethod = \"oauth2\"\nidp = \"it\"\nclient_id = \"{client}\"\nclient_auth = \"{method}\"\n\
             target = \"https://api.example/{name}\"\nscopes = [\"read\", \"write\"]\naudience = \"api\"\n\
             resource = [\"https://a.example/\", \"https://b.example/\"]\nextra = {{ tenant = \"t 1\" }}\n{LAZY}\n{more}\n"
        );
    }
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    for (name, method, client, _, thumbprint) in &ways {
        let token = grpc
            .token(name)
            .unwrap_or_else(|why| panic!("{name}: {why:?}"));
        assert_same(&token, &daemon.http_token(name));
        assert_credential(&token, name, thumbprint.map_or("", |it| it));
        let claims = idp::claims(
            &issuer,
            Some(authority.certificate_pem()),
            &token.credential.token,
        );
        assert_eq!(claims["sub"], json!(client), "{name}");
        assert_eq!(claims["scope"], "read write");
        assert_eq!(
            claims["aud"],
            json!(["api", "https://a.example/", "https://b.example/"])
        );
        assert_eq!(
            claims["cnf"]["x5t#S256"].as_str(),
            thumbprint.map(String::as_str)
        );
        let asked = issuer.requests().pop().expect("a request");
        assert_eq!(asked.client_auth, Some(*method), "{name}");
        assert_eq!(asked.parameter("tenant"), Some("t 1"));
    }
    assert_eq!(
        issuer.requests().len(),
        ways.len(),
        "one request each, the rest from memory"
    );
}

fn tls(name: &str) -> String {
    format!("tls = {{ certificate = \"{name}.pem\", key = \"{name}.key\" }}")
}

#[test]
fn credentials_that_nobody_issues_are_exact() {
    let place = Place::new();
    place.secret("password", "open sesame\n");
    place.secret("umlaut", "pass\u{a3}");
    place.secret("token", "the-api-token");
    let daemon = place.serve(
        r#"
[profiles.none]
method = "none"
target = "http://localhost:8080"
[profiles.basic]
method = "basic"
username = "Aladdin"
password = { file = "password" }
[profiles.umlaut]
method = "basic"
username = "test"
password = { file = "umlaut" }
[profiles.fixed]
method = "static"
token = { file = "token" }
"#,
    );
    daemon.place.secrets.add("open sesame");
    let grpc = daemon.grpc();
    // RFC 7617 §2 and §2.1.
    for (name, kind, token, authorization) in [
        ("none", "", "", ""),
        (
            "basic",
            "Basic",
            "QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        ),
        (
            "umlaut",
            "Basic",
            "dGVzdDpwYXNzwqM=",
            "Basic dGVzdDpwYXNzwqM=",
        ),
        ("fixed", "Bearer", "the-api-token", "Bearer the-api-token"),
    ] {
        let answer = grpc
            .token(name)
            .unwrap_or_else(|why| panic!("{name}: {why:?}"));
        assert_same(&answer, &daemon.http_token(name));
        assert_eq!(answer.credential.token_type, kind, "{name}");
        assert_eq!(answer.credential.token, token, "{name}");
        assert_eq!(answer.credential.authorization, authorization, "{name}");
        assert_eq!(answer.credential.expires_at, None, "{name}");
        assert_eq!(answer.expires_in, None, "{name}");
    }
    assert_eq!(
        grpc.token("none").expect("it").credential.target,
        "http://localhost:8080"
    );
}

#[test]
fn two_hundred_first_callers_cost_one_token_request() {
    let (issuer, place, config) = idp::one(LAZY);
    let config = config.replace("timeout = \"1s\"", "timeout = \"30s\"");
    let hold = Arc::new(Semaphore::new(0));
    issuer.script(Fault::Hold(hold.clone()), Times::Always);
    let daemon = place.serve(&config);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let grpc = daemon.grpc();
            runtime().spawn(grpc.asking(Request::new(get("it"))))
        })
        .collect();
    eventually(PATIENCE, || (issuer.count("/token") == 1).then_some(()));
    hold.add_permits(1000);
    let mut tokens: Vec<String> = calls
        .into_iter()
        .map(|call| {
            block(call)
                .expect("no panic")
                .expect("a token")
                .credential
                .token
        })
        .collect();
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    assert_eq!(issuer.count("/token"), 1);
    assert_eq!(issuer.count("/.well-known/openid-configuration"), 1);
}

/// Broken by a `failed` that sets `earliest` to `BootTime::NEVER`.
#[test]
fn trap_34_an_identity_provider_that_comes_later_is_found_without_a_restart() {
    let (issuer, place, mut config) = idp::one("");
    place.secret("direct.secret", SECRET);
    config += &format!(
        "[profiles.direct]\nmethod = \"oauth2\"\ntoken_url = \"{}\"\nclient_id = \"it\"\n\
         client_secret = {{ file = \"direct.secret\" }}\n",
        issuer.token_url()
    );
    idp::down(&issuer);
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    for profile in ["it", "direct"] {
        let why = grpc.token(profile).err().expect("nobody is there");
        assert_eq!(
            (why.code.as_str(), why.reason.as_str()),
            ("UNAVAILABLE", "UPSTREAM_UNAVAILABLE")
        );
        assert!(
            why.retry_after.is_some_and(|after| !after.is_zero()),
            "{why:?}"
        );
        assert!(
            why.message.contains(profile) && why.message.contains("refused"),
            "{why:?}"
        );
        let http = daemon.http_token(profile);
        assert_eq!(http.status, 503);
        let seconds: u64 = http
            .header("retry-after")
            .expect("Retry-After")
            .parse()
            .expect("number");
        assert!(seconds >= 1);
        assert_eq!(http.refusal().reason, "UPSTREAM_UNAVAILABLE");
    }
    let wait = ["it", "direct"]
        .map(|profile| grpc.token(profile).err().and_then(|why| why.retry_after))
        .into_iter()
        .flatten()
        .max()
        .unwrap_or_default();
    idp::up(&issuer);
    let back = Instant::now();
    for profile in ["it", "direct"] {
        eventually(PATIENCE, || grpc.token(profile).ok());
    }
    let took = back.elapsed();
    assert!(
        took < wait + Duration::from_secs(2),
        "{took:?}, and {wait:?} were announced"
    );
}

#[test]
fn while_the_identity_provider_is_down_a_valid_token_is_served_from_memory() {
    let issuer = idp::with(Settings {
        clients: vec![RegisteredClient::with_secret("it", SECRET)],
        token_lifetime: Duration::from_secs(20),
        ..Settings::default()
    });
    let place = Place::new();
    place.secret("it.secret", SECRET);
    // The daemon renews after a tenth of 18 seconds.
    let config =
        idp::idp(&issuer) + &idp::profile("it", "it", "refresh = { at = 0.1, jitter = 0.0 }");
    let daemon = place.serve(&config);
    let grpc = daemon.grpc();
    let first = grpc.token("it").expect("a token");
    assert!(!first.credential.stale);
    idp::down(&issuer);
    let stale = eventually(PATIENCE, || {
        Some(grpc.token("it").expect("still served")).filter(|token| token.credential.stale)
    });
    assert_eq!(stale.credential.token, first.credential.token);
    let fastest = (0..5)
        .map(|_| {
            let start = Instant::now();
            assert!(grpc.token("it").expect("served").credential.stale);
            start.elapsed()
        })
        .min()
        .expect("five");
    assert!(fastest < Duration::from_millis(50), "{fastest:?}");
    assert_eq!(daemon.http_token("it").body["stale"], json!(true));
    assert_eq!(grpc.health("it"), "SERVING");

    idp::up(&issuer);
    let fresh = eventually(PATIENCE, || {
        Some(grpc.token("it").expect("still served")).filter(|token| !token.credential.stale)
    });
    assert_ne!(fresh.credential.token, first.credential.token);
    assert!(fresh.credential.generation > first.credential.generation);
}
