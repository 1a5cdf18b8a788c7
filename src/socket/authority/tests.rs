//! Tests the repair against independent judges: the http crate, an HPACK coder that was written
//! apart from it, and h2 itself.

mod adapter;
mod coder;
mod random;
mod streams;
mod values;
