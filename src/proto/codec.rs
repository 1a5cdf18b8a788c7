//! Messages on the wire as tonic's own codec has them, except that bytes that are no such message
//! are the sender's mistake: tonic calls that INTERNAL, and whoever reads that looks for the defect
//! on the wrong side.

use std::collections::HashMap;
use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::{ProstDecoder, ProstEncoder};
use tonic_types::{ErrorDetails, StatusExt};

use super::{DOMAIN, INVALID_REQUEST};

/// Room for an answer at first, in bytes: two tokens of two kilobytes less a little, since an
/// answer has its token twice. What is longer makes room for itself. tonic's own 8 KiB for each
/// direction of each call are wiped in vain when they are freed, which was most of what wiping
/// cost.
const ANSWER: usize = 4 * 1024;

/// The same for a request: a name and a few scopes.
const REQUEST: usize = 512;

/// tonic's own: so much is written before the other tasks get their turn.
const YIELD: usize = 32 * 1024;

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
    type Decoder = BufReader<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(ANSWER, YIELD))
    }

    fn decoder(&mut self) -> Self::Decoder {
        BufReader(ProstDecoder::new(BufferSettings::new(REQUEST, YIELD)))
    }
}

/// Reads messages.
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
