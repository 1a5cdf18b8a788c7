//! The proxy that the environment names, for identity providers without `http.proxy`.
//!
//! Obeyed are `HTTPS_PROXY` and `NO_PROXY`, in small letters too. `ALL_PROXY` and `HTTP_PROXY` are
//! not: they are set for other programs' traffic, and the latter would show a secret that goes over
//! plain HTTP to one more machine.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{NoProxy, Proxy};
use url::Url;

use crate::core::diagnostic::Diagnostic;
use crate::core::failure::Failure;
use crate::core::oauth::withhold::origin;
use crate::core::profile::{Endpoint, Idp, is_loopback};
use crate::core::secret::Secret;

/// What the environment says of proxies.
pub(super) struct Environment {
    /// May have a password in it.
    https: Secret,
    except: String,
}

impl Environment {
    /// Of this process.
    pub(super) fn of_process() -> Environment {
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok());
        Environment {
            https: Secret::new(first(["HTTPS_PROXY", "https_proxy"]).unwrap_or_default()),
            except: first(["NO_PROXY", "no_proxy"]).unwrap_or_default(),
        }
    }

    /// The proxy on the way to a URL: its scheme, host and port. Never for what stays on this
    /// machine.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<Url> {
        if is_loopback(url) {
            return None;
        }
        let matcher = Matcher::builder()
            .https(self.https.expose().to_owned())
            .no(self.except.clone())
            .build();
        let proxy = matcher.intercept(&url.as_str().parse().ok()?)?;
        Url::parse(&proxy.uri().to_string()).ok()
    }

    /// For the HTTP client; None: there is none.
    ///
    /// # Errors
    /// Permanent, for one that cannot be used: going without it may not be what is meant.
    pub(super) fn proxy(&self) -> Result<Option<Proxy>, Failure> {
        if self.https.is_empty() {
            return Ok(None);
        }
        let proxy = Proxy::https(self.https.expose())
            .ok()
            // Other kinds are not built in.
            .filter(|_| !self.https.expose().starts_with("socks"))
            .ok_or_else(|| {
                Failure::permanent(
                    "HTTPS_PROXY in the environment cannot be used: write it as http://host:port, take it away, or \
                     set http.proxy instead",
                )
            })?;
        Ok(Some(proxy.no_proxy(NoProxy::from_string(&self.except))))
    }
}

/// What there is to say of the way to an identity provider: that it leads through a proxy that only
/// the environment names.
#[must_use]
pub fn remark(idp: &Idp) -> Option<Diagnostic> {
    let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &idp.endpoint;
    if idp.http.proxy.is_some() {
        return None;
    }
    let proxy = Environment::of_process().proxy_for(url)?;
    let message = format!(
        "{} is asked through the proxy {}, which HTTPS_PROXY in the environment names: set http.proxy to it, or \
         NO_PROXY if that is not meant",
        origin(url),
        origin(&proxy)
    );
    Some(Diagnostic::new("http", message))
}
