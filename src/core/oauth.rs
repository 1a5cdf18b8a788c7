//! OAuth 2.0 without a socket: it makes the token request as data, and turns the answer's bytes
//! into a credential or a classified failure.
//!
//! Reading order: what is sent ([`request`], [`assertion`]), where to ([`discovery`]), what comes
//! back ([`response`] with its helpers [`lifetime`], [`jwt`] and [`date`]), and how to speak about
//! it without telling secrets ([`withhold`]).

pub mod assertion;
pub mod date;
pub mod discovery;
pub mod federated;
pub mod jwt;
pub mod lifetime;
pub mod request;
pub mod response;
pub mod wanted;
pub mod withhold;
