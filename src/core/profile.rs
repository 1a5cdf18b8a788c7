//! The configuration after validation: what a profile is, in checked types. File types never come
//! this far.

pub mod client_auth;
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
use super::secret::Secret;

/// Name of a profile: 1 to 128 of `A-Z a-z 0-9 . _ -`, the first one a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProfileName(Arc<str>);

impl ProfileName {
    /// Checks a name.
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

/// Where a secret comes from. Only `Literal` holds one.
#[derive(Clone, Debug)]
pub enum SecretRef {
    /// Content of a file, one trailing line break removed.
    File(PathBuf),
    /// Content of a systemd credential: a file of this name in `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// An environment variable of the daemon.
    Env(String),
    /// In the configuration itself.
    Literal(Secret),
}

/// Whether both mean the same secret. Literal ones are compared by content, both being the
/// administrator's own words: no caller can measure how long that takes.
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

/// A whole configuration that can be used. Profiles that cannot are kept with the reason.
#[derive(Clone, Debug)]
pub struct Config {
    /// `[server]`
    pub server: Server,
    /// `[audit]`
    pub audit: AuditSettings,
    /// Every profile that is named anywhere, good or bad.
    pub profiles: BTreeMap<ProfileName, Result<Arc<Profile>, Invalid>>,
    /// Where each of them is defined.
    pub files: BTreeMap<ProfileName, Arc<Path>>,
    /// Files that cannot be used as a whole, and why: what was defined in them before is not gone.
    pub broken: BTreeMap<Arc<Path>, String>,
}

/// A profile that cannot be used, and why, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Every problem with its position, one a line.
    pub message: String,
    /// `method` of the profile as far as it could be read; empty otherwise.
    pub method: String,
    /// Who may be told that it exists: its access rules as far as they could be read, else the
    /// default.
    pub access: Vec<AccessRule>,
}

/// `[server]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// `socket`; None: the default for root or the user.
    pub socket: Option<PathBuf>,
    /// `socket_group`
    pub socket_group: Option<UserOrGroup>,
    /// `socket_mode`
    pub socket_mode: u32,
    /// `admins`, besides root and the daemon's own user.
    pub admins: Vec<AccessRule>,
    /// `[server.limits]`
    pub limits: ServerLimits,
    /// `metrics_listen`
    pub metrics_listen: Option<std::net::SocketAddr>,
}

/// `[server.limits]`: none can be switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections in all.
    pub connections: u32,
    /// Connections of one user.
    pub connections_per_user: u32,
    /// Streams (calls in flight) of one connection.
    pub streams_per_connection: u32,
    /// Open streams in all.
    pub streams: u32,
    /// Open streams of one user.
    pub streams_per_user: u32,
    /// Calls of one user that wait for a credential.
    pub waiting_per_user: u32,
    /// Calls per second of one user that are not answered from memory.
    pub requests_per_second: u32,
    /// Profiles per second that lists, status and metrics of one user look at.
    pub profiles_per_second: u32,
    /// Renewals per minute that one user may force.
    pub forced_renewals_per_minute: u32,
    /// Frames per second of one HTTP/2 connection that serve no call.
    pub control_frames_per_second: u32,
    /// Largest request message, bytes.
    pub message_size: u32,
    /// What calls of one user may hold that wait for the rest of their message, bytes.
    pub half_sent_per_user: u32,
    /// Largest request header block, bytes.
    pub header_size: u32,
    /// Time for a new connection to become a usable one.
    pub handshake_timeout: Duration,
    /// A connection without a call for this long is closed.
    pub idle_timeout: Duration,
}

/// `[audit]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditSettings {
    /// `sink`
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
    /// Looked up in the system's database, again on every reload.
    Name(String),
    /// uid or gid.
    Id(u32),
}

/// One entry of `access` or `admins`: every key that is present must hold; at least one is present.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// `user`
    pub user: Option<UserOrGroup>,
    /// `group`: the caller's group or one of its supplementary groups.
    pub group: Option<UserOrGroup>,
    /// `unit`: systemd unit, with `*` and `?`.
    pub unit: Option<String>,
}

/// As it would be written in the file.
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
    /// Its name.
    pub name: ProfileName,
    /// `target`: base URL of the API.
    pub target: Option<String>,
    /// `method` with all that belongs to it.
    pub method: Method,
    /// `access`; empty: the daemon's own user and root.
    pub access: Vec<AccessRule>,
    /// `refresh`
    pub refresh: Refresh,
    /// `request`: what a caller may ask for beyond the default.
    pub request: RequestSettings,
    /// `bound_tokens = "refuse"`: a token with `cnf` is an error.
    pub refuse_bound_tokens: bool,
    /// What is allowed but unwise, for `check` and `status`.
    pub warnings: Vec<String>,
}

