//! `method = "basic"`: user name and password as one header value (RFC 7617, UTF-8).

use std::future::ready;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::{Attempt, Provider, Shared, required};
use crate::clock::Clock;
use crate::core::credential::{Issued, Lifetime, Scheme, Variant};
use crate::core::failure::Failure;
use crate::core::secret::Secret;
use crate::material::Material;

/// The header value, encoded once.
pub(super) struct Basic {
    clock: Clock,
    token: Secret,
}

impl Basic {
    pub(super) fn new(
        username: &str,
        material: Material,
        shared: &Shared,
    ) -> Result<Basic, Failure> {
        let password = required(material.secret, "password")?;
        // A colon would shift the boundary, and control characters are forbidden (RFC 7617 §2).
        if username.contains(':') || username.chars().any(char::is_control) {
            return Err(Failure::permanent(
                "username has a colon or a control character in it, which Basic authentication cannot carry",
            ));
        }
        let pair = Zeroizing::new(format!("{username}:{}", password.expose()));
        Ok(Basic {
            clock: shared.clock.clone(),
            token: Secret::new(STANDARD.encode(pair.as_bytes())),
        })
    }
}

impl Provider for Basic {
    fn fetch<'a>(&'a self, _variant: &'a Variant) -> Attempt<'a> {
        Box::pin(ready(Ok(Issued {
            token: self.token.clone(),
            scheme: Scheme::Basic,
            asked_at: self.clock.now(),
            lifetime: Lifetime::Unlimited,
            scopes: Vec::new(),
            confirmation: None,
            clock_skew: None,
        })))
    }
}
