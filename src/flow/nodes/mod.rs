//! The kinds of nodes, one file each. A kind is compiled from its mapping, and when it is run says what it came to;
//! what that changes in the run is up to the machine.

mod call;
mod emit;
mod goto;
mod state;
mod target;
mod var;
mod wait;

use greentic_types::Node as Source;
use serde_json::Value;

use super::draft::Draft;
use super::error::FlowError;
use super::graph::{FlowIx, NodeIx};
use super::visit::Visit;

pub(super) use call::FlowCall;
pub(super) use emit::{Emit, payload as emit_payload};
pub(super) use goto::{FlowGoto, Onward};
pub(super) use state::{StateGet, StateSet, answer as state_answer};
pub(super) use var::VarSet;
pub(super) use wait::SessionWait;

/// A compiled node of any kind.
#[derive(Debug)]
pub(super) enum Kind {
    /// `emit.*`
    Emit(Emit),
    /// `session.wait`
    Wait(SessionWait),
    /// `flow.call`
    Call(FlowCall),
    /// `flow.goto`
    Goto(FlowGoto),
    /// `state.get`
    StateGet(StateGet),
    /// `state.set`
    StateSet(StateSet),
    /// `var.set`
    VarSet(VarSet),
}

type Compile = fn(&Value, &mut Draft<'_>) -> Kind;

/// The kinds that go by one name. `emit.*` goes by any name that begins so.
const NAMED: [(&str, Compile); 6] = [
    ("session.wait", |mapping, draft| {
        Kind::Wait(SessionWait::compile(mapping, draft))
    }),
    ("flow.call", |mapping, draft| {
        Kind::Call(FlowCall::compile(mapping, draft))
    }),
    ("flow.goto", |mapping, draft| {
        Kind::Goto(FlowGoto::compile(mapping, draft))
    }),
    ("state.get", |mapping, draft| {
        Kind::StateGet(StateGet::compile(mapping, draft))
    }),
    ("state.set", |mapping, draft| {
        Kind::StateSet(StateSet::compile(mapping, draft))
    }),
    ("var.set", |mapping, draft| {
        Kind::VarSet(VarSet::compile(mapping, draft))
    }),
];

/// Families of the ecosystem's kinds that drive agents.
const AGENT_FAMILIES: [&str; 9] = [
    "dw", "mcp", "a2a", "media", "sorla", "operala", "agentic", "telco-x", "approval",
];

/// What a node did.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is done.
    Done {
        /// Its output.
        output: Value,
        /// What else it came to.
        then: Then,
    },
    /// It starts another flow and goes on when that is over.
    Call {
        /// The flow.
        flow: FlowIx,
        /// That flow's payload.
        input: Value,
    },
    /// It goes on when this is known.
    Ask(Pending),
}

/// What a node that is done came to besides its output.
#[derive(Debug)]
pub(super) enum Then {
    /// Nothing.
    Continue,
    /// It says this to the user.
    Say(Value),
    /// It says this to the log.
    Log(Value),
    /// It sets a variable.
    Assign(String, Value),
    /// It waits for the next message.
    Wait {
        /// Why.
        reason: Option<String>,
    },
    /// The run goes on elsewhere.
    Jump(Jump),
}

/// A jump into a flow.
#[derive(Debug)]
pub(super) struct Jump {
    /// The flow.
    pub(super) flow: FlowIx,
    /// The node; else the flow's entry.
    pub(super) node: Option<NodeIx>,
    /// How many jumps the run may make in a turn, where the node says so.
    pub(super) max: Option<u32>,
}

/// What a node waits to be told.
#[derive(Clone, Debug)]
pub(super) enum Pending {
    /// The state under this key of this flow.
    State {
        /// The flow that owns it.
        flow: FlowIx,
        /// The key.
        key: String,
    },
}

impl Kind {
    /// Compiles a node. `None` if there is no such kind, which the draft is told.
    pub(super) fn compile(source: &Source, draft: &mut Draft<'_>) -> Option<Self> {
        let mapping = &source.input.mapping;
        let name = kind_name(source);
        if name.starts_with("emit.") {
            return Some(Self::Emit(Emit::compile(&name, mapping, draft)));
        }
        if let Some((_, compile)) = NAMED.iter().find(|(named, _)| *named == name) {
            return Some(compile(mapping, draft));
        }
        refuse(&name, draft);
        None
    }

    /// Runs a node.
    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        match self {
            Self::Emit(node) => node.run(visit),
            Self::Wait(node) => node.run(visit),
            Self::Call(node) => node.run(visit),
            Self::Goto(node) => node.run(visit),
            Self::StateGet(node) => node.run(visit),
            Self::StateSet(node) => node.run(visit),
            Self::VarSet(node) => node.run(visit),
        }
    }

    /// Whether the output is a reply of its own when the flow ends with this node. What an emit had to say, it has said.
    pub(super) fn ends_with_reply(&self) -> bool {
        match self {
            Self::Emit(_) | Self::Wait(_) | Self::Goto(_) => false,
            Self::Call(_) | Self::StateGet(_) | Self::StateSet(_) | Self::VarSet(_) => true,
        }
    }

    /// Whether the output is something to show when the node waits for a message that opens one of its routes.
    pub(super) fn prompts(&self) -> bool {
        match self {
            Self::Call(_) => true,
            Self::Emit(_)
            | Self::Wait(_)
            | Self::Goto(_)
            | Self::StateGet(_)
            | Self::StateSet(_)
            | Self::VarSet(_) => false,
        }
    }
}

/// The name that decides the kind. Packs write it in three places: as the node's component, as its operation when the
/// component is the placeholder `component.exec`, and as the mapping's component when both are placeholders.
fn kind_name(source: &Source) -> String {
    const PLACEHOLDER: &str = "component.exec";
    let id = source.component.id.as_str();
    let named = ["component", "component_ref"].into_iter();
    let target = named
        .filter_map(|key| source.input.mapping.get(key)?.as_str())
        .next();
    let is_kind = |name: &&str| name.starts_with("emit.") || NAMED.iter().any(|(n, _)| n == name);
    let operation = source
        .component
        .operation
        .as_deref()
        .filter(|operation| !operation.is_empty());
    let name = if id == PLACEHOLDER {
        operation.filter(is_kind).or(target).or(operation)
    } else if operation == Some(PLACEHOLDER) {
        target
    } else {
        operation.filter(|operation| operation.starts_with("emit."))
    };
    name.unwrap_or(id).to_owned()
}

/// The one place where a node that this build cannot run is turned down.
fn refuse(name: &str, draft: &mut Draft<'_>) {
    let family = name.split(['.', ':']).next().unwrap_or_default();
    let known = NAMED.map(|(name, _)| name).join(", ");
    if AGENT_FAMILIES.contains(&family) {
        draft.error(
            format!("node kind `{name}` drives an agent, which this worker does not do"),
            "run this flow with a worker that drives agents, or take it out of the pack",
        );
    } else if ["session", "flow", "state", "var"].contains(&family) {
        draft.error(
            format!("there is no node kind `{name}`"),
            format!("use one of emit.*, {known}"),
        );
    } else {
        draft.error(
            format!("it calls component `{name}`, and this build runs no WASM components yet"),
            format!("use only the kinds emit.*, {known}"),
        );
    }
}
