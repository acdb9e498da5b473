//! `state.get` and `state.set`: what a flow remembers of its user from one run to the next.

use std::sync::Arc;

use serde_json::{Value, json};

use super::target::fields;
use super::{Outcome, Then};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A compiled `state.get` node.
#[derive(Debug)]
pub(in crate::flow) struct StateGet {
    key: Mapping,
}

/// A compiled `state.set` node.
#[derive(Debug)]
pub(in crate::flow) struct StateSet {
    key: Mapping,
    value: Mapping,
}

impl StateGet {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let fields = fields(mapping, &["key"], draft);
        Self {
            key: compile_key(fields.get("key"), draft),
        }
    }

    /// The key, if it is known without a run.
    pub(in crate::flow) fn literal_key(&self) -> Option<&str> {
        self.key.as_literal()
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let key = render_key(&self.key, visit)?;
        match visit.remembered(&key) {
            Some(known) => Ok(answer(&key, known.map(Arc::unwrap_or_clone))),
            None => Ok(Outcome::Read {
                flow: visit.flow_ix(),
                key,
            }),
        }
    }
}

impl StateSet {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let fields = fields(mapping, &["key", "value"], draft);
        if !fields.contains_key("value") {
            draft.warn("it stores null", "give it a `value`");
        }
        Self {
            key: compile_key(fields.get("key"), draft),
            value: draft.template(fields.get("value").unwrap_or(&Value::Null)),
        }
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let key = render_key(&self.key, visit)?;
        let value = visit.render(&self.value)?;
        visit.remember(&key, Some(value.clone()))?;
        let output = json!({"key": key, "value": value});
        Ok(Outcome::Done {
            output: output.into(),
            then: Then::Continue,
        })
    }
}

/// What `state.get` comes to once the value is known.
pub(in crate::flow) fn answer(key: &str, value: Option<Value>) -> Outcome {
    let found = value.is_some();
    let output = json!({"key": key, "value": value.unwrap_or_default(), "found": found});
    Outcome::Done {
        output: output.into(),
        then: Then::Continue,
    }
}

fn compile_key(source: Option<&Value>, draft: &mut Draft<'_>) -> Mapping {
    let key = draft.template(source.unwrap_or(&Value::Null));
    let is_wrong = match &key {
        Mapping::Constant(key) => key.as_str().is_none_or(str::is_empty),
        Mapping::Array(_) | Mapping::Object(_) => true,
        Mapping::One(..) | Mapping::Pointer(..) | Mapping::Text(..) => false,
    };
    if is_wrong {
        draft.error(
            "its `key` is missing or no text",
            "give it a `key` that is a text",
        );
    }
    key
}

fn render_key(key: &Mapping, visit: &mut Visit<'_>) -> Result<String, FlowError> {
    match visit.render(key)? {
        Value::String(key) if !key.is_empty() => Ok(key),
        Value::Number(key) => Ok(key.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            Err(visit.invalid("its `key` came out empty, or as no text"))
        }
    }
}
