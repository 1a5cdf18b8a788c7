//! The storey that thinks. No I/O, no clock, no spawning, no logging, no globals, no randomness:
//! time and random numbers come in as arguments, so that years of it can be run in seconds.

pub mod account;
pub mod bucket;
pub mod certificate;
pub mod config;
pub mod credential;
pub mod diagnostic;
pub mod failure;
pub mod handover;
pub mod lifecycle;
pub mod oauth;
pub mod plugin;
pub mod policy;
pub mod profile;
pub mod readers;
pub mod repeated;
pub mod secret;
pub mod time;
