//! tokend, a credentials daemon. ARCHITECTURE.md is the map.

#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests may look at the clock")
)]

pub mod app;
pub mod audit;
pub mod broker;
pub mod caller;
pub mod cli;
pub mod client;
pub mod clock;
pub mod core;
pub mod doctor;
pub mod files;
pub mod material;
pub mod proto;
pub mod provider;
pub mod readers;
pub mod registry;
pub mod safe_open;
pub mod server;
pub mod socket;
pub mod supervisor;
pub mod sys;
pub mod telemetry;
pub mod tls;
