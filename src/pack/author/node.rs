//! One node of a flow document.

use std::collections::BTreeSet;

use greentic_types::flow::ComponentRef;
use greentic_types::{
    ComponentId, InputMapping, Node as FlowNode, OutputMapping, Routing, TelemetryHints,
};
use serde_json::Value as Json;

use crate::model::{NodeId, Problems};
use crate::yaml::{Fields, Node};

use super::routing::routing;

/// The fields of a node that are not its operation.
pub(in crate::pack) const NODE_FIELDS: [&str; 13] = [
    "routing",
    "telemetry",
    "conversational",
    "operation",
    "in_map",
    "out_map",
    "output",
    "err_map",
    "annotations",
    "meta",
    "retry",
    "timeout",
    "when",
];

/// Node fields that the format reserves and nothing acts on.
const WITHOUT_EFFECT: [&str; 3] = ["retry", "timeout", "when"];

/// Operations without a dot that are kinds of nodes. Any other one is an operation of the component that the node's
/// mapping names.
const UNDOTTED_KINDS: [&str; 4] = ["mcp", "a2a", "questions", "template"];

/// Marks a node that a message may start the flow at; with a value that is neither true nor false, the name is that of an
/// operation.
const ENTRY: &str = "entry";

/// Returns whether the node is marked as an entry.
pub(super) fn is_entry(node: &Node<'_>) -> bool {
    node.value().get(ENTRY).and_then(|mark| mark.as_bool()) == Some(true)
}

/// Reads one node.
pub(super) struct NodeReader<'a> {
    /// All nodes of the flow, this one among them.
    pub siblings: &'a BTreeSet<&'a str>,
    /// Whether the flow is of schema version 1.
    pub legacy: bool,
    /// Where problems go.
    pub problems: &'a mut Problems,
}

impl NodeReader<'_> {
    /// Reads everything of a node before it gives up on any of it.
    pub fn node(mut self, id: &str, node: &Node<'_>) -> Option<FlowNode> {
        let id = self.id(id, node);
        let fields = node.fields(self.problems)?;
        self.warn(&fields);
        let operation = self.operation(node, &fields);
        let in_map = self.mapping(fields.get("in_map"));
        let output = self.mapping(fields.get("out_map").or(fields.get("output")));
        let err_map = self.mapping(fields.get("err_map"));
        let routing = match fields.get("routing") {
            Some(node) => routing(node, self.siblings, self.problems),
            None => Some(Routing::End),
        };
        let telemetry = self.telemetry(fields.get("telemetry"));
        let conversational = fields
            .get("conversational")
            .and_then(|node| node.flag(self.problems));
        let (component, mapping) = operation?;
        Some(FlowNode {
            id: id?,
            component,
            // The ecosystem lets an `in_map` stand for the operation's own mapping.
            input: InputMapping {
                mapping: in_map.unwrap_or(mapping),
            },
            output: OutputMapping {
                mapping: output.unwrap_or_else(|| Json::Object(serde_json::Map::new())),
            },
            err_map: err_map.map(|mapping| OutputMapping { mapping }),
            routing: routing?,
            telemetry,
            conversational: conversational.unwrap_or_default(),
        })
    }

    fn id(&mut self, id: &str, node: &Node<'_>) -> Option<NodeId> {
        let problem = match NodeId::new(id) {
            // A route to `out` ends the flow.
            Ok(_) if id == "out" => node
                .error("`out` is no name for a node: a route to it ends the flow")
                .remedy("give the node another name"),
            Ok(id) => return Some(id),
            Err(error) => node
                .error(format!("`{id}` is no node id: {error}"))
                .remedy("use letters, digits, `.`, `_` and `-` only"),
        };
        self.problems.push(problem);
        None
    }

    fn warn(&mut self, fields: &Fields<'_>) {
        for (name, node) in fields.iter().filter(|(n, _)| WITHOUT_EFFECT.contains(n)) {
            self.problems
                .push(node.warning(format!("`{name}` has no effect here")).remedy(
                    "a wait takes its timeout inside `session.wait`; conditions go into routing",
                ));
        }
    }

    /// The one field that is not reserved names the operation; its value is the mapping.
    fn operation(&mut self, node: &Node<'_>, fields: &Fields<'_>) -> Option<(ComponentRef, Json)> {
        let sibling = fields.get("operation");
        let sibling = match sibling {
            Some(node) => Some(node.text(self.problems)?.to_owned()),
            None => None,
        };
        let operations: Vec<_> = fields
            .iter()
            .filter(|(name, _)| !NODE_FIELDS.contains(name))
            .filter(|(name, field)| *name != ENTRY || field.value().as_bool().is_none())
            .collect();
        let [(name, mapping)] = operations[..] else {
            let found: Vec<_> = operations.iter().map(|(n, _)| format!("`{n}`")).collect();
            let problem = if found.is_empty() {
                node.error("the node does nothing")
                    .remedy("give it one operation, such as `emit.message: {text: Hi}`")
            } else {
                node.error(format!(
                    "the node has several operations: {}",
                    found.join(", ")
                ))
                .remedy("a node does one thing; make one node of each")
            };
            self.problems.push(problem);
            return None;
        };
        let component = self.component(name, sibling, mapping)?;
        Some((component, mapping.json(self.problems)?))
    }

    fn component(
        &mut self,
        name: &str,
        sibling: Option<String>,
        node: &Node<'_>,
    ) -> Option<ComponentRef> {
        let is_kind = self.legacy || name.contains('.') || UNDOTTED_KINDS.contains(&name);
        let (id, operation) = match (is_kind, sibling) {
            (true, sibling) => (name, sibling),
            (false, None) => ("component.exec", Some(name.to_owned())),
            (false, Some(sibling)) => {
                self.problems.push(
                    node.error(format!(
                        "both `{name}` and `operation: {sibling}` name an operation"
                    ))
                    .remedy("keep one of them"),
                );
                return None;
            }
        };
        match ComponentId::new(id) {
            Ok(id) => Some(ComponentRef {
                id,
                pack_alias: None,
                operation,
            }),
            Err(error) => {
                self.problems.push(
                    node.error(format!("`{id}` is no operation: {error}"))
                        .remedy("use letters, digits, `.`, `_` and `-` only"),
                );
                None
            }
        }
    }

    fn mapping(&mut self, node: Option<&Node<'_>>) -> Option<Json> {
        node?.json(self.problems)
    }

    fn telemetry(&mut self, node: Option<&Node<'_>>) -> TelemetryHints {
        let mut hints = TelemetryHints::default();
        let Some(fields) = node.and_then(|node| node.fields(self.problems)) else {
            return hints;
        };
        fields.only(&["span_name", "attributes", "sampling"], self.problems);
        let mut text = |node: Option<&Node<'_>>| {
            node.and_then(|node| node.text(self.problems))
                .map(str::to_owned)
        };
        hints.span_name = text(fields.get("span_name"));
        hints.sampling = text(fields.get("sampling"));
        for (name, node) in optional_fields(fields.get("attributes"), self.problems) {
            if let Some(value) = node.text(self.problems) {
                hints.attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        hints
    }
}

/// The fields of a mapping; none where there is none.
pub(super) fn optional_fields<'a>(
    node: Option<&Node<'a>>,
    problems: &mut Problems,
) -> Vec<(&'a str, Node<'a>)> {
    let fields = node.and_then(|node| node.fields(problems));
    let fields = fields.iter().flat_map(Fields::iter);
    fields.map(|(name, node)| (name, node.clone())).collect()
}
