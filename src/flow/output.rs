//! What a node came to: its payload, whether it failed, and how outputs that report errors are read.

use std::sync::Arc;

use greentic_types::node_io::{ErrorKind, NodeError, NodeOutput};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::budget::{Budget, Excess};

/// What a node came to.
#[derive(Clone, Debug)]
pub(super) struct Output {
    /// What others see of it.
    pub(super) payload: Arc<Value>,
    /// What is known of it besides; nothing of most nodes.
    pub(super) mark: Option<Arc<Mark>>,
}

/// What is known of an output besides its payload.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The node failed, and one of its routes takes care of that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) failed: bool,
    /// `meta`: the outcome that a component named, its error, or the hints of a jump.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) meta: Value,
}

impl From<Value> for Output {
    fn from(payload: Value) -> Self {
        Self {
            payload: Arc::new(payload),
            mark: None,
        }
    }
}

impl Output {
    /// The output of a component that did what it was asked.
    pub(super) fn of_component(payload: Value) -> Self {
        let outcome = payload.get("outcome").and_then(Value::as_str);
        let meta = outcome.map_or(Value::Null, |outcome| json!({"outcome": outcome}));
        Self::with_meta(payload, meta)
    }

    /// An output about which this is known.
    pub(super) fn with_meta(payload: Value, meta: Value) -> Self {
        let mark = (!meta.is_null()).then(|| {
            Arc::new(Mark {
                failed: false,
                meta,
            })
        });
        Self {
            mark,
            ..payload.into()
        }
    }

    fn failed(payload: Value) -> Self {
        let outcome = payload.get("outcome").filter(|outcome| outcome.is_string());
        let known = [("outcome", outcome), ("error", payload.get("error"))];
        let known = known.into_iter();
        let meta: Map<_, _> = known
            .filter_map(|(name, value)| Some((name.to_owned(), value?.clone())))
            .collect();
        let mark = Mark {
            failed: true,
            meta: Value::Object(meta),
        };
        Self {
            mark: Some(Arc::new(mark)),
            ..payload.into()
        }
    }

    /// Whether the node failed.
    pub(super) fn is_failed(&self) -> bool {
        self.mark.as_ref().is_some_and(|mark| mark.failed)
    }

    /// What `meta` shows.
    pub(super) fn meta(&self) -> &Value {
        self.mark.as_ref().map_or(&Value::Null, |mark| &mark.meta)
    }

    /// How the node ended, where it says so itself.
    pub(super) fn outcome(&self) -> Option<&str> {
        self.meta().get("outcome").and_then(Value::as_str)
    }
}

/// A component that did not do what it was asked, and why.
#[derive(Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) code: String,
    pub(super) message: String,
    /// The component says that another attempt may end otherwise.
    pub(super) retryable: bool,
    payload: Value,
}

impl Failure {
    /// Reads a refusal: an output that says `ok: false` with an error, or has an error in place of a result, as tools
    /// report theirs. Any other output is handed back.
    pub(super) fn read(mut output: Value) -> Result<Self, Value> {
        let retryable = output.pointer("/error/retryable") == Some(&Value::Bool(true));
        let (code, message) = if let Some(own) = own_error(&output) {
            own
        } else if let Some((code, message)) = tool_error(&output) {
            say_failed(&mut output, &code, &message);
            (code, message)
        } else {
            return Err(output);
        };
        Ok(Self {
            code,
            message,
            retryable,
            payload: output,
        })
    }

    /// The output of a node that has a route for its failure.
    pub(super) fn into_output(self) -> Output {
        Output::failed(self.payload)
    }
}

/// The code and the message of an output that says `ok: false`.
fn own_error(output: &Value) -> Option<(String, String)> {
    let failed = output.get("ok") == Some(&Value::Bool(false));
    let error = output.get("error").filter(|_| failed)?.as_object()?;
    let code = text(error, "code", "component_error");
    Some((code, text(error, "message", "component reported error")))
}

/// The code and the message of an output with an error in place of a result.
fn tool_error(output: &Value) -> Option<(String, String)> {
    let fields = output.as_object()?;
    let error = fields.get("error")?.as_object()?;
    if fields.contains_key("result") {
        return None;
    }
    let message = text(error, "message", "tool returned an error");
    let message = match error.get("status").and_then(Value::as_u64) {
        Some(status) => format!("{message} (status {status})"),
        None => message,
    };
    Some((text(error, "code", "tool_error"), message))
}

fn text(fields: &Map<String, Value>, name: &str, otherwise: &str) -> String {
    let text = fields.get(name).and_then(Value::as_str);
    text.unwrap_or(otherwise).to_owned()
}

/// Gives a tool's error the form of any other refusal.
fn say_failed(output: &mut Value, code: &str, message: &str) {
    let Value::Object(fields) = output else {
        return;
    };
    fields.insert("ok".to_owned(), Value::Bool(false));
    if let Some(Value::Object(error)) = fields.get_mut("error") {
        error.insert("code".to_owned(), code.into());
        error.insert("message".to_owned(), message.into());
    }
}

/// What `node.<id>.data` and `node.<id>.errors` show of a payload.
pub(super) enum View<'a> {
    /// This, and no errors.
    Data(&'a Value),
    /// Nothing, and these errors.
    Errors(Vec<NodeError>),
}

