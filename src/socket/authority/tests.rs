//! The repair against judges of its own kind: the http crate, an HPACK coder written apart from it,
//! and h2 itself.

mod adapter;
mod coder;
mod random;
mod streams;
mod values;
