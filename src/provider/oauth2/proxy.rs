//! The proxy that the environment names, for identity providers without `http.proxy`.
//!
//! `HTTPS_PROXY` and `NO_PROXY` are obeyed, in small letters too. `ALL_PROXY` and `HTTP_PROXY` are
//! not. They are set for other programs' traffic, and the latter would show a secret in plain HTTP
//! to one more machine.

mod exceptions;

use url::Url;

use self::exceptions::Exceptions;
use crate::core::diagnostic::Diagnostic;
use crate::core::failure::Failure;
use crate::core::oauth::withhold::origin;
use crate::core::profile::{Endpoint, Idp, is_loopback};
use crate::core::secret::Secret;

/// The proxy settings of an environment.
pub(super) struct Environment {
    /// This URL may contain a password.
    https: Secret,
    except: Exceptions,
}

/// The environment's route to one URL.
pub(super) enum ProxyRoute {
    /// The environment sets no proxy for the URL.
    Direct,
    /// `NO_PROXY` excludes the URL from `HTTPS_PROXY`.
    Excepted,
    /// The request goes through this proxy.
    Through(Url),
    /// `HTTPS_PROXY` cannot be used.
    Unusable,
}

impl Environment {
    /// The environment of this process.
    pub(super) fn of_process() -> Environment {
        let first = |names: [&str; 2]| names.into_iter().find_map(|name| std::env::var(name).ok());
        let except = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
        Environment {
            https: Secret::new(first(["HTTPS_PROXY", "https_proxy"]).unwrap_or_default()),
            except: Exceptions::parse(&except),
        }
    }

    /// The route to a URL. It is never a proxy for a request that stays on this machine.
    pub(super) fn route(&self, url: &Url) -> ProxyRoute {
        if self.https.is_empty() || url.scheme() != "https" || is_loopback(url) {
            return ProxyRoute::Direct;
        }
        if self.except.contain(url) {
            return ProxyRoute::Excepted;
        }
        match parse(self.https.expose()) {
            Some(proxy) => ProxyRoute::Through(proxy),
            None => ProxyRoute::Unusable,
        }
    }

    /// The proxy on the way to a URL, if any.
    pub(super) fn proxy_for(&self, url: &Url) -> Option<Url> {
        match self.route(url) {
            ProxyRoute::Through(proxy) => Some(proxy),
            ProxyRoute::Direct | ProxyRoute::Excepted | ProxyRoute::Unusable => None,
        }
    }

    /// Checks that there is a way to this URL.
    ///
    /// # Errors
    /// A permanent failure if the proxy cannot be used. Going without it may not be what the
    /// operator wants.
    pub(super) fn check(&self, url: &Url) -> Result<(), Failure> {
        match self.route(url) {
            ProxyRoute::Direct | ProxyRoute::Excepted | ProxyRoute::Through(_) => Ok(()),
            ProxyRoute::Unusable => Err(Failure::permanent(
                "HTTPS_PROXY in the environment cannot be used: write it as http://host:port, take it away, or set \
                 http.proxy instead",
            )),
        }
    }
}

/// Parses a proxy as curl does: without a scheme it is HTTP. Other kinds are not built in.
fn parse(text: &str) -> Option<Url> {
    let url = match text.contains("://") {
        true => Url::parse(text),
        false => Url::parse(&format!("http://{text}")),
    };
    url.ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

/// The remark that the way to an identity provider leads through a proxy that only the environment
/// names.
#[must_use]
pub fn remark(idp: &Idp) -> Option<Diagnostic> {
    let (Endpoint::Issuer(url) | Endpoint::Token(url)) = &idp.endpoint;
    if idp.http.proxy.is_some() {
        return None;
    }
    let environment = Environment::of_process();
    let proxy = environment.proxy_for(url)?;
    let strange = match environment.except.strange.as_slice() {
        [] => String::new(),
        strange => format!("; of NO_PROXY this is not understood: {strange:?}"),
    };
    let message = format!(
        "{} is asked through the proxy {}, which HTTPS_PROXY in the environment names: set http.proxy to it, or \
         NO_PROXY if that is not meant{strange}",
        origin(url),
        origin(&proxy)
    );
    Some(Diagnostic::new("http", message))
}
