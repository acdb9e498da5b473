//! The setting `limits.memory`.

use std::fmt;
use std::num::NonZeroU64;

use serde::de::{self, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The word for a limit that follows from the machine.
const AUTO: &str = "auto";

/// The most memory of messages, turns and components together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryLimit {
    /// Three quarters of what the process may use.
    Auto,
    /// So many bytes.
    Bytes(NonZeroU64),
}

impl MemoryLimit {
    /// In bytes, where the process may use so many.
    pub fn of(self, available: Option<u64>) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.get(),
            Self::Auto => available.map_or(u64::MAX, |available| available / 4 * 3),
        }
    }
}

impl Serialize for MemoryLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str(AUTO),
            Self::Bytes(bytes) => bytes.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for MemoryLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

struct Words;

impl Visitor<'_> for Words {
    type Value = MemoryLimit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`auto` or a number of bytes")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<MemoryLimit, E> {
        let bytes = NonZeroU64::new(bytes);
        let bytes = bytes.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(0), &self))?;
        Ok(MemoryLimit::Bytes(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<MemoryLimit, E> {
        match u64::try_from(bytes) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(bytes), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<MemoryLimit, E> {
        match (text, text.parse()) {
            (AUTO, _) => Ok(MemoryLimit::Auto),
            (_, Ok(bytes)) => self.visit_u64(bytes),
            (_, Err(_)) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}
