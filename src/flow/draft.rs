//! A node while it is compiled: the names it may use, and what came to light so far.

use std::collections::HashMap;

use greentic_types::pack_manifest::PackFlowEntry;
use serde_json::Value;

use super::findings::Findings;
use super::graph::{FlowIx, NodeIx};
use super::inventory::Inventory;
use super::template::{Mapping, Pointers};
use crate::model::{FlowId, NodeId};

/// The names of a pack's flows and of their nodes.
pub(super) struct Names<'p> {
    /// The flows as they were written.
    pub(super) entries: &'p [PackFlowEntry],
    /// Their positions.
    pub(super) by_id: HashMap<FlowId, FlowIx>,
    /// What the pack holds besides them.
    pub(super) inventory: &'p Inventory,
}

impl Names<'_> {
    /// The node of a flow with this name.
    pub(super) fn node(&self, flow: FlowIx, name: &str) -> Option<NodeIx> {
        self.entries[flow]
            .flow
            .nodes
            .get_index_of(&NodeId::new(name).ok()?)
    }
}

/// A node while it is compiled.
pub(super) struct Draft<'p> {
    names: &'p Names<'p>,
    flow: FlowIx,
    pub(super) findings: Findings,
}

impl<'p> Draft<'p> {
    /// A node of this flow.
    pub(super) fn new(names: &'p Names<'p>, flow: FlowIx) -> Self {
        Self {
            names,
            flow,
            findings: Findings::default(),
        }
    }

    /// Compiles a mapping.
    pub(super) fn template(&mut self, source: &Value) -> Mapping {
        Mapping::compile(source, Pointers::Literal, &mut self.findings)
    }

    /// Compiles the value of a variable, in which JSON pointers are followed.
    pub(super) fn binding(&mut self, source: &Value) -> Mapping {
        Mapping::compile(source, Pointers::Followed, &mut self.findings)
    }

    /// Compiles what is made of a value that is given: it has the roots `input` and `result`, and JSON pointers are
    /// followed.
    pub(super) fn given_binding(&mut self, source: &Value) -> Mapping {
        Mapping::compile(source, Pointers::FollowedIntoGiven, &mut self.findings)
    }

    /// What the pack holds besides its flows.
    pub(super) fn inventory(&self) -> &'p Inventory {
        self.names.inventory
    }

    /// The flow with this name.
    pub(super) fn flow(&self, name: &str) -> Option<FlowIx> {
        self.names.by_id.get(&FlowId::new(name).ok()?).copied()
    }

    /// The id of a flow.
    pub(super) fn flow_id(&self, flow: FlowIx) -> &FlowId {
        &self.names.entries[flow].id
    }

    /// The node of a flow with this name.
    pub(super) fn node(&self, flow: FlowIx, name: &str) -> Option<NodeIx> {
        self.names.node(flow, name)
    }

    /// The node of this node's own flow with this name.
    pub(super) fn own_node(&self, name: &str) -> Option<NodeIx> {
        self.names.node(self.flow, name)
    }

    /// Something that the flow cannot run with, and what to do about it.
    pub(super) fn error(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.error(message, remedy);
    }

    /// Something that the author may want to know, and what to do about it.
    pub(super) fn warn(&mut self, message: impl Into<String>, remedy: impl Into<String>) {
        self.findings.warn(message, remedy);
    }
}
