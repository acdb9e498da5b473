//! What of a component's input reaches it as its payload.

use serde_json::{Map, Value, json};

/// The payload inside an input. An input may be the payload itself, or name it `payload` or `input` beside an operation
/// and metadata, or have all that under `envelope`.
pub(super) fn payload(input: Value) -> Value {
    let Value::Object(mut fields) = input else {
        return input;
    };
    match fields.remove("envelope") {
        Some(Value::Object(mut envelope)) => return envelope.remove("payload").unwrap_or_default(),
        Some(other) => return other,
        None => {}
    }
    let operation = take(&mut fields, "op", "operation");
    let payload = take(&mut fields, "payload", "input").unwrap_or_default();
    let metadata = take(&mut fields, "metadata", "config").unwrap_or_default();
    let is_bare =
        !operation.is_some_and(|name| name.is_string()) && payload.is_null() && metadata.is_null();
    if is_bare || (payload.is_null() && !fields.is_empty()) {
        Value::Object(fields)
    } else {
        payload
    }
}

/// Takes a field out, by its name or else by its old one.
fn take(fields: &mut Map<String, Value>, name: &str, old: &str) -> Option<Value> {
    fields.remove(name).or_else(|| fields.remove(old))
}

/// The payload with the node's configuration beside it, if there is any.
pub(super) fn with_config(payload: Value, config: Value) -> Value {
    if config.is_null() {
        return payload;
    }
    json!({"config": config, "input": payload})
}

/// The input and the configuration of a node that is `component.exec`. Without `input`, whatever the mapping does not
/// say about the call itself is the input.
pub(super) fn of_exec(mapping: Value) -> (Value, Value) {
    let Value::Object(mut fields) = mapping else {
        return (mapping, Value::Null);
    };
    for name in ["component", "component_ref", "operation", "op"] {
        fields.remove(name);
    }
    let config = fields.remove("config").unwrap_or_default();
    let input = match fields.remove("input") {
        Some(input) => input,
        None if fields.is_empty() => Value::Null,
        None => Value::Object(fields),
    };
    (input, config)
}

/// The input and the configuration of a node that is a component by its own name. `input` counts as that only where the
/// mapping has nothing else but what says which component and operation it is; else the whole mapping is the input.
pub(super) fn of_direct(mapping: Value) -> (Value, Value) {
    const KNOWN: [&str; 6] = [
        "input",
        "config",
        "operation",
        "op",
        "component",
        "component_ref",
    ];
    match mapping {
        Value::Object(mut fields)
            if fields.contains_key("input")
                && fields.keys().all(|name| KNOWN.contains(&name.as_str())) =>
        {
            let input = fields.remove("input").unwrap_or_default();
            (input, fields.remove("config").unwrap_or_default())
        }
        whole @ (Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => (whole, Value::Null),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks what a component receives of a node without a card.
    #[track_caller]
    fn check(split: fn(Value) -> (Value, Value), mapping: Value, expected: Value) {
        let (input, config) = split(mapping.clone());
        assert_eq!(with_config(payload(input), config), expected, "{mapping}");
    }

    #[test]
    fn what_component_exec_hands_over() {
        let c = "x";
        check(
            of_exec,
            json!({"component": c, "operation": "o", "input": {"a": 1, "n": 2}, "config": {"k": 3}, "sibling": 4}),
            json!({"config": {"k": 3}, "input": {"a": 1, "n": 2}}),
        );
        check(
            of_exec,
            json!({"component": c, "op": "o", "input": {"a": 1}}),
            json!({"a": 1}),
        );
        check(
            of_exec,
            json!({"component_ref": c, "operation": "o", "message": "m"}),
            json!({"message": "m"}),
        );
        check(
            of_exec,
            json!({"component": c, "message": "m", "config": 1}),
            json!({"config": 1, "input": {"message": "m"}}),
        );
        check(
            of_exec,
            json!({"component": c, "operation": "o"}),
            Value::Null,
        );
        check(
            of_exec,
            json!({"component": c, "input": {"payload": {"x": 1}, "metadata": {}, "op": "o", "other": 2}}),
            json!({"x": 1}),
        );
    }

    #[test]
    fn what_a_node_of_the_components_name_hands_over() {
        check(of_direct, json!({"a": 1, "b": 2}), json!({"a": 1, "b": 2}));
        check(of_direct, json!({"input": {"a": 1}}), json!({"a": 1}));
        check(
            of_direct,
            json!({"input": {"a": 1}, "config": {"c": 2}}),
            json!({"config": {"c": 2}, "input": {"a": 1}}),
        );
        check(
            of_direct,
            json!({"input": {"a": 1}, "config": {"c": 2}, "extra": 3}),
            json!({"a": 1}),
        );
        check(
            of_direct,
            json!({"component": "x", "config": {"c": 1}}),
            json!({"component": "x"}),
        );
        check(of_direct, json!("text"), json!("text"));
    }

    #[test]
    fn where_the_payload_is_in_an_input() {
        let same = |input: Value| (input, Value::Null);
        check(
            same,
            json!({"envelope": {"op": "o", "payload": [1], "metadata": 2}, "x": 1}),
            json!([1]),
        );
        check(same, json!({"envelope": {"op": "o"}}), Value::Null);
        check(same, json!({"envelope": "e", "payload": 1}), json!("e"));
        check(same, json!({"op": "o"}), Value::Null);
        check(same, json!({"op": 5}), json!({}));
        check(same, json!({"op": 5, "x": 1}), json!({"x": 1}));
        check(
            same,
            json!({"operation": "o", "tool": "t"}),
            json!({"tool": "t"}),
        );
        check(
            same,
            json!({"payload": null, "input": 1, "metadata": 2}),
            json!({"input": 1}),
        );
        check(same, json!({"payload": 0, "x": 1}), json!(0));
        check(same, json!({"metadata": {"a": 1}}), Value::Null);
        check(same, json!([1]), json!([1]));
        check(same, Value::Null, Value::Null);
    }
}
