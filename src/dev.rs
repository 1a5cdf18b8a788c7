//! The embedded issuer of `tokend dev`, which the tests use too, with scripted faults.

pub mod certificates;
pub mod faults;
pub mod issuer;
