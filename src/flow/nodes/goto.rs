//! `flow.goto`: the same run goes on in another flow, which may wait.

use serde_json::Value;

use super::target::{Target, fields};
use super::{Jump, Outcome, Then};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::graph::{FlowIx, NodeIx};
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A compiled `flow.goto` node.
#[derive(Debug)]
pub(in crate::flow) struct FlowGoto {
    flow: Target,
    node: Option<Mapping>,
    input: Mapping,
    max_redirects: Option<Mapping>,
}

/// Where a jump may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum Onward {
    /// To this node; else to the entry of the flow.
    Node(FlowIx, Option<NodeIx>),
    /// To any node of this flow.
    WithinFlow(FlowIx),
    /// To any node of any flow.
    Anywhere,
}

impl FlowGoto {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let known = [
            "flow_id",
            "flow",
            "node",
            "input",
            "max_redirects",
            "reason",
        ];
        let fields = fields(mapping, &known, draft);
        let goto = Self {
            flow: Target::compile(&fields, draft),
            node: fields
                .get("node")
                .filter(|node| !node.is_null())
                .map(|node| draft.template(node)),
            input: draft.template(fields.get("input").unwrap_or(&Value::Null)),
            max_redirects: fields
                .get("max_redirects")
                .filter(|max| !max.is_null())
                .map(|max| draft.template(max)),
        };
        if let (Some(flow), Some(name)) = (goto.flow.known(), goto.literal_node())
            && draft.node(flow, name).is_none()
        {
            draft.error(
                format!(
                    "it leads to node `{name}`, which flow {} lacks",
                    draft.flow_id(flow)
                ),
                "correct the name, or leave `node` out to begin at the flow's entry",
            );
        }
        goto
    }

    fn literal_node(&self) -> Option<&str> {
        let name = self.node.as_ref()?.as_literal()?.trim();
        (!name.is_empty()).then_some(name)
    }

    /// Where it may lead. `node` finds a node of a flow by its name.
    pub(in crate::flow) fn leads_to(
        &self,
        node: impl Fn(FlowIx, &str) -> Option<NodeIx>,
    ) -> Onward {
        let is_literal = self
            .node
            .as_ref()
            .is_none_or(|node| node.as_literal().is_some());
        match self.flow.known() {
            Some(flow) if is_literal => {
                Onward::Node(flow, self.literal_node().and_then(|name| node(flow, name)))
            }
            Some(flow) => Onward::WithinFlow(flow),
            None => Onward::Anywhere,
        }
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let flow = self.flow.find(visit)?;
        let node = match &self.node {
            Some(name) => match visit.render(name)?.as_str().map(str::trim) {
                Some("") => None,
                Some(name) => Some(visit.node(flow, name)?),
                None => {
                    return Err(visit.invalid("`node` must be the name of a node, and is no text"));
                }
            },
            None => None,
        };
        let max = match &self.max_redirects {
            Some(max) => {
                let max = visit
                    .render(max)?
                    .as_u64()
                    .and_then(|max| u32::try_from(max).ok());
                Some(max.ok_or_else(|| visit.invalid("`max_redirects` must be a whole number"))?)
            }
            None => None,
        };
        let output = visit.render(&self.input)?;
        Ok(Outcome::Done {
            output: output.into(),
            then: Then::Jump(Jump { flow, node, max }),
        })
    }
}
