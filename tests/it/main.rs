//! Integration tests: one binary, the embedded issuer, and the real executable where processes
//! matter.

#![allow(clippy::disallowed_methods, reason = "tests may look at the clock")]

mod access;
mod answers;
mod architecture;
mod audit;
mod camunda;
mod commands;
mod config;
mod dev;
mod doctor;
mod ending;
mod exec;
mod federated;
mod harness;
mod health;
mod hostile;
mod http;
mod incidents;
mod keystores;
mod late_rotation;
mod leaks;
mod lifecycle;
mod limits;
mod metrics;
mod ownership;
mod readers;
mod reload;
mod restart;
mod revocation;
mod rotation;
mod rotation_under_load;
mod serving;
mod socket;
mod unheard;
mod units;
