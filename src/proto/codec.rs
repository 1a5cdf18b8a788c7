//! Encodes messages as tonic's own codec does, with one difference: bytes that do not decode are
//! the sender's mistake. tonic reports INTERNAL for them, which sends people to look for the defect
//! on the wrong side.

use std::collections::HashMap;
use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstDecoder, ProstEncoder};
use tonic_types::{ErrorDetails, StatusExt};

use super::{DOMAIN, INVALID_REQUEST};

/// Initial buffer for an answer, in bytes: a little less than two tokens of two kilobytes, since an
/// answer has its token twice. A longer answer makes its own room. tonic allocates 8 KiB for each
/// direction of each call, and wiping that on every free was most of the cost of wiping.
const ANSWER: usize = 4 * 1024;

/// Initial buffer for a request, in bytes: a name and a few scopes.
const REQUEST: usize = 512;

/// The number of bytes written before other tasks get their turn, as in tonic.
const YIELD: usize = 32 * 1024;

/// A codec that writes `T` and reads `U`.
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
    type Decoder = BufReader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(ANSWER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        BufReader(ProstDecoder::new(BufferSettings::new(REQUEST, YIELD)))
    }
}

pub struct BufReader<U>(ProstDecoder<U>);

impl<U: Message + Default> Decoder for BufReader<U> {
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

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
