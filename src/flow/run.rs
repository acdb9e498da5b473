//! A run: takes what happens to it as events, and comes as far as it can with each.

use std::sync::Arc;

use serde_json::Value;

use super::error::FlowError;
use super::frame::Frame;
use super::graph::Start;
use super::machine::{Machine, Pending, Progress, Work};
use super::payload::take_routed_node;
use super::snapshot::Snapshot;
use super::{Context, Event, Program, Step};
use crate::model::{FlowId, StateBudget};

/// A run of a flow, between two steps.
#[derive(Debug)]
pub struct Run(Stage);

/// What a run waits for.
#[derive(Debug)]
enum Stage {
    /// The payload to start with.
    Fresh(FlowId),
    /// The payload to go on with.
    Parked(Snapshot),
    /// An answer.
    Asked(Box<Machine>, Pending),
    /// Its next slice.
    Paused(Box<Machine>, Work, bool),
}

impl Run {
    /// A run from the start of a flow. Its first event is the activity.
    pub fn fresh(flow: FlowId) -> Self {
        Self(Stage::Fresh(flow))
    }

    /// A run that goes on where it waited. Its first event is the activity.
    pub fn parked(snapshot: Snapshot) -> Self {
        Self(Stage::Parked(snapshot))
    }

    /// What the turn knows of the state that the component which the run has called asks for: `None` if nothing. The
    /// state is that of the flow that called it.
    pub fn recall(&self, key: &str) -> Option<&Option<Arc<Value>>> {
        match &self.0 {
            Stage::Asked(machine, _) => machine.memory.recall(machine.frame.flow, key),
            Stage::Fresh(_) | Stage::Parked(_) | Stage::Paused(..) => None,
        }
    }

    /// The bytes that its templates have produced, most of which it holds while it waits for an answer.
    pub fn rendered_bytes(&self, program: &Program) -> u64 {
        match &self.0 {
            Stage::Asked(machine, _) => machine.rendered_bytes(program),
            Stage::Fresh(_) | Stage::Parked(_) | Stage::Paused(..) => 0,
        }
    }

    /// Takes note of what is stored of that state.
    pub fn learn(&mut self, key: &str, stored: Option<Arc<Value>>) {
        match &mut self.0 {
            Stage::Asked(machine, _) => machine.memory.learn(machine.frame.flow, key, stored),
            Stage::Fresh(_) | Stage::Parked(_) | Stage::Paused(..) => {}
        }
    }

    /// The room that the turn has left for state that it writes.
    pub fn room_to_write(&self) -> StateBudget {
        match &self.0 {
            Stage::Asked(machine, _) => machine.memory.room(),
            Stage::Fresh(_) | Stage::Parked(_) | Stage::Paused(..) => StateBudget::default(),
        }
    }
}

/// Takes a run as far as it comes with this event.
#[expect(
    clippy::boxed_local,
    reason = "a run that asks is handed back in its box"
)]
pub fn advance(cx: &Context<'_>, run: Box<Run>, event: Event) -> Result<Step, FlowError> {
    let Next {
        mut machine,
        mut work,
        mut whole,
    } = open(cx, run.0, event)?;
    loop {
        let progress = machine.advance(cx, work, std::mem::take(&mut whole));
        machine.budget.report();
        work = match progress? {
            Progress::On if machine.budget.is_slice_over() => {
                return Ok(paused(machine, Work::Run, false));
            }
            Progress::On => Work::Run,
            Progress::Pauses(work) => return Ok(paused(machine, *work, true)),
            Progress::Asks(ask, pending) => {
                return Ok(Step::Ask(
                    Box::new(Run(Stage::Asked(machine, pending))),
                    ask,
                ));
            }
            Progress::Waits(parking) => return Ok(machine.park(cx.program, parking)),
            Progress::Over => return Ok(Step::Finished(machine.into_effects(cx.program))),
        };
    }
}

fn paused(machine: Box<Machine>, work: Work, whole: bool) -> Step {
    Step::Paused(Box::new(Run(Stage::Paused(machine, work, whole))))
}

/// What a call of [`advance`] begins with.
struct Next {
    machine: Box<Machine>,
    work: Work,
    /// The work was cut short by the end of a slice, so this time it is not.
    whole: bool,
}

fn open(cx: &Context<'_>, stage: Stage, event: Event) -> Result<Next, FlowError> {
    let mut whole = false;
    let (machine, work) = match (stage, event) {
        (Stage::Fresh(flow), Event::Activity(mut payload)) => {
            let known = cx.program.by_id.get(&flow).copied();
            let flow = known.ok_or(FlowError::NoSuchEntry(flow))?;
            let definition = &cx.program.flows[flow];
            let start = take_routed_node(&mut payload, |name| definition.start_named(name));
            let mut frame = Frame::start(cx.program, flow, payload);
            if let Some((node, start)) = start {
                frame.node = node;
                frame.shows_first =
                    start == Start::Card && definition.nodes[node].routing.may_stay();
            }
            (Machine::new(cx, frame), Work::Run)
        }
        (Stage::Parked(snapshot), Event::Activity(payload)) => {
            let frame = snapshot.restore(cx.program, payload)?;
            (Machine::new(cx, frame), Work::Run)
        }
        (Stage::Asked(mut machine, Pending::State { flow, key }), Event::State(stored)) => {
            machine.budget.open_slice(cx.slice, cx.monitor);
            let work = machine.take_state(cx.program, (flow, key), stored)?;
            (machine, work)
        }
        (Stage::Asked(machine, Pending::State { .. }), Event::StateRefused(excess)) => {
            let place = machine.place(cx.program);
            return Err(FlowError::StateLimit { place, excess });
        }
        (Stage::Asked(mut machine, Pending::Component), Event::Component { output, state }) => {
            machine.budget.open_slice(cx.slice, cx.monitor);
            machine.take_answer(cx, &output, state)?;
            (machine, Work::Read(output))
        }
        (Stage::Paused(mut machine, work, was_cut), Event::Continue) => {
            machine.budget.open_slice(cx.slice, cx.monitor);
            whole = was_cut;
            (machine, work)
        }
        (
            Stage::Fresh(_) | Stage::Parked(_) | Stage::Asked(..) | Stage::Paused(..),
            Event::Activity(_)
            | Event::State(_)
            | Event::StateRefused(_)
            | Event::Component { .. }
            | Event::Continue,
        ) => return Err(FlowError::UnexpectedEvent),
    };
    Ok(Next {
        machine,
        work,
        whole,
    })
}
