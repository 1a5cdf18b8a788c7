mod assertions;
mod encrypted;
mod exchange;
mod issuer;
mod leaks;
mod proxies;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::clock::Clock;
use crate::core::credential::{Issued, Variant};
use crate::core::failure::{Failure, FailureKind};
use crate::core::profile::client_auth::ClientAuth;
use crate::core::profile::{
    Endpoint, GrantType, Http, Idp, Method, OAuth2, Profile, ProfileName, Refresh, RequestSettings,
    SecretRef, TrustSource,
};
use crate::core::secret::Secret;
use crate::material::{self, Surroundings};
use crate::provider::{Provider, Shared, build};

const SECRET: &str = "MarkerSecret:+/ %-0123456789";

fn secret() -> SecretRef {
    SecretRef::Literal(Secret::new(SECRET.into()))
}

fn oauth(endpoint: Endpoint, client_auth: ClientAuth) -> OAuth2 {
    OAuth2 {
        idp: Idp {
            endpoint,
            max_in_flight: 1,
            max_per_second: 1,
            http: Http {
                connect_timeout: Duration::from_secs(5),
                timeout: Duration::from_secs(10),
                proxy: None,
            },
            trust: TrustSource::System,
            identity: None,
            allow_insecure_http: false,
        },
        grant: GrantType::ClientCredentials,
        client_id: "orders".into(),
        client_auth,
        scopes: vec!["read".into(), "write".into()],
        audience: None,
        resource: Vec::new(),
        extra: BTreeMap::new(),
    }
}

fn at_token(url: &str) -> Endpoint {
    Endpoint::Token(Url::parse(url).unwrap())
}

fn at_issuer(url: &str) -> Endpoint {
    Endpoint::Issuer(Url::parse(url).unwrap())
}

fn profile(oauth: OAuth2) -> Profile {
    Profile {
        name: ProfileName::parse("p").unwrap(),
        target: None,
        method: Method::OAuth2(Box::new(oauth)),
        access: Vec::new(),
        refresh: Refresh::default(),
        request: RequestSettings::default(),
        refuse_bound_tokens: false,
        warnings: Vec::new(),
    }
}

fn shared() -> Shared {
    Shared::new(Clock::system())
}

fn provider_with(oauth: OAuth2, shared: &Shared) -> Result<Arc<dyn Provider>, Failure> {
    let profile = profile(oauth);
    let now = Clock::system().now().wall;
    let material = material::read(&profile, &Surroundings::default(), now).unwrap();
    build(&profile, material, shared)
}

fn provider(oauth: OAuth2) -> Arc<dyn Provider> {
    provider_with(oauth, &shared()).unwrap()
}

async fn fetch(oauth: OAuth2) -> Result<Issued, Failure> {
    provider(oauth).fetch(&Variant::default()).await
}

fn transient(outcome: Result<Issued, Failure>) -> String {
    let failure = outcome.expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Transient, "{}", failure.message);
    failure.message
}

fn permanent(outcome: Result<Issued, Failure>) -> String {
    let failure = outcome.expect_err("a failure");
    assert_eq!(failure.kind, FailureKind::Permanent, "{}", failure.message);
    failure.message
}
