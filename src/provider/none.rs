//! `method = "none"`: a credential without a header, for APIs that ask for none.

use std::future::ready;

use super::{Attempt, Provider, Shared};
use crate::clock::Clock;
use crate::core::credential::{Issued, Lifetime, Scheme, Variant};
use crate::core::secret::Secret;

/// Always succeeds, with an empty credential.
pub(super) struct Nothing(Clock);

impl Nothing {
    pub(super) fn new(shared: &Shared) -> Nothing {
        Nothing(shared.clock.clone())
    }
}

impl Provider for Nothing {
    fn fetch<'a>(&'a self, _variant: &'a Variant) -> Attempt<'a> {
        Box::pin(ready(Ok(Issued {
            token: Secret::new(String::new()),
            scheme: Scheme::None,
            asked_at: self.0.now(),
            lifetime: Lifetime::Unlimited,
            scopes: Vec::new(),
            confirmation: None,
            clock_skew: None,
        })))
    }
}
