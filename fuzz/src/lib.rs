//! What the targets share: above all a daemon to speak to, in this process and in time of its own,
//! and readers of what it says.

pub mod daemon;
pub mod http1;
pub mod http2;
pub mod material;
pub mod profiles;
pub mod script;
pub mod secrets;
