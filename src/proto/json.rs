//! Answers as JSON: the HTTP side writes these messages, and the command line reads them. build.rs
//! lists the messages, and the fields that use one of these forms.

use std::time::Duration;

use prost_types::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::ProfileReload;
use crate::core::time::WallTime;

/// Formats a message as JSON. The keys are in alphabetical order.
pub fn value(message: &impl Serialize) -> Value {
    serde_json::to_value(message).expect("texts, numbers and lists of them can always be written")
}

/// Formats a moment as in RFC 3339, with milliseconds.
pub fn text(at: &Timestamp) -> String {
    let since = Duration::new(at.seconds.cast_unsigned(), at.nanos.cast_unsigned());
    WallTime(since).to_string()
}

/// A moment as text, or null. Anything that is not a moment is read as null.
pub mod timestamp {
    use super::*;

    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, to: S) -> Result<S::Ok, S::Error> {
        at.as_ref().map(text).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timestamp>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        Ok(text.and_then(|text| Some(humantime::parse_rfc3339(&text).ok()?.into())))
    }
}

/// A duration in seconds with milliseconds, rounded down.
pub mod seconds {
    use super::*;

    pub fn serialize<S: Serializer>(
        length: &Option<prost_types::Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let seconds = length.map(|it| it.seconds as f64 + f64::from(it.nanos / 1_000_000) / 1000.0);
        seconds.serialize(to)
    }

    /// A number too large for the type becomes the largest.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<prost_types::Duration>, D::Error> {
        let seconds = Option::<f64>::deserialize(from)?;
        Ok(seconds.map(|seconds| prost_types::Duration {
            seconds: seconds as i64,
            nanos: (seconds.fract() * 1e9).round() as i32,
        }))
    }
}

/// A duration in seconds, as an integer.
pub mod whole_seconds {
    use super::*;

    pub use super::seconds::deserialize;

    pub fn serialize<S: Serializer>(
        length: &Option<prost_types::Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        length.map(|length| length.seconds).serialize(to)
    }
}

/// The result of a profile's last change, without the name, which stands beside it.
pub fn unnamed<S: Serializer>(reload: &Option<ProfileReload>, to: S) -> Result<S::Ok, S::Error> {
    let unnamed = reload.clone().map(|reload| ProfileReload {
        profile: String::new(),
        ..reload
    });
    unnamed.serialize(to)
}

/// A message that an answer must contain.
pub fn required<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}
