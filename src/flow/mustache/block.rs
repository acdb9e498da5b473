//! The blocks that a template is in while it is rendered, and what it sees of them.

use std::borrow::Cow;

use serde_json::Value;

use super::program::Local;

/// A block that is being rendered, inside of another one.
#[derive(Clone, Copy)]
pub(super) struct Block<'b> {
    /// What paths start at.
    pub(super) base: &'b Value,
    /// The name of the item, which is the base.
    pub(super) item: Option<&'b str>,
    /// The name of the key or position, and what that is.
    pub(super) key: Option<(&'b str, &'b Value)>,
    pub(super) locals: Locals<'b>,
    pub(super) outer: Option<&'b Block<'b>>,
    /// How many blocks it lies in.
    pub(super) depth: u64,
}

/// The variables of an iteration.
#[derive(Clone, Copy, Default)]
pub(super) struct Locals<'b> {
    /// The position, and whether it is the last one.
    pub(super) index: Option<(usize, bool)>,
    pub(super) key: Option<&'b str>,
}

impl<'b> Block<'b> {
    pub(super) fn new(base: &'b Value, outer: Option<&'b Block<'b>>) -> Self {
        Self {
            base,
            item: None,
            key: None,
            locals: Locals::default(),
            depth: outer.map_or(0, |outer| outer.depth + 1),
            outer,
        }
    }

    /// This block, and the ones that it lies in.
    pub(super) fn outward(&'b self) -> impl Iterator<Item = &'b Block<'b>> {
        std::iter::successors(Some(self), |block| block.outer)
    }

    /// What a block calls by this name.
    pub(super) fn named(&'b self, name: &str) -> Option<&'b Value> {
        self.outward().find_map(|block| match block.key {
            Some((key, value)) if key == name => Some(value),
            _ if block.item == Some(name) => Some(block.base),
            _ => None,
        })
    }
}

pub(super) fn null<'v>() -> Cow<'v, Value> {
    Cow::Owned(Value::Null)
}

/// A variable of the block that lies so many blocks outward.
pub(super) fn variable<'v>(block: &'v Block<'v>, level: usize, local: Local) -> Cow<'v, Value> {
    let Some(Block { locals, .. }) = block.outward().nth(level) else {
        return null();
    };
    let value = match (local, locals.index, locals.key) {
        (Local::First, Some((at, _)), _) => (at == 0).into(),
        (Local::Last, Some((_, is_last)), _) => is_last.into(),
        (Local::Index, Some((at, _)), _) => at.into(),
        (Local::Key, _, Some(key)) => key.into(),
        _ => Value::Null,
    };
    Cow::Owned(value)
}
