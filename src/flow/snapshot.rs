//! A parked run as it is stored: no more than a resumed run can still see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::error::FlowError;
use super::frame::Frame;
use super::graph::{FlowIx, NodeIx, Program};
use super::nodes::Kind;
use super::output::{Mark, Output};
use super::payload::take_routed_node;
use crate::model::{FlowId, NodeId, json_len};

/// The form that is written. A run parked in another one is not guessed at.
const VERSION: u8 = 1;

/// A parked run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    v: u8,
    flow: FlowId,
    node: NodeId,
    /// It waits at this node itself, for a message that opens one of its routes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    awaiting: bool,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    prev: Option<Value>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<String, Value>,
    /// What is known of these nodes' outputs besides; nothing of most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    marks: BTreeMap<String, Mark>,
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    vars: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<Timeout>,
}

/// How long a run waits at the most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeout {
    /// How long.
    pub after: Duration,
    /// The node that it goes on with then; without one, the wait is just over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<NodeId>,
}

/// A null that was stored is not the same as nothing.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Snapshot {
    /// Takes what a run must keep that waits at the frame's node and goes on with `next`. `before` is what was `prev`
    /// when a node that runs again ran.
    pub(super) fn take(program: &Program, frame: Frame, next: NodeIx, before: &Arc<Value>) -> Self {
        let flow = &program.flows[frame.flow];
        let node = &flow.nodes[frame.node];
        let needs = &node.needs;
        let (awaiting, prev, timeout) = if let Kind::Wait(wait) = &node.kind {
            (false, &frame.prev, wait.timeout)
        } else {
            (true, before, None)
        };
        let (mut nodes, mut marks) = (BTreeMap::new(), BTreeMap::new());
        for (name, output) in frame.outputs {
            if needs.outputs.contain(&name) {
                marks.extend(
                    output
                        .mark
                        .map(|mark| (name.to_string(), Arc::unwrap_or_clone(mark))),
                );
                nodes.insert(name.to_string(), Arc::unwrap_or_clone(output.payload));
            }
        }
        let vars = frame
            .vars
            .into_iter()
            .filter(|(name, _)| needs.vars.contain(name));
        Self {
            v: VERSION,
            flow: flow.id.clone(),
            node: flow.nodes[next].id.clone(),
            awaiting,
            prev: needs.prev.then(|| (**prev).clone()),
            nodes,
            marks,
            vars: vars.collect(),
            timeout: timeout.map(|(after, then)| Timeout {
                after,
                then: then.map(|node| flow.nodes[node].id.clone()),
            }),
        }
    }

    /// The flow that it waits in.
    pub fn flow(&self) -> &FlowId {
        &self.flow
    }

    /// The node that it goes on with.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// How long it waits at the most, where the flow says so.
    pub fn timeout(&self) -> Option<&Timeout> {
        self.timeout.as_ref()
    }

    /// The part of it that takes the most room, in words.
    pub fn largest_part(&self) -> String {
        let vars = self.vars.iter();
        let vars = vars.map(|(name, value)| (format!("variable `{name}`"), json_len(value)));
        let nodes = self.nodes.iter();
        let nodes =
            nodes.map(|(name, value)| (format!("output of node `{name}`"), json_len(value)));
        let prev = self.prev.iter();
        let prev = prev.map(|value| ("output of the last node".to_owned(), json_len(value)));
        let largest = vars
            .chain(nodes)
            .chain(prev)
            .max_by_key(|(_, bytes)| *bytes);
        largest.map_or_else(
            || "its own structure".to_owned(),
            |(name, bytes)| format!("the {name} with {bytes} bytes"),
        )
    }

    /// The run again, with the payload of the message that it waited for.
    pub(super) fn restore(
        mut self,
        program: &Program,
        mut payload: Arc<Value>,
    ) -> Result<Frame, FlowError> {
        let (flow, node) = self.find(program)?;
        let definition = &program.flows[flow];
        take_routed_node(&mut payload, |name| definition.node_named(name));
        let mut frame = Frame::new(flow, node, payload, self.vars);
        frame.resumed = self.awaiting;
        if let Some(prev) = self.prev {
            frame.prev = Arc::new(prev);
        }
        let outputs = self.nodes.into_iter().map(|(name, output)| {
            let known = definition
                .node_named(&name)
                .map(|ix| &definition.nodes[ix].name);
            (
                known.cloned().unwrap_or_else(|| name.as_str().into()),
                Output {
                    mark: self.marks.remove(&name).map(Arc::new),
                    ..output.into()
                },
            )
        });
        frame.outputs = outputs.collect();
        Ok(frame)
    }

    fn find(&self, program: &Program) -> Result<(FlowIx, NodeIx), FlowError> {
        let unreadable = |reason| Err(FlowError::SnapshotUnreadable { reason });
        if self.v != VERSION {
            return unreadable(format!(
                "it was parked in form {}, and this worker reads form {VERSION}",
                self.v
            ));
        }
        let Some(&flow) = program.by_id.get(&self.flow) else {
            return unreadable(format!(
                "it waits in flow {}, which the pack lacks",
                self.flow
            ));
        };
        let Some(&node) = program.flows[flow].by_id.get(&self.node) else {
            let (flow, node) = (&self.flow, &self.node);
            return unreadable(format!(
                "it waits in flow {flow}, node {node}, which the flow lacks"
            ));
        };
        Ok((flow, node))
    }
}
