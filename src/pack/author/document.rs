//! `*.ygtc`: one flow, as authors write it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use greentic_types::flow::FlowHasher;
use greentic_types::{Flow, FlowKind, FlowMetadata, Node as FlowNode};
use indexmap::IndexMap;
use serde_json::Value as Json;

use crate::model::{FlowId, NodeId, Problems};
use crate::yaml::{Document, Fields, Node};

use super::config::texts;
use super::node::{NodeReader, is_entry, optional_fields};

const FLOW_FIELDS: [&str; 12] = [
    "id",
    "title",
    "description",
    "type",
    "start",
    "parameters",
    "tags",
    "schema_version",
    "entrypoints",
    "meta",
    "slot_schema",
    "nodes",
];

/// Where the ecosystem keeps the slot schema of a flow.
const SLOT_SCHEMA: &str = "greentic.slot_schema";

/// Reads a flow document. What is wrong with it is reported all at once; a flow that could be read comes with its
/// warnings.
pub fn parse_flow(file: &Path, text: &str) -> Result<(Flow, Problems), Problems> {
    let mut problems = Problems::default();
    let document = Document::parse(file, text)?;
    match flow(&document.root(), &mut problems) {
        Some(flow) if !problems.has_errors() => Ok((flow, problems)),
        _ => Err(problems),
    }
}

fn flow(root: &Node<'_>, problems: &mut Problems) -> Option<Flow> {
    let fields = root.fields(problems)?;
    fields.only(&FLOW_FIELDS, problems);
    let id: Option<FlowId> = fields
        .require("id", "main", problems)
        .and_then(|node| node.id("flow id", problems));
    let kind = fields
        .require("type", "messaging", problems)
        .and_then(|node| kind(node, problems));
    let legacy = fields
        .get("schema_version")
        .is_some_and(|node| is_legacy(node, problems));
    let mut nodes = nodes(&fields, legacy, problems);
    let start = start(&fields, &nodes, problems);
    if let Some((index, ..)) = start.as_ref().and_then(|id| nodes.get_full(id)) {
        nodes.move_index(index, 0);
    }
    let entrypoints = entrypoints(&fields, &nodes, problems);
    let metadata = metadata(&fields, problems);
    let mut entrypoints = entrypoints?;
    for id in marked_entries(&fields) {
        entrypoints.insert(format!("entry.{id}"), Json::String(id.to_owned()));
    }
    entrypoints
        .entry("default".to_owned())
        .or_insert_with(|| Json::String(start.map(String::from).unwrap_or_default()));
    Some(Flow {
        schema_version: "flow-v1".to_owned(),
        id: id?,
        kind: kind?,
        entrypoints,
        nodes,
        metadata: metadata?,
    })
}

fn kind(node: &Node<'_>, problems: &mut Problems) -> Option<FlowKind> {
    let text = node.text(problems)?;
    match text {
        "messaging" => Some(FlowKind::Messaging),
        "event" | "events" => Some(FlowKind::Event),
        "component-config" => Some(FlowKind::ComponentConfig),
        "job" => Some(FlowKind::Job),
        "http" => Some(FlowKind::Http),
        _ => {
            problems.push(
                node.error(format!("`{text}` is no type of flow"))
                    .remedy("use messaging, event, http, job or component-config"),
            );
            None
        }
    }
}

/// In schema version 1 every operation is a kind of node.
fn is_legacy(node: &Node<'_>, problems: &mut Problems) -> bool {
    match node.value().as_u64() {
        Some(1) => true,
        Some(2) => false,
        _ => {
            problems.push(
                node.error("this schema version is not known")
                    .remedy("use `schema_version: 2`, or leave it out"),
            );
            false
        }
    }
}

fn start(fields: &Fields<'_>, nodes: &Nodes, problems: &mut Problems) -> Option<NodeId> {
    let Some(node) = fields.get("start") else {
        let named_in = nodes.keys().find(|id| id.as_str() == "in");
        return named_in.or_else(|| nodes.keys().next()).cloned();
    };
    let text = node.text(problems)?;
    let found = nodes.keys().find(|id| id.as_str() == text).cloned();
    if found.is_none() {
        problems.push(
            node.error(format!(
                "the flow starts at `{text}`, which is no node of it"
            ))
            .remedy(known_nodes(nodes.keys().map(NodeId::as_str))),
        );
    }
    found
}

fn entrypoints(
    fields: &Fields<'_>,
    nodes: &Nodes,
    problems: &mut Problems,
) -> Option<BTreeMap<String, Json>> {
    let mut entrypoints = BTreeMap::new();
    let Some(node) = fields.get("entrypoints") else {
        return Some(entrypoints);
    };
    for (name, node) in node.fields(problems)?.iter() {
        let Some(value) = node.json(problems) else {
            continue;
        };
        let missing = value
            .as_str()
            .filter(|target| !nodes.keys().any(|id| id.as_str() == *target));
        if let Some(target) = missing {
            problems.push(
                node.error(format!("`{target}` is no node of this flow"))
                    .remedy(known_nodes(nodes.keys().map(NodeId::as_str))),
            );
        }
        entrypoints.insert(name.to_owned(), value);
    }
    Some(entrypoints)
}

/// The nodes that say of themselves that a message may start at them. Each becomes an entry point `entry.<node>`.
fn marked_entries<'a>(fields: &Fields<'a>) -> Vec<&'a str> {
    // What is wrong with them was reported when they were read.
    let nodes = optional_fields(fields.get("nodes"), &mut Problems::default());
    nodes
        .into_iter()
        .filter(|(_, node)| is_entry(node))
        .map(|(id, _)| id)
        .collect()
}

fn metadata(fields: &Fields<'_>, problems: &mut Problems) -> Option<FlowMetadata> {
    let text = |name: &str, problems: &mut Problems| {
        let node = fields.get(name)?;
        node.text(problems).map(str::to_owned)
    };
    let title = text("title", problems);
    let description = text("description", problems);
    let tags = texts(fields.get("tags"), problems).into_iter().collect();
    let mut extra = serde_json::Map::new();
    for (name, node) in optional_fields(fields.get("parameters"), problems) {
        extra.insert(name.to_owned(), node.json(problems)?);
    }
    if let Some(slots) = fields.get("slot_schema") {
        extra.insert(SLOT_SCHEMA.to_owned(), slots.json(problems)?);
    }
    extra.sort_keys();
    Some(FlowMetadata {
        title,
        description,
        tags,
        extra: Json::Object(extra),
    })
}

type Nodes = IndexMap<NodeId, FlowNode, FlowHasher>;

fn nodes(fields: &Fields<'_>, legacy: bool, problems: &mut Problems) -> Nodes {
    let mut nodes = Nodes::default();
    let written = fields
        .require("nodes", "{hello: {emit.message: {text: Hi}}}", problems)
        .and_then(|node| Some((node, node.fields(problems)?)));
    let Some((node, written)) = written else {
        return nodes;
    };
    if written.is_empty() {
        problems.push(
            node.error("the flow has no nodes")
                .remedy("write at least one"),
        );
    }
    let ids: BTreeSet<&str> = written.iter().map(|(id, _)| id).collect();
    for (id, node) in written.iter() {
        let reader = NodeReader {
            siblings: &ids,
            legacy,
            problems,
        };
        if let Some(node) = reader.node(id, node) {
            nodes.insert(node.id.clone(), node);
        }
    }
    nodes
}

/// The remedy where a node is named that there is none of.
pub(super) fn known_nodes<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let ids: Vec<_> = ids.collect();
    format!("the nodes of this flow are: {}", ids.join(", "))
}
