//! Tests that load the machine and measure what others notice of it: a program of their own, so
//! that nothing else runs beside them, and they beside nothing else.

#![allow(clippy::disallowed_methods, reason = "tests may look at the clock")]

mod abuse;
mod accounts;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code, reason = "shared with the other integration tests")]
mod harness;
