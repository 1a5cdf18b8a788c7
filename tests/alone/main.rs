//! Tests that load the machine and measure what other callers notice. They are a program of their
//! own: neither they nor the other tests may disturb each other.

#![allow(clippy::disallowed_methods, reason = "tests may look at the clock")]

mod abuse;
mod accounts;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code, reason = "shared with the other integration tests")]
mod harness;
