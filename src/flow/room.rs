//! How much a turn's templates may produce: what bounds the memory of a flow that feeds on itself.

use serde_json::Value;

pub(super) use crate::model::MAX_DEPTH;

/// How many bytes a turn's templates may still produce, and how deep the value may still go that one of them is rendering.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    bytes: usize,
    levels: usize,
}

/// What there is too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// Bytes, over the whole turn.
    Bytes,
    /// Levels, in one value.
    Depth,
}

impl Room {
    /// Room for this many bytes.
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes,
            levels: MAX_DEPTH,
        }
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.bytes
    }

    /// Uses some of it.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Excess> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Excess::Bytes)?;
        Ok(())
    }

    /// Uses what a copy of a value takes.
    pub(super) fn take_value(&mut self, value: &Value) -> Result<(), Excess> {
        self.take(8)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
            Value::String(text) => self.take(text.len()),
            Value::Array(items) => {
                self.inside(|room| items.iter().try_for_each(|item| room.take_value(item)))
            }
            Value::Object(fields) => self.inside(|room| {
                fields.iter().try_for_each(|(name, value)| {
                    room.take(name.len())?;
                    room.take_value(value)
                })
            }),
        }
    }

    /// Renders what lies one level deeper.
    pub(super) fn inside<T, E: From<Excess>>(
        &mut self,
        render: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        self.levels = self.levels.checked_sub(1).ok_or(Excess::Depth)?;
        let rendered = render(self);
        self.levels += 1;
        rendered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_levels_are_bounded() {
        let nested = |levels: usize| (0..levels).fold(Value::Null, |v, _| Value::Array(vec![v]));
        let mut room = Room::new(8 * (MAX_DEPTH + 1));
        assert_eq!(room.take_value(&nested(MAX_DEPTH + 1)), Err(Excess::Depth));
        let mut room = Room::new(8 * (MAX_DEPTH + 1));
        assert_eq!(room.take_value(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(room.take(1), Err(Excess::Bytes));
    }
}
