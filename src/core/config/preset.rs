//! Presets: what is known of an API or an identity provider. They give defaults, and refuse what
//! cannot work there.
//!
//! The Camunda presets follow the support matrix of the Camunda documentation ("Orchestration
//! Cluster REST API: Authentication"): SaaS takes OIDC access tokens and nothing else; 8 Run,
//! Docker Compose and Helm take all three ways.

use url::Url;

use super::report::ConfigReport;
use super::schema::{KeySpec, profile};
use super::section::Section;
use super::spot::{Owner, Spot};
use crate::core::profile::Endpoint;

/// Sign-in hosts of Entra ID: worldwide, US government, China.
const ENTRA_HOSTS: &[&str] = &[
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.partner.microsoftonline.cn",
];

/// `preset`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    Saas,
    Helm,
    DockerCompose,
    EightRun,
    Keycloak,
    Entra,
    Okta,
}

impl Preset {
    pub fn parse(text: &str) -> Option<Preset> {
        Some(match text {
            "camunda-saas" => Preset::Saas,
            "camunda-helm" => Preset::Helm,
            "camunda-docker-compose" => Preset::DockerCompose,
            "camunda-8-run" => Preset::EightRun,
            "keycloak" => Preset::Keycloak,
            "entra" => Preset::Entra,
            "okta" => Preset::Okta,
            _ => return None,
        })
    }

    /// Whether it is a Camunda server that checks Basic passwords with a slow hash at each request.
    pub fn hashes_passwords(self) -> bool {
        matches!(
            self,
            Preset::Helm | Preset::DockerCompose | Preset::EightRun
        )
    }

