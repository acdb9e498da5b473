//! What a turn may still do: the steps that it may take, the bytes that its templates may produce, and the depth of the
//! value that one of them is rendering.
//!
//! A step is the unit of work: a node, an iteration of a loop, a helper, a comparison, a look-up, a value that is copied
//! or compared, or 64 bytes of text. Work is charged before it is done, in proportion to its size, so a run ends within
//! its steps whatever its flows, its message and its stored state hold. Steps depend on nothing but these three: a run
//! that exceeds its steps does so again.

use serde_json::{Map, Value};

use super::graph::{FlowIx, NodeIx};
use super::limits::Limits;
use super::monitor::RunMonitor;
pub(super) use crate::model::MAX_DEPTH;
use crate::model::is_too_deep;

/// Steps between two looks for an interrupt.
const LOOK_EVERY: u64 = 512;
/// What a node costs beside its templates, conditions and values.
const STEPS_OF_A_NODE: u64 = 16;
/// Bytes of text that cost a step.
const BYTES_PER_STEP: usize = 64;

/// What a turn may still do.
#[derive(Debug)]
pub(super) struct Budget {
    /// Steps that the turn has taken.
    taken: u64,
    /// The count at which the limits are looked at next.
    look_at: u64,
    node_end: u64,
    turn_end: u64,
    slice_end: u64,
    limits: Limits,
    bytes: usize,
    levels: usize,
    monitor: RunMonitor,
    /// The work stopped since the slice is used up.
    pauses: bool,
}

/// What there is too much of, or why the work stops before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Excess {
    /// Bytes, over the whole turn.
    Bytes,
    /// Levels, in one value.
    Depth,
    /// Steps of one node.
    NodeSteps,
    /// Steps of the turn.
    TurnSteps,
    /// The slice is used up; the run goes on with the next one.
    Slice,
    /// The run was asked to stop.
    Interrupt,
}

/// A point that a budget can go back to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    taken: u64,
    bytes: usize,
}

impl Budget {
    /// Returns the budget of a turn.
    pub(super) fn new(limits: Limits, monitor: &RunMonitor) -> Self {
        Self {
            taken: 0,
            look_at: 0,
            node_end: limits.steps_per_node,
            turn_end: limits.steps_per_turn,
            slice_end: u64::MAX,
            limits,
            bytes: limits.rendered_bytes,
            levels: MAX_DEPTH,
            monitor: monitor.clone(),
            pauses: false,
        }
    }

    /// Begins a call of `advance`, which may take this many steps.
    pub(super) fn open_slice(&mut self, steps: u64, monitor: &RunMonitor) {
        if !self.monitor.is_same(monitor) {
            self.monitor = monitor.clone();
        }
        self.slice_end = self.taken.saturating_add(steps);
        self.look_at = self.taken;
        self.pauses = false;
    }

