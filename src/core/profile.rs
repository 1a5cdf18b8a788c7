//! The configuration after validation: profiles in checked types. Types of the files never come
//! this far.

pub mod client_auth;
pub mod exec;
pub mod files;
mod identity;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use self::client_auth::ClientAuth;
use self::exec::Exec;
use super::secret::Secret;

/// The name of a profile: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first one a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileName(Arc<str>);

impl ProfileName {
    /// Makes a name from a valid text.
    #[must_use]
    pub fn parse(text: &str) -> Option<ProfileName> {
        let fits = (1..=128).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'));
        fits.then(|| ProfileName(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProfileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for ProfileName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The place of a secret. Only `Literal` holds the secret itself.
#[derive(Clone, Debug)]
pub enum SecretRef {
    /// The content of a file, without one trailing line break.
    File(PathBuf),
    /// The content of a systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// An environment variable of the daemon.
    Env(String),
    /// The secret is in the configuration itself.
    Literal(Secret),
}

/// Whether both mean the same secret. Literals are compared by content: both are the
/// administrator's own words, and no caller can measure how long that takes.
impl PartialEq for SecretRef {
    fn eq(&self, other: &SecretRef) -> bool {
        match (self, other) {
            (SecretRef::File(one), SecretRef::File(other)) => one == other,
            (SecretRef::Credential(one), SecretRef::Credential(other))
            | (SecretRef::Env(one), SecretRef::Env(other)) => one == other,
            (SecretRef::Literal(one), SecretRef::Literal(other)) => one.expose() == other.expose(),
            _ => false,
        }
    }
}

/// A whole configuration that can be used. It keeps unusable profiles with the reason.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[audit]`
    pub audit: AuditSettings,
    /// Every profile that is named anywhere, good or bad.
    pub profiles: BTreeMap<ProfileName, Result<Arc<Profile>, Invalid>>,
    /// The file that defines each profile.
    pub files: BTreeMap<ProfileName, Arc<Path>>,
    /// Files that cannot be used as a whole, and why. Profiles that they defined before are not
    /// gone.
    pub broken: BTreeMap<Arc<Path>, String>,
}

/// A profile that cannot be used, and why, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Every problem with its position, one in each line.
    pub message: String,
    /// The `method` of the profile as far as it could be read; empty otherwise.
    pub method: String,
    /// Callers that may learn that the profile exists: its access rules as far as they could be
    /// read, else the default.
    pub access: Vec<AccessRule>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `socket`. None: the default for root or the user.
    pub socket: Option<PathBuf>,
    pub socket_group: Option<UserOrGroup>,
    pub socket_mode: u32,
    pub unit_identity: UnitIdentity,
    /// `admins`, besides root and the daemon's own user.
    pub admins: Vec<AccessRule>,
    /// `[server.limits]`
    pub limits: ServerLimits,
    pub metrics_listen: Option<std::net::SocketAddr>,
}

/// `unit_identity`: what may show which process a caller is, and so its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnitIdentity {
    /// Only the pidfd that the kernel gives with the connection (Linux 6.5).
    #[default]
    Pidfd,
    /// Where the kernel gives none, the number of the process too.
    Pid,
}

/// `[server.limits]`: no limit can be switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// The most connections of all users.
    pub connections: u32,
    /// The most connections of one user.
    pub connections_per_user: u32,
    /// The most streams (calls in flight) of one connection.
    pub streams_per_connection: u32,
    /// The most open streams of all users.
    pub streams: u32,
    /// The most open streams of one user.
    pub streams_per_user: u32,
    /// The most calls of one user that wait for a credential.
    pub waiting_per_user: u32,
    /// The most calls per second of one user that are not answered from memory.
    pub requests_per_second: u32,
    /// The most profiles per second that lists, status and metrics of one user look at.
    pub profiles_per_second: u32,
    /// The most renewals per minute that one user may force.
    pub forced_renewals_per_minute: u32,
    /// The most frames per second of one HTTP/2 connection that serve no call.
    pub control_frames_per_second: u32,
    /// The largest request message, in bytes.
    pub message_size: u32,
    /// The most memory that calls of one user may hold while they wait for the rest of their
    /// message, in bytes.
    pub half_sent_per_user: u32,
    /// The largest request header block, in bytes.
    pub header_size: u32,
    /// The time in which a new connection has to become usable.
    pub handshake_timeout: Duration,
    /// A connection is closed after this time without a call.
    pub idle_timeout: Duration,
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    pub sink: AuditSink,
    /// `on_failure = "deny"`: no grant without its record.
    pub deny_on_failure: bool,
}

