//! Flows that a manifest keeps in an extension. Where there is one, its flows stand for those of the manifest.

use std::collections::BTreeMap;

use greentic_types::pack_manifest::{ExtensionInline, PackFlowEntry};
use greentic_types::{Flow, PackManifest};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::model::{Problem, Problems};

/// The names that the ecosystem's tools have given the extension.
pub(super) const NAMES: [&str; 3] = [
    "greentic.pack.runtime_flow",
    "greentic.pack.flow_runtime",
    "greentic.pack.runtime_flows",
];

/// A flow in the extension's own form.
#[derive(Deserialize)]
struct RuntimeFlow {
    id: String,
    #[serde(alias = "flow_type")]
    kind: Value,
    #[serde(default)]
    schema_version: Option<String>,
    #[serde(default)]
    start: Option<String>,
    #[serde(default)]
    entrypoints: BTreeMap<String, Value>,
    nodes: BTreeMap<String, RuntimeNode>,
    #[serde(default)]
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct RuntimeNode {
    #[serde(alias = "component")]
    component_id: String,
    #[serde(default, alias = "operation")]
    operation_name: Option<String>,
    #[serde(default, alias = "payload", alias = "input")]
    operation_payload: Value,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    routing: Option<Value>,
    #[serde(default)]
    telemetry: Option<Value>,
}

/// The flows of the extension, if the manifest has one and it holds any.
pub(super) fn find(manifest: &PackManifest, notes: &mut Problems) -> Option<Vec<PackFlowEntry>> {
    let extensions = manifest.extensions.as_ref()?;
    let (name, extension) = NAMES
        .iter()
        .find_map(|name| Some((name, extensions.get(*name)?)))?;
    let ExtensionInline::Other(value) = extension.inline.as_ref()? else {
        return None;
    };
    let list = value.get("flows").unwrap_or(value);
    let mut flows = Vec::new();
    for flow in list.as_array().into_iter().flatten() {
        match read(flow) {
            Ok(flow) => flows.push(entry(flow)),
            Err(reason) => {
                let id = flow.get("id").and_then(Value::as_str).unwrap_or("?");
                notes.push(
                    Problem::warning(format!(
                        "its flow `{id}` cannot be read and is left out: {reason}"
                    ))
                    .at(format!("manifest.cbor, extension {name}"))
                    .remedy("build the pack again with its own tool"),
                );
            }
        }
    }
    (!flows.is_empty()).then_some(flows)
}

/// Reads a flow in the extension's form, or in that of the manifest.
fn read(value: &Value) -> Result<Flow, serde_json::Error> {
    match RuntimeFlow::deserialize(value) {
        Ok(flow) => flow.into_flow(),
        Err(error) => Flow::deserialize(value).map_err(|_| error),
    }
}

fn entry(flow: Flow) -> PackFlowEntry {
    PackFlowEntry {
        id: flow.id.clone(),
        kind: flow.kind,
        tags: flow.metadata.tags.iter().cloned().collect(),
        entrypoints: flow.entrypoints.keys().cloned().collect(),
        flow,
    }
}

impl RuntimeFlow {
    fn into_flow(self) -> Result<Flow, serde_json::Error> {
        let mut entrypoints = self.entrypoints;
        if let (true, Some(start)) = (entrypoints.is_empty(), self.start) {
            entrypoints.insert("default".to_owned(), Value::String(start));
        }
        let nodes: serde_json::Map<String, Value> = self
            .nodes
            .into_iter()
            .map(|(id, node)| (id.clone(), node.into_node(&id)))
            .collect();
        let mut flow = json!({
            "schema_version": self.schema_version.unwrap_or_else(|| "1.0".to_owned()),
            "id": self.id,
            "kind": self.kind,
            "entrypoints": entrypoints,
            "nodes": nodes,
        });
        if let Some(metadata) = self.metadata {
            flow["metadata"] = metadata;
        }
        serde_json::from_value(flow)
    }
}

impl RuntimeNode {
    fn into_node(self, id: &str) -> Value {
        let mapping = if self.config.is_null() {
            self.operation_payload
        } else {
            json!({"input": self.operation_payload, "config": self.config})
        };
        let mut node = json!({
            "id": id,
            "component": {"id": self.component_id, "operation": self.operation_name},
            "input": {"mapping": mapping},
            "output": {"mapping": null},
            "routing": self.routing.unwrap_or_else(|| json!("end")),
        });
        if let Some(telemetry) = self.telemetry {
            node["telemetry"] = telemetry;
        }
        node
    }
}
