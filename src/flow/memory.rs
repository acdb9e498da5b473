//! The user's state as a turn knows it: what it has read and what it has written.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::graph::FlowIx;
use crate::model::{StateExcess, StateLimits, StateRoom, json_len};

/// The state that a turn has read and written. What it reads is bounded where it is read from, what it writes here.
#[derive(Debug)]
pub(super) struct Memory {
    known: BTreeMap<(FlowIx, String), Known>,
    /// The keys that were written, each once.
    written: Vec<(FlowIx, String)>,
    /// The room for what is written.
    room: StateRoom,
}

#[derive(Debug)]
struct Known {
    value: Option<Arc<Value>>,
    /// The bytes that are counted for it, if it was written.
    written: Option<usize>,
}

impl Memory {
    pub(super) fn new(limits: StateLimits) -> Self {
        Self {
            known: BTreeMap::new(),
            written: Vec::new(),
            room: StateRoom::new(limits),
        }
    }

    /// The value that is known of a key: `None` if nothing is.
    pub(super) fn recall(&self, flow: FlowIx, key: &str) -> Option<&Option<Arc<Value>>> {
        let known = self.known.get(&(flow, key.to_owned()))?;
        Some(&known.value)
    }

    /// Takes note of what is stored.
    pub(super) fn learn(&mut self, flow: FlowIx, key: &str, stored: Option<Arc<Value>>) {
        let known = Known {
            value: stored,
            written: None,
        };
        self.known.insert((flow, key.to_owned()), known);
    }

    /// Takes note of what the turn writes; `None` deletes.
    pub(super) fn write(
        &mut self,
        flow: FlowIx,
        key: &str,
        value: Option<Value>,
    ) -> Result<(), StateExcess> {
        let slot = (flow, key.to_owned());
        let bytes = value.as_ref().map_or(0, json_len);
        let before = self.known.get(&slot).and_then(|known| known.written);
        self.room.put(key, before, bytes)?;
        if before.is_none() {
            self.written.push(slot.clone());
        }
        let known = Known {
            value: value.map(Arc::new),
            written: Some(bytes),
        };
        self.known.insert(slot, known);
        Ok(())
    }

    /// The room that is left for what is written.
    pub(super) fn room(&self) -> StateRoom {
        self.room
    }

    /// All that was written, the last value of each key.
    pub(super) fn into_written(mut self) -> impl Iterator<Item = (FlowIx, String, Option<Value>)> {
        self.written.into_iter().filter_map(move |slot| {
            let value = self.known.remove(&slot)?.value;
            Some((slot.0, slot.1, value.map(Arc::unwrap_or_clone)))
        })
    }
}
