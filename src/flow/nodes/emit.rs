//! `emit.*`: says something to the user, or to the log if its name is `emit.log`.

use std::borrow::Cow;

use serde_json::Value;

use super::target::without;
use super::{Outcome, Then};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A compiled `emit.*` node.
#[derive(Debug)]
pub(in crate::flow) struct Emit {
    payload: Mapping,
    to_log: bool,
}

impl Emit {
    pub(super) fn compile(name: &str, mapping: &Value, draft: &mut Draft<'_>) -> Self {
        Self {
            payload: draft.template(&payload(mapping)),
            to_log: name == "emit.log",
        }
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let output = visit.render(&self.payload)?;
        let said = output.clone();
        let then = if self.to_log {
            Then::Log(said)
        } else {
            Then::Say(said)
        };
        Ok(Outcome::Done {
            output: output.into(),
            then,
        })
    }
}

/// What is said: `input` or `payload` of the mapping, else all of it but the bindings.
pub(in crate::flow) fn payload(mapping: &Value) -> Cow<'_, Value> {
    let Value::Object(fields) = mapping else {
        return Cow::Borrowed(mapping);
    };
    match fields.get("input").or_else(|| fields.get("payload")) {
        Some(inner) => Cow::Borrowed(inner),
        None => without(mapping, &["vars_out"]),
    }
}
