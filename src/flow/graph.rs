//! Compiled flows: what `advance` runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::Place;
use super::inventory::Inventory;
use super::limits::Limits;
use super::nodes::Kind;
use super::reach::Needs;
use super::routing::Routing;
use super::template::Mapping;
use crate::model::{FlowId, NodeId};

/// A flow's position in its program.
pub(super) type FlowIx = usize;
/// A node's position in its flow.
pub(super) type NodeIx = usize;

/// The compiled flows of one pack.
#[derive(Debug)]
pub struct Program {
    pub(super) flows: Vec<Flow>,
    pub(super) by_id: HashMap<FlowId, FlowIx>,
    pub(super) limits: Limits,
    pub(super) inventory: Inventory,
}

impl Program {
    /// The flow with this id.
    pub fn flow(&self, id: &FlowId) -> Option<&Flow> {
        self.by_id.get(id).map(|ix| &self.flows[*ix])
    }

    /// All flows, in the order of the pack.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.iter()
    }

    /// The literal state keys that a run of this flow may read, in it or in a flow that it calls or jumps to, each with
    /// the flow that owns it. Empty for a flow that the pack lacks.
    pub fn state_keys(&self, id: &FlowId) -> &[(FlowId, String)] {
        self.flow(id).map_or(&[], |flow| &flow.state_keys)
    }

    /// The components that a run of this flow may call, in it or in a flow that it calls or jumps to, in order. Empty for
    /// a flow that the pack lacks.
    pub fn components(&self, id: &FlowId) -> &[String] {
        self.flow(id).map_or(&[], |flow| &flow.components)
    }

    /// What bounds a turn of these flows.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    pub(super) fn node(&self, flow: FlowIx, node: NodeIx) -> &Node {
        &self.flows[flow].nodes[node]
    }

    pub(super) fn place(&self, flow: FlowIx, node: NodeIx) -> Place {
        let flow = &self.flows[flow];
        Place {
            flow: flow.id.clone(),
            node: flow.nodes[node].id.clone(),
        }
    }
}

/// One compiled flow.
#[derive(Debug)]
pub struct Flow {
    pub(super) id: FlowId,
    pub(super) tags: BTreeSet<String>,
    pub(super) nodes: Vec<Node>,
    pub(super) by_id: HashMap<NodeId, NodeIx>,
    pub(super) entry: NodeIx,
    /// The variables of a fresh run.
    pub(super) vars: Map<String, Value>,
    pub(super) state_keys: Vec<(FlowId, String)>,
    pub(super) components: Vec<String>,
}

impl Flow {
    /// Its id.
    pub fn id(&self) -> &FlowId {
        &self.id
    }

    /// Its tags, the pack's and its own.
    pub fn tags(&self) -> &BTreeSet<String> {
        &self.tags
    }

    /// The node that a fresh run starts at.
    pub fn entry(&self) -> &NodeId {
        &self.nodes[self.entry].id
    }

    /// The ids of its nodes, in the order they are written.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.nodes.iter().map(|node| &node.id)
    }

    pub(super) fn node_named(&self, name: &str) -> Option<NodeIx> {
        self.by_id.get(&NodeId::new(name).ok()?).copied()
    }

    /// The node with this name, if a message may name it as its start.
    pub(super) fn start_named(&self, name: &str) -> Option<(NodeIx, Start)> {
        let node = self.node_named(name)?;
        let start = self.nodes[node].start;
        if start == Start::Refused {
            tracing::debug!(
                flow = %self.id,
                node = name,
                "a message names a node that is neither a card nor an entry; the flow starts at its start"
            );
            return None;
        }
        Some((node, start))
    }
}

/// Whether a message may start a flow at a node by naming it, as a button of a card does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Start {
    /// It may not.
    #[default]
    Refused,
    /// It may: the pack marks the node as an entry.
    Entry,
    /// It may, and sees the card: nothing in the message counts as the answer to it.
    Card,
}

/// One compiled node.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: NodeId,
    /// The id again, as outputs are kept by.
    pub(super) name: Arc<str>,
    pub(super) kind: Kind,
    /// Variables that are set from its output.
    pub(super) vars_out: Vec<(String, Mapping)>,
    pub(super) routing: Routing,
    /// Whether it shows a card.
    pub(super) shows_card: bool,
    /// Whether a message may start the flow here.
    pub(super) start: Start,
    /// The submitted fields that its output shows as `answers`; all of them where it does not say.
    pub(super) answer_fields: Option<BTreeSet<String>>,
    /// What must be kept of a run that waits here.
    pub(super) needs: Needs,
}
