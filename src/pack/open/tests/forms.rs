//! Archives as the tools of the ecosystem have written them at one time or another.

use serde_json::{Value, json};

use super::*;
use crate::pack::component::Code;

const CODE: &[u8] = b"\0asm code";

fn sha256(content: &[u8]) -> String {
    crate::model::ComponentDigest::of(content).to_string()
}

/// A pack of these files and the manifest, with what the change makes of it.
fn pack_of(extra: &[(&str, &[u8])], change: impl FnOnce(&mut Value)) -> Result<Pack, ArchiveError> {
    let mut changed = serde_json::to_value(manifest()).unwrap();
    change(&mut changed);
    let mut all = BTreeMap::from([(MANIFEST.to_owned(), cbor(&changed))]);
    let extra = extra.iter();
    all.extend(extra.map(|(path, content)| ((*path).to_owned(), content.to_vec())));
    open(&write_archive(all).unwrap(), None, &Limits::default())
}

/// The extension that tells where components come from.
fn source(artifact: Value, digest: &str) -> Value {
    json!({"greentic.pack.component_sources@v1": {
        "kind": "greentic.pack.component_sources@v1", "version": "v1",
        "inline": {"schema_version": 1, "components": [{
            "name": "demo.echo", "component_id": "demo.echo", "source": "oci://example.com/echo:1",
            "resolved": {"digest": digest}, "artifact": artifact,
        }]},
    }})
}

#[test]
fn code_is_found_wherever_the_tools_put_it() {
    for place in [
        "components/demo.echo.wasm",
        "components/demo.echo@1.2.0/component.wasm",
        "components/demo.echo/component.wasm",
        "components/demo.echo/demo.echo.wasm",
    ] {
        let pack = pack_of(&[(place, CODE)], |manifest| {
            manifest["components"] = json!([component_manifest("demo.echo")]);
        });
        let pack = pack.unwrap();
        let [component] = &pack.components[..] else {
            panic!("{:?}", pack.components);
        };
        assert_eq!(component.code, Code::File(place.to_owned()));
        assert_eq!(pack.code(component), Some(CODE));
        assert_eq!(component.version, Some("1.2.0".parse().unwrap()));
        assert!(component.capabilities.as_ref().unwrap().host.http.is_some());
    }
}

#[test]
fn a_component_may_be_named_by_its_source_only() {
    let blob = format!("blobs/sha256/{}.wasm", sha256(CODE));
    let digest = format!("sha256:{}", sha256(CODE));
    let inline = json!({"inline": {"wasm_path": blob}});
    let pack = pack_of(&[(&blob, CODE)], |manifest| {
        manifest["extensions"] = source(inline, &digest);
    });
    let pack = pack.unwrap();
    assert_eq!(pack.components[0].id, "demo.echo");
    assert_eq!(pack.components[0].capabilities, None);
    assert_eq!(pack.code(&pack.components[0]), Some(CODE));

    let described = component_manifest("demo.echo");
    let beside: &[(&str, &[u8])] = &[
        ("components/demo.echo.wasm", CODE),
        ("components/demo.echo.manifest.cbor", &cbor(&described)),
    ];
    let pack = pack_of(beside, |manifest| {
        manifest["extensions"] = source(json!("remote"), blake3::hash(CODE).to_hex().as_str());
    });
    let error = pack.unwrap_err().to_string();
    assert!(
        error.contains("is not the code that the manifest names for component `demo.echo`"),
        "{error}"
    );
    let pack = pack_of(beside, |manifest| {
        let digest = format!("blake3:{}", blake3::hash(CODE).to_hex());
        manifest["extensions"] = source(json!("remote"), &digest);
    });
    assert!(pack.unwrap().components[0].capabilities.is_some());
}

#[test]
fn code_that_is_not_there_is_told_and_refused_only_if_it_is_needed() {
    let absent = pack_of(&[], |manifest| {
        manifest["components"] = json!([component_manifest("demo.echo")]);
    });
    assert_eq!(absent.unwrap().components[0].code, Code::Missing);
    let elsewhere = pack_of(&[], |manifest| {
        manifest["extensions"] = source(json!("remote"), "sha256:00");
    });
    let reference = "oci://example.com/echo:1".to_owned();
    assert_eq!(
        elsewhere.unwrap().components[0].code,
        Code::Elsewhere(reference)
    );
}

