//! A node while it runs: what it sees, and what it may change right away.

use std::sync::Arc;

use serde_json::Value;

use super::error::{FlowError, Place, Refusal};
use super::graph::{FlowIx, NodeIx, Program};
use super::memory::Memory;
use super::mustache::Unrenderable;
use super::output::Failure;
use super::room::Room;
use super::scope::Scope;
use super::template::Mapping;
use crate::model::FlowId;

/// A node while it runs.
pub(super) struct Visit<'a> {
    pub(super) program: &'a Program,
    pub(super) at: (FlowIx, NodeIx),
    pub(super) scope: Scope<'a>,
    pub(super) room: &'a mut Room,
    pub(super) memory: &'a mut Memory,
}

impl Visit<'_> {
    /// Renders a mapping of the node.
    pub(super) fn render(&mut self, mapping: &Mapping) -> Result<Value, FlowError> {
        let scope = self.scope;
        self.render_in(&scope, mapping)
    }

    /// Renders a map of what is given.
    pub(super) fn render_given(
        &mut self,
        map: &Mapping,
        given: &Value,
    ) -> Result<Value, FlowError> {
        let scope = Scope {
            given: Some(given),
            ..self.scope
        };
        self.render_in(&scope, map)
    }

    fn render_in(&mut self, scope: &Scope<'_>, mapping: &Mapping) -> Result<Value, FlowError> {
        mapping.render(scope, self.room).map_err(|failure| {
            let (place, template) = (self.place(), failure.template);
            match failure.cause {
                Unrenderable::Reason(reason) => FlowError::Template {
                    place,
                    template,
                    reason,
                },
                Unrenderable::TooMuch => {
                    let limit = self.program.limits.rendered_bytes;
                    FlowError::RenderedLimit {
                        place,
                        template,
                        limit,
                    }
                }
            }
        })
    }

    /// The flow that is running.
    pub(super) fn flow_ix(&self) -> FlowIx {
        self.at.0
    }

    /// The flow with this name.
    pub(super) fn flow(&self, name: &str) -> Result<FlowIx, FlowError> {
        let found = FlowId::new(name)
            .ok()
            .and_then(|id| self.program.by_id.get(&id));
        found.copied().ok_or_else(|| FlowError::NoSuchFlow {
            place: self.place(),
            flow: name.to_owned(),
        })
    }

    /// The node of a flow with this name.
    pub(super) fn node(&self, flow: FlowIx, name: &str) -> Result<NodeIx, FlowError> {
        let flow = &self.program.flows[flow];
        flow.node_named(name).ok_or_else(|| FlowError::NoSuchNode {
            place: self.place(),
            flow: flow.id.clone(),
            node: name.to_owned(),
        })
    }

    /// The state under a key of the running flow, if the turn knows it.
    pub(super) fn remembered(&self, key: &str) -> Option<Option<Arc<Value>>> {
        self.memory.recall(self.at.0, key).cloned()
    }

    /// Writes state under a key of the running flow.
    pub(super) fn remember(&mut self, key: &str, value: Option<Value>) -> Result<(), FlowError> {
        let written = self.memory.write(self.at.0, key, value);
        written.map_err(|excess| FlowError::StateLimit {
            place: self.place(),
            excess,
        })
    }

    /// The node cannot work with what its mapping rendered to.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> FlowError {
        FlowError::Input {
            place: self.place(),
            reason: reason.into(),
        }
    }

    /// Whether a route of the node takes care of its failure.
    pub(super) fn catches_errors(&self) -> bool {
        let node = self.program.node(self.at.0, self.at.1);
        node.routing.catches_errors()
    }

    /// The component does not do what it was asked, and no route takes care of that.
    pub(super) fn refused(&self, component: &str, failure: Failure) -> FlowError {
        let refusal = Refusal {
            component: component.to_owned(),
            code: failure.code,
            message: failure.message,
            retryable: failure.retryable,
        };
        FlowError::Refused {
            place: self.place(),
            refusal: Box::new(refusal),
        }
    }

    /// The component's answer cannot be worked with.
    pub(super) fn misanswered(&self, reason: impl Into<String>) -> FlowError {
        FlowError::Answer {
            place: self.place(),
            reason: reason.into(),
        }
    }

    fn place(&self) -> Place {
        self.program.place(self.at.0, self.at.1)
    }
}
