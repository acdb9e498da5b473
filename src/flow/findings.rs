//! What comes to light while one node is compiled.

use super::path::Uses;
use crate::model::Problem;

/// The problems of a node, and what its templates and conditions may look at.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// What they may look at.
    pub(super) uses: Uses,
    /// What is wrong, without its place.
    pub(super) problems: Vec<Problem>,
}

impl Findings {
    /// Something that the flow cannot run with, and what to do about it.
    pub(super) fn error(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::error(message).remedy(remedy));
    }

    /// Something that the author may want to know, and what to do about it.
    pub(super) fn warn(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem::warning(message).remedy(remedy));
    }
}
