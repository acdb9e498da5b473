//! A node while it runs: what it sees, and what it may change right away.

use serde_json::Value;

use super::budget::{Budget, Excess};
use super::error::{FlowError, Place, Refusal};
use super::graph::{FlowIx, NodeIx, Program};
use super::memory::Memory;
use super::mustache::Unrenderable;
use super::output::Failure;
use super::scope::Scope;
use super::template::Mapping;
use crate::model::FlowId;

/// A node while it runs.
pub(super) struct Visit<'a> {
    pub(super) program: &'a Program,
    pub(super) at: (FlowIx, NodeIx),
    pub(super) scope: Scope<'a>,
    pub(super) budget: &'a mut Budget,
    pub(super) memory: &'a Memory,
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
        mapping.render(scope, self.budget).map_err(|failure| {
            let (place, template) = (self.place(), failure.template);
            match failure.cause {
                Unrenderable::Reason(reason) => FlowError::Template {
                    place,
                    template,
                    reason,
                },
                Unrenderable::TooMuch(excess) => {
                    FlowError::of_excess(place, &template, excess, self.program.limits)
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
    pub(super) fn remembered(&mut self, key: &str) -> Result<Option<Option<Value>>, FlowError> {
        let known = self.memory.recall(self.at.0, key);
        if let Some(Some(value)) = known {
            let walked = self.budget.walk(value);
            walked.map_err(|excess| self.stopped(excess))?;
        }
        Ok(known.map(|value| value.as_deref().cloned()))
    }

    /// The node takes or produces too much, outside of its templates.
    pub(super) fn stopped(&self, excess: Excess) -> FlowError {
        FlowError::of_excess(self.place(), "", excess, self.program.limits)
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
