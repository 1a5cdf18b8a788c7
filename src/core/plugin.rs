//! The contract with plugins, without a process: what a plugin is asked, and how its answer becomes
//! a credential or a failure. docs/plugins.md is its description for people.

pub mod answer;
mod expiry;
pub mod request;
mod shape;
pub mod spoken;
