//! The kinds of nodes, one file each. A kind is compiled from its mapping, and when it is run says what it came to;
//! what that changes in the run is up to the machine.

mod call;
mod component;
mod emit;
mod goto;
mod name;
mod provider;
mod state;
mod target;
mod var;
mod wait;

use greentic_types::Node as Source;
use serde_json::Value;

use super::draft::Draft;
use super::error::FlowError;
use super::graph::{FlowIx, NodeIx};
use super::output::Output;
use super::visit::Visit;
use crate::model::InvocationForm;
use name::Named;

pub(super) use call::FlowCall;
pub(super) use component::Component;
pub(super) use emit::{Emit, payload as emit_payload};
pub(super) use goto::{FlowGoto, Onward};
pub(crate) use name::is_of_kind_family;
pub(super) use provider::ProviderInvoke;
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
    /// `component.exec`, and every node that goes by a component's name.
    Component(Component),
    /// `provider.invoke`
    Provider(ProviderInvoke),
}

type Compile = fn(&Value, &mut Draft<'_>) -> Kind;

/// The kinds that go by one name. `emit.*` goes by any name that begins so.
const NAMED: [(&str, Compile); 7] = [
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
    ("provider.invoke", |mapping, draft| {
        Kind::Provider(ProviderInvoke::compile(mapping, draft))
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
        output: Output,
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
    /// It goes on when it knows the state under this key.
    Read {
        /// The flow that owns it.
        flow: FlowIx,
        /// The key.
        key: String,
    },
    /// It goes on when this has been done.
    Invoke(Call),
}

/// What a node wants a component to do.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) component: String,
    pub(super) operation: String,
    pub(super) payload: Value,
    pub(super) form: InvocationForm,
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
    /// It writes state under this key of its flow.
    Store(String, Value),
    /// It waits for the next message.
    Wait {
        /// Why.
        reason: Option<String>,
    },
    /// The run goes on elsewhere.
    Jump(Jump),
    /// It says this to the user, and the flow is over.
    Respond(Value),
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

/// What a node is, for people: its kind, or the component that it calls and the operation.
pub(super) fn name_of(source: &Source) -> String {
    match name::read(source, is_named) {
        Named::Kind(name) => name.to_owned(),
        Named::Exec(called) | Named::Direct(called) => match called.operation {
            Some(operation) => format!("{} {operation}", called.component),
            None => called.component.to_owned(),
        },
        Named::Nameless => source.component.id.to_string(),
    }
}

fn is_named(name: &str) -> bool {
    NAMED.iter().any(|(named, _)| *named == name)
}

impl Kind {
    /// Compiles a node. `None` if there is no such kind, which the draft is told.
    pub(super) fn compile(source: &Source, draft: &mut Draft<'_>) -> Option<Self> {
        let mapping = &source.input.mapping;
        let named = name::read(source, is_named);
        match named {
            Named::Kind(name) if name.starts_with("emit.") => {
                Some(Self::Emit(Emit::compile(name, mapping, draft)))
            }
            Named::Kind(name) => match NAMED.iter().find(|(named, _)| *named == name) {
                Some((_, compile)) => Some(compile(mapping, draft)),
                None => {
                    refuse(name, draft);
                    None
                }
            },
            Named::Exec(called) => Some(Self::Component(Component::exec(called, mapping, draft))),
            Named::Direct(called) => {
                Some(Self::Component(Component::direct(called, mapping, draft)))
            }
            Named::Nameless => {
                draft.error(
                    "it does not say which component it calls",
                    "give its mapping a `component`",
                );
                None
            }
        }
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
            Self::Component(node) => node.run(visit),
            Self::Provider(node) => node.run(visit),
        }
    }

    /// What a node comes to when the component that it called has answered.
    pub(super) fn answered(
        &self,
        visit: &mut Visit<'_>,
        answer: &mut Value,
    ) -> Result<Outcome, FlowError> {
        match self {
            Self::Component(node) => node.answered(visit, answer),
            Self::Provider(node) => node.answered(visit, answer),
            Self::Emit(_)
            | Self::Wait(_)
            | Self::Call(_)
            | Self::Goto(_)
            | Self::StateGet(_)
            | Self::StateSet(_)
            | Self::VarSet(_) => Err(FlowError::UnexpectedEvent),
        }
    }

    /// Whether the output is a reply of its own when the flow ends with this node. What an emit had to say, it has said.
    pub(super) fn ends_with_reply(&self) -> bool {
        match self {
            Self::Emit(_) | Self::Wait(_) | Self::Goto(_) => false,
            Self::Call(_)
            | Self::StateGet(_)
            | Self::StateSet(_)
            | Self::VarSet(_)
            | Self::Component(_)
            | Self::Provider(_) => true,
        }
    }

    /// Whether the output is something to show when the node waits for a message that opens one of its routes.
    pub(super) fn prompts(&self) -> bool {
        match self {
            Self::Call(_) | Self::Component(_) | Self::Provider(_) => true,
            Self::Emit(_)
            | Self::Wait(_)
            | Self::Goto(_)
            | Self::StateGet(_)
            | Self::StateSet(_)
            | Self::VarSet(_) => false,
        }
    }
}

/// The one place where a kind that this worker does not have is turned down.
fn refuse(name: &str, draft: &mut Draft<'_>) {
    let family = name.split(['.', ':']).next().unwrap_or_default();
    if AGENT_FAMILIES.contains(&family) {
        draft.error(
            format!("node kind `{name}` drives an agent, which this worker does not do"),
            "run this flow with a worker that drives agents, or take it out of the pack",
        );
    } else {
        let known = NAMED.map(|(name, _)| name).join(", ");
        draft.error(
            format!("there is no node kind `{name}`"),
            format!("use one of emit.*, {known}, or a component of the pack"),
        );
    }
}
