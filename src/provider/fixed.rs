//! `method = "static"`: a bearer token that another program obtains and renews.

use std::future::ready;

use super::{Attempt, Provider, Shared, required};
use crate::clock::Clock;
use crate::core::credential::{Issued, Lifetime, Scheme, Variant};
use crate::core::failure::Failure;
use crate::core::oauth::jwt::{self, JwtClaims};
use crate::core::oauth::lifetime::LONGEST;
use crate::core::oauth::response::fits_header;
use crate::core::profile::Profile;
use crate::core::secret::Secret;
use crate::core::time::{Stamp, WallTime};
use crate::material::Material;

/// The token, and the facts in it.
pub(super) struct Fixed {
    clock: Clock,
    token: Secret,
    facts: JwtClaims,
}

impl Fixed {
    pub(super) fn new(
        profile: &Profile,
        material: Material,
        shared: &Shared,
    ) -> Result<Fixed, Failure> {
        let token = required(material.secret, "token")?;
        if !fits_header(token.expose()) {
            return Err(Failure::permanent(
                "token has characters that cannot stand in a header (spaces, or letters beyond ASCII): write the bare \
                 token, without \"Bearer\" before it",
            ));
        }
        let facts = jwt::read(token.expose()).unwrap_or_default();
        if profile.refuse_bound_tokens && facts.bound {
            return Err(Failure::permanent(
                "token is bound to a key (cnf) and bound_tokens = \"refuse\": use an unbound token, or set \
                 bound_tokens = \"serve\"",
            ));
        }
        let fixed = Fixed {
            clock: shared.clock.clone(),
            token,
            facts,
        };
        fixed.lifetime(fixed.clock.now())?;
        Ok(fixed)
    }

    /// The lifetime by our own clock, since there is no issuer's clock to go by.
    fn lifetime(&self, now: Stamp) -> Result<Lifetime, Failure> {
        let Some(expires) = self.facts.expires else {
            return Ok(Lifetime::Unlimited);
        };
        let left = WallTime(std::time::Duration::from_secs(expires)).since(now.wall);
        if left.is_zero() {
            return Err(Failure::permanent(
                "token has expired (exp has passed): put a new one in place",
            ));
        }
        Ok(Lifetime::For(left.min(LONGEST)))
    }

    fn issue(&self) -> Result<Issued, Failure> {
        let now = self.clock.now();
        Ok(Issued {
            token: self.token.clone(),
            scheme: Scheme::Bearer,
            asked_at: now,
            lifetime: self.lifetime(now)?,
            scopes: Vec::new(),
            confirmation: self.facts.confirmation.clone(),
            clock_skew: None,
        })
    }
}

impl Provider for Fixed {
    fn fetch<'a>(&'a self, _variant: &'a Variant) -> Attempt<'a> {
        Box::pin(ready(self.issue()))
    }
}
