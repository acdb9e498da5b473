//! The end of a turn: what the run leaves behind.

use super::graph::{FlowIx, Program};
use super::machine::{Machine, Parking};
use super::memory::Memory;
use super::snapshot::Snapshot;
use super::{Effects, Reply, StateWrite, Step, Wait};
use serde_json::Value;

impl Machine {
    /// Ends the turn with a wait.
    pub(super) fn park(self, program: &Program, parking: Parking) -> Step {
        let place = self.place(program);
        let Self {
            mut frame,
            memory,
            logs,
            ..
        } = self;
        let replies = std::mem::take(&mut frame.said);
        let snapshot = Snapshot::take(program, frame, parking.next, &parking.before);
        let wait = Wait {
            flow: snapshot.flow().clone(),
            node: snapshot.node().clone(),
            place,
            reason: parking.reason,
            snapshot,
        };
        Step::Suspended(Box::new(wait), effects(program, replies, memory, logs))
    }

    /// Ends the turn with the end of the run.
    pub(super) fn into_effects(self, program: &Program) -> Effects {
        effects(program, self.frame.said, self.memory, self.logs)
    }
}

fn effects(program: &Program, replies: Vec<Reply>, memory: Memory, logs: Vec<Value>) -> Effects {
    let write = |(flow, key, value)| {
        let flow: FlowIx = flow;
        StateWrite {
            flow: program.flows[flow].id.clone(),
            key,
            value,
        }
    };
    let state = memory.into_written().map(write).collect();
    Effects {
        replies,
        state,
        logs,
    }
}
