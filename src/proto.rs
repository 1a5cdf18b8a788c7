//! The wire types of `proto/`: generated ones, and one that is written by hand.
//!
//! `GetTokenResponse` carries its credential as bytes. The broker publishes a credential already
//! encoded, and an answer is those bytes plus the time left, since the fields of a protobuf message
//! may simply follow one another.

#![allow(
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    missing_docs,
    reason = "generated"
)]

pub mod codec;
pub mod json;

use bytes::{Buf, BufMut, Bytes};
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};

tonic::include_proto!("tokend.v1");

/// The error domain of every reason (`google.rpc.ErrorInfo`).
pub const DOMAIN: &str = "tokend";

/// The reason for every request that is itself wrong.
pub const INVALID_REQUEST: &str = "INVALID_REQUEST";

/// The descriptors of `proto/`, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tokend.v1.bin"));

/// `tokend.v1.GetTokenResponse`, with its credential in encoded form.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GetTokenResponse {
    /// An encoded [`Credential`].
    pub credential: Bytes,
    /// The time left. None if the credential does not expire.
    pub expires_in: Option<prost_types::Duration>,
}

impl prost::Message for GetTokenResponse {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::encode_key(1, WireType::LengthDelimited, buf);
        encoding::encode_varint(self.credential.len() as u64, buf);
        buf.put_slice(&self.credential);
        if let Some(left) = &self.expires_in {
            encoding::message::encode(2, left, buf);
        }
    }

    fn encoded_len(&self) -> usize {
        let credential = self.credential.len();
        encoding::key_len(1)
            + encoding::encoded_len_varint(credential as u64)
            + credential
            + self
                .expires_in
                .as_ref()
                .map_or(0, |left| encoding::message::encoded_len(2, left))
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::bytes::merge(wire_type, &mut self.credential, buf, ctx),
            2 => encoding::message::merge(
                wire_type,
                self.expires_in.get_or_insert_with(Default::default),
                buf,
                ctx,
            ),
            _ => encoding::skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn clear(&mut self) {
        *self = GetTokenResponse::default();
    }
}