impl Profile {
    /// Whether both say the same; what is warned of does not count.
    #[must_use]
    pub fn same_definition(&self, other: &Profile) -> bool {
        self.access == other.access && self.request == other.request && self.same_credential(other)
    }

    /// Whether the credential of `other` is this one's too: who may ask for it and what is warned
    /// of does not count, and what is in its files is not looked at.
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
        /// `password`
        password: SecretRef,
    },
    /// A token that somebody else renews.
    Static {
        /// `token`
        token: SecretRef,
    },
    /// A token endpoint.
    OAuth2(Box<OAuth2>),
}

impl Method {
    /// As in the configuration.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Method::None => "none",
            Method::Basic { .. } => "basic",
            Method::Static { .. } => "static",
            Method::OAuth2(_) => "oauth2",
        }
    }
}

/// `method = "oauth2"`
#[derive(Clone, Debug, PartialEq)]
pub struct OAuth2 {
    /// Where to ask, and how to get there.
    pub idp: Idp,
    /// `grant`
    pub grant: GrantType,
    /// `client_id`; empty: none is sent, since the assertion in `assertion.file` names the client.
    pub client_id: String,
    /// `client_auth`
    pub client_auth: ClientAuth,
    /// `scopes`
    pub scopes: Vec<String>,
    /// `audience`
    pub audience: Option<String>,
    /// `resource` (RFC 8707), each sent as a parameter of its own.
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
    /// As in the configuration and in the token request.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            GrantType::ClientCredentials => "client_credentials",
        }
    }
}

/// Where and how to ask: `[idp.NAME]` with what the profile overrides.
#[derive(Clone, Debug, PartialEq)]
pub struct Idp {
    /// Endpoint or issuer.
    pub endpoint: Endpoint,
    /// `max_in_flight`: token requests at the same time, over all profiles that ask its server; the
    /// smallest of theirs holds.
    pub max_in_flight: u32,
    /// `max_per_second`: token requests per second, over all profiles that ask its server; the
    /// smallest of theirs holds.
    pub max_per_second: u32,
    /// `http`
    pub http: Http,
    /// Trust towards the identity provider.
    pub trust: TrustSource,
    /// `tls.certificate` and `tls.key`, or `tls.keystore`: presented whenever the server asks for a
    /// certificate.
    pub identity: Option<IdentitySource>,
    /// `allow_insecure_http`: `http://` to an address that is not loopback.
    pub allow_insecure_http: bool,
}

/// Where token requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `issuer`: the token endpoint is discovered (OpenID Connect Discovery 1.0 §4, RFC 8414 §3).
    Issuer(url::Url),
    /// `token_url`
    Token(url::Url),
}

impl Endpoint {
    /// Names the identity provider, for people.
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
    /// TCP and TLS handshake together.
    pub connect_timeout: Duration,
    /// One request from its start to the last byte of the answer.
    pub timeout: Duration,
    /// `proxy`; None: what the environment says (HTTPS_PROXY, NO_PROXY; nothing else), never for
    /// loopback.
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
        /// Chain, own certificate first.
        certificate: PathBuf,
        /// PKCS#8, PKCS#1 or SEC1; encrypted PKCS#8 with the password.
        key: PathBuf,
        /// `key_password`
        key_password: Option<SecretRef>,
    },
    /// PKCS#12 or JKS.
    Store(Keystore),
}

/// PKCS#12 or JKS, told by content.
#[derive(Clone, Debug, PartialEq)]
pub struct Keystore {
    /// The file.
    pub path: PathBuf,
    /// Of the store.
    pub password: Option<SecretRef>,
    /// Entry; None: the only one with a key.
    pub alias: Option<String>,
    /// Of the entry; None: the store's.
    pub key_password: Option<SecretRef>,
}

/// `refresh`
#[derive(Clone, Debug, PartialEq)]
pub struct Refresh {
    /// Share of the lifetime after which renewal is due, 0.1 to 0.95.
    pub at: f64,
    /// Spread around it, as a share of the lifetime, 0 to 0.5.
    pub jitter: f64,
    /// Taken off every lifetime; at most a tenth of it.
    pub margin: Duration,
    /// Least time between two attempts, whatever the issuer says.
    pub min_interval: Duration,
    /// Longest `Retry-After` that is obeyed.
    pub retry_after_max: Duration,
    /// Lifetime of a token for which the issuer gives none and that carries none.
    pub default_lifetime: Duration,
    /// Fetch at start and keep fresh, or on first use only.
    pub eager: bool,
}

impl Refresh {
    /// What holds where a profile says nothing: the one place of these defaults.
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
    /// Scopes that a caller may name.
    pub scopes: Vec<String>,
    /// Audiences that a caller may name.
    pub audiences: Vec<String>,
}
