//! How many nodes a turn has run, and which ones last.

use super::error::FlowError;
use super::graph::Program;
use super::reach::At;

/// How many of the last nodes are remembered, to tell what a run goes round in.
const TRAIL: u32 = 64;

/// The nodes that a turn has run.
#[derive(Debug, Default)]
pub(super) struct NodesRun {
    count: u32,
    /// The last of them, once the limit is near.
    trail: Vec<At>,
}

impl NodesRun {
    /// Counts a node that is about to run.
    pub(super) fn count(&mut self, program: &Program, at: At) -> Result<(), FlowError> {
        let limit = program.limits.nodes;
        if self.count.saturating_add(TRAIL) >= limit {
            self.trail.push(at);
        }
        if self.count >= limit {
            let (place, cycle) = (program.place(at.0, at.1), self.cycle(program));
            return Err(FlowError::NodeLimit {
                place,
                limit,
                cycle,
            });
        }
        self.count += 1;
        Ok(())
    }

    /// The nodes from the last time that this one was run to now.
    fn cycle(&self, program: &Program) -> String {
        let Some((last, earlier)) = self.trail.split_last() else {
            return String::new();
        };
        let from = earlier.iter().rposition(|at| at == last).unwrap_or(0);
        let names = self.trail[from..].iter().map(|(flow, node)| {
            let place = program.place(*flow, *node);
            format!("{}/{}", place.flow, place.node)
        });
        names.collect::<Vec<_>>().join(" -> ")
    }
}
