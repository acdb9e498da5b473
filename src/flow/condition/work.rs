//! The work of looking at the conditions of one node after the other.

use crate::flow::budget::{Budget, Excess};

/// How much dearer a byte is to put into lower case than to copy.
pub(super) const LOWER_CASE_COST: usize = 8;
/// How much dearer a byte is to search than to copy.
const SEARCH_COST: usize = 2;

/// Looking at the conditions of a node.
#[derive(Debug)]
pub(in crate::flow) struct Work<'b> {
    pub(super) budget: &'b mut Budget,
    /// The text that was put into lower case last, by its place in memory.
    lowered: Option<((usize, usize), String)>,
}

impl<'b> Work<'b> {
    /// Conditions that are looked at one after the other, with nothing changed in between.
    pub(in crate::flow) fn new(budget: &'b mut Budget) -> Self {
        Self {
            budget,
            lowered: None,
        }
    }

    /// Returns whether a text of the run has another one in it, whatever the case. Routes ask this of one text many times.
    pub(super) fn contains(&mut self, text: &str, wanted: &str) -> Result<bool, Excess> {
        let place = (text.as_ptr().addr(), text.len());
        let lowered = match self.lowered.take() {
            Some((known, lowered)) if known == place => lowered,
            _ => {
                self.budget.step_text(LOWER_CASE_COST * text.len())?;
                text.to_lowercase()
            }
        };
        self.budget.step_text(SEARCH_COST * lowered.len())?;
        let found = lowered.contains(wanted);
        self.lowered = Some((place, lowered));
        Ok(found)
    }
}