    /// Does work that ends whatever is left of the slice.
    pub(super) fn unsliced<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let slice_end = std::mem::replace(&mut self.slice_end, u64::MAX);
        let done = work(self);
        self.slice_end = slice_end;
        self.look_at = self.taken;
        done
    }

    /// Does work that produces nothing but for a moment: it takes steps, and no bytes.
    pub(super) fn unproductive<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let bytes = std::mem::replace(&mut self.bytes, usize::MAX);
        let done = work(self);
        self.bytes = bytes;
        done
    }

    /// Takes the end off the slice.
    pub(super) fn lift_slice(&mut self) -> u64 {
        std::mem::replace(&mut self.slice_end, u64::MAX)
    }

    /// Puts the end that was taken off back.
    pub(super) fn restore_slice(&mut self, slice_end: u64) {
        self.slice_end = slice_end;
        self.look_at = self.taken;
    }

    /// Returns whether the slice is used up.
    pub(super) fn is_slice_over(&self) -> bool {
        self.taken >= self.slice_end
    }

    /// Returns whether work stopped in the middle since the slice is used up.
    pub(super) fn pauses(&self) -> bool {
        self.pauses
    }

    /// Begins a node, and looks for an interrupt.
    pub(super) fn open_node(&mut self, (flow, node): (FlowIx, NodeIx)) -> Result<(), Excess> {
        self.monitor.enter(flow, node);
        self.node_end = self.taken.saturating_add(self.limits.steps_per_node);
        self.look_at = self.taken;
        self.step(STEPS_OF_A_NODE)
    }

    /// Begins the end of a node that others ran inside of.
    pub(super) fn reopen_node(&mut self) {
        self.node_end = self.taken.saturating_add(self.limits.steps_per_node);
        self.look_at = self.taken;
    }

    /// Returns the point that [`Budget::go_back`] takes.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            taken: self.taken,
            bytes: self.bytes,
        }
    }

    /// Gives back what was used since that point.
    pub(super) fn go_back(&mut self, mark: Mark) {
        self.taken = mark.taken;
        self.bytes = mark.bytes;
        self.levels = MAX_DEPTH;
        self.look_at = self.taken;
        self.pauses = false;
    }

    /// Tells the watchers how many steps were taken.
    pub(super) fn report(&self) {
        self.monitor.count(self.taken);
    }

    /// Returns the bytes that templates may still produce.
    pub(super) fn bytes_left(&self) -> usize {
        self.bytes
    }

    /// Takes steps.
    #[inline]
    pub(super) fn step(&mut self, steps: u64) -> Result<(), Excess> {
        self.taken = self.taken.saturating_add(steps);
        if self.taken > self.look_at {
            self.look()
        } else {
            Ok(())
        }
    }

    /// Takes the steps that so many bytes of text cost to read or copy.
    #[inline]
    pub(super) fn step_text(&mut self, bytes: usize) -> Result<(), Excess> {
        self.step((bytes / BYTES_PER_STEP) as u64)
    }

    #[cold]
    fn look(&mut self) -> Result<(), Excess> {
        self.monitor.count(self.taken);
        if self.monitor.is_interrupted() {
            Err(Excess::Interrupt)
        } else if self.taken > self.turn_end {
            Err(Excess::TurnSteps)
        } else if self.taken > self.node_end {
            Err(Excess::NodeSteps)
        } else if self.taken > self.slice_end {
            self.pauses = true;
            Err(Excess::Slice)
        } else {
            let ends = self.turn_end.min(self.node_end).min(self.slice_end);
            self.look_at = ends.min(self.taken.saturating_add(LOOK_EVERY));
            Ok(())
        }
    }

    /// Uses bytes of what templates may produce.
    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Excess> {
        self.step_text(bytes)?;
        self.bytes = self.bytes.checked_sub(bytes).ok_or(Excess::Bytes)?;
        Ok(())
    }

    /// Uses what a copy of a value takes.
    pub(super) fn take_value(&mut self, value: &Value) -> Result<(), Excess> {
        self.step(1)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => self.take(8),
            Value::String(text) => self.take(8 + text.len()),
            Value::Array(items) => {
                self.take(8)?;
                self.inside(|budget| items.iter().try_for_each(|item| budget.take_value(item)))
            }
            Value::Object(fields) => {
                self.take(8)?;
                self.inside(|budget| {
                    fields.iter().try_for_each(|(name, value)| {
                        budget.take(name.len())?;
                        budget.take_value(value)
                    })
                })
            }
        }
    }

    /// Takes the steps that it costs to go through a value or to copy it.
    pub(super) fn walk(&mut self, value: &Value) -> Result<(), Excess> {
        self.step(1)?;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
            Value::String(text) => self.step_text(text.len()),
            Value::Array(items) => items.iter().try_for_each(|item| self.walk(item)),
            Value::Object(fields) => self.walk_fields(fields),
        }
    }

    /// The same for the fields of an object.
    pub(super) fn walk_fields(&mut self, fields: &Map<String, Value>) -> Result<(), Excess> {
        fields.iter().try_for_each(|(name, value)| {
            self.step_text(name.len())?;
            self.walk(value)
        })
    }

    /// The same, and the value may nest no deeper than a stored one.
    pub(super) fn walk_bounded(&mut self, value: &Value) -> Result<(), Excess> {
        if is_too_deep(value) {
            return Err(Excess::Depth);
        }
        self.walk(value)
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

/// The budget of a turn with the usual limits.
#[cfg(test)]
impl Default for Budget {
    fn default() -> Self {
        Self::new(Limits::default(), &RunMonitor::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(limits: Limits) -> Budget {
        Budget::new(limits, &RunMonitor::default())
    }

    #[test]
    fn bytes_and_levels_are_bounded() {
        let nested = |levels: usize| (0..levels).fold(Value::Null, |v, _| Value::Array(vec![v]));
        let limits = Limits {
            rendered_bytes: 8 * (MAX_DEPTH + 1),
            ..Limits::default()
        };
        let (deepest, deeper) = (nested(MAX_DEPTH), nested(MAX_DEPTH + 1));
        assert_eq!(budget(limits).take_value(&deeper), Err(Excess::Depth));
        let mut budget = budget(limits);
        assert_eq!(budget.take_value(&deepest), Ok(()));
        assert_eq!(budget.take(1), Err(Excess::Bytes));
    }

    #[test]
    fn steps_of_a_node_and_of_the_turn_are_bounded() {
        let limits = Limits {
            steps_per_node: 100,
            steps_per_turn: 250,
            ..Limits::default()
        };
        let mut budget = budget(limits);
        for _ in 0..2 {
            assert_eq!(budget.open_node((0, 0)), Ok(()));
            assert_eq!(budget.step(100 - STEPS_OF_A_NODE), Ok(()));
        }
        assert_eq!(budget.step(1), Err(Excess::NodeSteps));
        assert_eq!(budget.open_node((0, 0)), Ok(()));
        assert_eq!(budget.step(60), Err(Excess::TurnSteps));
        assert_eq!(budget.step(1), Err(Excess::TurnSteps));
    }

    #[test]
    fn text_costs_steps_by_its_size() {
        let limits = Limits {
            steps_per_node: 100,
            ..Limits::default()
        };
        let text = |steps: usize| Value::String("x".repeat(steps * BYTES_PER_STEP));
        assert_eq!(budget(limits).walk(&text(99)), Ok(()));
        assert_eq!(budget(limits).walk(&text(100)), Err(Excess::NodeSteps));
    }

    #[test]
    fn what_a_slice_abandons_is_given_back() {
        let mut budget = Budget::default();
        let monitor = RunMonitor::default();
        budget.open_slice(100, &monitor);
        assert_eq!(budget.step(60), Ok(()));
        let mark = budget.mark();
        assert_eq!(budget.step(60), Err(Excess::Slice));
        assert!(budget.pauses());
        budget.go_back(mark);
        assert!(!budget.pauses() && !budget.is_slice_over());
        assert_eq!(budget.unsliced(|budget| budget.step(60)), Ok(()));
        assert!(budget.is_slice_over());
        budget.report();
        assert_eq!(monitor.steps(), 120);
    }

    #[test]
    fn an_interrupt_is_seen_in_the_middle_of_work() {
        let mut budget = Budget::default();
        let monitor = RunMonitor::default();
        budget.open_slice(u64::MAX, &monitor);
        monitor.interrupt();
        let stopped = (0..2 * LOOK_EVERY).find_map(|_| budget.step(1).err());
        assert_eq!(stopped, Some(Excess::Interrupt));
    }
}
