//! The pure flow machine: compiled graphs in, commands out. No I/O, no clock, no ids, no client library.
//!
//! A pack's flows are compiled once into a [`Program`]. A turn makes a [`Run`], fresh or from the [`Snapshot`] of a
//! parked one, and calls [`advance`] with events until it is [`Step::Suspended`] or [`Step::Finished`]; in between the
//! machine may [`Step::Ask`] for what it cannot know, and is [`Step::Paused`] when it has used up the steps of one call.

mod assets;
mod budget;
mod card;
mod chart;
mod compile;
mod condition;
mod control;
mod draft;
mod ending;
mod error;
mod findings;
mod finish;
mod flow_graph;
mod frame;
mod graph;
mod inventory;
mod invocation;
mod limits;
mod machine;
mod memory;
mod monitor;
mod mustache;
mod needs;
mod nodes;
mod nodes_run;
mod output;
mod path;
mod payload;
mod reach;
mod routing;
mod run;
mod scope;
mod snapshot;
mod template;
mod visit;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use time::OffsetDateTime;

use crate::model::{FlowId, Invocation, NodeId, StateLimitError};

pub use assets::Assets;
pub(crate) use card::takes_routes as is_card_component;
pub use chart::{Chart, Format};
pub use error::{FlowError, Place, Refusal};
pub use graph::{Flow, Program};
pub use inventory::{Inventory, Provider};
pub use limits::Limits;
pub use monitor::{RunMonitor, RunObserver};
pub(crate) use nodes::is_of_kind_family;
pub use run::{Run, advance};
pub use snapshot::{Snapshot, Timeout};

/// What every step of a run may look at and no step changes.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The flows of the pack.
    pub program: &'a Program,
    /// The variables granted to the pack: the template root `env`.
    pub env: &'a BTreeMap<String, String>,
    /// The time of this step: the template root `now`.
    pub now: OffsetDateTime,
    /// The steps that this call of [`advance`] may take before it hands the run back as [`Step::Paused`]; `u64::MAX` never
    /// does. The limits of the turn hold in any case.
    pub slice: u64,
    /// The watchers' handle on the run, the same for all calls of a run.
    pub monitor: &'a RunMonitor,
}

/// What happens to a run.
#[derive(Debug)]
pub enum Event {
    /// A fresh run begins, or a parked one goes on, with the payload of the activity.
    Activity(Arc<Value>),
    /// The answer to [`Ask::State`]: the stored JSON value, if there is one.
    State(Option<Value>),
    /// The other answer to [`Ask::State`]: the turn may not read it.
    StateRefused(StateLimitError),
    /// The run was paused and goes on.
    Continue,
    /// The answer to [`Ask::Component`].
    Component {
        /// Its output.
        output: Value,
        /// The state that it wrote, the last value of each key; `None` deletes.
        state: Vec<(String, Option<Value>)>,
    },
}

/// How far a run came.
#[derive(Debug)]
pub enum Step {
    /// It needs an answer; give it to [`advance`] as an event, with the run.
    Ask(Box<Run>, Ask),
    /// It has used up its slice; it goes on with [`Event::Continue`]. A call makes progress however small its slice is:
    /// what one call abandons since its slice ends, the next one brings to an end.
    Paused(Box<Run>),
    /// It waits for the next activity of its conversation.
    Suspended(Box<Wait>, Effects),
    /// It is over.
    Finished(Effects),
}

/// What a run asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// The user's state under this key of this flow; asked at most once a turn for each.
    State {
        /// The flow that owns the state.
        flow: FlowId,
        /// The key, any text.
        key: String,
    },
    /// A component's output. What the component reads of the state while it runs is between it and
    /// [`Run::recall`] and [`Run::learn`].
    Component(Invocation),
}

/// A run that waits.
#[derive(Debug)]
pub struct Wait {
    /// Everything that is needed to go on.
    pub snapshot: Snapshot,
    /// The flow it waits in; after a `flow.goto` another one than it started in.
    pub flow: FlowId,
    /// The node it goes on with.
    pub node: NodeId,
    /// The node that waits.
    pub place: Place,
    /// Why, as the flow says it.
    pub reason: Option<String>,
}

/// What a run did so far, to be carried out by whoever drives it.
#[derive(Debug, Default, PartialEq)]
pub struct Effects {
    /// Messages to the user, in order.
    pub replies: Vec<Reply>,
    /// State to write: the last value of each key.
    pub state: Vec<StateWrite>,
    /// What `emit.log` nodes said, for the log only.
    pub logs: Vec<Value>,
}

/// One message to the user, as the flow emitted it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The flow that spoke.
    pub flow: FlowId,
    /// The payload, rendered.
    pub payload: Value,
}

/// One write to the user's state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateWrite {
    /// The flow that owns it.
    pub flow: FlowId,
    /// The key, any text.
    pub key: String,
    /// The new value; `None` deletes the old one.
    pub value: Option<Value>,
}
