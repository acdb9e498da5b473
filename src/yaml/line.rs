//! The line of a field. serde_yaml keeps no positions in its values, but its errors carry one: the text is read once
//! more along the path to the field, and fails there on purpose.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Step;

/// The line, from 1, at which the value at this path begins; none where the path leads through an alias or merge.
pub(super) fn find(text: &str, path: &[Step<'_>]) -> Option<usize> {
    let document = serde_yaml::Deserializer::from_str(text);
    let stopped = Follow(path).deserialize(document).err()?;
    Some(stopped.location()?.line())
}

/// Follows a path and fails at its end. It fails as well where the path cannot be followed: that is the nearest place.
struct Follow<'p>(&'p [Step<'p>]);

impl<'de> DeserializeSeed<'de> for Follow<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Follow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the end of the path")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let [Step::Field(name), rest @ ..] = self.0 else {
            return Err(A::Error::custom("here"));
        };
        let last = rest.is_empty();
        while let Some(found) = map.next_key_seed(Key { name, last })? {
            if found {
                return map.next_value_seed(Follow(rest));
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let [Step::Item(n), rest @ ..] = self.0 else {
            return Err(A::Error::custom("here"));
        };
        for _ in 0..*n {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Follow(rest))?;
        // The rest has to be read for the end of the list to be found.
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Compares a key, and fails at it if it is the end of the path.
struct Key<'p> {
    name: &'p str,
    last: bool,
}

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        let found = key == self.name;
        if found && self.last {
            return Err(E::custom("here"));
        }
        Ok(found)
    }
}