#[test]
fn an_extension_never_keeps_a_pack_from_opening() {
    let pack = pack_of(&[], |manifest| {
        manifest["extensions"] = json!({
            "greentic.static-routes.v1": {"kind": "greentic.static-routes.v1", "version": "1", "inline": {"routes": 7}},
            "greentic.pack.component_sources@v1": {"kind": "x", "version": "9", "inline": {"schema_version": 2}},
            "greentic.pack.runtime_flows": {"kind": "x", "version": "1", "inline": [{"id": "?"}]},
            "strange": 42,
        });
    });
    let pack = pack.unwrap();
    assert_eq!(pack.manifest.flows, manifest().flows);
    assert_eq!(pack.manifest.extensions.as_ref().unwrap().len(), 3);
    let notes = pack.notes.to_string();
    for part in [
        "extensions `strange` cannot be read",
        "components come from",
        "its flow `?` cannot be read",
    ] {
        assert!(notes.contains(part), "{notes}");
    }
}

#[test]
fn the_list_of_flows_names_them() {
    let pack = pack_of(&[], |manifest| manifest["flows"][0]["id"] = json!("other"));
    let manifest = pack.unwrap().manifest;
    assert_eq!(manifest.flows[0].id.as_str(), "other");
    assert_eq!(manifest.flows[0].flow.id.as_str(), "other");
}

#[test]
fn flows_of_the_extension_stand_for_those_of_the_manifest() {
    let flow = json!({
        "id": "main", "flow_type": "messaging", "start": "b", "metadata": {"tags": ["internal"]},
        "nodes": {
            "a": {"component": "emit.message", "payload": {"text": "Hi"}},
            "b": {"component_id": "demo.echo", "operation": "run", "input": {"n": 1}, "config": {"c": 2},
                  "routing": {"next": {"node_id": "a"}}},
        },
    });
    for inline in [json!([flow]), json!({"flows": [flow]})] {
        let pack = pack_of(&[], |manifest| {
            manifest["extensions"] = json!({"greentic.pack.runtime_flow": {
                "kind": "greentic.pack.runtime_flow", "version": "1", "inline": inline,
            }});
        });
        let flows = pack.unwrap().manifest.flows;
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].tags, ["internal"]);
        let flow = &flows[0].flow;
        assert_eq!(flow.entrypoints["default"], "b");
        let call = flow
            .nodes
            .iter()
            .find(|(id, _)| id.as_str() == "b")
            .unwrap()
            .1;
        assert_eq!(call.component.operation.as_deref(), Some("run"));
        assert_eq!(
            call.input.mapping,
            json!({"input": {"n": 1}, "config": {"c": 2}})
        );
    }
}

/// A pack of the older form, with this document for its flow.
fn older(document: &Value) -> Result<Pack, ArchiveError> {
    let manifest = json!({
        "meta": {
            "packVersion": 1, "pack_id": "old.pack", "version": "0.1.0", "name": "Old", "authors": ["Us"],
            "entry_flows": ["main"], "created_at_utc": "2025-01-01T00:00:00Z", "imports": [], "annotations": {},
        },
        "flows": [{
            "id": "main", "kind": "messaging", "entry": "ask", "file_yaml": "flows/main/flow.ygtc",
            "file_json": "flows/main/flow.json", "hash_blake3": "",
        }],
        "components": [{
            "name": "templating.handlebars", "version": "0.4.0", "hash_blake3": "",
            "file_wasm": "components/templating.handlebars@0.4.0/component.wasm",
            "capabilities": {"wasi": {}, "host": {"state": {"read": true, "write": false}}},
        }],
    });
    let files = BTreeMap::from([
        (MANIFEST.to_owned(), cbor(&manifest)),
        (
            "flows/main/flow.json".to_owned(),
            document.to_string().into_bytes(),
        ),
        (
            "components/templating.handlebars@0.4.0/component.wasm".to_owned(),
            CODE.to_vec(),
        ),
    ]);
    open(&write_archive(files).unwrap(), None, &Limits::default())
}

#[test]
fn the_older_form_opens() {
    let pack = older(&json!({
        "id": "main", "flow_type": "messaging", "parameters": {}, "nodes": {
            "ask": {"templating.handlebars": {"template": "Hi"}, "routing": [{"to": "say"}]},
            "say": {"emit.message": {"text": "{{prev}}"}, "routing": [{"out": true}]},
        },
    }));
    let pack = pack.unwrap();
    assert_eq!(pack.manifest.pack_id.as_str(), "old.pack");
    assert_eq!(pack.manifest.publisher, "Us");
    let flow = &pack.manifest.flows[0].flow;
    assert_eq!(
        flow.nodes[0].input.mapping,
        json!({"component": "templating.handlebars", "operation": "render", "input": {"template": "Hi"}})
    );
    let component = &pack.components[0];
    assert_eq!(pack.code(component), Some(CODE));
    assert!(
        component
            .capabilities
            .as_ref()
            .unwrap()
            .host
            .state
            .as_ref()
            .unwrap()
            .read
    );

    let error = older(&json!({"id": "main", "nodes": []})).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("the flow in `flows/main/flow.json` cannot be read"),
        "{text}"
    );
}
