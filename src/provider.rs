//! The pluggable part: one trait, one file per method, one table that names them.

use std::future::Future;
use std::pin::Pin;

use crate::core::credential::{Issued, Variant};
use crate::core::failure::Failure;

/// One attempt under way.
pub type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Issued, Failure>> + Send + 'a>>;

/// Gets credentials in one way, with one immutable set of material. Never retries: that is the lifecycle's business.
pub trait Provider: Send + Sync + 'static {
    /// Makes one attempt. Dropping it abandons it.
    fn fetch<'a>(&'a self, variant: &'a Variant) -> Attempt<'a>;
}