impl<'a> View<'a> {
    /// Reads a payload. One that is `{data}` or `{errors}` and says nothing of `ok` is taken at its word; one that says
    /// `ok: false` with an error has that one; anything else is data.
    pub(super) fn of(payload: &'a Value, budget: &mut Budget) -> Result<Self, Excess> {
        if payload.get("errors").is_some() || payload.get("error").is_some() {
            budget.walk(payload)?;
        }
        Ok(Self::read(payload))
    }

    fn read(payload: &'a Value) -> Self {
        let Value::Object(fields) = payload else {
            return Self::Data(payload);
        };
        if !fields.contains_key("ok") {
            let (data, errors) = (fields.get("data"), fields.get("errors"));
            return match (data, errors) {
                (Some(data), None) if fields.len() == 1 => Self::Data(data),
                (Some(data), Some(_)) => Self::Data(data),
                (None, Some(_)) => match serde_json::from_value(payload.clone()) {
                    Ok(NodeOutput::Errors { errors }) => Self::Errors(errors),
                    Ok(NodeOutput::Data { .. }) | Err(_) => Self::Data(payload),
                },
                (_, None) => Self::Data(payload),
            };
        }
        let Some((code, message)) = own_error(payload) else {
            return Self::Data(payload);
        };
        Self::Errors(vec![NodeError {
            code,
            message,
            kind: ErrorKind::Internal,
            retryable: false,
            source: None,
            details: Value::Null,
        }])
    }

    /// `data`.
    pub(super) fn data(&self) -> &'a Value {
        match self {
            Self::Data(data) => data,
            Self::Errors(_) => &Value::Null,
        }
    }

    /// `errors`.
    pub(super) fn errors(&self) -> Value {
        match self {
            Self::Data(_) => json!([]),
            Self::Errors(errors) => serde_json::to_value(errors).unwrap_or_else(|_| json!([])),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_refusal(output: Value, expected: Option<(&str, &str, bool)>) {
        let read = Failure::read(output.clone());
        let found = read.as_ref().ok();
        let found = found.map(|r| (r.code.as_str(), r.message.as_str(), r.retryable));
        assert_eq!(found, expected, "{output}");
        if let Err(handed_back) = read {
            assert_eq!(handed_back, output);
        }
    }

    #[test]
    fn refusals_are_told_from_results() {
        let own = json!({"ok": false, "error": {"code": "C", "message": "m", "retryable": true}});
        check_refusal(own, Some(("C", "m", true)));
        let bare = json!({"ok": false, "error": {}});
        check_refusal(
            bare,
            Some(("component_error", "component reported error", false)),
        );
        let tool = json!({"error": {"code": "C", "message": "m", "status": 503}});
        check_refusal(tool, Some(("C", "m (status 503)", false)));
        let bare = json!({"ok": true, "error": {}});
        check_refusal(bare, Some(("tool_error", "tool returned an error", false)));
        check_refusal(json!({"ok": false, "error": "text"}), None);
        check_refusal(json!({"ok": false}), None);
        check_refusal(json!({"error": {}, "result": 1}), None);
        check_refusal(json!([1]), None);
    }

    #[test]
    fn a_routed_refusal_keeps_its_outcome_and_its_error() {
        let tool = json!({"error": {"status": 503, "x": 1}, "outcome": "on_timeout"});
        let output = Failure::read(tool).unwrap().into_output();
        let error = json!({"status": 503, "x": 1, "code": "tool_error", "message": "tool returned an error (status 503)"});
        let expected = json!({"ok": false, "error": error, "outcome": "on_timeout"});
        assert_eq!(*output.payload, expected);
        assert_eq!(
            output.meta(),
            &json!({"outcome": "on_timeout", "error": error})
        );
        assert!(output.is_failed());
        assert_eq!(output.outcome(), Some("on_timeout"));
        let bare = json!({"ok": false, "error": {}, "outcome": 5});
        let output = Failure::read(bare.clone()).unwrap().into_output();
        assert_eq!(
            (&*output.payload, output.meta()),
            (&bare, &json!({"error": {}}))
        );
    }

    #[track_caller]
    fn check_view(payload: Value, data: Value, errors: Value) {
        let view = View::read(&payload);
        assert_eq!((view.data(), view.errors()), (&data, errors), "{payload}");
    }

    #[test]
    fn data_and_errors_are_read_from_every_form_of_a_payload() {
        let none = || json!([]);
        let error = |code: &str| json!({"code": code, "message": "m", "kind": "internal", "retryable": false});
        check_view(json!("text"), json!("text"), none());
        check_view(json!({"a": 1}), json!({"a": 1}), none());
        check_view(json!({"data": 1}), json!(1), none());
        check_view(
            json!({"data": 1, "a": 2}),
            json!({"data": 1, "a": 2}),
            none(),
        );
        check_view(
            json!({"data": 1, "ok": true}),
            json!({"data": 1, "ok": true}),
            none(),
        );
        check_view(
            json!({"errors": [error("C")]}),
            Value::Null,
            json!([error("C")]),
        );
        check_view(json!({"errors": 5}), json!({"errors": 5}), none());
        check_view(json!({"errors": [], "data": 7}), json!(7), none());
        let refused = json!({"ok": false, "error": {"code": "C", "message": "m", "x": 1}});
        check_view(refused, Value::Null, json!([error("C")]));
    }
}
