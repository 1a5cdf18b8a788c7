//! Code that the targets share: above all a daemon to talk to, which runs in this process with a
//! clock of its own, and readers of its answers.

pub mod daemon;
pub mod http1;
pub mod http2;
pub mod material;
pub mod profiles;
pub mod script;
pub mod secrets;
