//! The state that a turn reads: what BEGIN brought, what it asks for while it runs, and how much that may be.

use serde_json::Value;

use super::Attempt;
use super::compute::LARGE;
use super::failure::TurnError;
use super::outage::Part;
use crate::budget::DECODED_FACTOR;
use crate::flow::Program;
use crate::model::{
    FlowId, MAX_DEPTH, PackId, StateBudget, StateLimitError, StateLimits, too_deep_at,
};
use crate::ports::{Publisher, StateSlot, StoreError, StoredState, TurnStore};

/// The most values that BEGIN brings before the flow has asked for them.
const MAX_PREFETCH: usize = 32;

/// The values that BEGIN brings, since the flow may read them.
#[derive(Debug, Default)]
pub(super) struct StatePrefetch {
    pub(super) slots: Vec<StateSlot>,
    /// The largest of them, in bytes: all together are within the limits of one turn. A larger one is read when the flow
    /// asks for it.
    pub(super) max_bytes: usize,
}

impl StatePrefetch {
    /// Those of a flow.
    pub(super) fn of(program: &Program, pack: PackId, flow: &FlowId) -> Self {
        let limits = program.limits().state;
        let keys = program.state_keys(flow).iter();
        let keys = keys.filter(|(_, key)| key.len() <= limits.key_bytes);
        let slots = keys.take(MAX_PREFETCH).map(|(flow, key)| StateSlot {
            pack,
            flow: flow.clone(),
            key: key.clone(),
        });
        Self {
            slots: slots.collect(),
            max_bytes: limits.bytes / MAX_PREFETCH,
        }
    }
}

/// The state that a turn has at hand, and what of it the flow has really read: COMMIT checks only that.
pub(super) struct StateReads {
    foreseen: Vec<(StateSlot, Option<String>)>,
    /// The state that was read, and what it was.
    pub(super) read: Vec<(StateSlot, Option<String>)>,
    /// Some of it is large.
    pub(super) is_large: bool,
    room: StateBudget,
}

impl StateReads {
    /// What BEGIN brought, within these limits.
    pub(super) fn new(limits: StateLimits, slots: &[StateSlot], values: &[StoredState]) -> Self {
        let found = slots.iter().zip(values);
        let found = found.filter_map(|(slot, value)| match value {
            StoredState::Absent => Some((slot.clone(), None)),
            StoredState::Text(text) => Some((slot.clone(), Some(text.clone()))),
            StoredState::TooLarge => None,
        });
        Self {
            foreseen: found.collect(),
            read: Vec::new(),
            is_large: false,
            room: StateBudget::new(limits),
        }
    }

    fn take_foreseen(&mut self, slot: &StateSlot) -> Option<Option<String>> {
        let at = self
            .foreseen
            .iter()
            .position(|(foreseen, _)| foreseen == slot)?;
        Some(self.foreseen.swap_remove(at).1)
    }
}

impl<S: TurnStore, P: Publisher> Attempt<'_, S, P> {
    /// Reads a value of state, or says which limit of the turn keeps it from that.
    pub(super) async fn read_state(
        &self,
        slot: StateSlot,
        state: &mut StateReads,
    ) -> Result<Result<Option<Value>, StateLimitError>, TurnError> {
        if let Err(excess) = state.room.take_key(&slot.key) {
            return Ok(Err(excess));
        }
        let raw = match state.take_foreseen(&slot) {
            Some(raw) => raw,
            None => match self.fetch_state(&slot, state.room.bytes_left()).await? {
                StoredState::Absent => None,
                StoredState::Text(text) => Some(text),
                StoredState::TooLarge => return Ok(Err(state.room.too_large())),
            },
        };
        if let Err(excess) = state.room.take(raw.as_ref().map_or(0, String::len)) {
            return Ok(Err(excess));
        }
        self.holds(DECODED_FACTOR * raw.as_ref().map_or(0, String::len) as u64);
        let value = match &raw {
            Some(text) if text.len() > LARGE => {
                state.is_large = true;
                let (slot, text) = (slot.clone(), text.clone());
                let reading = self.compute(move || Some(parse(&slot, Some(&text))));
                reading.await?
            }
            Some(_) | None => parse(&slot, raw.as_deref())?,
        };
        state.read.push((slot, raw));
        Ok(Ok(value))
    }

    async fn fetch_state(
        &self,
        slot: &StateSlot,
        max_bytes: usize,
    ) -> Result<StoredState, StoreError> {
        let store = &self.turns.store;
        let read = || store.read_state(self.activity, slot, max_bytes);
        self.turns
            .outage
            .ride_out(&self.activity.tenant, Part::Store, read)
            .await
    }
}

/// Another program may have written it, and deeper than a parked run could be read back with it.
fn parse(slot: &StateSlot, raw: Option<&str>) -> Result<Option<Value>, StoreError> {
    let corrupt = |reason| StoreError::Corrupt {
        what: format!("state `{}` of flow `{}`", slot.key, slot.flow),
        reason,
    };
    if raw.is_some_and(|raw| too_deep_at(raw.as_bytes(), MAX_DEPTH).is_some()) {
        return Err(corrupt(format!("it nests deeper than {MAX_DEPTH} levels")));
    }
    let value = raw.map(serde_json::from_str).transpose();
    value.map_err(|error| corrupt(error.to_string()))
}
