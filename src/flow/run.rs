//! A run: takes what happens to it as events, and comes as far as it can with each.

use super::error::FlowError;
use super::frame::Frame;
use super::graph::Program;
use super::machine::{Machine, Progress};
use super::nodes::{Pending, state_answer};
use super::snapshot::Snapshot;
use super::{Ask, Context, Event, Step};
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
            Progress::Asks(pending) => {
                let ask = ask(cx.program, &pending);
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
        (Stage::Fresh(flow), Event::Activity(payload)) => {
            let known = cx.program.by_id.get(&flow).copied();
            let flow = known.ok_or(FlowError::NoSuchEntry(flow))?;
            let frame = Frame::start(cx.program, flow, payload);
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
        (Stage::Fresh(_) | Stage::Parked(_), Event::State(_))
        | (Stage::Asked(..), Event::Activity(_)) => Err(FlowError::UnexpectedEvent),
    }
}

fn ask(program: &Program, pending: &Pending) -> Ask {
    match pending {
        Pending::State { flow, key } => Ask::State {
            flow: program.flows[*flow].id.clone(),
            key: key.clone(),
        },
    }
}
