//! The Unix socket. It is made with the right owner and mode. It is read so that stock gRPC clients
//! are understood and no client keeps the others from being read.

pub mod allowance;
pub mod authority;
pub mod bind;
