//! The Unix socket: made with the right owner and mode, and read so that stock gRPC clients are understood.

pub mod authority;
pub mod bind;
