//! The older form of a manifest: a list of files, with each flow's document in a file of its own.

use std::collections::BTreeMap;
use std::path::Path;

use ciborium::Value as Cbor;
use greentic_types::pack_manifest::{PackFlowEntry, PackSignatures};
use greentic_types::{ComponentCapabilities, ExtensionRef, Flow, PackKind, PackManifest};
use indexmap::IndexMap;
use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::flow;
use crate::model::{FlowId, Problem, Problems};

use super::archive::ArchiveError;
use super::author::{NODE_FIELDS, parse_flow};
use super::manifest::{Read, unreadable};

/// The schema version in which a manifest of this form is given on; it has none of its own.
const SCHEMA: &str = "pack-v1";

#[derive(Deserialize)]
struct Older {
    meta: Meta,
    #[serde(default)]
    flows: Vec<FlowFile>,
    #[serde(default)]
    components: Vec<OlderComponent>,
    #[serde(default)]
    extensions: Option<BTreeMap<String, Cbor>>,
}

#[derive(Deserialize)]
struct Meta {
    pack_id: String,
    version: Version,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    vendor: Option<String>,
    #[serde(default)]
    authors: Vec<String>,
}

#[derive(Deserialize)]
struct FlowFile {
    id: String,
    file_json: String,
}

/// A component as the older form lists it.
#[derive(Debug, Deserialize)]
pub(super) struct OlderComponent {
    pub name: String,
    pub version: Version,
    pub file_wasm: String,
    #[serde(default)]
    pub world: Option<String>,
    #[serde(default)]
    capabilities: Option<Value>,
}

impl OlderComponent {
    /// What it says that it needs, where that can be read.
    pub fn capabilities(&self) -> Option<ComponentCapabilities> {
        ComponentCapabilities::deserialize(self.capabilities.as_ref()?).ok()
    }
}

/// Reads a manifest of this form, and its flows from their files.
pub(super) fn read(
    manifest: &Cbor,
    files: &BTreeMap<String, Vec<u8>>,
    notes: &mut Problems,
) -> Result<Read, ArchiveError> {
    let older: Older = manifest
        .deserialized()
        .map_err(|error| unreadable(&error))?;
    let mut flows = Vec::new();
    for listed in older.flows {
        let (entry, warnings) = flow(&listed, files)?;
        notes.extend(warnings);
        flows.push(entry);
    }
    let Meta {
        pack_id,
        version,
        name,
        vendor,
        authors,
    } = older.meta;
    let extensions = older.extensions.unwrap_or_default().into_iter();
    let extensions: BTreeMap<String, ExtensionRef> = extensions
        .filter_map(|(id, extension)| Some((id, extension.deserialized().ok()?)))
        .collect();
    let manifest = PackManifest {
        schema_version: SCHEMA.to_owned(),
        pack_id: pack_id.parse().map_err(|error| unreadable(&error))?,
        name,
        version,
        kind: PackKind::Application,
        publisher: vendor.unwrap_or_else(|| authors.join(", ")),
        components: Vec::new(),
        flows,
        dependencies: Vec::new(),
        capabilities: Vec::new(),
        secret_requirements: Vec::new(),
        signatures: PackSignatures::default(),
        bootstrap: None,
        extensions: (!extensions.is_empty()).then_some(extensions),
        agents: BTreeMap::new(),
    };
    Ok(Read {
        manifest,
        older: older.components,
    })
}

