//! `var.set`: sets a variable of the run.

use serde_json::{Value, json};

use super::target::fields;
use super::{Outcome, Then};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A compiled `var.set` node.
#[derive(Debug)]
pub(in crate::flow) struct VarSet {
    /// The name, as it is written: it is no template. Without one, nothing is set.
    name: Option<String>,
    value: Mapping,
}

impl VarSet {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let fields = fields(mapping, &["name", "value"], draft);
        let name = fields
            .get("name")
            .and_then(Value::as_str)
            .filter(|name| !name.trim().is_empty());
        if name.is_none() {
            draft.warn(
                "it sets nothing: its `name` is missing or empty",
                "give it a `name`",
            );
        }
        Self {
            name: name.map(str::to_owned),
            value: draft.binding(fields.get("value").unwrap_or(&Value::Null)),
        }
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let then = match &self.name {
            Some(name) => Then::Assign(name.clone(), visit.render(&self.value)?),
            None => Then::Continue,
        };
        Ok(Outcome::Done {
            output: json!({"ok": true}).into(),
            then,
        })
    }
}
