//! One flow that is running: the run's own, or one that `flow.call` started.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::graph::{FlowIx, Node, NodeIx, Program};
use super::output::Output;
use super::payload;
use super::scope::{Outputs, Scope};
use super::{Context, Reply};

/// One flow that is running.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) flow: FlowIx,
    pub(super) node: NodeIx,
    /// The payload.
    pub(super) entry: Arc<Value>,
    /// What the last jump gave, if there was one.
    pub(super) jumped_with: Option<Arc<Value>>,
    /// The output of the node that ran last.
    pub(super) prev: Arc<Value>,
    pub(super) outputs: Outputs,
    pub(super) vars: Map<String, Value>,
    /// Jumps in this turn.
    pub(super) jumps: u32,
    /// What it said so far.
    pub(super) said: Vec<Reply>,
    /// The message of this turn came to the node that runs next: that node ran before and waited for it.
    pub(super) resumed: bool,
    /// The node that runs next shows its card and waits, whatever the message says: it was named as the start, and nobody
    /// has seen the card yet.
    pub(super) shows_first: bool,
}

impl Frame {
    /// A run at this node with this payload.
    pub(super) fn new(
        flow: FlowIx,
        node: NodeIx,
        entry: Arc<Value>,
        vars: Map<String, Value>,
    ) -> Self {
        Self {
            flow,
            node,
            entry,
            jumped_with: None,
            prev: Arc::new(Value::Object(Map::new())),
            outputs: Outputs::new(),
            vars,
            jumps: 0,
            said: Vec::new(),
            resumed: false,
            shows_first: false,
        }
    }

    /// A run from the start of a flow.
    pub(super) fn start(program: &Program, flow: FlowIx, payload: Arc<Value>) -> Self {
        let definition = &program.flows[flow];
        Self::new(flow, definition.entry, payload, definition.vars.clone())
    }

    /// What templates see, with this as `prev`.
    pub(super) fn scope<'a>(&'a self, cx: &Context<'a>, prev: &'a Value) -> Scope<'a> {
        Scope {
            entry: &self.entry,
            input: self.jumped_with.as_deref().unwrap_or(&self.entry),
            prev,
            outputs: &self.outputs,
            vars: &self.vars,
            jumps: self.jumps,
            env: cx.env,
            now: cx.now,
            given: None,
        }
    }

    /// Puts what was submitted into the output of the node that waited for it.
    pub(super) fn attach_answers(&self, node: &Node, output: &mut Output) {
        let Value::Object(fields) = Arc::make_mut(&mut output.payload) else {
            return;
        };
        let mut answers = payload::submitted_fields(&self.entry);
        if let Some(wanted) = &node.answer_fields {
            answers.retain(|name, _| wanted.contains(name));
        }
        fields.insert("answers".to_owned(), Value::Object(answers));
    }

    /// The value that a called flow hands to its caller: its last output, or a list as soon as it said anything.
    pub(super) fn into_value(self, last: Option<&Value>) -> Value {
        if self.said.is_empty() {
            return last.cloned().unwrap_or_default();
        }
        let more = closing(&self.said, last);
        let said = self.said.into_iter().map(|reply| reply.payload);
        said.chain(more).collect()
    }
}

/// What the last output adds to what was said: the items of a list, else itself; nothing if it is null or was just said.
pub(super) fn closing(said: &[Reply], last: Option<&Value>) -> Vec<Value> {
    match last {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items
            .iter()
            .filter(|item| !item.is_null())
            .cloned()
            .collect(),
        Some(other) if said.last().is_some_and(|reply| reply.payload == *other) => Vec::new(),
        Some(other) => vec![other.clone()],
    }
}