/// `audit.sink`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditSink {
    /// journald
    Journald,
    /// JSON lines, `audit.path`.
    File(PathBuf),
}

/// A user or group as written: by name or by number.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UserOrGroup {
    /// A name, which is looked up in the system's database, again on every reload.
    Name(String),
    /// A uid or gid.
    Id(u32),
}

/// One entry of `access` or `admins`. Every key that is present must hold; at least one is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    pub user: Option<UserOrGroup>,
    /// `group`: the caller's group or one of its supplementary groups.
    pub group: Option<UserOrGroup>,
    /// `unit`: a systemd unit, with `*` and `?`.
    pub unit: Option<String>,
}

/// The form of the file.
impl fmt::Display for AccessRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let principal = |key: &str, principal: &Option<UserOrGroup>| {
            principal.as_ref().map(|principal| match principal {
                UserOrGroup::Name(name) => format!("{key} = {name:?}"),
                UserOrGroup::Id(id) => format!("{key} = {id}"),
            })
        };
        let unit = self.unit.as_ref().map(|unit| format!("unit = {unit:?}"));
        let keys = [
            principal("user", &self.user),
            principal("group", &self.group),
            unit,
        ];
        let keys: Vec<String> = keys.into_iter().flatten().collect();
        write!(f, "{{ {} }}", keys.join(", "))
    }
}

/// A profile that can be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    pub name: ProfileName,
    /// `target`: the base URL of the API.
    pub target: Option<String>,
    /// `method`, with its keys.
    pub method: Method,
    /// `access`. Empty: root and the daemon's own user.
    pub access: Vec<AccessRule>,
    pub refresh: Refresh,
    /// `request`: what a caller may ask for beyond the default.
    pub request: RequestSettings,
    /// `bound_tokens = "refuse"`: a token with `cnf` is an error.
    pub refuse_bound_tokens: bool,
    /// What is allowed but unwise, for `check` and `status`.
    pub warnings: Vec<String>,
}

impl Profile {
    /// Whether both definitions say the same. Warnings do not count.
    #[must_use]
    pub fn same_definition(&self, other: &Profile) -> bool {
        self.access == other.access && self.request == other.request && self.same_credential(other)
    }

    /// Whether the credential of `other` also belongs to this profile. Access rules and warnings do
    /// not count, and the content of files is not compared.
    #[must_use]
    pub fn same_credential(&self, other: &Profile) -> bool {
        let bare = |profile: &Profile| Profile {
            warnings: Vec::new(),
            access: Vec::new(),
            request: RequestSettings::default(),
            ..profile.clone()
        };
        bare(self) == bare(other)
    }
}

/// `method`
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// No header at all.
    None,
    /// RFC 7617.
    Basic {
        /// `username`; has no colon.
        username: String,
        password: SecretRef,
    },
    /// A token that another program renews.
    Static {
        /// `token`
        token: SecretRef,
    },
    /// A token endpoint.
    OAuth2(Box<OAuth2>),
    /// A command.
    Exec(Box<Exec>),
}

impl Method {
    /// The word in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Method::None => "none",
            Method::Basic { .. } => "basic",
            Method::Static { .. } => "static",
            Method::OAuth2(_) => "oauth2",
            Method::Exec(_) => "exec",
        }
    }
}

/// `method = "oauth2"`
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// The address to ask, and how to reach it.
    pub idp: Idp,
    pub grant: GrantType,
    /// `client_id`. Empty: none is sent, since the assertion in `assertion.file` names the client.
    pub client_id: String,
    pub client_auth: ClientAuth,
    pub scopes: Vec<String>,
    pub audience: Option<String>,
    /// `resource` (RFC 8707); each one is a parameter of its own.
    pub resource: Vec<String>,
    /// `extra`: further parameters of the token request.
    pub extra: BTreeMap<String, String>,
}

/// `grant`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrantType {
    /// RFC 6749 §4.4
    ClientCredentials,
}

impl GrantType {
    /// The word in the configuration and in the token request.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            GrantType::ClientCredentials => "client_credentials",
        }
    }
}

