//! The Unix socket that programs connect to.

pub mod authority;
