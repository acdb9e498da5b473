//! The flow that a call or jump leads to: known when the pack is loaded, or named by a template.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::graph::FlowIx;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A flow to go to.
#[derive(Debug)]
pub(in crate::flow) enum Target {
    /// This one.
    Known(FlowIx),
    /// The one that this renders to the name of.
    Named(Mapping),
}

impl Target {
    /// Reads `flow_id`, or `flow`, of a mapping.
    pub(super) fn compile(fields: &Map<String, Value>, draft: &mut Draft<'_>) -> Self {
        let Some(source) = fields.get("flow_id").or_else(|| fields.get("flow")) else {
            draft.error("it does not say which flow", "give it a `flow_id`");
            return Self::Named(Mapping::Constant(Value::Null));
        };
        let name = draft.template(source);
        let Some(literal) = name.as_literal() else {
            return Self::Named(name);
        };
        let found = draft.flow(literal.trim());
        if found.is_none() {
            draft.error(
                format!(
                    "it leads to flow `{}`, which the pack lacks",
                    literal.trim()
                ),
                "add the flow to the pack or correct the name",
            );
        }
        found.map_or(Self::Named(name), Self::Known)
    }

    /// The flow, if it is known without a run.
    pub(super) fn known(&self) -> Option<FlowIx> {
        match self {
            Self::Known(flow) => Some(*flow),
            Self::Named(_) => None,
        }
    }

    pub(super) fn find(&self, visit: &mut Visit<'_>) -> Result<FlowIx, FlowError> {
        let name = match self {
            Self::Known(flow) => return Ok(*flow),
            Self::Named(name) => visit.render(name)?,
        };
        let Some(name) = name.as_str().map(str::trim).filter(|name| !name.is_empty()) else {
            return Err(visit.invalid("`flow_id` must be the name of a flow, and is not a text"));
        };
        visit.flow(name)
    }
}

/// The fields of a mapping that has to be an object. Keys that mean nothing to the kind are warned of.
pub(super) fn fields(mapping: &Value, known: &[&str], draft: &mut Draft<'_>) -> Map<String, Value> {
    let Value::Object(fields) = mapping else {
        draft.error(
            "its mapping is no object",
            format!("write the fields {}", known.join(", ")),
        );
        return Map::new();
    };
    for name in fields
        .keys()
        .filter(|name| !known.contains(&name.as_str()) && *name != "vars_out")
    {
        draft.warn(
            format!("field `{name}` is not read"),
            format!("its fields are {}", known.join(", ")),
        );
    }
    fields.clone()
}

/// A mapping without these fields.
pub(super) fn without<'m>(mapping: &'m Value, names: &[&str]) -> Cow<'m, Value> {
    let Value::Object(fields) = mapping else {
        return Cow::Borrowed(mapping);
    };
    if !names.iter().any(|name| fields.contains_key(*name)) {
        return Cow::Borrowed(mapping);
    }
    let mut fields = fields.clone();
    fields.retain(|name, _| !names.contains(&name.as_str()));
    Cow::Owned(Value::Object(fields))
}