fn flow(
    listed: &FlowFile,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<(PackFlowEntry, Problems), ArchiveError> {
    let path = &listed.file_json;
    let refused = |reason: String| ArchiveError::FlowFile {
        entry: path.clone(),
        reason,
    };
    let bytes = files
        .get(path)
        .ok_or_else(|| refused("the manifest lists it, but it is not there".to_owned()))?;
    let text = authored(bytes).map_err(|error| refused(error.to_string()))?;
    let (flow, warnings): (Flow, Problems) =
        parse_flow(Path::new(path), &text).map_err(|problems| refused(first(&problems)))?;
    let id: FlowId = listed.id.parse().map_err(|error| unreadable(&error))?;
    let entry = PackFlowEntry {
        id,
        kind: flow.kind,
        tags: Vec::new(),
        entrypoints: flow.entrypoints.keys().cloned().collect(),
        flow,
    };
    Ok((entry, warnings))
}

/// The first error, in one line.
fn first(problems: &Problems) -> String {
    let errors = problems.iter().find(|problem| problem.remedy.is_some());
    errors.map_or_else(String::new, |problem: &Problem| {
        let place = problem.place.as_deref().unwrap_or_default();
        format!("{place}: {}", problem.message)
    })
}

/// A flow's document as the tools of this form wrote it: what authors write, in JSON.
#[derive(Deserialize, Serialize)]
struct Document {
    nodes: IndexMap<String, IndexMap<String, Value>>,
    #[serde(flatten)]
    rest: IndexMap<String, Value>,
}

/// The document as an author would write it today. In this form a node that is no kind of its own calls the component
/// that it is named after, with a configuration beside its input.
fn authored(bytes: &[u8]) -> Result<String, serde_json::Error> {
    let mut document: Document = serde_json::from_slice(bytes)?;
    if let Some(kind) = document.rest.swap_remove("flow_type") {
        document.rest.entry("type".to_owned()).or_insert(kind);
    }
    // What a version of the schema decides, the calls below spell out.
    let said = |name: &String, value: &mut Value| name != "schema_version" && !value.is_null();
    document.rest.retain(said);
    for node in document.nodes.values_mut() {
        let operation = node
            .iter()
            .find(|(name, _)| !NODE_FIELDS.contains(&name.as_str()));
        if let Some((name, payload)) = operation
            && !flow::is_of_kind_family(name)
        {
            let call = call(name, payload);
            node.retain(|name, _| NODE_FIELDS.contains(&name.as_str()));
            node.insert("component.exec".to_owned(), call);
        }
    }
    serde_json::to_string(&document)
}

/// The call of a component, spelled out.
fn call(name: &str, payload: &Value) -> Value {
    let default = if name.starts_with("templating.") {
        "render"
    } else {
        "invoke"
    };
    let Value::Object(payload) = payload else {
        return json!({"component": name, "operation": default, "input": payload});
    };
    let text = |keys: [&str; 2]| keys.iter().find_map(|key| payload.get(*key)?.as_str());
    let target = text(["component", "component_ref"]);
    let operation = text(["op", "operation"]);
    let mut input: Map<String, Value> = payload.clone();
    let config = input.remove("config");
    let own = input.remove("input").filter(|_| target.is_some());
    if let (None, Some(value)) = (target, payload.get("input")) {
        input.insert("input".to_owned(), value.clone());
    }
    for key in ["component", "component_ref", "op", "operation"] {
        input.remove(key);
    }
    let mut call = json!({
        "component": target.unwrap_or(name),
        "operation": operation.unwrap_or(if target.is_some() { name } else { default }),
        "input": own.unwrap_or(Value::Object(input)),
    });
    if let Some(config) = config {
        call["config"] = config;
    }
    call
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, payload: Value, expected: Value) {
        assert_eq!(call(name, &payload), expected);
    }

    #[test]
    fn a_node_named_after_a_component_calls_it() {
        check(
            "templating.handlebars",
            json!({"template": "Hi", "config": {"strict": true}}),
            json!({
                "component": "templating.handlebars", "operation": "render",
                "input": {"template": "Hi"}, "config": {"strict": true},
            }),
        );
        check(
            "qa.process",
            json!({"op": "ask", "input": {"q": 1}, "more": 2}),
            json!({"component": "qa.process", "operation": "ask", "input": {"input": {"q": 1}, "more": 2}}),
        );
        check(
            "component.exec",
            json!({"component": "qa", "operation": "ask", "input": {"q": 1}}),
            json!({"component": "qa", "operation": "ask", "input": {"q": 1}}),
        );
        check(
            "qa.process",
            json!("text"),
            json!({"component": "qa.process", "operation": "invoke", "input": "text"}),
        );
    }

    #[test]
    fn nodes_keep_their_order_routes_and_kinds() {
        let document = json!({
            "id": "main", "flow_type": "messaging", "start": "b", "parameters": {}, "tags": [],
            "schema_version": null, "entrypoints": {},
            "nodes": {
                "b": {"qa.process": {"q": 1}, "routing": [{"to": "a"}]},
                "a": {"emit.message": {"text": "Hi"}, "routing": [{"out": true}]},
            },
        });
        let text = authored(document.to_string().as_bytes()).unwrap();
        let (flow, _) = parse_flow(Path::new("flow.json"), &text).unwrap();
        let kinds: Vec<_> = flow
            .nodes
            .values()
            .map(|node| node.component.id.as_str())
            .collect();
        assert_eq!(kinds, ["component.exec", "emit.message"]);
        assert_eq!(flow.nodes[0].input.mapping["component"], "qa.process");
        assert_eq!(
            serde_json::to_value(&flow.nodes[0].routing).unwrap(),
            json!({"next": {"node_id": "a"}})
        );
    }
}
