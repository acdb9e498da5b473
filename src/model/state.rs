//! How much state one turn may read and write.

use std::io;

use serde_json::Value;

/// What a key of state counts besides its own bytes and those of its value: its place in the store, which a value of one
/// byte takes as well.
pub const STATE_KEY_OVERHEAD: usize = 256;

/// How much state a turn may read, and how much it may write: the same limits hold for either by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Keys.
    pub keys: u32,
    /// Keys and values in bytes, each key with [`STATE_KEY_OVERHEAD`].
    pub bytes: usize,
    /// One key in bytes.
    pub key_bytes: usize,
}

impl Default for StateLimits {
    fn default() -> Self {
        Self {
            keys: 256,
            bytes: 1024 * 1024,
            key_bytes: 512,
        }
    }
}

/// The part of a turn's limits that is left, for reading or for writing.
#[derive(Clone, Copy, Debug, Default)]
pub struct StateRoom {
    limits: StateLimits,
    keys: u32,
    bytes: usize,
}

/// The limit that a turn's state exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateExcess {
    /// A key is too long.
    #[error("a key of state has {bytes} bytes, more than limits.state_key_bytes = {limit}")]
    KeyBytes {
        /// The length of the key.
        bytes: usize,
        /// The longest that is taken.
        limit: usize,
    },
    /// Too many keys.
    #[error("the turn reads or writes more keys of state than limits.state_keys = {limit}")]
    Keys {
        /// The most keys.
        limit: u32,
    },
    /// Too many bytes.
    #[error(
        "the state that the turn reads or writes has more bytes than limits.state_bytes = {limit}"
    )]
    Bytes {
        /// The most bytes.
        limit: usize,
    },
}

impl StateRoom {
    /// All of these limits.
    pub fn new(limits: StateLimits) -> Self {
        Self {
            limits,
            keys: 0,
            bytes: 0,
        }
    }

    /// The limits that it began with.
    pub fn limits(&self) -> StateLimits {
        self.limits
    }

    fn check_key(&self, key: &str) -> Result<(), StateExcess> {
        let (bytes, limit) = (key.len(), self.limits.key_bytes);
        if bytes > limit {
            return Err(StateExcess::KeyBytes { bytes, limit });
        }
        Ok(())
    }

    /// Counts a key whose value is not known yet.
    ///
    /// # Errors
    /// There is no room for it, and none is taken.
    pub fn take_key(&mut self, key: &str) -> Result<(), StateExcess> {
        self.check_key(key)?;
        let limit = self.limits.keys;
        if self.keys >= limit {
            return Err(StateExcess::Keys { limit });
        }
        self.take(key.len() + STATE_KEY_OVERHEAD)?;
        self.keys += 1;
        Ok(())
    }

    /// Counts bytes of a value.
    ///
    /// # Errors
    /// There is no room for them, and none is taken.
    pub fn take(&mut self, bytes: usize) -> Result<(), StateExcess> {
        let taken = self.bytes.saturating_add(bytes);
        if taken > self.limits.bytes {
            return Err(self.too_large());
        }
        self.bytes = taken;
        Ok(())
    }

    /// Counts a value in place of the one that was counted for this key before, if there was one.
    ///
    /// # Errors
    /// There is no room for it, and nothing changes.
    pub fn put(
        &mut self,
        key: &str,
        before: Option<usize>,
        bytes: usize,
    ) -> Result<(), StateExcess> {
        let mut room = *self;
        match before {
            Some(before) => room.bytes = room.bytes.saturating_sub(before),
            None => room.take_key(key)?,
        }
        room.take(bytes)?;
        *self = room;
        Ok(())
    }

    /// The largest value that there can be room for, in bytes: what is counted already may give way to it.
    pub fn max_value_bytes(&self) -> usize {
        self.limits.bytes
    }

    /// The bytes that are left.
    pub fn bytes_left(&self) -> usize {
        self.limits.bytes.saturating_sub(self.bytes)
    }

    /// The error of a value that is larger than what is left.
    pub fn too_large(&self) -> StateExcess {
        let limit = self.limits.bytes;
        StateExcess::Bytes { limit }
    }
}

/// The bytes that a value takes as JSON text.
pub fn json_len(value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting does not fail, and a value has text for keys.
    let _counted = serde_json::to_writer(&mut count, value);
    count.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn room(keys: u32, bytes: usize) -> StateRoom {
        StateRoom::new(StateLimits {
            keys,
            bytes,
            key_bytes: 8,
        })
    }

    #[test]
    fn each_limit_is_told_and_what_is_refused_takes_no_room() {
        let mut room = room(2, 2 * STATE_KEY_OVERHEAD + 10);
        let long = room.take_key("123456789");
        assert_eq!(long, Err(StateExcess::KeyBytes { bytes: 9, limit: 8 }));
        assert_eq!(room.take_key("a"), Ok(()));
        assert_eq!(room.take(9 + STATE_KEY_OVERHEAD), Ok(()));
        let too_large = Err(room.too_large());
        assert_eq!(room.take(1), too_large);
        assert_eq!(room.take_key("b"), too_large);
        let mut room = super::StateRoom::new(StateLimits {
            keys: 1,
            ..StateLimits::default()
        });
        assert_eq!(room.take_key("a"), Ok(()));
        assert_eq!(room.take_key("b"), Err(StateExcess::Keys { limit: 1 }));
    }

    #[test]
    fn a_value_counts_in_place_of_the_one_before_it() {
        let mut room = room(1, STATE_KEY_OVERHEAD + 11);
        assert_eq!(room.put("a", None, 10), Ok(()));
        assert!(room.put("a", Some(10), 11).is_err());
        for _ in 0..5 {
            assert_eq!(room.put("a", Some(10), 10), Ok(()));
        }
        assert_eq!(room.bytes_left(), 0);
        assert!(room.put("b", None, 0).is_err());
    }

    #[test]
    fn the_length_is_that_of_the_text() {
        let value = json!({"a": [1, null, "ü\n\""], "b": {}});
        assert_eq!(json_len(&value), value.to_string().len());
    }
}
