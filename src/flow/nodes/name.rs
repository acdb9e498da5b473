//! What a node is by the names that it goes by. Packs write them in three places: as the node's component, as its
//! operation, and in its mapping.

use greentic_types::Node as Source;
use serde_json::Value;

/// What stands for a component that the mapping names.
const PLACEHOLDER: &str = "component.exec";

/// The first names of kinds that are no components: an id that begins so is never one with its operation behind it.
const KIND_FAMILIES: [&str; 13] = [
    "flow", "emit", "session", "provider", "state", "var", "dw", "sorla", "operala", "agentic",
    "approval", "media", "telco-x",
];

/// What a node is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Named<'s> {
    /// A node of this kind.
    Kind(&'s str),
    /// A call of this component, whose mapping says what it is called with.
    Exec(Called<'s>),
    /// A call of this component, whose mapping it is called with.
    Direct(Called<'s>),
    /// A call of a component that nothing names.
    Nameless,
}

/// A component and its operation, where that is not left to the mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Called<'s> {
    pub(super) component: &'s str,
    pub(super) operation: Option<&'s str>,
}

/// Reads the names of a node. `is_kind` tells what is a kind by its whole name.
pub(super) fn read(source: &Source, is_kind: impl Fn(&str) -> bool) -> Named<'_> {
    let mapping = &source.input.mapping;
    let id = source.component.id.as_str();
    let operation = source.component.operation.as_deref();
    let operation = operation.filter(|operation| !operation.is_empty());
    let is_kind = |name: &&str| name.starts_with("emit.") || is_kind(name);
    let target = text(mapping, ["component", "component_ref"]);
    let name = match (id, operation) {
        (PLACEHOLDER, _) => {
            let kind = operation.filter(is_kind).or(target);
            kind.or(operation.filter(|operation| is_of_kind_family(operation)))
        }
        (_, Some(PLACEHOLDER)) => target.or(Some(id)),
        (_, Some(operation)) if operation.starts_with("emit.") => return Named::Kind(operation),
        _ => return direct(mapping, id, operation),
    };
    match name {
        None => Named::Nameless,
        Some(name) if is_kind(&name) || is_of_kind_family(name) => Named::Kind(name),
        Some(component) => Named::Exec(Called {
            component,
            operation: operation.filter(|operation| *operation != PLACEHOLDER),
        }),
    }
}

fn direct<'s>(mapping: &'s Value, id: &'s str, operation: Option<&'s str>) -> Named<'s> {
    if is_of_kind_family(id) {
        return Named::Kind(id);
    }
    let in_mapping = operation_in(mapping);
    let (component, operation) = match id.rsplit_once('.') {
        Some((component, suffix)) if operation.is_none() && in_mapping.is_none() => {
            (component, Some(suffix))
        }
        _ => (id, operation),
    };
    Named::Direct(Called {
        component,
        operation,
    })
}

/// Whether a name is one of a kind, known or not.
pub(crate) fn is_of_kind_family(name: &str) -> bool {
    let (family, _) = name.split_once(['.', ':']).unwrap_or_default();
    KIND_FAMILIES.contains(&family)
        || name == "mcp"
        || name == "a2a"
        || ["mcp", "a2a"].contains(&family)
}

/// The operation that a mapping names.
pub(super) fn operation_in(mapping: &Value) -> Option<&str> {
    let operation = text(mapping, ["operation", "op"])?.trim();
    (!operation.is_empty()).then_some(operation)
}

fn text<'s>(mapping: &'s Value, names: [&str; 2]) -> Option<&'s str> {
    names.iter().find_map(|name| mapping.get(*name))?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(id: &str, operation: Option<&str>, mapping: Value, expected: Named<'_>) {
        let source = json!({
            "id": "n", "component": {"id": id, "operation": operation}, "input": {"mapping": mapping},
            "output": {"mapping": null}, "routing": "end",
        });
        let source: Source = serde_json::from_value(source).unwrap();
        let is_kind = |name: &str| ["session.wait", "flow.call"].contains(&name);
        assert_eq!(read(&source, is_kind), expected);
    }

    #[test]
    fn every_place_in_which_a_node_is_named() {
        let exec = |component, operation| {
            Named::Exec(Called {
                component,
                operation,
            })
        };
        let direct = |component, operation| {
            Named::Direct(Called {
                component,
                operation,
            })
        };
        let target = || json!({"component": "ai.x"});
        check(PLACEHOLDER, Some("do"), target(), exec("ai.x", Some("do")));
        check(
            PLACEHOLDER,
            None,
            json!({"component_ref": "ai.x"}),
            exec("ai.x", None),
        );
        check(
            PLACEHOLDER,
            Some("emit.log"),
            target(),
            Named::Kind("emit.log"),
        );
        check(
            PLACEHOLDER,
            None,
            json!({"component": "emit.x"}),
            Named::Kind("emit.x"),
        );
        check(
            PLACEHOLDER,
            Some("flow.call"),
            target(),
            Named::Kind("flow.call"),
        );
        check(PLACEHOLDER, Some("do"), json!({}), Named::Nameless);
        check("ai.y", Some(PLACEHOLDER), target(), exec("ai.x", None));
        check("ai.y", Some(PLACEHOLDER), json!({}), exec("ai.y", None));
        check(
            "ai.y",
            Some("emit.response"),
            json!({}),
            Named::Kind("emit.response"),
        );
        check("ai.y", Some("do"), target(), direct("ai.y", Some("do")));
        check("qa.process", None, json!({}), direct("qa", Some("process")));
        check(
            "qa.process",
            None,
            json!({"op": " x "}),
            direct("qa.process", None),
        );
        check(
            "qa.process",
            None,
            json!({"operation": " "}),
            direct("qa", Some("process")),
        );
        check("card", None, json!({}), direct("card", None));
        check("session.wait", None, json!({}), Named::Kind("session.wait"));
        check(
            "state.nothing",
            None,
            json!({}),
            Named::Kind("state.nothing"),
        );
        check("telco-x.call", None, json!({}), Named::Kind("telco-x.call"));
        check("mcp", None, json!({}), Named::Kind("mcp"));
    }
}