/// Where and how to ask: `[idp.NAME]` with the profile's own settings.
#[derive(Clone, Debug, PartialEq)]
pub struct Idp {
    /// The token endpoint or the issuer.
    pub endpoint: Endpoint,
    /// `max_in_flight`: the most token requests at the same time, over all profiles that ask the
    /// same server. The smallest value of these profiles holds.
    pub max_in_flight: u32,
    /// `max_per_second`: the most token requests per second, over all profiles that ask the same
    /// server. The smallest value of these profiles holds.
    pub max_per_second: u32,
    pub http: Http,
    /// How the identity provider's certificate is checked.
    pub trust: TrustSource,
    /// `tls.certificate` and `tls.key`, or `tls.keystore`: shown whenever the server asks for a
    /// certificate.
    pub identity: Option<IdentitySource>,
    /// `allow_insecure_http`: permits `http://` to an address that is not loopback.
    pub allow_insecure_http: bool,
}

/// The address for token requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `issuer`: the token endpoint is discovered (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).
    Issuer(url::Url),
    /// `token_url`
    Token(url::Url),
}

impl Endpoint {
    /// The name of the identity provider, for people.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Endpoint::Issuer(url) | Endpoint::Token(url) => url.as_str(),
        }
    }
}

/// Whether a URL stays on this machine: 127.0.0.0/8, ::1 or `localhost`.
#[must_use]
pub fn is_loopback(url: &url::Url) -> bool {
    match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => {
            ip.is_loopback()
                || ip
                    .to_ipv4_mapped()
                    .is_some_and(|ip| std::net::IpAddr::V4(ip).is_loopback())
        }
        Some(url::Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// `http`
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    /// The limit on TCP and TLS handshake together.
    pub connect_timeout: Duration,
    /// The limit on one request, from its start to the last byte of the answer.
    pub timeout: Duration,
    /// `proxy`. None: the environment decides (HTTPS_PROXY, NO_PROXY, no others), and loopback
    /// never has a proxy.
    pub proxy: Option<url::Url>,
}

/// `tls.ca`, `tls.truststore` or neither.
#[derive(Clone, Debug, PartialEq)]
pub enum TrustSource {
    /// The system's roots.
    System,
    /// `tls.ca`: PEM certificates, instead of the system's roots.
    Pem(PathBuf),
    /// `tls.truststore`: PKCS#12 or JKS, instead of the system's roots.
    Store(Keystore),
}

/// A client certificate and its key.
#[derive(Clone, Debug, PartialEq)]
pub enum IdentitySource {
    /// Two PEM files.
    Pem {
        /// The chain, with the client's own certificate first.
        certificate: PathBuf,
        /// The key as PKCS#8, PKCS#1 or SEC1; encrypted PKCS#8 with the password.
        key: PathBuf,
        key_password: Option<SecretRef>,
    },
    /// PKCS#12 or JKS.
    Store(Keystore),
}

/// A PKCS#12 or JKS store. Its content tells which of the two it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Keystore {
    pub path: PathBuf,
    /// The password of the store.
    pub password: Option<SecretRef>,
    /// The name of the entry. None: the only entry with a key.
    pub alias: Option<String>,
    /// The password of the entry. None: that of the store.
    pub key_password: Option<SecretRef>,
}

/// `refresh`
#[derive(Clone, Debug, PartialEq)]
pub struct Refresh {
    /// The share of the lifetime after which renewal is due, 0.1 to 0.95.
    pub at: f64,
    /// The spread around it, as a share of the lifetime, 0 to 0.5.
    pub jitter: f64,
    /// The margin that is taken off every lifetime; at most a tenth of it.
    pub margin: Duration,
    /// The least time between two attempts, whatever the issuer says.
    pub min_interval: Duration,
    /// The longest `Retry-After` that is obeyed.
    pub retry_after_max: Duration,
    /// The lifetime of a token if neither the issuer nor the token states one.
    pub default_lifetime: Duration,
    /// True: fetch at start and keep fresh. False: fetch on first use.
    pub eager: bool,
}

impl Refresh {
    /// The defaults for keys that a profile does not set. They are defined here only.
    pub const DEFAULT: Refresh = Refresh {
        at: 0.75,
        jitter: 0.1,
        margin: Duration::from_secs(5),
        min_interval: Duration::from_secs(1),
        retry_after_max: Duration::from_secs(3600),
        default_lifetime: Duration::from_secs(300),
        eager: true,
    };
}

impl Default for Refresh {
    fn default() -> Refresh {
        Refresh::DEFAULT
    }
}

/// `request`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSettings {
    /// The scopes that a caller may name.
    pub scopes: Vec<String>,
    /// The audiences that a caller may name.
    pub audiences: Vec<String>,
}
