//! Why a run failed.

use std::fmt;

use crate::model::{FlowId, NodeId, StateExcess};

/// Where in a pack's flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The flow.
    pub flow: FlowId,
    /// The node in it.
    pub node: NodeId,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "flow {}, node {}", self.flow, self.node)
    }
}

/// What a component says that did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The component.
    pub component: String,
    /// Its own code.
    pub code: String,
    /// Its own words.
    pub message: String,
    /// It says that another attempt may end otherwise.
    pub retryable: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            component,
            code,
            message,
            ..
        } = self;
        write!(f, "component `{component}` failed: {code}: {message}")
    }
}

/// Why a run failed. Nothing that it did is carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// The run was to start in a flow that the pack lacks.
    #[error("the pack has no flow `{0}`")]
    NoSuchEntry(FlowId),
    /// A call or jump leads to a flow that the pack lacks.
    #[error("{place}: the pack has no flow `{flow}`")]
    NoSuchFlow {
        /// The node that calls or jumps.
        place: Place,
        /// What it names.
        flow: String,
    },
    /// A jump leads to a node that its flow lacks.
    #[error("{place}: flow {flow} has no node `{node}`")]
    NoSuchNode {
        /// The node that jumps.
        place: Place,
        /// The flow that it names.
        flow: FlowId,
        /// The node that it names.
        node: String,
    },
    /// A template cannot be rendered with what is there.
    #[error("{place}: template `{template}` cannot be rendered: {reason}")]
    Template {
        /// The node that it belongs to.
        place: Place,
        /// The template, or its beginning.
        template: String,
        /// Why.
        reason: String,
    },
    /// A node's mapping rendered to something that the node cannot work with.
    #[error("{place}: {reason}")]
    Input {
        /// The node.
        place: Place,
        /// What it needs.
        reason: String,
    },
    /// A component did not do what it was asked, and said so.
    #[error("{place}: {refusal}")]
    Refused {
        /// The node that called it.
        place: Place,
        /// What it said.
        refusal: Box<Refusal>,
    },
    /// A component's answer cannot be worked with.
    #[error("{place}: the component's answer cannot be taken: {reason}")]
    Answer {
        /// The node that called it.
        place: Place,
        /// Why not.
        reason: String,
    },
    /// A wait has nowhere to go on.
    #[error(
        "{place}: no route of the wait is open, so an answer could not be taken; give it a route without a condition"
    )]
    RouteMissing {
        /// The wait.
        place: Place,
    },
    /// A called flow wants to wait.
    #[error("{place}: a flow that was started by flow.call cannot wait; reach it by flow.goto")]
    CallCannotWait {
        /// The node that waits.
        place: Place,
    },
    /// The turn ran too many nodes.
    #[error("{place}: the turn ran {limit} nodes without an end; it goes round in {cycle}")]
    NodeLimit {
        /// The last node that ran.
        place: Place,
        /// How many nodes a turn may run.
        limit: u32,
        /// The nodes that it goes round in.
        cycle: String,
    },
    /// The turn jumped too often.
    #[error("{place}: the run may jump {limit} times in a turn and wants to jump again")]
    RedirectLimit {
        /// The node that jumps.
        place: Place,
        /// How many jumps a turn may make.
        limit: u32,
    },
    /// Calls are nested too deeply.
    #[error("{place}: flow.call inside flow.call, deeper than {limit} levels")]
    CallDepth {
        /// The node that calls.
        place: Place,
        /// How deep calls may be nested.
        limit: u32,
    },
    /// The turn's templates produce too much.
    #[error(
        "{place}: the turn's templates produce more than {limit} bytes, the last of them `{template}`"
    )]
    RenderedLimit {
        /// The node whose template it was.
        place: Place,
        /// The template, or its beginning.
        template: String,
        /// How many bytes a turn may produce.
        limit: usize,
    },
    /// The run sends too many messages.
    #[error("{place}: the turn sends more messages than limits.replies_per_turn = {limit}")]
    ReplyLimit {
        /// The node that sends one more.
        place: Place,
        /// How many a turn may send.
        limit: u32,
    },
    /// The turn reads or writes too much state.
    #[error("{place}: {excess}")]
    StateLimit {
        /// The node that reads or writes.
        place: Place,
        /// The limit that it exceeds.
        excess: StateExcess,
    },
    /// A parked run does not fit the pack.
    #[error("the parked run cannot go on: {reason}")]
    SnapshotUnreadable {
        /// Why.
        reason: String,
    },
    /// The run was given an event that it did not wait for: a fault of whoever drives it.
    #[error("the run was given an event that it did not ask for")]
    UnexpectedEvent,
}

impl FlowError {
    /// The code that a dead letter carries and metrics count by.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSuchEntry(_) | Self::NoSuchFlow { .. } => "no_such_flow",
            Self::NoSuchNode { .. } => "no_such_node",
            Self::Template { .. } => "template_failed",
            Self::Input { .. } => "node_input_invalid",
            Self::Refused { .. } => "component_failed",
            Self::Answer { .. } => "component_answer_invalid",
            Self::RouteMissing { .. } => "route_missing",
            Self::CallCannotWait { .. } => "call_cannot_wait",
            Self::NodeLimit { .. } => "node_limit",
            Self::RedirectLimit { .. } => "redirect_limit",
            Self::CallDepth { .. } => "call_depth",
            Self::RenderedLimit { .. } => "rendered_limit",
            Self::ReplyLimit { .. } => "reply_limit",
            Self::StateLimit { .. } => "state_limit",
            Self::SnapshotUnreadable { .. } => "snapshot_unreadable",
            Self::UnexpectedEvent => "unexpected_event",
        }
    }

    /// Whether no later attempt can end otherwise. A limit may be raised, or state changed, before the next one.
    pub fn is_hopeless(&self) -> bool {
        match self {
            Self::NoSuchEntry(_)
            | Self::NoSuchFlow { .. }
            | Self::NoSuchNode { .. }
            | Self::Template { .. }
            | Self::Input { .. }
            | Self::Answer { .. }
            | Self::RouteMissing { .. }
            | Self::CallCannotWait { .. }
            | Self::ReplyLimit { .. }
            | Self::StateLimit { .. }
            | Self::SnapshotUnreadable { .. }
            | Self::UnexpectedEvent => true,
            Self::NodeLimit { .. }
            | Self::RedirectLimit { .. }
            | Self::CallDepth { .. }
            | Self::RenderedLimit { .. } => false,
            Self::Refused { refusal, .. } => !refusal.retryable,
        }
    }
}
