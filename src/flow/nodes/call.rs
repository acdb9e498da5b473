//! `flow.call`: runs another flow of the pack from its start, and has that flow's result as its output.

use serde_json::Value;

use super::Outcome;
use super::target::{Target, fields};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::graph::FlowIx;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A compiled `flow.call` node.
#[derive(Debug)]
pub(in crate::flow) struct FlowCall {
    flow: Target,
    input: Mapping,
}

impl FlowCall {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let fields = fields(mapping, &["flow_id", "flow", "input"], draft);
        Self {
            flow: Target::compile(&fields, draft),
            input: draft.template(fields.get("input").unwrap_or(&Value::Null)),
        }
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let flow = self.flow.find(visit)?;
        Ok(Outcome::Call {
            flow,
            input: visit.render(&self.input)?,
        })
    }

    /// The flow that it calls, if that is known.
    pub(in crate::flow) fn calls(&self) -> Option<FlowIx> {
        self.flow.known()
    }
}
