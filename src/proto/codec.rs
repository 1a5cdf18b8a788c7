//! Messages on the wire as tonic's own codec has them, except that bytes that are no such message are the sender's mistake:
//! tonic calls that INTERNAL, and whoever reads that looks for the defect on the wrong side.

use std::collections::HashMap;
use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstDecoder, ProstEncoder};
use tonic_types::{ErrorDetails, StatusExt};

use super::{DOMAIN, INVALID_REQUEST};

/// Writes `T` and reads `U`.
pub struct Codec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Codec(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = Reader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Reader(ProstDecoder::default())
    }
}

/// Reads messages.
pub struct Reader<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for Reader<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(buf).map_err(|status| {
            Status::with_error_details(
                Code::InvalidArgument,
                format!(
                    "the message cannot be read: use the types of tokend.v1 as they are: {}",
                    status.message()
                ),
                ErrorDetails::with_error_info(INVALID_REQUEST, DOMAIN, HashMap::new()),
            )
        })
    }
}
