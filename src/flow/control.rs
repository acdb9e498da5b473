//! `greentic_control`: what a component's output asks of the run.

use serde_json::{Value, json};

use super::error::FlowError;
use super::nodes::Jump;
use super::visit::Visit;

/// The one form that there is.
const VERSION: u64 = 1;

/// What a component asks of the run.
#[derive(Debug)]
pub(super) enum Control {
    /// To go on elsewhere.
    Jump(Leap),
    /// To say this and be over.
    Respond(Value),
}

/// A jump that a component asks for.
#[derive(Debug)]
pub(super) struct Leap {
    flow: String,
    node: Option<String>,
    max: Option<u32>,
    payload: Value,
    hints: Value,
}

/// A jump that can be made.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) to: Jump,
    /// What it gives.
    pub(super) payload: Value,
    /// What it says besides.
    pub(super) hints: Value,
}

/// Reads what an output asks for. The error says what is wrong with that.
pub(super) fn read(output: &Value) -> Result<Option<Control>, String> {
    let Some(control) = output.get("greentic_control") else {
        return Ok(None);
    };
    let text = |name: &str| control.get(name).and_then(Value::as_str);
    let field = |name: &str| control.get(name).cloned().unwrap_or_default();
    let Some(action) = text("action") else {
        return Err("its `greentic_control` has no `action`".to_owned());
    };
    if control.get("v").and_then(Value::as_u64) != Some(VERSION) {
        return Err(format!("its `greentic_control` has no `v: {VERSION}`"));
    }
    let name = |name: &str| text(name).map(str::trim).filter(|name| !name.is_empty());
    match action {
        "jump" => {
            let flow = name("flow").ok_or("its `greentic_control` jumps to no `flow`")?;
            let max = control.get("max_redirects").and_then(Value::as_u64);
            Ok(Some(Control::Jump(Leap {
                flow: flow.to_owned(),
                node: name("node").map(str::to_owned),
                max: max.and_then(|max| max.try_into().ok()),
                payload: field("payload"),
                hints: field("hints"),
            })))
        }
        "respond" => {
            let bytes = control.get("card_cbor").and_then(Value::as_array);
            let bytes = bytes.map(|bytes| {
                let bytes = bytes.iter().filter_map(Value::as_u64);
                bytes.filter(|byte| *byte <= 0xff).collect::<Vec<_>>()
            });
            Ok(Some(Control::Respond(json!({
                "text": text("text"),
                "card_cbor": bytes,
                "needs_user": control.get("needs_user").and_then(Value::as_bool),
            }))))
        }
        _ => Ok(None),
    }
}

impl Leap {
    /// Finds the flow and the node.
    pub(super) fn resolve(self, visit: &Visit<'_>) -> Result<Resolved, FlowError> {
        let flow = visit.flow(&self.flow)?;
        let node = self.node.as_deref().map(|node| visit.node(flow, node));
        Ok(Resolved {
            to: Jump {
                flow,
                node: node.transpose()?,
                max: self.max,
            },
            payload: self.payload,
            hints: self.hints,
        })
    }
}
