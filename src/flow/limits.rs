//! How much one turn of a flow may do.

use crate::model::StateLimits;

/// Limits that stop a flow which runs away. They bind each turn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Nodes that a turn may run, called flows included.
    pub nodes: u32,
    /// Jumps (`flow.goto`) that a run may make in a turn, where the node does not say otherwise.
    pub jumps: u32,
    /// Calls (`flow.call`) that may be open inside one another.
    pub calls: u32,
    /// Bytes that the templates of a turn may produce in all, which bounds what a run holds in memory.
    pub rendered_bytes: usize,
    /// Messages that a run may send in a turn.
    pub replies: u32,
    /// State that a turn may read, and that it may write.
    pub state: StateLimits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 10_000,
            jumps: 3,
            calls: 16,
            rendered_bytes: 16 * 1024 * 1024,
            replies: 100,
            state: StateLimits::default(),
        }
    }
}
