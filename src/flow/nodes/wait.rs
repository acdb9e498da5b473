//! `session.wait`: parks the run until the conversation's next message, which then goes to the node's successor.

use std::time::Duration;

use serde_json::Value;

use super::target::without;
use super::{Outcome, Then};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::graph::NodeIx;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;

/// A compiled `session.wait` node.
#[derive(Debug)]
pub(in crate::flow) struct SessionWait {
    mapping: Mapping,
    /// How long it waits at the most, and where it goes on then.
    pub(in crate::flow) timeout: Option<(Duration, Option<NodeIx>)>,
}

impl SessionWait {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        Self {
            mapping: draft.template(&without(mapping, &["vars_out"])),
            timeout: timeout(mapping, draft),
        }
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let output = visit.render(&self.mapping)?;
        let reason = output
            .as_str()
            .or_else(|| output.get("reason")?.as_str())
            .map(str::to_owned);
        Ok(Outcome::Done {
            output: output.into(),
            then: Then::Wait { reason },
        })
    }
}

fn timeout(mapping: &Value, draft: &mut Draft<'_>) -> Option<(Duration, Option<NodeIx>)> {
    let then = mapping.get("on_timeout").and_then(|node| {
        let found = node.as_str().and_then(|name| draft.own_node(name));
        if found.is_none() {
            draft.error(
                format!("`on_timeout` names {node}, which is no node of the flow"),
                "name a node of this flow",
            );
        }
        found
    });
    let Some(given) = mapping.get("timeout") else {
        if mapping.get("on_timeout").is_some() {
            draft.error(
                "`on_timeout` without `timeout` is never reached",
                "give it a `timeout`",
            );
        }
        return None;
    };
    match duration(given) {
        Some(after) => Some((after, then)),
        None => {
            draft.error(
                format!("`timeout: {given}` is no duration of at least a second"),
                "write a number of seconds, or a text such as 30s, 15m or 2h",
            );
            None
        }
    }
}

fn duration(given: &Value) -> Option<Duration> {
    let duration = match given {
        Value::Number(seconds) => Duration::from_secs(seconds.as_u64()?),
        Value::String(text) => humantime_serde::re::humantime::parse_duration(text).ok()?,
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    (duration >= Duration::from_secs(1)).then_some(duration)
}
