//! The pluggable part: one trait, one file per method, and one table of the methods.

mod basic;
pub mod exec;
mod fixed;
mod none;
pub mod oauth2;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;

use crate::clock::Clock;
use crate::core::credential::{Issued, Variant};
use crate::core::diagnostic::Diagnostic;
use crate::core::failure::Failure;
use crate::core::plugin::request::FetchPurpose;
use crate::core::profile::{Method, Profile};
use crate::core::secret::Secret;
use crate::material::Material;
use crate::tls::Tls;

pub type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Issued, Failure>> + Send + 'a>>;

/// The deadline of methods that ask nobody on the network.
const LOCAL_DEADLINE: Duration = Duration::from_secs(60);

/// Gets credentials in one way, with one immutable set of material. It never retries: retrying is
/// the lifecycle's business.
pub trait Provider: Send + Sync + 'static {
    /// Makes one attempt. Dropping the future abandons the attempt.
    fn fetch<'a>(&'a self, variant: &'a Variant) -> Attempt<'a>;

    /// The same for a provider that passes on why it is asked.
    fn fetch_for<'a>(&'a self, variant: &'a Variant, _purpose: FetchPurpose) -> Attempt<'a> {
        self.fetch(variant)
    }

    /// Takes over material that may be renewed in place: an assertion from elsewhere. Returns
    /// whether it differs from the one before.
    fn renewed(&self, _material: &Material) -> bool {
        false
    }

    /// The time after which one whole attempt is given up.
    fn deadline(&self) -> Duration {
        LOCAL_DEADLINE
    }

    /// The remarks on the attempts so far, beside their outcome.
    fn remarks(&self) -> Vec<Diagnostic> {
        Vec::new()
    }

    /// How many seconds the other side's clock was ahead of ours in its last answer, whatever the
    /// answer was.
    fn clock_skew(&self) -> Option<i64> {
        None
    }
}

/// Makes one attempt, and gives it up at its deadline.
///
/// # Errors
/// Those of the provider. A passed deadline is a transient failure.
pub async fn attempt(
    provider: &dyn Provider,
    variant: &Variant,
    purpose: FetchPurpose,
) -> Result<Issued, Failure> {
    let deadline = provider.deadline();
    tokio::time::timeout(deadline, provider.fetch_for(variant, purpose))
        .await
        .unwrap_or_else(|_| {
            Err(Failure::transient(format!(
                "no credential within {} s: is the identity provider slow? http.timeout sets the limit",
                deadline.as_secs()
            )))
        })
}

/// Fills a buffer with random bytes.
pub type Random = fn(&mut [u8]) -> Result<(), Unspecified>;

/// The shared parts of all providers of a process: clocks, randomness, the system's roots, HTTP
/// clients and discovery documents. Profiles with the same way to the same identity provider share
/// one client, so that a thousand of them cost one. Clones share the same content.
#[derive(Clone)]
pub struct Shared {
    clock: Clock,
    random: Random,
    tls: Tls,
    upstreams: Arc<oauth2::IdpClients>,
}

impl Shared {
    /// Uses the random source of aws-lc-rs. It opens and reads nothing yet.
    #[must_use]
    pub fn new(clock: Clock) -> Shared {
        Shared::with_random(clock, aws_lc_rs::rand::fill)
    }

    /// Uses the given random source.
    #[must_use]
    pub fn with_random(clock: Clock, random: Random) -> Shared {
        Shared {
            clock,
            random,
            tls: Tls::new(),
            upstreams: Arc::default(),
        }
    }
}

/// The table of methods: makes the provider for a profile and its material. It asks nobody and
/// opens no connection.
///
/// # Errors
/// A permanent failure if material and configuration do not go together. The message says what to
/// change.
pub fn build(
    profile: &Profile,
    material: Material,
    shared: &Shared,
) -> Result<Arc<dyn Provider>, Failure> {
    let provider: Arc<dyn Provider> = match &profile.method {
        Method::None => Arc::new(none::Nothing::new(shared)),
        Method::Basic { username, .. } => Arc::new(basic::Basic::new(username, material, shared)?),
        Method::Static { .. } => Arc::new(fixed::Fixed::new(profile, material, shared)?),
        Method::OAuth2(oauth) => Arc::new(oauth2::OAuth2Provider::new(
            profile, oauth, material, shared,
        )?),
        Method::Exec(exec) => Arc::new(exec::ExecProvider::new(profile, exec, shared)),
    };
    Ok(provider)
}

/// The secret that a method needs. Configuration and material guarantee it. A caller that mixes up
/// profile and material gets a failure and not an empty credential (traps 1, 30).
fn required(secret: Option<Secret>, role: &str) -> Result<Secret, Failure> {
    secret
        .filter(|secret| !secret.is_empty())
        .ok_or_else(|| Failure::permanent(format!("{role} is missing: set it in the profile")))
}
