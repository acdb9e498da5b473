//! A run: takes what happens to it as events, and comes as far as it can with each.

use serde_json::Value;

use super::error::FlowError;
use super::frame::Frame;
use super::graph::Start;
use super::machine::{Machine, Pending, Progress};
use super::nodes::state_answer;
use super::payload::take_routed_node;
use super::snapshot::Snapshot;
use super::{Context, Event, Program, Step};
use crate::model::FlowId;

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
    pub fn recall(&self, key: &str) -> Option<&Option<Value>> {
        match &self.0 {
            Stage::Asked(machine, _) => machine.memory.recall(machine.frame.flow, key),
            Stage::Fresh(_) | Stage::Parked(_) => None,
        }
    }

    /// The bytes that its templates have produced, most of which it holds while it waits for an answer.
    pub fn rendered_bytes(&self, program: &Program) -> u64 {
        match &self.0 {
            Stage::Asked(machine, _) => machine.rendered_bytes(program),
            Stage::Fresh(_) | Stage::Parked(_) => 0,
        }
    }

    /// Takes note of what is stored of that state.
    pub fn learn(&mut self, key: &str, stored: Option<Value>) {
        match &mut self.0 {
            Stage::Asked(machine, _) => machine.memory.learn(machine.frame.flow, key, stored),
            Stage::Fresh(_) | Stage::Parked(_) => {}
        }
    }
}

/// Takes a run as far as it comes with this event.
#[expect(
    clippy::boxed_local,
    reason = "a run that asks is handed back in its box"
)]
pub fn advance(cx: &Context<'_>, run: Box<Run>, event: Event) -> Result<Step, FlowError> {
    let (mut machine, mut progress) = open(cx, run.0, event)?;
    loop {
        progress = match progress {
            Progress::On => machine.run_node(cx)?,
            Progress::Asks(ask, pending) => {
                return Ok(Step::Ask(
                    Box::new(Run(Stage::Asked(machine, pending))),
                    ask,
                ));
            }
            Progress::Waits(parking) => return Ok(machine.park(cx.program, parking)),
            Progress::Over => return Ok(Step::Finished(machine.into_effects(cx.program))),
        }
    }
}

fn open(
    cx: &Context<'_>,
    stage: Stage,
    event: Event,
) -> Result<(Box<Machine>, Progress), FlowError> {
    match (stage, event) {
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
            Ok((Machine::new(cx.program, frame), Progress::On))
        }
        (Stage::Parked(snapshot), Event::Activity(payload)) => {
            let frame = snapshot.restore(cx.program, payload)?;
            Ok((Machine::new(cx.program, frame), Progress::On))
        }
        (Stage::Asked(mut machine, Pending::State { flow, key }), Event::State(stored)) => {
            machine.memory.learn(flow, &key, stored.clone());
            let progress = machine.settle(cx, state_answer(&key, stored))?;
            Ok((machine, progress))
        }
        (Stage::Asked(mut machine, Pending::Component), Event::Component { output, state }) => {
            let progress = machine.answer(cx, output, state)?;
            Ok((machine, progress))
        }
        (Stage::Fresh(_) | Stage::Parked(_), Event::State(_) | Event::Component { .. })
        | (Stage::Asked(_, Pending::State { .. }), Event::Activity(_) | Event::Component { .. })
        | (Stage::Asked(_, Pending::Component), Event::Activity(_) | Event::State(_)) => {
            Err(FlowError::UnexpectedEvent)
        }
    }
}