    /// The default address of the API. Both publish it on this port.
    pub fn default_target(self) -> Option<&'static str> {
        matches!(self, Preset::DockerCompose | Preset::EightRun).then_some("http://localhost:8080")
    }

    pub fn default_endpoint(self) -> Option<Endpoint> {
        if self != Preset::Saas {
            return None;
        }
        Url::parse("https://login.cloud.camunda.io/oauth/token")
            .ok()
            .map(Endpoint::Token)
    }

    pub fn default_audience(self) -> Option<&'static str> {
        (self == Preset::Saas).then_some("zeebe.camunda.io")
    }

    /// How many requests per second its token endpoint bears, counting all requests from the same
    /// address ("Manage API clients", rate limiting).
    pub fn default_max_per_second(self) -> Option<u32> {
        (self == Preset::Saas).then_some(1)
    }

    /// How a client secret goes to the token endpoint by default.
    pub fn default_secret_auth(self) -> &'static str {
        match self {
            // Its endpoint documents id and secret in the body.
            Preset::Saas => "client_secret_post",
            _ => "client_secret_basic",
        }
    }

    /// Refuses methods that this server does not support.
    pub fn check_method(self, report: &mut ConfigReport, section: &Section, method: &str) {
        if method == "oauth2" {
            return;
        }
        let why = match (self, method) {
            (Preset::Saas, "none") => {
                "Camunda SaaS has no unauthenticated access: its API takes OIDC access tokens only"
            }
            (Preset::Saas, "basic") => {
                "Camunda SaaS does not take Basic authentication: its API takes OIDC access tokens only"
            }
            (Preset::Saas, _) => {
                "Camunda SaaS takes access tokens of its own token endpoint only, which tokend obtains and renews"
            }
            (Preset::Keycloak | Preset::Entra | Preset::Okta, _) => {
                "this preset is an OAuth 2.0 identity provider"
            }
            _ => return,
        };
        let preset = section.get(&profile::PRESET).unwrap_or_default();
        report
            .error(
                &section.spot_of(&profile::METHOD),
                format!("preset = \"{preset}\" does not go with method = \"{method}\": {why}"),
            )
            .help("method = \"oauth2\"");
    }

    /// Whether what the preset says about the identity provider is true of this one. A SaaS cluster
    /// may bring an identity provider of its own (Camunda 8.10).
    pub fn knows_idp(self, url: &Url) -> bool {
        self != Preset::Saas
            || url
                .host_str()
                .is_some_and(|host| host == "camunda.io" || host.ends_with(".camunda.io"))
    }

    /// Refuses targets that this server cannot have.
    pub fn check_target(self, report: &mut ConfigReport, section: &Section) {
        if self == Preset::Saas
            && section
                .get(&profile::TARGET)
                .is_some_and(|url| url.scheme() != "https")
        {
            report.error(
                &section.spot_of(&profile::TARGET),
                "Camunda SaaS is reached over https:// only",
            );
        }
    }

    /// Refuses ways of client authentication that this identity provider does not support.
    pub fn check_client_auth(self, report: &mut ConfigReport, spot: &Spot, auth: &str) {
        if self == Preset::Saas && !matches!(auth, "client_secret_post" | "client_secret_basic") {
            let why = if auth.contains("tls") {
                "X.509 client certificates are for self-managed identity providers"
            } else {
                "its token endpoint takes client id and secret"
            };
            report
                .error(
                    spot,
                    format!("Camunda SaaS does not take client_auth = \"{auth}\": {why}"),
                )
                .help("client_secret = { file = \"…\" }");
        }
    }

    /// Refuses a client certificate where the server never asks for one.
    pub fn check_identity(self, report: &mut ConfigReport, spot: &Spot) {
        if self == Preset::Saas {
            report.error(
                spot,
                "Camunda SaaS does not take client certificates: X.509 is for self-managed identity providers",
            );
        }
    }

    /// Checks the parameters of the token request.
    pub fn check_request(self, report: &mut ConfigReport, section: &Section) {
        let scopes = section.get(&profile::SCOPES);
        let none = scopes.is_empty();
        let broken = section.is_broken(&profile::SCOPES);
        match self {
            Preset::Entra => {
                if none && !broken {
                    report
                        .error(
                            &section.spot_of(&profile::SCOPES),
                            "Entra ID gives no token without a scope",
                        )
                        .help("for instance scopes = [\"api://APPLICATION_ID/.default\"]");
                }
                for (scope, spot) in &scopes {
                    if !scope.ends_with("/.default") {
                        report
                            .error(
                                spot,
                                "Entra ID takes only scopes that end in `/.default` for client credentials",
                            )
                            .help("for instance \"api://APPLICATION_ID/.default\"");
                    }
                }
                let unknown: [&KeySpec; 2] = [&profile::AUDIENCE, &profile::RESOURCE];
                for key in unknown {
                    if let Some(entry) = section.given(key) {
                        report
                            .error(
                                &entry.key,
                                format!("Entra ID does not know the parameter `{}`", key.name),
                            )
                            .help(
                                "name the API in scopes: scopes = [\"api://APPLICATION_ID/.default\"]",
                            );
                    }
                }
            }
            Preset::Okta if none && !broken => {
                report
                    .error(
                        &section.spot_of(&profile::SCOPES),
                        "Okta refuses client credentials without a scope",
                    )
                    .help("scopes = [\"…\"], as defined in the authorization server");
            }
            _ => {}
        }
    }

    /// Checks where token requests go.
    pub fn check_endpoint(
        self,
        report: &mut ConfigReport,
        spot: &Spot,
        owner: &Owner,
        endpoint: &Endpoint,
    ) {
        let Endpoint::Issuer(issuer) = endpoint else {
            return;
        };
        let spot = spot.owned_by(owner);
        match self {
            Preset::Keycloak if !issuer.path().contains("/realms/") => {
                report
                    .warning(&spot, "an issuer of Keycloak has /realms/ in it")
                    .help("https://HOST/realms/REALM; before Keycloak 17 https://HOST/auth/realms/REALM");
            }
            Preset::Entra => {
                let known = ENTRA_HOSTS.contains(&issuer.host_str().unwrap_or_default());
                let help = "https://login.microsoftonline.com/TENANT/v2.0";
                match tenant(issuer) {
                    _ if !known => {
                        report
                            .warning(&spot, "this is no issuer of Entra ID")
                            .help(help);
                    }
                    None => {
                        report
                            .error(
                                &spot,
                                "an issuer of Entra ID names a tenant and ends in /v2.0",
                            )
                            .help(help);
                    }
                    Some("common" | "organizations" | "consumers") => {
                        report
                            .error(
                                &spot,
                                "client credentials need the tenant itself in the issuer",
                            )
                            .help(help);
                    }
                    Some(_) => {}
                }
            }
            _ => {}
        }
    }

    /// The assertion's audience where it is not the issuer. Both providers document their token
    /// endpoint as audience.
    pub fn assertion_audience(self, endpoint: &Endpoint) -> Option<String> {
        let Endpoint::Issuer(issuer) = endpoint else {
            return None;
        };
        let origin = issuer.origin().ascii_serialization();
        match self {
            Preset::Entra => Some(format!("{origin}/{}/oauth2/v2.0/token", tenant(issuer)?)),
            Preset::Okta => Some(match issuer.path().trim_end_matches('/') {
                "" => format!("{origin}/oauth2/v1/token"),
                path => format!("{origin}{path}/v1/token"),
            }),
            _ => None,
        }
    }
}

/// The TENANT of `https://HOST/TENANT/v2.0`.
fn tenant(issuer: &Url) -> Option<&str> {
    let mut parts = issuer.path().trim_matches('/').split('/');
    let tenant = parts.next().filter(|tenant| !tenant.is_empty())?;
    (parts.next() == Some("v2.0") && parts.next().is_none()).then_some(tenant)
}

/// The texts of a list without their places.
pub(super) fn plain(texts: Vec<(String, Spot)>) -> Vec<String> {
    texts.into_iter().map(|(text, _)| text).collect()
}
